"""The PDF report: paged, tagged, with its own fonts, and nothing from outside."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pikepdf
import pytest

from reportgen.figures.fonts import FONTS, drawable, font_file
from reportgen.report import typesetter
from reportgen.report.pdf import render_pdf
from reportgen.text import verbatim
from tests.report.small import NAMES, SCRIPT, document

weasyprint = pytest.importorskip("weasyprint", exc_type=(ImportError, OSError))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def opened() -> Iterator[pikepdf.Pdf]:
    with pikepdf.open(io.BytesIO(render_pdf(document()))) as made:
        yield made


def fonts(made: pikepdf.Pdf) -> list[pikepdf.Object]:
    found = {}
    for page in made.pages:
        for font in page.resources.get("/Font", {}).values():
            found[str(font["/BaseFont"])] = font
    return list(found.values())


def test_fonts_are_embedded(opened: pikepdf.Pdf) -> None:
    names = " ".join(str(font["/BaseFont"]) for font in fonts(opened))
    # they bear the names of the style sheet; any other would be the machine's
    assert all("+Report-" in name for name in names.split()), names
    for family in ("Report-Serif", "Report-Sans", "Report-Mono"):
        assert family in names
    assert len(names.split()) <= len(FONTS)
    for font in fonts(opened):
        descriptor = font["/DescendantFonts"][0]["/FontDescriptor"]
        assert {"/FontFile", "/FontFile2", "/FontFile3"} & set(descriptor.keys())


def test_pages(opened: pikepdf.Pdf) -> None:
    # cover, contents, summary, sections, one or two an exhibit, appendix
    assert 5 + len(NAMES) <= len(opened.pages) <= 8 + 2 * len(NAMES)
    for page in opened.pages:
        left, bottom, right, top = (float(side) for side in page.mediabox)
        assert (right - left, top - bottom) == pytest.approx((595.28, 841.89), abs=0.5)


def test_letter() -> None:
    with pikepdf.open(io.BytesIO(render_pdf(document(paper="letter")))) as made:
        assert [float(side) for side in made.pages[3].mediabox] == pytest.approx([0, 0, 612, 792], abs=0.5)


def test_bookmarks(opened: pikepdf.Pdf) -> None:
    with opened.open_outline() as outline:
        titles = [" ".join(item.title.split()) for item in outline.root]
    for wanted in ("1 Summary", "2 Subject", "3.4 Class activation", "A Appendix"):
        assert wanted in titles
    assert any(SCRIPT in title for title in titles)
    assert sum(title.startswith("Exhibit") for title in titles) == len(NAMES)


def test_tagged_as_pdf_ua(opened: pikepdf.Pdf) -> None:
    assert opened.Root["/MarkInfo"]["/Marked"]
    assert str(opened.Root["/Lang"]) == "en"
    assert "/StructTreeRoot" in opened.Root
    with opened.open_metadata() as metadata:
        assert metadata["{http://www.aiim.org/pdfua/ns/id/}part"] == "1"
        assert metadata["dc:title"] == f"Title {SCRIPT}"


def test_pictures_have_words(opened: pikepdf.Pdf) -> None:
    found: list[str] = []
    waiting: list[Any] = [opened.Root["/StructTreeRoot"]]
    while waiting:
        item = waiting.pop()
        if isinstance(item, pikepdf.Array):
            waiting.extend(item)
        elif isinstance(item, pikepdf.Dictionary):
            if item.get("/S") == "/Figure":
                found.append(str(item.get("/Alt", "")))
            if "/K" in item:
                waiting.append(item["/K"])
    assert len(found) > 7 * len(NAMES)
    assert all(found)


def test_metadata(opened: pikepdf.Pdf) -> None:
    assert str(opened.docinfo["/Title"]) == f"Title {SCRIPT}"
    assert str(opened.docinfo["/Author"]) == f"Author {SCRIPT}"
    assert str(opened.docinfo["/CreationDate"]).startswith("D:20231114")


def test_nothing_from_the_machine_or_the_net(opened: pikepdf.Pdf) -> None:
    assert "/EmbeddedFiles" not in opened.Root.get("/Names", {})
    for page in opened.pages:
        for one in page.get("/Annots", []):
            assert "/URI" not in one.get("/A", {})


def test_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert render_pdf(document()) == render_pdf(document())


def test_what_no_font_has_is_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawable("猫 \U0001f600") == "猫 \\U0001f600"  # the Chinese font is there
    monkeypatch.setattr("reportgen.figures.fonts.han_covered", frozenset)
    assert drawable("a 猫 😀 \udcff é ×") == "a \\u732b \\U0001f600 \\udcff é ×"
    plain = "plain words"
    assert drawable(plain) is plain


@pytest.mark.parametrize("words", ["猫😀", "\udcff", "\x00\x01\x7f", "\u202eabc", "שלום", "a\u0301", "n" * 250])
def test_odd_words_in_title_and_verdict(words: str) -> None:
    made = replace(document(title=words, author=words), exhibits=(), verdict=verbatim(words))
    with pikepdf.open(io.BytesIO(render_pdf(made))) as told:
        assert len(told.pages) > 3


@pytest.mark.parametrize(
    "address", ["https://example.org/a.png", "http://localhost/", "file:///etc/hostname", "figure:absent", "font:x"]
)
def test_only_memory_is_served(address: str) -> None:
    from weasyprint.urls import FatalURLFetchingError

    fetcher = typesetter.memory_fetcher({})
    with pytest.raises(FatalURLFetchingError):
        fetcher.fetch(address)
    with pytest.raises(FatalURLFetchingError):
        weasyprint.HTML(string=f'<img src="{address}">', url_fetcher=fetcher).write_pdf()


def test_every_font_is_at_hand() -> None:
    for name in FONTS:
        assert font_file(name).is_file()


def test_style_sheet_and_pictures_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[logging.LogRecord] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record)

    handler = Kept()
    logger = logging.getLogger("weasyprint")
    logger.addHandler(handler)
    level = logger.level
    monkeypatch.setattr(typesetter, "hushed", nullcontext)
    logger.setLevel(logging.WARNING)
    try:
        render_pdf(document())
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert not [record.getMessage() for record in told]
