"""What is done in WeasyPrint's place gives what WeasyPrint gives."""

from __future__ import annotations

import io
import re
from typing import Any

import pikepdf
import pytest

from reportgen.figures.characters import characters
from reportgen.figures.chart import chart
from reportgen.figures.figure import Picture
from reportgen.figures.fonts import FONTS, font_file
from reportgen.figures.formula import formula_svg
from reportgen.report.outlines import operators
from reportgen.report.typesetter import _lean, hushed, memory_fetcher, read_html, typesetting

weasyprint = pytest.importorskip("weasyprint", exc_type=(ImportError, OSError))  # type: ignore[arg-type]


# outlines
# ----------------------------------------------------------------------------------------------------------------


def themselves(path: str) -> list[tuple[str, list[float]]]:
    """The operators that WeasyPrint makes of a path."""
    from pydyf import Stream
    from weasyprint.svg import TAGS

    class Node(dict[str, str]):
        def __init__(self, d: str) -> None:
            super().__init__(d=d)
            self.vertices: list[Any] = []

    class Drawing:
        stream = Stream()

        def point(self, x: str, y: str, _font_size: float) -> tuple[float, float]:
            return float(x), float(y)

    made = Drawing()
    made.stream = Stream()
    TAGS["path"](made, Node(path), 12)
    told = read(b"\n".join(one if isinstance(one, bytes) else str(one).encode() for one in made.stream.stream))
    return told[1:]  # it begins by moving to the origin


def read(told: bytes) -> list[tuple[str, list[float]]]:
    found: list[tuple[str, list[float]]] = []
    numbers: list[float] = []
    for word in told.decode().split():
        if re.fullmatch("[a-z]", word):
            found.append((word, numbers))
            numbers = []
        else:
            numbers.append(float(word))
    assert not numbers
    return found


@pytest.mark.parametrize(
    "path",
    [
        "M1 2L3 4",
        "M 1,2 L 3,4 Z",
        "M1 2 3 4 5 6z",
        "m1 2 3 4 5 6zm1 1l2 2",
        "M1-2L-3.5.5L.25-.75",
        "M0 0h5v5h-5zM1 1H4V4H1z",
        "M0 0c1 2 3 4 5 6c1 2 3 4 5 6 7 8 9 10 11 12",
        "M1 1C2 3 4 5 6 7L0 0",
        "M10 10q5 5 10 0q5-5 10 0",
        "M10 10Q5 5 10 0L3 3z l1 1",
        "\n M 1 2\n L 3 4\n",
        "M506 0l2304 0l0 435l-845 0l0 3648l-403 0c-224-134-493-237-864-301l0-339l742 0l0-3008l-934 0l0-435z",
    ],
)
def test_plain_paths_are_those_of_weasyprint(path: str) -> None:
    made = operators(path)
    assert made is not None
    ours, theirs = read(made), themselves(path)
    assert [name for name, _numbers in ours] == [name for name, _numbers in theirs]
    for (_name, mine), (_same, other) in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, abs=2e-6)


@pytest.mark.parametrize(
    "path",
    ["", "L1 2", "M1", "M1 2L3", "M1 2C1 2 3 4 5", "M1 2A5 5 0 0 1 9 9", "M1 2S3 4 5 6", "M1 2T3 4", "M1e3 2", "Mx y",
     "M1 2L3 4%", "M1 2 foo", "M1 2\u0663 4"],
)  # fmt: skip
def test_other_paths_are_left_to_weasyprint(path: str) -> None:
    assert operators(path) is None


@pytest.mark.parametrize("value", ["0.0000001", "-0.0000001", "123456789.5", "-0", "0.1"])
def test_no_number_is_a_power_of_ten(value: str) -> None:
    made = operators(f"M{value} 0")
    assert made is not None
    assert re.fullmatch(rb"-?[0-9]+\.?[0-9]* 0 m", made)


def pages(picture: Picture, *, plain: bool) -> bytes:
    """The content of a page with one drawing, as WeasyPrint draws it alone or with our help."""
    html = f'<!DOCTYPE html><html lang=en><title>-</title><img alt="" src="figure:{picture.digest}">'
    with hushed():
        if plain:
            fetcher = memory_fetcher({picture.digest: picture})
            made = weasyprint.HTML(string=html, url_fetcher=fetcher, base_url="figure:").write_pdf()
        else:
            with typesetting():
                made = read_html(html, {picture.digest: picture}).write_pdf()
    with pikepdf.open(io.BytesIO(made)) as opened:
        return bytes(opened.pages[0].Contents.read_bytes())


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(chart(lambda axes: axes.plot([0, 1, 2], [3, 1, 2], label="words") and None), id="chart"),
        pytest.param(chart(lambda axes: axes.scatter([0, 1], [1, 0]) and None), id="markers"),
        pytest.param(formula_svg(r"\frac{1}{n}\sum_{i=1}^{n} x_i^2"), id="formula"),
    ],
)
def test_drawings_are_those_of_weasyprint(picture: Picture) -> None:
    streams = (re.sub(rb"\s+", b" ", pages(picture, plain=plain)) for plain in (False, True))
    # WeasyPrint begins every path by moving to the origin
    with_help, alone = (re.sub(rb"( 0 0 m)+ ", b" ", stream) for stream in streams)
    numbers = re.compile(rb"-?\d+\.?\d*")
    assert numbers.sub(b"n", with_help) == numbers.sub(b"n", alone)
    ours, theirs = (list(map(float, numbers.findall(one))) for one in (with_help, alone))
    assert len(ours) > 50
    assert ours == pytest.approx(theirs, abs=2e-6)


# sheets, fonts
# ----------------------------------------------------------------------------------------------------------------


NOTES = "<style>b { float: footnote }</style><ol><li>one<li>two<b>beneath</b></ol>"


SPANS = "<ol><li>one</ol><style>p { display: list-item; list-style: decimal }</style><p>two<p>three"


@pytest.mark.parametrize("html", ["<ol><li>one<li>two</ol><ul><li>three</ul><q>said</q>", NOTES, SPANS])
def test_lists_have_their_marks_and_notes_their_calls(html: str) -> None:
    whole = f"<!DOCTYPE html><html lang=en><title>-</title>{html}"
    with typesetting():
        ours, theirs = (made.render().pages for made in (read_html(whole, {}), weasyprint.HTML(string=whole)))
    told, same = (
        [getattr(box, "text", "") for box in pages[0]._page_box.descendants(placeholders=True)]
        for pages in (ours, theirs)
    )
    assert told == same
    assert "1. " in told


def test_only_notes_and_marks_are_left_out() -> None:
    [sheet] = weasyprint.HTML(string="<p>")._ua_stylesheets()
    lean = _lean(sheet)
    gone = [one[3] for one in sheet.matcher.other_selectors if one not in lean.matcher.other_selectors]
    assert {"marker", "footnote-call"} <= set(gone) <= {"marker", *(name for name in gone if "note" in name)}
    assert len(sheet.matcher.other_selectors) == len(lean.matcher.other_selectors) + len(gone)  # it is as it was
    assert not [one for one in sheet.matcher.lower_local_name_selectors["li"] if one[3]]
    assert [one[3] for one in lean.matcher.lower_local_name_selectors["li"] if one[3]] == ["marker"]


@pytest.mark.parametrize("name", FONTS)
def test_characters_are_those_that_have_a_glyph(name: str) -> None:
    from fontTools.ttLib import TTFont

    with TTFont(font_file(name)) as font:
        assert characters(font_file(name)) == set(font.getBestCmap())
