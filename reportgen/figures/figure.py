"""What a figure is: pictures with labels in rows, a caption that stands alone, and a stable name.

A figure knows nothing of HTML, PDF or tensors. Techniques make figures; documents number and place them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from reportgen.text import Message, _

SMALL = 8
"""So many pictures in a row are small: maps and kernels of few pixels."""

Media = Literal["image/png", "image/jpeg", "image/svg+xml"]


class Unread(Protocol):
    """Bytes that lie somewhere until they are asked for."""

    @property
    def sha256(self) -> str:
        """Their digest."""

    def read(self) -> bytes:
        """The bytes."""


@dataclass(frozen=True)
class Picture:
    """One encoded image.

    Attributes:
        content: the file's bytes, or where they are read.
        media: its media type; JPEG for photographs, PNG for maps, SVG for what is drawn.
        width: pixels (points for SVG).
        height: pixels (points for SVG).
        pixelated: enlarge without smoothing (kernels and maps of few pixels).
        over: the plain photograph of the same frame, where this is one with heat laid over it: a reader on a screen may
            fade from the one to the other.
    """

    content: bytes | Unread
    media: Media
    width: int
    height: int
    pixelated: bool = False
    over: Picture | None = None

    @property
    def data(self) -> bytes:
        """The file's bytes; read anew each time where they are not in memory."""
        return self.content if isinstance(self.content, bytes) else self.content.read()

    @cached_property
    def sha256(self) -> str:
        """Digest of the bytes."""
        return hashlib.sha256(self.content).hexdigest() if isinstance(self.content, bytes) else self.content.sha256

    @property
    def digest(self) -> str:
        """First 20 hexadecimal digits of the SHA-256 of the bytes: equal pictures are stored once by it."""
        return self.sha256[:20]


@dataclass(frozen=True)
class Panel:
    """One picture of a figure with the few words beneath it and the words that replace it for who cannot see."""

    picture: Picture
    label: Message
    alt: Message
    name: str = ""
    """Distinguishes the panels of one figure in file names, for example ``channel-16``."""
    layer: str = ""
    """The layer it is about, in a figure of several."""


@dataclass(frozen=True)
class Row:
    """Panels side by side, None where a column stays empty; `head` stands before or above them."""

    panels: tuple[Panel | None, ...]
    head: Message | None = None

    @property
    def layer(self) -> str:
        """The layer of all its panels, if it is one."""
        return _only({panel.layer for panel in self.panels if panel})


@dataclass(frozen=True)
class Colorbar:
    """The scale of a figure's colours: a named colour table between two labelled ends."""

    colormap: str
    low: Message
    high: Message

    @property
    def words(self) -> Message:
        """The scale as a sentence, where the colours of `Figure.colorbar` stand in a text alone."""
        return _("Colours ({colormap}) from {low} to {high}.", colormap=self.colormap, low=self.low, high=self.high)


@dataclass(frozen=True)
class Figure:
    """A numbered figure of the report.

    Attributes:
        id: stable and made of its content, for example ``class_activation-grad_cam-layer4-cat``; ``[a-z0-9_.-]`` only.
        technique: the technique that made it.
        rows: panels in rows.
        caption: stands alone: what, layer, channels, class, method, normalisation, colour range.
        columns: panels a row is divided into; sets their printed width.
        headings: words above the columns, one for each, or none.
        exhibit: name of the one image it is about (it then stands on that image's pages), or None.
        layer: the one layer it is about, or None.
        colorbar: scale of the colours, where colours carry values.
        wide: one drawing a row, as wide as the text.
        beside: narrow enough to stand beside others of its kind.
    """

    id: str
    technique: str
    rows: tuple[Row, ...]
    caption: Message
    columns: int
    headings: tuple[Message, ...] = ()
    exhibit: str | None = None
    layer: str | None = None
    colorbar: Colorbar | None = None
    wide: bool = False
    beside: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers it shows something of, in reading order."""
        shown = (panel.layer for row in self.rows for panel in row.panels if panel and panel.layer)
        return tuple(dict.fromkeys((*([self.layer] if self.layer else ()), *shown)))

    @property
    def narrow(self) -> bool:
        """Whether its pictures leave room for the caption beside them on paper: few in a row, or many small ones."""
        headed = any(row.head for row in self.rows)
        few = self.columns <= 4 or self.columns == SMALL or len(self.rows) > 4
        return few and not (headed or self.wide or self.beside)

    def column_layer(self, column: int) -> str:
        """The layer of all panels of a column, if it is one; `column` counts from 0."""
        panels = (row.panels[column] for row in self.rows if column < len(row.panels))
        return _only({panel.layer for panel in panels if panel})


def _only(layers: set[str]) -> str:
    return next(iter(layers)) if len(layers) == 1 else ""


def slug(words: str) -> str:
    """`words` as part of an identifier: ``[a-z0-9_.-]`` only; what is lost is made up for by six digits of a digest."""
    plain = "".join(c if c in "abcdefghijklmnopqrstuvwxyz0123456789_.-" else "-" for c in words)
    plain = plain.strip("-.")[:60]
    return (
        plain if plain == words else f"{plain or 'x'}-{hashlib.sha256(words.encode(errors='replace')).hexdigest()[:6]}"
    )
