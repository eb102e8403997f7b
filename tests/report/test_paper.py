"""Figures on paper: composed beforehand, their pixels as they were, and nothing held that is not being written."""

from __future__ import annotations

import gc
import hashlib
import io
import logging
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pikepdf
import pytest
from PIL import Image

from reportgen.figures.composition import BLOCK_GAP, GAP, TEXT_WIDTH
from reportgen.figures.figure import Figure, Panel, Picture, Row
from reportgen.figures.lettering import paragraph, width_of
from reportgen.figures.tiles import jpeg, photograph
from reportgen.report import fonts, typesetter
from reportgen.report.html import html_parts, render_html
from reportgen.report.paper_pictures import name_of
from reportgen.report.pdf import render_pdf
from reportgen.report.pixels import Pixels
from reportgen.report.plates import ASIDE_SMALL, PHOTOGRAPH, TALL, Paper, caption, measure, plate, side_by_side
from reportgen.text import verbatim
from tests.report.small import document, figure, picture

weasyprint = pytest.importorskip("weasyprint", exc_type=(ImportError, OSError))  # type: ignore[arg-type]


def grid(rows: int, columns: int, head: str = "", **more: Any) -> Figure:
    panels = [Panel(picture(n), verbatim(f"label {n}"), verbatim(f"alt {n}")) for n in range(rows * columns)]
    made = [
        Row(tuple(panels[n * columns : (n + 1) * columns]), verbatim(f"{head} {n}") if head else None)
        for n in range(rows)
    ]
    return replace(figure("filters", 1), rows=tuple(made), columns=columns, headings=(), colorbar=None, **more)


# places
# ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paper", ["a4", "letter"])
@pytest.mark.parametrize("head", ["", "a head that is quite long"])
@pytest.mark.parametrize("columns", range(1, 9))
def test_figures_keep_to_their_room(columns: int, head: str, paper: Paper) -> None:
    for rows in (1, 2, 6):
        made = grid(rows, columns, head)
        room = measure(made, paper)
        for whole, _words in plate(made, str, paper):
            assert whole.width <= room.room + 0.01 <= TEXT_WIDTH + 0.02
            # nothing lies on anything else
            boxes = [(p.x, p.y, p.x + p.width, p.y + p.height) for p in whole.pictures]
            for k, (left, top, right, bottom) in enumerate(boxes):
                assert left >= 0
                assert bottom <= whole.height
                for other in boxes[k + 1 :]:
                    assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


def test_rows_of_few_columns_stand_side_by_side() -> None:
    room = measure(grid(6, 2, "CAM"), "a4")
    assert room.blocks == 3
    assert 3 * (room.head + 2 * (room.cell + GAP)) + 2 * BLOCK_GAP <= TEXT_WIDTH
    assert measure(grid(6, 3, "CAM"), "a4").blocks == 2
    assert measure(grid(6, 5, "CAM"), "a4").blocks == 1
    [(whole, words)] = plate(grid(6, 2, "CAM"), str, "a4")
    assert len({placed.y for placed in whole.pictures}) == 2
    assert words.index("alt 0") < words.index("alt 4") < words.index("alt 11")


def test_a_figure_higher_than_a_page_is_divided_between_rows() -> None:
    tall = grid(20, 5, "row")
    parts = plate(tall, str, "a4")
    assert len(parts) == 20
    assert sum(len(part.pictures) for part, _words in parts) == 100
    assert all(part.height < TALL for part, _words in parts)
    assert all(f"alt {5 * n} (label {5 * n})" in words for n, (_part, words) in enumerate(parts))


def test_a_picture_is_replaced_by_all_that_it_tells() -> None:
    [(_whole, words)] = plate(figure("filters", 1), str, "a4")
    for told in ("column 0", "column 3", "above: tile 0", "below: tile 4", "inferno", "largest"):
        assert told in words


@pytest.mark.parametrize("paper", ["a4", "letter"])
def test_captions_keep_to_their_room(paper: Paper) -> None:
    words = "Feature maps of layer features.denseblock3.denselayer24.norm1 for a picture. " * 4
    for made in (grid(1, 8), grid(1, 4), grid(3, 6, "head"), grid(1, 1, beside=True)):
        told = caption(made, "Figure 12.", words, "Method: section 3.10", paper)
        lines = told.text.words
        assert lines[0].text == "Figure 12."
        assert lines[0].tone == "strong"
        assert "".join(line.text for line in lines[1:-1]).replace(" ", "") == words.replace(" ", "")
        for line in lines:
            assert line.x + width_of(line.text, line.size, bold=line.tone == "strong") <= told.text.width + 0.5
        assert told.link is not None
        left, top, width, height = told.link
        assert left + width <= told.text.width + 0.01
        assert top + height <= told.text.height + 0.01
    assert caption(grid(1, 8), "1", "x", "", paper).text.width < (1 - ASIDE_SMALL[paper]) * TEXT_WIDTH
    assert caption(grid(1, 8), "1", "x", "", paper).link is None


def test_lines_do_not_begin_with_what_closes() -> None:
    text = "类激活图，这是一例误判（依次为预测类别、真实类别）：红色支持前者，蓝色支持后者。" * 5
    for width in range(12, 60, 3):
        lines, _used = paragraph(text, float(width), 8.3)
        assert "".join(lines) == text
        assert not [line for line in lines if line[0] in "，、。：）" or line[-1] == "（"]


def test_numbers_stay_whole() -> None:
    lines, _used = paragraph("Egyptian cat: −0.09 of 0.36", 17.0, 6.6)
    assert [word for line in lines for word in line.split()] == ["Egyptian", "cat:", "−0.09", "of", "0.36"]


def test_photographs_stand_beside_each_other() -> None:
    wide, narrow = replace(picture(1), width=16), replace(picture(2), width=2)
    made = side_by_side([(wide, "as found"), (narrow, "a label that is longer than its picture is wide")], "a4")
    one, two = made.pictures
    assert one.height < two.height == pytest.approx(PHOTOGRAPH["a4"])
    assert [words.x for words in made.words][:2] == [one.x, two.x]
    for words in made.words:
        assert words.y > PHOTOGRAPH["a4"]
        assert words.x + width_of(words.text, words.size) <= made.width + 0.01
        assert words.y < made.height


def test_what_differs_is_named_differently() -> None:
    one, other = grid(1, 2), grid(1, 2)
    names = {name_of(whole) for made in (one, other, grid(1, 3)) for whole, _words in plate(made, str, "a4")}
    assert len(names) == 2


# pixels
# ----------------------------------------------------------------------------------------------------------------


def encoded(image: Image.Image) -> Picture:
    file = io.BytesIO()
    image.save(file, "PNG")
    return Picture(file.getvalue(), "image/png", *image.size)


def kinds() -> dict[str, Picture]:
    rng = np.random.default_rng(5)
    grey = rng.integers(0, 256, (20, 30), dtype=np.uint8)
    colour = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    return {
        "grey": encoded(Image.fromarray(grey)),
        "colour": encoded(Image.fromarray(colour)),
        "palette": encoded(Image.fromarray(colour).quantize(16)),
        "clear": encoded(Image.fromarray(np.dstack([colour, grey]), "RGBA")),
        "deep": encoded(Image.fromarray(grey.astype(np.uint16) * 257)),
        "two": encoded(Image.fromarray(grey > 128)),
        "photograph": photograph(colour),
        "grey photograph": jpeg(Image.fromarray(grey), quality=80),
    }


def seen(one: Picture) -> np.ndarray:
    """What a viewer makes of a picture, on white."""
    with Image.open(io.BytesIO(one.data)) as image:
        if image.mode == "I;16":
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        whole = image.convert("RGBA")
        ground = Image.new("RGBA", whole.size, "white")
        return np.asarray(Image.alpha_composite(ground, whole).convert("RGB"))


@pytest.fixture(scope="module")
def shown() -> dict[str, pikepdf.PdfImage]:
    panels = [Panel(one, verbatim(name), verbatim(name)) for name, one in kinds().items()]
    shown = replace(figure("filters", 20), rows=(Row(tuple(panels)),), columns=8)
    made = document()
    sections = tuple(replace(one, figures=(shown,)) if one.name == "filters" else one for one in made.sections)
    data = render_pdf(replace(made, sections=sections, exhibits=(), findings=()))
    with pikepdf.open(io.BytesIO(data)) as opened:
        found = {}
        for stream in opened.objects:
            if isinstance(stream, pikepdf.Stream) and stream.get("/Subtype") == "/Image":
                image = pikepdf.PdfImage(stream)
                found[hashlib.sha256(np.asarray(image.as_pil_image().convert("RGB")).tobytes()).hexdigest()] = image
        yield found


@pytest.mark.parametrize("kind", list(kinds()))
def test_pixels_are_those_of_the_picture(shown: dict[str, pikepdf.PdfImage], kind: str) -> None:
    wanted = seen(kinds()[kind])
    assert hashlib.sha256(wanted.tobytes()).hexdigest() in shown


def test_photographs_pass_untouched(shown: dict[str, pikepdf.PdfImage]) -> None:
    one = kinds()["photograph"]
    found = shown[hashlib.sha256(seen(one).tobytes()).hexdigest()]
    assert found.obj.read_raw_bytes() == one.data


# what is held
# ----------------------------------------------------------------------------------------------------------------


class Stored:
    """Two megabytes that lie somewhere: a photograph with a long comment."""

    SIZE = 2_000_000

    def __init__(self, number: int) -> None:
        rgb = np.full((16, 16, 3), number, dtype=np.uint8)
        start = photograph(rgb).data
        piece = b"\xff\xfe\xff\xff" + bytes(65_533)
        self.head, self.piece, self.tail = start[:2], piece, start[2:]
        self.sha256 = hashlib.sha256(b"%d" % number).hexdigest()
        self.reads = 0

    def read(self) -> bytes:
        self.reads += 1
        return self.head + self.piece * (self.SIZE // len(self.piece)) + self.tail


def stored(count: int) -> list[tuple[Stored, Picture]]:
    contents = [Stored(number) for number in range(count)]
    return [(content, Picture(content, "image/jpeg", 16, 16)) for content in contents]


def test_pictures_of_a_pdf_are_read_when_they_are_written() -> None:
    some = stored(20)
    tracemalloc.start()
    try:
        streams = [Pixels(one).get_x_object(True, 1) for _content, one in some]
        held, _most = tracemalloc.get_traced_memory()
        assert held < Stored.SIZE
        tracemalloc.reset_peak()
        sizes = [len(stream.data) for stream in streams]
        _held, most = tracemalloc.get_traced_memory()
        assert most < 5 * Stored.SIZE
    finally:
        tracemalloc.stop()
    assert min(sizes) > 0.9 * Stored.SIZE


def test_one_picture_of_a_page_is_held_at_a_time() -> None:
    some = stored(20)
    made = document()
    panels = tuple(Panel(one, verbatim("label"), verbatim("alt")) for _content, one in some)
    shown = replace(figure("filters", 20), rows=(Row(panels),), columns=8)
    sections = tuple(replace(one, figures=(shown,)) if one.name == "filters" else one for one in made.sections)
    made = replace(made, sections=sections, exhibits=(), findings=())
    render_html(made)  # what is made once is made
    tracemalloc.start()
    try:
        written = sum(
            len(part) for part in html_parts(made, kept=lambda about, make: make() if "fonts" in about else {})
        )
        _held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert written > 20 * Stored.SIZE
    assert most < 8 * Stored.SIZE


def test_fonts_are_cut_once() -> None:
    known: dict[str, Mapping[str, bytes]] = {}

    def kept(about: Mapping[str, Any], make: Callable[[], Mapping[str, bytes]]) -> Mapping[str, bytes]:
        return known.setdefault(str(about), known.get(str(about)) or make())

    small = replace(document(), exhibits=())
    fonts._latin.cache_clear()
    assert render_html(small) == b"".join(html_parts(small, kept=kept))
    assert fonts._latin.cache_info().misses == 4  # faces
    fonts._latin.cache_clear()
    assert render_html(small) == b"".join(html_parts(small, kept=kept))
    assert fonts._latin.cache_info().hits == 0  # the second document was told them


def pages_with(figures: tuple[Figure, ...], paper: Paper) -> int:
    made = document(paper=paper)
    kept = tuple(replace(one, figures=figures) for one in made.sections if one.name == "filters")
    with pikepdf.open(io.BytesIO(render_pdf(replace(made, sections=kept, exhibits=(), findings=())))) as opened:
        return len(opened.pages)


@pytest.mark.parametrize("paper", ["a4", "letter"])
def test_of_figures_a_little_over_half_a_page_two_stand_on_one(paper: Paper) -> None:
    series = [replace(grid(4, 4), id=f"filters-{n}", technique="filters", columns=4) for n in range(9)]
    assert all(figure.narrow for figure in series)
    [(lower, _words)] = plate(series[0], str, paper)
    cell = measure(series[0], paper).cell
    assert 0.85 * cell <= lower.pictures[0].width < cell
    # the first may stand beneath the words of its section, and what follows the last beneath it
    few, many = (pages_with(tuple(series[:n]), paper) for n in (3, 9))
    assert many - few == 3


def test_what_is_lower_or_higher_keeps_its_size() -> None:
    for rows in (2, 3, 5):
        [(whole, _words)] = plate(replace(grid(rows, 4), columns=4), str, "a4")
        assert whole.pictures[0].width == pytest.approx(measure(grid(rows, 4), "a4").cell)


# what is left behind
# ----------------------------------------------------------------------------------------------------------------


def state() -> tuple[Any, ...]:
    import pydyf
    from weasyprint.svg import TAGS

    levels = [logging.getLogger(name).level for name in ("weasyprint", "fontTools")]
    changed = pydyf.PDF.page_references, pydyf.zlib, TAGS["path"]
    return *changed, gc.isenabled(), typesetter._LOCK.locked(), *levels


def test_libraries_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    before = state()
    assert before[3]
    during: list[tuple[Any, ...]] = []
    write = weasyprint.HTML.render

    def told(self: Any, *args: Any, **more: Any) -> Any:
        during.append(state())
        return write(self, *args, **more)

    monkeypatch.setattr(weasyprint.HTML, "render", told)
    render_pdf(replace(document(), exhibits=()))
    assert state() == before
    [inside] = during
    assert not any(one is other for one, other in zip(inside[:3], before[:3], strict=True))
    assert inside[3:5] == (False, True)


@pytest.mark.parametrize("error", [RuntimeError("broke down"), KeyboardInterrupt()])
def test_libraries_are_left_as_they_were_after_a_failure(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    before = state()

    def fail(self: Any, *args: Any, **more: Any) -> None:
        assert state() != before
        raise error

    monkeypatch.setattr(weasyprint.HTML, "render", fail)
    with pytest.raises(type(error)):
        render_pdf(replace(document(), exhibits=()))
    assert state() == before


def test_a_search_for_garbage_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        render_pdf(replace(document(), exhibits=()))
        assert not gc.isenabled()
    finally:
        gc.enable()
