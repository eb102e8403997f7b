"""The HTML report: one file that asks for nothing and lets no name become markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from reportgen.figures.colour import gradient_png
from reportgen.report import html
from reportgen.report.document import Document
from reportgen.report.html import render_html
from reportgen.text import _, shown, verbatim
from tests.report.small import NAMES, SCRIPT, document, picture

VOID = {"meta", "img", "wbr", "br", "link", "hr", "input", "col"}


class Page(HTMLParser):
    """All elements with their attributes, the text of each kind, and whether tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.faults: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _value in attrs]
        if len(names) != len(set(names)):
            self.faults.append(f"an attribute twice in <{tag}>")
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def text() -> str:
    return render_html(document()).decode("utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_hashes_of_the_policy(page: Page) -> None:
    policy = next(one["content"] for one in page.of("meta") if one.get("http-equiv") == "Content-Security-Policy")
    rules = {words[0]: words[1:] for part in policy.split(";") if (words := part.split())}
    assert rules["default-src"] == ["'none'"]
    assert rules["img-src"] == ["data:"]
    (style,) = page.texts["style"]
    scripts = [attributes for attributes in page.of("script") if "type" not in attributes]
    assert len(scripts) == 1
    script = page.texts["script"][-1]
    for rule, content in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[rule] == [f"'sha256-{digest}'"]


def test_the_policy_comes_before_what_it_rules(text: str) -> None:
    assert text.index("Content-Security-Policy") < text.index("<style") < text.index("<script")


def test_nothing_is_fetched(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}, tag
        for name, value in attributes.items():
            assert name != "style", tag
            assert not name.startswith("on"), name
            if name in {"src", "srcset", "href", "xlink:href", "poster", "action"}:
                assert value.startswith(("data:image/", "#")), (tag, name, value[:80])
    assert not re.search(r"@import|url\((?!data:font/woff;base64,)", page.texts["style"][0])
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|innerHTML|eval\(", page.texts["script"][-1])


def test_hostile_names_stay_words(page: Page, text: str) -> None:
    assert not page.faults
    assert not page.open
    assert "<script>alert" not in text
    assert len(page.of("script")) == 2
    told = "".join(page.texts["td"] + page.texts["h2"] + page.texts["a"] + page.texts["span"])
    for name in NAMES:
        assert shown(name) in told


def test_titles_of_all_chapters_are_words(page: Page) -> None:
    titles = [one["data-title"] for one in page.of("section")]
    assert [shown(name) for name in NAMES if shown(name) in titles] == list(map(shown, NAMES))


def test_facts_are_inert(page: Page, text: str) -> None:
    (island,) = re.findall(r'<script type="application/json" id="report">(.*?)</script>', text, re.DOTALL)
    assert not set("<>&") & set(island)
    assert json.loads(island) == json.loads(json.dumps(document().facts))


def test_many_predictions_are_left_out_of_the_island(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "MOST_LISTED", 3)
    told = render_html(document()).decode()
    (island,) = re.findall(r'id="report">(.*?)</script>', told, re.DOTALL)
    assert "predictions" not in json.loads(island)
    assert "images" in json.loads(island)


def test_equal_pictures_once(text: str) -> None:
    stored = Counter(re.findall(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]+", text))
    assert set(stored.values()) == {1}
    # one colour bar for all figures
    assert text.count(base64.b64encode(gradient_png("inferno").data).decode()) == 1
    # the picture of an exhibit stands on the cover and on its own page
    for number in range(len(NAMES)):
        assert text.count(base64.b64encode(picture(number).data).decode()) == 1
        assert text.count(f"#p-{picture(number).digest}") == 2


def test_every_picture_has_words(page: Page) -> None:
    assert page.of("img")
    assert all(one.get("alt") for one in page.of("img"))
    named = [one for one in page.of("svg") if one.get("aria-label") or one.get("aria-hidden")]
    # a bar is named by its title
    assert len(named) + len(page.of("title")) - 1 == len(page.of("svg"))
    assert all(page.texts["title"])


def test_anchors(page: Page) -> None:
    anchors = [attributes["id"] for _tag, attributes in page.elements if "id" in attributes]
    assert len(anchors) == len(set(anchors))
    assert {"summary", "subject", "filters", "class_activation", "exhibit-1", "appendix"} <= set(anchors)
    figures = {f"fig-{one.id}" for section in document().sections for one in section.figures}
    assert figures <= set(anchors)
    for attributes in page.of("a") + page.of("use"):
        assert attributes["href"].removeprefix("#") in anchors


def test_findings_point_at_their_evidence(page: Page, text: str) -> None:
    assert '<a href="#fig-filters-20">Figure 1</a>' in text
    assert "#fig-not-drawn" not in text


def test_words_do_not_run_together(text: str) -> None:
    plain = re.sub(r"<wbr>", "", re.sub(r"(?s)<(script|style).*?</\1>", "", text))
    inline = re.sub(r"</?(a|b|i|code|span|small)\b[^>]*>", "", plain)
    assert "final linear layer. CAM [" in inline
    assert "Settings: layers = layer1" in inline


def test_same_bytes() -> None:
    assert render_html(document()) == render_html(document())


def test_language_and_size_of_the_window(page: Page) -> None:
    assert page.of("html")[0]["lang"] == "en"
    assert any(one.get("name") == "viewport" for one in page.of("meta"))


def without(made: Document, status: str) -> Document:
    sections = tuple(
        replace(one, facts={**one.facts, "status": status, "results": {}}, figures=(), reason=verbatim(SCRIPT))
        for one in made.sections
    )
    return replace(made, sections=sections, exhibits=(), findings=())


@pytest.mark.parametrize(
    ("status", "words"), [("failed", "This section could not be made"), ("not_applicable", "Not applicable")]
)
def test_missing_sections_say_why(status: str, words: str) -> None:
    made = Page(render_html(without(document(), status)).decode())
    told = "".join("".join(texts) for texts in made.texts.values())
    assert told.count(words) == len(document().sections)
    assert SCRIPT in told
    assert not made.faults


def test_an_assumption_warns_on_the_cover() -> None:
    made = document()
    assert "Preprocessing is a guess" in render_html(made).decode()
    model = dict(made.facts["model"])
    model["input"] = {**model["input"], "head_published": True}
    assert "Preprocessing is a guess" not in render_html(replace(made, facts={**made.facts, "model": model})).decode()


def test_a_sentence_keeps_its_braces_and_percent_signs() -> None:
    made = replace(document(), verdict=_("{name} is 100 % right.", name="{a} %(b)s {{ c }} {% d %}"))
    assert "{a} %(b)s {{ c }} {% d %} is 100 % right." in render_html(made).decode()


def test_a_name_that_is_not_utf8() -> None:
    made = document(title="a\udcff", author="b\udcfe")
    render_html(made).decode("utf-8")
