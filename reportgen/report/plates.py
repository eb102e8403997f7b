"""Figures on paper: how large their panels are there, as pictures with words that replace them, and their captions.

Hundreds of small boxes on a page are what costs time and memory to set; what is composed beforehand is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from reportgen.figures.composition import (
    BLOCK_GAP,
    GAP,
    TEXT_WIDTH,
    Composition,
    Measure,
    Placed,
    Words,
    compose,
    strips,
)
from reportgen.figures.figure import SMALL, Figure, Picture, Row
from reportgen.figures.lettering import POINT, leading, paragraph, width_of, wrapped
from reportgen.text import Translate, _

Paper = Literal["a4", "letter"]

HEAD: Final = 21.6
"""Millimetres of the words before rows."""
ASIDE: Final = 0.71
"""What the pictures of a narrow figure take of the text's width; the caption stands beside them."""
ASIDE_SINGLE: Final = 0.3
"""The same of a single picture."""
ASIDE_SMALL: Final = {"a4": 0.565, "letter": 0.525}
"""The same of many small ones: five layers of 16 channels and the single techniques stand on one page."""
BESIDE: Final = 0.224
"""What a figure takes that stands beside others of its kind."""

TALL: Final = 200.0
"""Millimetres: what is lower is not divided."""
CAPTION, CAPTION_BESIDE = 8.3, 7.0
"""Points of the letters of captions."""

PHOTOGRAPH: Final = {"a4": 31.0, "letter": 28.0}
"""Millimetres: height of an exhibit's photographs."""

_PAGE: Final = {"a4": 250.0, "letter": 232.4}
"""Millimetres: height of the text on a page, by the style sheet."""
_AFTER: Final = 4.5
"""Millimetres between figures beneath one another, by the style sheet."""
_LEAST_SHARE: Final = 0.85
"""Of the width of its panels that a figure keeps where two are to stand on a page."""
_CLOSE: Final = 0.72
"""The same for an exhibit whose last page would be all but empty."""

_WIDEST, _LABEL = 44.0, 6.8
_CAPTION_LINE: Final = 1.35
_ASIDE_GAP: Final = 0.02
_MOST: Final = 29.0
_LEAST_CELL: Final = 17.0
# rows of few columns would leave most of a page empty: (parts that stand side by side, width of the words before rows)
_BLOCKS: Final = ((3, 15.0), (2, HEAD))
# methods × layers: six rows stand on one page, beneath the head of an exhibit
_HEADED: Final[dict[str, dict[int, float]]] = {
    "a4": {1: 19.4, 2: 19.4, 3: 19.4, 4: 19.4, 5: 19.4},
    "letter": {1: 17.9, 2: 17.9, 3: 17.9, 4: 17.9, 5: 17.9, 6: 21.5, 8: 15.9},
}
_PLAIN: Final[dict[str, dict[int, float]]] = {"a4": {}, "letter": {6: 24.9}}


def composed(figure: Figure) -> bool:
    """Whether it is set by rows: all its panels are of pixels."""
    panels = [panel for row in figure.rows for panel in row.panels if panel]
    return bool(panels) and all(panel.picture.media != "image/svg+xml" for panel in panels)


def plate(figure: Figure, translate: Translate, paper: Paper, *, close: bool = False) -> list[tuple[Composition, str]]:
    """The pictures of a figure, with the words that replace them: all in one where a page holds it, else row by row.

    Args:
        close: set smaller, so that an exhibit may fit its page.
    """
    words = [_alternative(row, translate) for row in figure.rows]
    if figure.headings:
        names = ", ".join(heading.translated(translate) for heading in figure.headings)
        columns = _("Columns: {names}.", names=names)
        words[0] = f"{columns.translated(translate)} {words[0]}"
    if figure.colorbar is not None:
        words[-1] = f"{words[-1]} {figure.colorbar.words.translated(translate)}"
    room = measure(figure, paper)
    if close and figure.columns < SMALL:
        room = replace(room, cell=_CLOSE * room.cell)
    whole = compose(figure, translate, room)
    lower = _lower(figure, whole, room, paper) if figure.narrow else None
    if lower is not None:
        whole = compose(figure, translate, lower)
    if whole.height <= TALL:
        return [(whole, " ".join(words))]
    return list(zip(strips(figure, translate, room), words, strict=True))


def _lower(figure: Figure, whole: Composition, room: Measure, paper: Paper) -> Measure | None:
    """Room in which a page holds two such figures, if they take a little over half of it each: the rest of every page
    would be empty.
    """
    half = _PAGE[paper] / 2 - _AFTER
    cell = room.cell - (whole.height - half) / len(figure.rows)
    return replace(room, cell=cell) if room.cell > cell >= _LEAST_SHARE * room.cell else None


def measure(figure: Figure, paper: Paper) -> Measure:
    """The room of a figure on a page."""
    headed = any(row.head is not None for row in figure.rows)
    share = BESIDE if figure.beside else _aside(figure, paper) if figure.narrow else 1.0
    room = share * TEXT_WIDTH
    head = HEAD if headed else 0.0
    columns = max(figure.columns, 1)
    most = (_HEADED if headed else _PLAIN)[paper].get(columns, _MOST)
    filled = headed or figure.beside or (figure.narrow and columns == 1)
    cell = min((room - head) / (columns if filled else max(columns, 4)) - GAP, most)
    if figure.beside:
        return Measure(cell, head, room, bar=8.0, scale=6.4)
    if headed:
        for blocks, before in _BLOCKS:
            part = (room - (blocks - 1) * BLOCK_GAP) / blocks
            fitting = (part - before) / columns - GAP
            if fitting >= _LEAST_CELL and len(figure.rows) >= blocks:
                return Measure(_LEAST_CELL, before, room, blocks=blocks)
    return Measure(cell, head, room, label=6.0 if headed and columns >= SMALL else 6.6)


def side_by_side(pictures: Sequence[tuple[Picture, str]], paper: Paper, *, close: bool = False) -> Composition:
    """Photographs of one height, with words beneath them; `close` ones are smaller."""
    placed, words, x = [], [], 0.0
    height = PHOTOGRAPH[paper] * (_CLOSE if close else 1.0)
    for picture, label in pictures:
        width = min(height * picture.width / picture.height, _WIDEST)
        placed.append(Placed(picture, x, 0.0, width, width * picture.height / picture.width))
        room = max(width, min(width_of(label, _LABEL), _WIDEST))
        lines = wrapped(label, room, _LABEL, most=3)
        top = height + GAP / 2
        words += [Words(text, x, top + n * leading(_LABEL), _LABEL, "soft") for n, text in enumerate(lines)]
        x += room + 3 * GAP
    bottom = max((one.y for one in words), default=height)
    return Composition(x - 3 * GAP, bottom + leading(_LABEL), tuple(placed), tuple(words))


@dataclass(frozen=True)
class Caption:
    """What stands beneath or beside the pictures.

    Attributes:
        text: number, sentences, and words of the link where there is one.
        link: millimetres from the left and the top to these words, their width and height.
    """

    text: Composition
    link: tuple[float, float, float, float] | None


def caption(figure: Figure, number: str, words: str, link: str, paper: Paper) -> Caption:
    """A caption in lines.

    Args:
        number: "Figure 12."; printed in bold.
        link: words that lead elsewhere, or none.
    """
    width = TEXT_WIDTH * _caption_share(figure, paper)
    size = CAPTION_BESIDE if figure.beside else CAPTION
    line = _CAPTION_LINE * size * POINT
    top = (line - leading(size)) / 2
    space = width_of("n", size) / 2
    indent = width_of(number, size, bold=True) + space
    lines, used = paragraph(words, width, size, indent)
    told = [Words(number, 0.0, top, size, "strong")]
    told += [Words(text, 0.0 if k else indent, top + k * line, size, "soft") for k, text in enumerate(lines) if text]
    long = min(width_of(link, size), width)
    fits = used + space + long <= width
    x, y = (used + space, (len(lines) - 1) * line) if fits else (0.0, len(lines) * line)
    if link:
        told.append(Words(link, x, y + top, size, "accent"))
    height = max(y + line if link else 0.0, len(lines) * line)
    return Caption(Composition(width, height, (), tuple(told)), (x, y, long, line) if link else None)


def _caption_share(figure: Figure, paper: Paper) -> float:
    if figure.beside:
        return BESIDE
    if figure.narrow:
        return 1.0 - _aside(figure, paper) - _ASIDE_GAP
    return 1.0


def _aside(figure: Figure, paper: Paper) -> float:
    if figure.columns == 1:
        return ASIDE_SINGLE
    return ASIDE_SMALL[paper] if figure.columns == SMALL else ASIDE


def _alternative(row: Row, translate: Translate) -> str:
    """What is to be seen in a row, and what stands beneath it; a sentence."""
    told = []
    for panel in filter(None, row.panels):
        alt, label = panel.alt.translated(translate), panel.label.translated(translate)
        told.append(f"{alt} ({label})" if label and label not in alt else alt)
    words = "; ".join(told)
    return f"{words}." if row.head is None else f"{row.head.translated(translate)}: {words}."
