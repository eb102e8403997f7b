"""Exhibits with little on their last page are set closer, or with more on it."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pikepdf
import pytest

from reportgen.figures.figure import Figure, Row
from reportgen.report.document import Document
from reportgen.report.environment import contents
from reportgen.report.leaves import Leaves, exhibit_anchor
from reportgen.report.paper_pictures import PaperPictures
from reportgen.report.pdf import render_pdf
from reportgen.report.plates import Paper, plate, side_by_side
from reportgen.text import verbatim
from tests.report.small import document, figure, picture

pytest.importorskip("weasyprint", exc_type=(ImportError, OSError))

NAMES = ("a.png", "b.png", "c.png")
HEIGHT = 1000.0


def page(*anchors: str, lowest: float = 900.0, link: float | None = None) -> Any:
    links = [] if link is None else [("internal", "x", (0, 0, 10, link), None)]
    return SimpleNamespace(height=HEIGHT, anchors=dict.fromkeys(anchors, (0, 0, 10, lowest)), links=links)


def laid(*after: Any, made: Document) -> list[Any]:
    """Pages of a document: every chapter on one, the second exhibit with these after it."""
    pages: list[Any] = []
    for entry in contents(made):
        pages.append(page(entry.anchor))
        pages += after if entry.anchor == exhibit_anchor(1) else ()
    return pages


@pytest.mark.parametrize(
    ("after", "short"),
    [
        ((), False),
        ((page("fig", lowest=200.0, link=250.0),), True),
        ((page("fig", lowest=200.0, link=700.0),), False),
        ((page("fig", lowest=700.0, link=100.0),), False),
        ((page("fig", lowest=200.0), page("fig-2")), False),
        ((page("fig"), page("fig-2", lowest=200.0)), True),
        ((page(),), False),  # nothing is known of it
    ],
)
def test_which_exhibits_end_on_a_page_that_is_all_but_empty(after: tuple[Any, ...], short: bool) -> None:
    made = document(names=NAMES)
    assert Leaves().after(laid(*after, made=made), made) == Leaves(frozenset({1} if short else ()))


def test_first_closer_then_with_more_on_the_next_page_then_no_further() -> None:
    made = document(names=NAMES)
    bad, well = (laid(page("fig", lowest=low), made=made) for low in (200.0, 900.0))
    close = Leaves().after(bad, made)
    assert close == Leaves(close=frozenset({1}))
    assert close.after(well, made) == close
    parted = close.after(bad, made)
    assert parted == Leaves(parted=frozenset({1}))
    assert parted.after(bad, made) == parted
    assert parted.after(well, made) == parted


def test_a_template_without_these_anchors_is_left_alone() -> None:
    made = document(names=NAMES)
    assert Leaves().after([page("mine", lowest=10.0)] * 5, made) == Leaves()


def test_close_pictures_are_smaller() -> None:
    maps = replace(figure("class_activation", 1, exhibit="a.png"), columns=4)
    wide, close = (plate(maps, str, "a4", close=close)[0][0] for close in (False, True))
    assert close.height < 0.85 * wide.height
    photographs = [(picture(1), "as found")]
    assert side_by_side(photographs, "a4", close=True).height < 0.85 * side_by_side(photographs, "a4").height
    pictures = PaperPictures("a4", str, "#000000")
    whole = pictures.strips(maps, "fig")
    pictures.close = frozenset({"a.png"})
    assert pictures.strips(maps, "fig") != whole
    assert pictures.strips(replace(maps, exhibit="b.png"), "fig") == whole


def overflowing(paper: Paper, rows: int) -> bytes:
    """A document with one exhibit of so many rows of maps, and a figure after them that a page may not hold."""
    made = document(names=NAMES[:1], paper=paper)
    [exhibit] = made.exhibits
    first = figure("class_activation", 1, exhibit=exhibit.name)
    tall = replace(first, rows=tuple(Row(first.rows[0].panels, verbatim(f"row {n}")) for n in range(rows)))
    last: Figure = replace(figure("feature_maps", 2, exhibit=exhibit.name), headings=())
    last = replace(last, rows=tuple(replace(row, head=None) for row in last.rows), columns=8)
    return render_pdf(replace(made, exhibits=(replace(exhibit, figures=(tall, last)),)))


def test_no_page_of_an_exhibit_is_all_but_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """However high the maps are, the last figure follows them or has company."""
    counts: dict[bool, list[int]] = {True: [], False: []}
    for mended in (True, False):
        if not mended:
            monkeypatch.setattr(Leaves, "after", lambda self, _pages, _document: self)
        for rows in (5, 6, 7, 8):
            with pikepdf.open(io.BytesIO(overflowing("a4", rows))) as opened:
                counts[mended].append(len(opened.pages))
    assert all(mended <= plain for mended, plain in zip(counts[True], counts[False], strict=True))
    assert counts[True] != counts[False]
