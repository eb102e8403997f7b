"""The catalogues are complete, and a document in another language is wholly in it."""

from __future__ import annotations

import ast
import importlib.util
import io
import itertools
import re
import string
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pikepdf
import pytest
from babel.messages.catalog import Message as Entry
from babel.messages.pofile import read_po

import reportgen
from reportgen import house
from reportgen.errors import UsageError
from reportgen.figures import fonts
from reportgen.figures.figure import Figure, Panel
from reportgen.figures.han import han_font
from reportgen.house import style_of
from reportgen.job import Job
from reportgen.language import po_bytes, translator
from reportgen.report.facts import json_bytes
from reportgen.report.figure_files import write_figures
from reportgen.report.html import render_html
from reportgen.report.pdf import render_pdf
from reportgen.report.terms import REASONS, TERMS, reason, term
from tests.networks import lively, noise
from tests.report.test_html import Page

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "translations.py"
SAME = {"softmax", "sigmoid", "MMACs", "JPEG", "SSIM", "%(size)s MB", "%(size)s kB"}
"""What is the same in Chinese."""

needs_han = pytest.mark.skipif(han_font() is None, reason="no font for Chinese (pip install 'reportgen[zh]')")


def sentences() -> set[str]:
    spec = importlib.util.spec_from_file_location("translations", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {message for message, _file in module.sentences()}


def entries() -> list[Entry]:
    return [entry for entry in read_po(io.BytesIO(po_bytes("zh")), "zh") if entry.id]


def test_every_sentence_is_translated_and_none_is_left_over() -> None:
    catalogue = read_po(io.BytesIO(po_bytes("zh")), "zh")
    known = {str(entry.id) for entry in entries()}
    assert sentences() - known == set(), "run scripts/translations.py and translate what it names"
    assert known - sentences() == set(), "run scripts/translations.py"
    assert not catalogue.obsolete
    assert [str(entry.id) for entry in entries() if not entry.string] == []
    assert [str(entry.id) for entry in entries() if entry.fuzzy] == []


def test_the_catalogue_is_as_the_script_leaves_it() -> None:
    before = (ROOT / "reportgen/locale/zh/LC_MESSAGES/reportgen.po").read_bytes()
    subprocess.run([sys.executable, str(SCRIPT)], check=True, capture_output=True)
    assert (ROOT / "reportgen/locale/zh/LC_MESSAGES/reportgen.po").read_bytes() == before


def fields(text: str) -> list[str]:
    """Placeholders, of both kinds."""
    percent = re.findall(r"%\((\w+)\)s", text)
    braces = [] if percent else [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    return sorted({*percent, *braces})


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: str(entry.id)[:40])
def test_placeholders_and_markup_agree(entry: Entry) -> None:
    english, translated = str(entry.id), str(entry.string)
    assert fields(english) == fields(translated)
    assert english.count("%%") == translated.count("%%")
    assert "<" not in translated
    assert translated == translated.strip()
    filled: dict[str, Any] = dict.fromkeys(fields(english), "X")
    if "%(" in english:
        assert "X" in translated % filled
    else:
        assert translated.format(**filled)
    if re.search(r"[A-Za-z]{4}", re.sub(r"\{\w+\}|%\(\w+\)s", "", english)) and english not in SAME:
        assert re.search(r"[\u4e00-\u9fff]", translated)
        assert not re.search(r"[\u4e00-\u9fff][,;:?!]", translated), "punctuation is full-width"


def test_every_word_that_is_looked_up_is_marked() -> None:
    """What templates look up at run time is known to the extraction by these tables."""
    assert {message.template for message in (*TERMS.values(), *REASONS)} <= sentences()
    assert term("critical").translated(translator("zh")) == "严重"
    assert str(term("unheard-of")) == "unheard-of"


REASONING = {"_bomb", "_unidentified", "_damage", "_unfit", "_entry", "_walk", "_raised"}
"""Functions that put reasons into words."""


def reasons() -> Iterator[str]:
    """Every reason as it is written in the code, with ``{}`` for what is filled in."""
    for name in ("images", "decoding", "preprocessing", "subject"):
        tree = ast.parse((ROOT / "reportgen" / "subject" / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("ImageError", "Skipped"):
                for argument in node.args[-1:] if getattr(node.func, "id", "") == "Skipped" else node.args[:1]:
                    yield from words(argument)
            elif isinstance(node, ast.FunctionDef) and node.name in REASONING:
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Return | ast.Yield) and inner.value is not None:
                        yield from words(inner.value)


def values(part: ast.expr) -> list[str]:
    """What may be filled in."""
    name = ast.unparse(part).strip("{}f'\"")
    return {"what": ["the input has", "--transform made"], "many": ["7 million pixels", "too many pixels"]}.get(
        name, ["7"]
    )


def words(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        parts = [[str(p.value)] if isinstance(p, ast.Constant) else values(p) for p in node.values]
        yield from ("".join(one) for one in itertools.product(*parts))
    elif isinstance(node, ast.Tuple):
        for one in node.elts:
            yield from words(one)
    elif isinstance(node, ast.IfExp):
        yield from words(node.body)
        yield from words(node.orelse)


def test_every_reason_is_known_again() -> None:
    found = set(reasons())
    assert len(found) > 25
    unknown = {one for one in found if reason(one).template == "{words}"}
    assert unknown == set()
    for one in found:
        assert str(reason(one)) == one
        assert re.search(r"[\u4e00-\u9fff]", reason(one).translated(translator("zh")))
    assert str(reason("a reason of a plugin {x}")) == "a reason of a plugin {x}"
    assert reason("not an image: a web page").translated(translator("zh")) == "不是图像：网页"


# documents
# ----------------------------------------------------------------------------------------------------------------


def english_left(text: str) -> list[str]:
    """Sentences of the catalogue that stand in a text as they are in English."""
    found = []
    for entry in entries():
        pieces = [piece for piece in re.split(r"\{\w+\}|%\(\w+\)s", str(entry.id)) if len(piece.strip()) > 9]
        if pieces and all(piece.strip() in text for piece in pieces) and str(entry.id) not in SAME:
            found.append(str(entry.id))
    return found


def visible(page: str) -> str:
    """What a reader of the page sees or hears."""
    parsed = Page(re.sub(r'(?s)<ol class="references">.*?</ol>', "", page))  # titles of papers stay as they are
    texts = [text for tag, parts in parsed.texts.items() if tag not in ("style", "script", "code") for text in parts]
    spoken = [
        one[name]
        for _tag, one in parsed.elements
        for name in ("alt", "aria-label", "title", "data-told")
        if name in one
    ]
    return " ".join([*texts, *spoken])


@pytest.fixture(scope="module")
def audited() -> dict[str, reportgen.Report]:
    """The same audit, of every technique, in both languages; one image cannot be used."""
    model = lively("resnet18", classes=7, size=64)
    items = [(image, 1, f"image-{number}") for number, image in enumerate(noise(3, 64))]
    options: dict[str, Any] = {
        "techniques": {"max_activation": {"steps": 2}, "occlusion": {"grid": 2}},
        "preset": "quick",
        "sample": 2,
        "no_originals": True,
        "input_size": "64",
    }
    found = {lang: reportgen.audit(model, [*items, object()], lang=lang, **options) for lang in ("en", "zh")}
    return found


@needs_han
def test_a_chinese_report_is_wholly_chinese(audited: dict[str, reportgen.Report]) -> None:
    assert english_left(visible(render_html(audited["en"].document).decode()))
    page = render_html(audited["zh"].document).decode()
    assert '<html lang="zh"' in page
    seen = visible(page)
    assert english_left(seen) == []
    for words_ in (
        "模型审计报告",
        "类激活图",
        "导向反向传播",
        "反卷积网络",
        "特征图",
        "卷积核",
        "激活最大化",
        "感受野",
        "照片不予显示",
    ):
        assert words_ in seen


@needs_han
def test_what_is_drawn_is_chinese_too(audited: dict[str, reportgen.Report]) -> None:
    def drawn(report: reportgen.Report, technique: str) -> list[bytes]:
        figures = next(s.figures for s in report.document.sections if s.name == technique)
        return [panel.picture.data for figure in figures for panel in panels(figure)]

    overview = drawn(audited["zh"], "architecture")[0].decode()
    assert "输入" in overview
    assert ">input" not in overview
    assert ">input" in drawn(audited["en"], "architecture")[0].decode()
    # charts are outlines
    assert drawn(audited["zh"], "max_activation")[0] != drawn(audited["en"], "max_activation")[0]


def panels(figure: Figure) -> list[Panel]:
    return [panel for row in figure.rows for panel in row.panels if panel is not None]


@needs_han
def test_facts_stay_english(audited: dict[str, reportgen.Report]) -> None:
    told = {lang: dict(report.facts) for lang, report in audited.items()}
    for facts in told.values():
        for name in ("timings", "passes"):
            facts.pop(name)
        facts["generator"] = {**facts["generator"], "job": {}}
        facts["techniques"] = {
            name: {**one, "seconds": 0, "cached": False}
            for name, one in facts["techniques"].items()
            if name != "profile"
        }
    assert json_bytes(told["en"]) == json_bytes(told["zh"])
    assert not re.search(r"[\u4e00-\u9fff]", json_bytes(told["zh"]).decode())


@needs_han
def test_the_pdf_has_a_font_for_it(audited: dict[str, reportgen.Report]) -> None:
    with pikepdf.open(io.BytesIO(render_pdf(audited["zh"].document))) as made:
        assert str(made.Root["/Lang"]) == "zh"
        names = {str(font["/BaseFont"]) for page in made.pages for font in page.resources.get("/Font", {}).values()}
        assert any("Report-Han" in name for name in names)
        with made.open_outline() as outline:
            assert "摘要" in " ".join(item.title for item in outline.root)
        # nothing was written as an escape for want of a font
        titles = " ".join(item.title for item in outline.root)
        assert "\\u" not in titles
    with pikepdf.open(io.BytesIO(render_pdf(audited["en"].document))) as made:
        names = {str(font["/BaseFont"]) for page in made.pages for font in page.resources.get("/Font", {}).values()}
        assert not any("Report-Han" in name for name in names)


@needs_han
def test_figure_files_are_chinese(audited: dict[str, reportgen.Report], tmp_path: Path) -> None:
    sections = tuple(s for s in audited["zh"].document.sections if s.name in ("feature_maps", "max_activation"))
    write_figures(tmp_path, replace(audited["zh"].document, sections=sections))
    assert "特征图" in (tmp_path / "figures.tex").read_text("utf-8")
    assert r"\usepackage[UTF8,scheme=plain]{ctex}" in (tmp_path / "figures.tex").read_text("utf-8")
    told = next(tmp_path.glob("feature_maps-*.tex")).read_text("utf-8")
    assert r"\caption[{" in told
    assert "的特征图" in told
    assert "所示内容" in (tmp_path / "methods.tex").read_text("utf-8")


def test_without_a_font_it_is_told_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house, "han_font", lambda: None)
    with pytest.raises(UsageError, match="needs a font for Chinese") as caught:
        style_of(Job.from_options({"lang": "zh"}))
    assert "reportgen[zh]" in caught.value.remedy
    assert style_of(Job.from_options({})).lang == "en"


@needs_han
def test_a_chinese_name_is_drawn_where_there_is_a_font() -> None:
    assert fonts.drawable("a 猫") == "a 猫"
    assert fonts.wants_han("猫")
    assert not fonts.wants_han("a é ×")
