"""A figure set as one picture: panels, labels, headings and colour bar with their places in millimetres.

Documents place panels by their style sheets; a figure that stands in somebody else's document has to bring its own
layout. What is composed here is written as PDF (letters and drawings stay vectors) or as PNG at print resolution.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageDraw

from reportgen.figures.colour import gradient_png
from reportgen.figures.figure import Figure, Panel, Picture, Row
from reportgen.figures.fonts import HAN, drawable, font_file, wants_han
from reportgen.figures.tiles import png
from reportgen.text import Translate

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

TEXT_WIDTH: Final = 166.0
"""Millimetres: what A4 with common margins leaves."""
MOST_CELL: Final = 40.0
"""Millimetres: a panel of 224 pixels is printed no wider."""
DPI: Final = 300
LINE: Final = 1.2
"""Height of a line in units of its letters."""

_HEAD: Final = 20.0
_GAP: Final = 1.0
_BAR: Final = (32.0, 2.2)
_LABEL, _HEADING, _SIDE, _SCALE = 6.6, 7.0, 7.5, 7.0
_MOST_LINES: Final = 4
_MM: Final = 25.4
_POINT: Final = _MM / 72
_ASCENT: Final = 0.955
"""From the top of a line to its base, in units of its letters, as a browser sets Source Sans."""


@dataclass(frozen=True)
class Placed:
    """A picture and its rectangle, in millimetres from the left and the top."""

    picture: Picture
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Words:
    """One line of text: left end and top of its line in millimetres, size in points."""

    text: str
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Composition:
    """A figure with everything in its place; millimetres."""

    width: float
    height: float
    pictures: tuple[Placed, ...]
    words: tuple[Words, ...]

    @property
    def drawn(self) -> bool:
        """Whether nothing in it is made of pixels but colour bars."""
        return all(placed.picture.media == "image/svg+xml" for placed in self.pictures if placed.picture.height > 1)


def compose(figure: Figure, translate: Translate) -> Composition:
    """A figure without number and caption, as wide as its panels need and at most `TEXT_WIDTH`.

    Args:
        figure: panels in rows.
        translate: a gettext function.
    """
    setter = _Setter(figure, translate)
    setter.headings()
    for row in figure.rows:
        setter.row(row)
    setter.colorbar()
    return setter.composition()


def alone(panel: Panel, width: float) -> Composition:
    """One panel without its label.

    Args:
        width: millimetres that it takes in its figure.
    """
    size = _size(panel.picture, width)
    return Composition(*size, (Placed(panel.picture, 0.0, 0.0, *size),), ())


def cell_width(figure: Figure) -> float:
    """Millimetres that a panel of the figure is wide; a wide drawing is as wide as its text."""
    if figure.wide:
        return TEXT_WIDTH
    return min((TEXT_WIDTH - _head_width(figure)) / max(figure.columns, 1), MOST_CELL) - _GAP


def raster(composition: Composition, dpi: int = DPI) -> Picture:
    """A composition without drawings as PNG that says how large it is to be printed.

    Maps of few pixels keep their sharp edges; photographs are resampled.
    """
    scale = dpi / _MM
    canvas = Image.new("RGB", (max(1, round(composition.width * scale)), max(1, round(composition.height * scale))))
    canvas.paste((255, 255, 255), (0, 0, *canvas.size))
    for placed in composition.pictures:
        left, top = round(placed.x * scale), round(placed.y * scale)
        size = max(1, round(placed.width * scale)), max(1, round(placed.height * scale))
        with Image.open(io.BytesIO(placed.picture.data), formats=("PNG", "JPEG")) as image:
            way = Image.Resampling.NEAREST if placed.picture.pixelated else Image.Resampling.LANCZOS
            canvas.paste(image.convert("RGB").resize(size, way), (left, top))
    draw = ImageDraw.Draw(canvas)
    for words in composition.words:
        height = words.size * _POINT * scale
        x = words.x * scale
        for run, name in _runs(words.text):
            font = _font(name).font_variant(size=height)
            draw.text((x, words.y * scale + _ASCENT * height), run, (26, 28, 32), font, "ls")
            x += font.getlength(run)
    return png(canvas, dpi=dpi)


class _Setter:
    """Goes down a figure, row by row."""

    def __init__(self, figure: Figure, translate: Translate) -> None:
        self.figure, self.translate = figure, translate
        self.head = _head_width(figure)
        self.cell = cell_width(figure)
        self.y = 0.0
        self.pictures: list[Placed] = []
        self.words: list[Words] = []

    def headings(self) -> None:
        """The words above the columns."""
        tops = [
            self._lines(heading.translated(self.translate), self.cell, _HEADING) for heading in self.figure.headings
        ]
        deepest = max(map(len, tops), default=0)
        for column, lines in enumerate(tops):
            y = self.y + (deepest - len(lines)) * _leading(_HEADING)
            self._write(lines, self._left(column), y, _HEADING)
        self.y += deepest * _leading(_HEADING) + (_GAP if deepest else 0)

    def row(self, row: Row) -> None:
        """Panels side by side, each with its label, and what stands before them."""
        bottom = self.y
        if row.head is not None:
            lines = self._lines(row.head.translated(self.translate), self.head - 2 * _GAP, _SIDE)
            self._write(lines, 0.0, self.y, _SIDE)
            bottom += len(lines) * _leading(_SIDE)
        for column, panel in enumerate(row.panels):
            if panel is None:
                continue
            width, height = _size(panel.picture, self.cell)
            self.pictures.append(Placed(panel.picture, self._left(column), self.y, width, height))
            lines = self._lines(panel.label.translated(self.translate), self.cell, _LABEL)
            self._write(lines, self._left(column), self.y + height + 0.3, _LABEL)
            bottom = max(bottom, self.y + height + len(lines) * _leading(_LABEL))
        self.y = bottom + _GAP

    def colorbar(self) -> None:
        """The scale of the colours, between its ends."""
        bar = self.figure.colorbar
        if bar is None:
            return
        x, width, height = self.head, *_BAR
        low, high = (drawable(end.translated(self.translate)) for end in (bar.low, bar.high))
        self._write([low], x, self.y, _SCALE)
        x += _width(low, _SCALE) + 1.5 * _GAP
        middle = self.y + (_leading(_SCALE) - height) / 2
        self.pictures.append(Placed(gradient_png(bar.colormap), x, middle, width, height))
        self._write([high], x + width + 1.5 * _GAP, self.y, _SCALE)
        self.y += _leading(_SCALE) + _GAP

    def composition(self) -> Composition:
        """What was set so far."""
        right = [placed.x + placed.width for placed in self.pictures]
        right += [words.x + _width(words.text, words.size) for words in self.words]
        return Composition(max(right, default=1.0), max(self.y - _GAP, 1.0), tuple(self.pictures), tuple(self.words))

    def _left(self, column: int) -> float:
        return self.head + column * (self.cell + _GAP)

    def _lines(self, text: str, width: float, size: float) -> list[str]:
        return wrapped(drawable(text), width, size) if text else []

    def _write(self, lines: Sequence[str], x: float, y: float, size: float) -> None:
        for number, text in enumerate(lines):
            self.words.append(Words(text, x, y + number * _leading(size), size))


def _head_width(figure: Figure) -> float:
    return _HEAD if any(row.head is not None for row in figure.rows) else 0.0


def _size(picture: Picture, cell: float) -> tuple[float, float]:
    """Millimetres of a picture in a cell: drawings as large as they were drawn where there is room."""
    if picture.media != "image/svg+xml":
        return cell, cell * picture.height / picture.width
    width = min(picture.width * _POINT, cell)
    return width, width * picture.height / picture.width


# words
# ----------------------------------------------------------------------------------------------------------------


@cache
def _font(name: str) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(str(font_file(name)), 100)


@cache
def _latin() -> frozenset[int]:
    from fontTools.ttLib import TTFont

    with TTFont(font_file("sans"), lazy=True) as font:
        return frozenset(font.getBestCmap())


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """(part, font) of a line: what the report's own sans-serif cannot draw is left to others."""

    def font_of(c: str) -> str:
        return "sans" if ord(c) in _latin() else HAN if wants_han(c) else "mono"

    for name, run in groupby(text, key=font_of):
        yield "".join(run), name


def _width(text: str, size: float) -> float:
    """Millimetres."""
    return sum(float(_font(name).getlength(run)) for run, name in _runs(text)) / 100 * size * _POINT


def _leading(size: float) -> float:
    return LINE * size * _POINT


def wrapped(text: str, width: float, size: float, most: int = _MOST_LINES) -> list[str]:
    """`text` in lines no wider than `width` millimetres, at most so many; what is left out ends in an ellipsis.

    Lines break at spaces, behind the signs of which names of layers and files are made, and where nothing else helps.
    """
    lines = [""]
    for piece in _pieces(" ".join(text.split())):
        if _width((lines[-1] + piece).rstrip(), size) <= width:
            lines[-1] += piece
            continue
        for part in _fitting(piece, width, size):
            lines.append(part)
    kept = [line.strip() for line in lines if line.strip()]
    if len(kept) > most:
        last = kept[most - 1]
        while last and _width(last + "…", size) > width:
            last = last[:-1]
        kept = [*kept[: most - 1], last + "…"]
    return kept


def _pieces(text: str) -> Iterator[str]:
    """Parts after each of which a line may end."""
    start = 0
    for place, c in enumerate(text, 1):
        if c in " _./:-" or unicodedata.east_asian_width(c) in "WF":
            yield text[start:place]
            start = place
    if start < len(text):
        yield text[start:]


def _fitting(piece: str, width: float, size: float) -> Iterator[str]:
    """A piece cut where it is wider than a line."""
    part = ""
    for c in piece:
        if part and _width(part + c, size) > width:
            yield part
            part = ""
        part += c
    yield part
