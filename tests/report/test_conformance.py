"""Whole documents against the standards that they claim: HTML, PDF/UA-1, PDF/A-3u; hostile names included."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from itertools import pairwise
from typing import Any

import html5lib
import page
import pikepdf
import pytest

from reportgen.report.facts import json_bytes
from reportgen.report.html import render_html
from reportgen.report.pdf import render_pdf
from tests.report.small import AWKWARD, RIGHT_TO_LEFT, document

BLOCKS = {"p", "div", "figure", "table", "ul", "ol", "dl", "h1", "h2", "h3", "section", "details"}
PHRASING_ONLY = {"p", "span", "h1", "h2", "h3", "b", "i", "small", "code", "a", "dt", "label", "button", "figcaption"}


def parsed(names: tuple[str, ...]) -> Any:
    parser = html5lib.HTMLParser(strict=False, namespaceHTMLElements=False)
    tree = parser.parse(render_html(document(names=names)).decode("utf-8"))
    assert parser.errors == []
    return tree


@pytest.fixture(scope="module")
def tree() -> Any:
    return parsed(AWKWARD)


def test_no_error_in_the_syntax_of_html(tree: Any) -> None:
    assert tree.find("head/title").text.startswith("Title")


def test_only_phrases_inside_phrases(tree: Any) -> None:
    for outer in tree.iter():
        if isinstance(outer.tag, str) and outer.tag in PHRASING_ONLY:
            wrong = {inner.tag for inner in outer.iter() if inner is not outer} & BLOCKS
            assert not wrong, (outer.tag, outer.attrib, wrong)


def test_references_inside_the_page_lead_somewhere(tree: Any) -> None:
    ids = Counter(one.attrib["id"] for one in tree.iter() if "id" in one.attrib)
    assert set(ids.values()) == {1}
    assert not [one for one in ids if re.search(r"\s", one)]
    for one in tree.iter():
        for name in ("for", "aria-labelledby", "aria-describedby", "aria-controls"):
            assert set(one.attrib.get(name, "").split()) <= set(ids)
        href = one.attrib.get("href", "#summary")
        assert href.startswith("data:image/") or href[1:] in ids


def test_headings_go_down_one_by_one(tree: Any) -> None:
    levels = [int(one.tag[1]) for one in tree.iter() if one.tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_tables_name_their_columns(tree: Any) -> None:
    for table in tree.iter("table"):
        for head in table.iter("th"):
            assert head.attrib["scope"] in ("col", "row")
            assert "".join(head.itertext()).strip()
        widths = {len(row.findall("td")) + len(row.findall("th")) for row in table.iter("tr")}
        assert len(widths) == 1


def test_names_are_words_everywhere(tree: Any) -> None:
    text = " ".join("".join(tree.itertext()).split())
    for name in (
        "two\\nlines\\r\\nand\\ttabs.png",
        "\\x00\\x07\\x1b[31mred",
        "not utf-8 \\udcff\\udcfe.png",
        "\\u202eabc",
    ):
        assert name in text
    for name in ("👩\u200d🚀", "العربية", "{{ 7 * 7 }} {% raw %} {name} %(n)s %s", "<b>bold</b> &amp; &#60;i&#62;"):
        assert name in text
    assert not set(text) & set("\u202e\u2066\u2069\ufeff\uffff\x00\x1b")
    assert len(list(tree.iter("script"))) == 2


# PDF
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pdf_a", "profile"), [(False, "ua1"), (True, "3u")])
@pytest.mark.parametrize("paper", ["a4", "letter"])
def test_no_rule_of_the_standard_is_broken(pdf_a: bool, profile: str, paper: str) -> None:
    names = AWKWARD if paper == "a4" else AWKWARD[:4]
    report = page.validate_pdf_bytes(render_pdf(document(names=names, pdf_a=pdf_a, paper=paper)), profile=profile)
    assert report.rules.total > 100
    assert [(one.rule_id, one.message) for one in report.failures] == []


def test_the_checker_finds_faults() -> None:
    """A PDF/UA-1 file is no PDF/A, and one without the words of a picture is no PDF/UA."""
    plain = render_pdf(document(names=AWKWARD[:1]))
    assert not page.validate_pdf_bytes(plain, profile="3u").is_compliant
    with pikepdf.open(io.BytesIO(plain)) as made:
        for one in made.objects:
            if isinstance(one, pikepdf.Dictionary) and one.get("/S") == "/Figure":
                del one["/Alt"]
        file = io.BytesIO()
        made.save(file)
    rules = {one.rule_id for one in page.validate_pdf_bytes(file.getvalue(), profile="ua1").failures}
    assert "PDFUA1-FIGURE-ALTERNATIVE-TEXT-001" in rules


def test_facts_are_attached() -> None:
    made = document(pdf_a=True)
    with pikepdf.open(io.BytesIO(render_pdf(made))) as opened:
        assert list(opened.attachments) == ["report.json"]
        attached = opened.attachments["report.json"]
        assert attached.obj["/AFRelationship"] == "/Data"
        content = attached.get_file().read_bytes()
        assert opened.Root["/MarkInfo"]["/Marked"]
    assert content == json_bytes(made.facts)
    assert json.loads(content)["images"]["used"] == 4


def test_the_same_bytes_as_an_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert render_pdf(document(pdf_a=True)) == render_pdf(document(pdf_a=True))


def test_what_no_font_has_is_written_out() -> None:
    with pikepdf.open(io.BytesIO(render_pdf(document(names=AWKWARD)))) as made, made.open_outline() as outline:
        titles = " ".join(" ".join(item.title.split()) for item in outline.root)
    for name in ("\\U0001f600 ", "\\u202eabc.png", "two\\nlines", "{{ 7 * 7 }}", "\\uffff"):
        assert name in titles
    assert RIGHT_TO_LEFT not in titles
