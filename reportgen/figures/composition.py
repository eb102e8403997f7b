"""A figure set as one picture: panels, labels, headings and colour bar with their places in millimetres.

Documents place panels by their style sheets; a figure that stands in somebody else's document has to bring its own
layout. What is composed here is written as PDF (letters and drawings stay vectors) or as PNG at print resolution.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from PIL import Image, ImageDraw

from reportgen.figures.colour import gradient_png
from reportgen.figures.figure import Figure, Panel, Picture, Row
from reportgen.figures.fonts import drawable
from reportgen.figures.lettering import ASCENT, MM, POINT, font, leading, runs, width_of, wrapped
from reportgen.figures.tiles import png
from reportgen.text import Translate

TEXT_WIDTH: Final = 166.0
"""Millimetres: what A4 with common margins leaves."""
MOST_CELL: Final = 40.0
"""Millimetres: a panel of 224 pixels is printed no wider."""
DPI: Final = 300
INK: Final = (26, 28, 32)
"""Red, green and blue of words."""
GAP: Final = 1.0
"""Millimetres between panels."""
BLOCK_GAP: Final = 2.0
"""Millimetres between rows that stand side by side."""

_HEAD: Final = 20.0
_BAR_HEIGHT: Final = 2.2
_HEADING, _SIDE = 7.0, 7.5
_LEAST_BAR: Final = 6.0
_MOST_LINES: Final = 4


@dataclass(frozen=True)
class Placed:
    """A picture and its rectangle, in millimetres from the left and the top."""

    picture: Picture
    x: float
    y: float
    width: float
    height: float


Tone = Literal["plain", "soft", "strong", "accent"]
"""How words stand out: strong ones are set in semi-bold letters."""


@dataclass(frozen=True)
class Words:
    """One line of text: left end and top of its line in millimetres, size in points."""

    text: str
    x: float
    y: float
    size: float
    tone: Tone = "plain"


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


@dataclass(frozen=True)
class Measure:
    """The room that a figure is set in; millimetres.

    Attributes:
        cell: width of a panel.
        head: width of the words before rows, 0 where there are none.
        room: width of everything.
        bar: width of the colour bar, if its words leave so much.
        label: size of the words beneath panels, in points.
        scale: that of the words beside the colour bar.
        blocks: so many parts of the rows stand side by side.
    """

    cell: float
    head: float
    room: float = TEXT_WIDTH
    bar: float = 32.0
    label: float = 6.6
    scale: float = 7.0
    blocks: int = 1


def compose(figure: Figure, translate: Translate, measure: Measure | None = None) -> Composition:
    """A figure without number and caption, as wide as its panels need and at most `TEXT_WIDTH`.

    Args:
        figure: panels in rows.
        translate: a gettext function.
        measure: its room; what a thesis leaves, if none is given.
    """
    measure = measure or Measure(cell_width(figure), _head_width(figure))
    setter = _Setter(figure, translate, measure)
    of_one = -(-len(figure.rows) // measure.blocks)
    for start in range(0, len(figure.rows), of_one):
        setter.block()
        setter.headings()
        for row in figure.rows[start : start + of_one]:
            setter.row(row)
    setter.end_blocks()
    setter.colorbar()
    return setter.composition()


def strips(figure: Figure, translate: Translate, measure: Measure) -> Iterator[Composition]:
    """The same row by row, so that a page may end between two: headings stand above the first, the colour bar below
    the last.
    """
    for number, row in enumerate(figure.rows, 1):
        setter = _Setter(figure, translate, measure)
        setter.block()
        if number == 1:
            setter.headings()
        setter.row(row)
        if number == len(figure.rows):
            setter.colorbar()
        yield setter.composition()


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
    return min((TEXT_WIDTH - _head_width(figure)) / max(figure.columns, 1), MOST_CELL) - GAP


def raster(composition: Composition, dpi: int = DPI) -> Picture:
    """A composition without drawings as PNG that says how large it is to be printed.

    Maps of few pixels keep their sharp edges; photographs are resampled.
    """
    scale = dpi / MM
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
        height = words.size * POINT * scale
        x = words.x * scale
        for run, name in runs(words.text):
            letters = font(name).font_variant(size=height)
            draw.text((x, words.y * scale + ASCENT * height), run, INK, letters, "ls")
            x += letters.getlength(run)
    return png(canvas, dpi=dpi)


class _Setter:
    """Goes down a figure, row by row."""

    def __init__(self, figure: Figure, translate: Translate, measure: Measure) -> None:
        self.figure, self.translate, self.measure = figure, translate, measure
        self.y = self.bottom = 0.0
        self.left = -self._block_width()
        self.pictures: list[Placed] = []
        self.words: list[Words] = []

    def block(self) -> None:
        """Go on at the top, to the right of what was set."""
        self.bottom = max(self.bottom, self.y)
        self.y = 0.0
        self.left += self._block_width()

    def end_blocks(self) -> None:
        """Go on below all blocks."""
        self.y = max(self.bottom, self.y)
        self.left = 0.0

    def _block_width(self) -> float:
        columns = max(len(row.panels) for row in self.figure.rows)
        return self.measure.head + columns * (self.measure.cell + GAP) + BLOCK_GAP

    def headings(self) -> None:
        """The words above the columns."""
        tops = [
            self._lines(heading.translated(self.translate), self.measure.cell, _HEADING)
            for heading in self.figure.headings
        ]
        deepest = max(map(len, tops), default=0)
        for column, lines in enumerate(tops):
            y = self.y + (deepest - len(lines)) * leading(_HEADING)
            self._write(lines, self._left(column), y, _HEADING)
        self.y += deepest * leading(_HEADING) + (GAP if deepest else 0)

    def row(self, row: Row) -> None:
        """Panels side by side, each with its label, and what stands before them."""
        cell, size = self.measure.cell, self.measure.label
        bottom = self.y
        for column, panel in enumerate(row.panels):
            if panel is None:
                continue
            width, height = _size(panel.picture, cell)
            self.pictures.append(Placed(panel.picture, self._left(column), self.y, width, height))
            lines = self._lines(panel.label.translated(self.translate), cell, size)
            self._write(lines, self._left(column), self.y + height + 0.3, size)
            bottom = max(bottom, self.y + height + len(lines) * leading(size))
        if row.head is not None:
            beside = int((bottom - self.y) / leading(_SIDE))
            words = row.head.translated(self.translate)
            lines = self._lines(words, self.measure.head - 2 * GAP, _SIDE, max(beside, _MOST_LINES))
            self._write(lines, self.left, self.y, _SIDE)
            bottom = max(bottom, self.y + len(lines) * leading(_SIDE))
        self.y = bottom + GAP

    def colorbar(self) -> None:
        """The scale of the colours, between its ends."""
        bar, size = self.figure.colorbar, self.measure.scale
        if bar is None:
            return
        low, high = (drawable(end.translated(self.translate)) for end in (bar.low, bar.high))
        x = self.measure.head
        self._write([low], x, self.y, size)
        x += width_of(low, size) + 1.5 * GAP
        left = self.measure.room - x - 1.5 * GAP
        width = max(_LEAST_BAR, min(self.measure.bar, left - width_of(high, size)))
        middle = self.y + (leading(size) - _BAR_HEIGHT) / 2
        self.pictures.append(Placed(gradient_png(bar.colormap), x, middle, width, _BAR_HEIGHT))
        lines = self._lines(high, max(left - width, _LEAST_BAR), size)
        self._write(lines, x + width + 1.5 * GAP, self.y, size)
        self.y += len(lines) * leading(size) + GAP

    def composition(self) -> Composition:
        """What was set so far."""
        right = [placed.x + placed.width for placed in self.pictures]
        right += [words.x + width_of(words.text, words.size) for words in self.words]
        return Composition(max(right, default=1.0), max(self.y - GAP, 1.0), tuple(self.pictures), tuple(self.words))

    def _left(self, column: int) -> float:
        return self.left + self.measure.head + column * (self.measure.cell + GAP)

    def _lines(self, text: str, width: float, size: float, most: int = _MOST_LINES) -> Sequence[str]:
        return wrapped(drawable(text), width, size, most) if text else ()

    def _write(self, lines: Sequence[str], x: float, y: float, size: float) -> None:
        for number, text in enumerate(lines):
            self.words.append(Words(text, x, y + number * leading(size), size))


def _head_width(figure: Figure) -> float:
    return _HEAD if any(row.head is not None for row in figure.rows) else 0.0


def _size(picture: Picture, cell: float) -> tuple[float, float]:
    """Millimetres of a picture in a cell: drawings as large as they were drawn where there is room."""
    if picture.media != "image/svg+xml":
        return cell, cell * picture.height / picture.width
    width = min(picture.width * POINT, cell)
    return width, width * picture.height / picture.width
