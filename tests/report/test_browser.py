"""The HTML report in a browser: keyboard, folding, enlarging, filters, dark, narrow, printed, without JavaScript."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageStat

from reportgen.report.html import render_html
from tests.report.browser import Opened, chromium, opened
from tests.report.small import AWKWARD, NAMES, document

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("page") / "report.html"
    made.write_bytes(render_html(document()))
    return made


@pytest.fixture
def window(browser: Any, file: Path) -> Iterator[Opened]:
    with opened(browser, file) as one:
        yield one


def shown(page: Any, selector: str) -> int:
    return int(
        page.evaluate("s => [...document.querySelectorAll(s)].filter(e => e.checkVisibility()).length", selector)
    )


def test_asks_for_nothing_and_says_nothing(window: Opened, file: Path) -> None:
    window.page.mouse.wheel(0, 20_000)
    window.page.keyboard.press("End")
    window.page.wait_for_load_state("networkidle")
    assert [url for url in window.requests if not url.startswith("data:")] == [file.as_uri()]
    assert window.messages == []
    broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).length"
    assert window.page.evaluate(broken) == 0
    assert window.page.evaluate("document.fonts.check('16px \"Report Sans\"') && document.fonts.size") == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_accessible(browser: Any, file: Path, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with opened(browser, file, color_scheme=scheme, viewport={"width": width, "height": 844}) as one:
        assert one.page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(one.page, options={"resultTypes": ["violations"], "runOnly": WCAG}).response["violations"]
        assert [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in found] == []
        one.page.locator(".cell .picture").first.click()
        found = Axe().run(one.page, options={"resultTypes": ["violations"], "runOnly": WCAG}).response["violations"]
        assert [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in found] == []


def test_contents_follow_the_reader(window: Opened) -> None:
    for anchor in ("filters", "exhibit-2", "subject"):
        window.page.evaluate("id => document.getElementById(id).scrollIntoView()", anchor)
        window.page.wait_for_selector(f'.toc a[aria-current][href="#{anchor}"]')
        assert window.page.locator(".toc [aria-current]").count() == 1


def test_sections_fold_and_links_unfold_them(window: Opened) -> None:
    page = window.page
    page.locator("#subject summary").click()
    assert shown(page, "#subject table") == 0
    page.locator("#fold").click()
    assert shown(page, "main figure") == 0
    page.locator(".toc a", has_text="Filters").click()
    page.wait_for_function("document.querySelector('#filters > details').open")
    assert shown(page, "#filters figure") == 1
    assert shown(page, "#subject table") == 0
    page.locator("#unfold").click()
    assert shown(page, "main figure") == 1 + 2 * len(NAMES)


def test_all_is_printed_and_folded_again(window: Opened) -> None:
    window.page.locator("#fold").click()
    window.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert shown(window.page, "main figure") == 1 + 2 * len(NAMES)
    window.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert shown(window.page, "main figure") == 0


def test_paper_shows_no_tools_and_light_colours(browser: Any, file: Path) -> None:
    with opened(browser, file, color_scheme="dark") as one:
        one.page.emulate_media(media="print")
        assert shown(one.page, "nav") == 0
        assert one.page.evaluate("getComputedStyle(document.body).color") == "rgb(26, 28, 32)"
        assert len(one.page.pdf()) > 10_000


def test_keyboard_alone(window: Opened) -> None:
    """Skip link, then a picture: in, along, out, and back to where one was."""
    page = window.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("#fig-filters-20 .picture").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('alt')") == "tile 1"
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible()
    assert "Figure 1. 2 / 7" in page.locator(".which").inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator(".stage > *").get_attribute("alt") == "tile 3"
    page.keyboard.press("ArrowLeft")
    assert "tile 2" in page.locator(".words").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    assert page.evaluate("document.activeElement.getAttribute('alt')") == "tile 2"
    # one stop a figure: the next one leaves it
    page.keyboard.press("Tab")
    assert page.evaluate("!document.activeElement.closest('#fig-filters-20')")


def test_every_stop_of_the_keyboard_can_be_seen(window: Opened) -> None:
    page = window.page
    stops = 0
    for _ in range(60):
        page.keyboard.press("Tab")
        state = page.evaluate(
            "() => { const e = document.activeElement, s = getComputedStyle(e);"
            " return [e.tagName, s.outlineStyle, parseFloat(s.outlineWidth), e.getBoundingClientRect().width] }"
        )
        if state[0] == "BODY":
            break
        stops += 1
        assert state[1] != "none", state
        assert state[2] >= 2, state
        assert state[3] > 0, state
    assert stops > 20


def test_enlarged_by_mouse(window: Opened) -> None:
    page = window.page
    picture = page.locator("#fig-filters-20 .picture").first
    before = picture.bounding_box()["width"]
    picture.click()
    assert page.locator(".stage > *").bounding_box()["width"] > 1.5 * before
    assert page.locator("#back").is_disabled()
    for _ in range(6):
        page.locator("#on").click()
    assert page.locator("#on").is_disabled()
    page.mouse.click(5, 5)
    assert not page.locator("dialog").is_visible()


def test_filter_by_verdict(window: Opened) -> None:
    page = window.page
    page.select_option("#by-verdict", "wrong")
    assert shown(page, "section[data-verdict]") == 1
    assert shown(page, ".predictions tbody tr") == 1
    assert shown(page, '.toc a[href^="#exhibit"]') == 1
    assert "Shown: 1 exhibits" in page.locator("#told").inner_text()
    page.select_option("#by-verdict", "")
    assert shown(page, "section[data-verdict]") == len(NAMES)
    assert page.locator("#told").inner_text() == ""


def test_filter_by_layer(window: Opened) -> None:
    page = window.page
    assert page.locator("#by-layer option").all_inner_texts() == ["all", "layer1", "conv1", "layer2"]
    page.select_option("#by-layer", "conv1")
    assert shown(page, "#fig-filters-20") == 1
    assert shown(page, 'figure[data-technique="feature_maps"]') == 0
    # of a figure of several layers the columns of the others go
    page.select_option("#by-layer", "layer2")
    figure = f"#{page.locator('figure[data-technique=class_activation]').first.get_attribute('id')}"
    assert shown(page, f'{figure} [data-layer="layer1"]') == 0
    assert shown(page, f"{figure} .picture") > 0
    page.select_option("#by-layer", "")
    assert shown(page, f'{figure} [data-layer="layer1"]') > 0


def test_heat_fades(window: Opened) -> None:
    page = window.page
    laid = page.locator(".laid").first
    laid.scroll_into_view_if_needed()

    def mean() -> list[float]:
        with Image.open(io.BytesIO(laid.screenshot())) as image:
            return list(ImageStat.Stat(image.convert("RGB")).mean)

    full = mean()
    page.locator("#heat").fill("0")
    plain = mean()
    # the plain picture is grey, the one over it red
    assert max(plain) - min(plain) < 5
    assert full[0] - full[1] > 50
    page.locator("#heat").fill("50")
    assert plain[1] > mean()[1] > full[1]


def test_dark_by_hand(window: Opened) -> None:
    page = window.page
    colour = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(colour) == "rgb(255, 255, 255)"
    page.locator("#theme").click()
    assert page.evaluate(colour) == "rgb(22, 24, 28)"
    page.locator("#theme").click()
    assert page.evaluate(colour) == "rgb(255, 255, 255)"


def test_without_javascript(browser: Any, file: Path) -> None:
    with opened(browser, file, java_script_enabled=False) as one:
        assert one.page.locator("#view").is_hidden()
        assert one.page.locator("dialog").is_hidden()
        assert one.page.locator("main figure").last.is_visible()
        one.page.locator("#subject summary").click()
        assert one.page.locator("#subject table").first.is_hidden()
        one.page.locator('.toc a[href="#appendix"]').click()
        assert one.page.locator("#appendix").is_visible()
        assert one.messages == []


def test_nothing_is_wider_than_a_narrow_screen(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_bytes(render_html(document(names=AWKWARD)))
    with opened(browser, tmp_path / "report.html", viewport={"width": 320, "height": 640}) as one:
        assert one.page.evaluate("document.documentElement.scrollWidth") <= 320
        wide = (
            "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, .formula, svg')"
            " && e.getBoundingClientRect().right > 321).map(e => e.outerHTML.slice(0, 120))"
        )
        assert one.page.evaluate(wide) == []
        titles = one.page.locator("section[data-verdict] h2").all_inner_texts()
        assert len(titles) == len(AWKWARD)
        assert one.messages == []
