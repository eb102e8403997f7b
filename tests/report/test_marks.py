"""Places in a text that are filled when it is written."""

from __future__ import annotations

import html
from collections.abc import Iterator

from reportgen.report.marks import Marks


def test_marks_are_filled_in_their_places() -> None:
    marks = Marks()
    first, second = marks.mark(lambda: ["<a>", "</a>"]), marks.mark(lambda: ["<b>"])
    assert "".join(marks.filled(f"0{second}1{first}2{second}3")) == "0<b>1<a></a>2<b>3"


def test_a_text_without_marks_stays() -> None:
    assert "".join(Marks().filled("nothing 0. 1. -0. here")) == "nothing 0. 1. -0. here"


def test_no_word_can_be_taken_for_a_mark() -> None:
    """What a name says is known before marks are; what they are made of is not, and differs each time."""
    one, other = Marks(), Marks()
    foreign = other.mark(lambda: ["theirs"])
    one.mark(lambda: ["ours"])
    assert "".join(one.filled(f"{foreign} {{{{0}}}} -0.")) == f"{foreign} {{{{0}}}} -0."
    assert foreign != Marks().mark(list)


def test_what_fills_a_mark_is_not_searched_for_marks() -> None:
    marks = Marks()
    inner = marks.mark(lambda: ["never"])
    outer = marks.mark(lambda: [f"as it is: {inner}"])
    assert "".join(marks.filled(outer)) == f"as it is: {inner}"


def test_a_mark_stays_itself_where_markup_is_escaped() -> None:
    marks = Marks()
    mark = marks.mark(lambda: ["<svg>"])
    assert html.escape(mark) == mark
    assert "".join(marks.filled(html.escape(f"<{mark}>"))) == "&lt;<svg>&gt;"


def test_each_is_made_when_its_turn_comes() -> None:
    marks = Marks()
    told: list[str] = []

    def make(name: str) -> Iterator[str]:
        told.append(name)
        yield name

    text = f"{marks.mark(lambda: make('a'))} {marks.mark(lambda: make('b'))}"
    pieces = marks.filled(text)
    assert told == []
    while next(pieces) != "a":
        pass
    assert told == ["a"]
    assert "".join(pieces) == " b"
    assert told == ["a", "b"]
