"""Figures on paper: how large their panels are there, and each row as one picture with words that replace it.

Hundreds of small boxes on a page are what costs time and memory to set; a row that is composed beforehand is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from reportgen.figures.composition import GAP, TEXT_WIDTH, Composition, Measure, strips
from reportgen.figures.figure import SMALL, Figure, Row
from reportgen.text import Translate, _

Paper = Literal["a4", "letter"]

HEAD: Final = 21.6
"""Millimetres of the words before rows."""
ASIDE: Final = 0.71
"""What the pictures of a narrow figure take of the text's width; the caption stands beside them."""
ASIDE_SMALL: Final = {"a4": 0.565, "letter": 0.525}
"""The same of many small ones: five layers of 16 channels and the single techniques stand on one page."""
BESIDE: Final = 0.224
"""What a figure takes that stands beside others of its kind."""

_MOST: Final = 29.0
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


def plate(figure: Figure, translate: Translate, paper: Paper) -> Iterator[tuple[Composition, str]]:
    """The rows of a figure, each with the words that replace it."""
    for number, (row, strip) in enumerate(
        zip(figure.rows, strips(figure, translate, measure(figure, paper)), strict=True)
    ):
        words = _words(row, translate)
        if number == 0 and figure.headings:
            names = ", ".join(heading.translated(translate) for heading in figure.headings)
            words = f"{_('Columns: {names}.', names=names).translated(translate)} {words}"
        if number == len(figure.rows) - 1 and figure.colorbar is not None:
            words = f"{words}. {figure.colorbar.words.translated(translate)}"
        yield strip, words


def measure(figure: Figure, paper: Paper) -> Measure:
    """The room of a figure on a page."""
    headed = any(row.head is not None for row in figure.rows)
    small = figure.narrow and figure.columns == SMALL
    share = BESIDE if figure.beside else ASIDE_SMALL[paper] if small else ASIDE if figure.narrow else 1.0
    room = share * TEXT_WIDTH
    head = HEAD if headed else 0.0
    columns = max(figure.columns, 1)
    most = (_HEADED if headed else _PLAIN)[paper].get(columns, _MOST)
    cell = min((room - head) / (columns if headed or figure.beside else max(columns, 4)) - GAP, most)
    if figure.beside:
        return Measure(cell, head, room, bar=8.0, scale=6.4)
    return Measure(cell, head, room, label=6.0 if headed and columns >= SMALL else 6.6)


def _words(row: Row, translate: Translate) -> str:
    """What is to be seen in a row, and what stands beneath it."""
    told = []
    for panel in filter(None, row.panels):
        alt, label = panel.alt.translated(translate), panel.label.translated(translate)
        told.append(f"{alt} ({label})" if label and label not in alt else alt)
    words = "; ".join(told)
    return words if row.head is None else f"{row.head.translated(translate)}: {words}"
