"""A user's templates and style sheet: they replace and extend, fetch nothing, and tell where they are broken."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path
from typing import Any

import pikepdf
import pytest
from PIL import Image

from reportgen.configuration import read_toml
from reportgen.errors import UsageError
from reportgen.figures.contrast import DARK_PAGE, LEAST, contrast, lightened
from reportgen.house import read_logo, style_of
from reportgen.job import Job
from reportgen.report.document import ACCENT
from reportgen.report.environment import template_folder
from reportgen.report.html import render_html
from reportgen.report.pdf import render_pdf
from reportgen.report.prose import methods
from reportgen.report.stylesheet import ACCENT_ON_DARK, read_css
from reportgen.report.templates import check_templates
from tests.report.small import document
from tests.report.test_html import Page

EXAMPLE = Path(__file__).parents[2] / "docs" / "house-style"


def templates(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".html.j2")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def html(**style: Any) -> str:
    return render_html(document(**style)).decode()


# templates
# ----------------------------------------------------------------------------------------------------------------


def test_the_example_works() -> None:
    options = read_toml(None, EXAMPLE)
    style = style_of(Job.from_options(options))
    given = {name: getattr(style, name) for name in ("author", "accent", "css", "templates")}
    page = html(**given)
    assert '<p class="classification">Internal · &#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;.pt</p>' in page
    assert "Model audit report" in page  # the cover that was extended
    assert "Laboratory for Trustworthy Vision" in page
    assert page.count("#7a1f2b") > 2
    with pikepdf.open(io.BytesIO(render_pdf(document(**given)))) as made:
        assert len(made.pages) > 5


def test_any_template_can_be_replaced(tmp_path: Path) -> None:
    folder = templates(tmp_path, summary="<p>mine: {{ facts.images.used }}</p>", techniques__filters="<p>own words</p>")
    page = html(templates=folder)
    assert "<p>mine: 4</p>" in page
    assert "<p>own words</p>" in page
    assert "own words" in methods(document(templates=folder))
    assert "<p>mine" not in html()  # other documents are not touched


def test_methods_have_no_headings_of_what_is_left_out_of_them(tmp_path: Path) -> None:
    table, words = "<table><tr><td>x</td></tr></table>", "<p><b>What</b> it is.</p>"
    own = f"<p>One.</p><h3>Table</h3><div>{table}</div><p>Two.</p><h3>Kept</h3><div>{words}</div><h3>Last</h3>{table}"
    folder = templates(tmp_path, techniques__filters=own)
    told = methods(document(templates=folder))
    assert "Table" not in told
    assert "Last" not in told
    assert "\\subsubsection*{Kept}\n\n\\textbf{What.} it is." in told


def test_templates_still_escape(tmp_path: Path) -> None:
    page = html(templates=templates(tmp_path, summary="{{ style.title }}{{ facts.model.file }}"))
    assert "<script>alert" not in page


@pytest.mark.parametrize(
    ("text", "number", "words"),
    [
        ("<p>\n{% if %}", 2, "Expected an expression"),
        ("\n\n{{ facts.nothing }}", 3, "has no attribute 'nothing'"),
        ("{{ document.style.titel }}", 1, "has no attribute 'titel'"),
        ("a\n{{ facts.images.used.__class__.__mro__ }}", 2, "unsafe"),
        ("{{ facts.update({}) }}", 1, "unsafe"),
        ("{% include 'none.html.j2' %}", 1, "none.html.j2"),
        ("{{ 1 / 0 }}", 1, "ZeroDivisionError"),
        ("{{ facts | no_such_filter }}", 1, "No filter named 'no_such_filter'"),
        ("{{ document.sections[0].title | decimals }}", 1, "TypeError"),
    ],
)
def test_a_broken_template_is_told_with_its_line(tmp_path: Path, text: str, number: int, words: str) -> None:
    folder = templates(tmp_path, summary=text)

    def tried() -> None:
        check_templates(folder)
        html(templates=folder)

    with pytest.raises(UsageError) as caught:
        tried()
    told = str(caught.value)
    assert told.startswith(f"template summary.html.j2, line {number}: ")
    assert words in told
    assert len(told.splitlines()) == 1
    assert str(tmp_path) not in told


def test_what_does_not_parse_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"template techniques/filters.html.j2, line 2"):
        check_templates(templates(tmp_path, techniques__filters="\n{% endif %}"))


def test_templates_that_would_never_be_used(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is called like a template"):
        check_templates(templates(tmp_path, Cover="x"))
    with pytest.raises(UsageError, match="there is no folder 'none'"):
        check_templates(tmp_path / "none")
    (tmp_path / "cover.html.j2").write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"cover.html.j2 is not UTF-8"):
        check_templates(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '<img src="https://example.org/a.png" alt="x">',
        '<svg><image href="http://example.org/a.png"></image></svg>',
        '<meta http-equiv="refresh" content="0; url=https://example.org">',
        '<link rel="stylesheet" href="https://example.org/a.css">',
        '<iframe src="//example.org"></iframe>',
    ],
)
def test_a_template_cannot_ask_for_anything(tmp_path: Path, text: str) -> None:
    folder = templates(tmp_path, summary=text)
    with pytest.raises(UsageError, match="asks for"):
        html(templates=folder)


def test_a_template_cannot_ask_for_anything_in_the_pdf(tmp_path: Path) -> None:
    folder = templates(tmp_path, summary='<img src="https://example.org/a.png" alt="x">')
    with pytest.raises(UsageError, match=r"asks for something: .*https"):
        render_pdf(document(templates=folder))


def test_the_policy_cannot_be_left_out(tmp_path: Path) -> None:
    own = (template_folder() / "report.html.j2").read_text()
    rule = next(row for row in own.splitlines() if "Content-Security-Policy" in row)
    for text in (
        own.replace(rule, ""),
        own.replace(rule, "").replace("</head>", rule + "</head>"),
        own.replace("{{ policy }}", "default-src *"),
    ):
        with pytest.raises(UsageError, match="content security policy"):
            html(templates=templates(tmp_path, report=text))
    assert "<p>before</p>" in html(templates=templates(tmp_path, report=own.replace("<main>", "<main><p>before</p>")))


# style sheets
# ----------------------------------------------------------------------------------------------------------------


def test_the_hash_covers_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "house.css").write_text("h2::before { content: '</ §' }")
    page = Page(html(css=read_css(tmp_path / "house.css"), accent="#7a1f2b"))
    (style,) = page.texts["style"]
    assert style.endswith("h2::before { content: '</ §' }")
    policy = next(one["content"] for one in page.of("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" in policy


@pytest.mark.parametrize(
    ("text", "number", "words"),
    [
        ("a {}\n@import 'x.css';", 2, "fetches nothing"),
        ("a { background: url(https://example.org/a.png) }", 1, "fetches nothing"),
        ("a {\n  background: u\\72l('//example.org') }", 2, "fetches nothing"),
        ("@media print {\n\n a { src: image-set('a.png' 1x) } }", 3, "fetches nothing"),
        ("@font-face { font-family: x; src: URL( x.woff ) }", 1, "fetches nothing"),
        ("a { b: url(x y) }", 1, "url"),
        ("a {}\n}", 2, "}"),
        ("a { content: '</STYLE><script>' }", 1, "</style"),
        ("a { content: 'x\n }", 1, "string"),
    ],
)
def test_a_style_sheet_that_cannot_be_taken(tmp_path: Path, text: str, number: int, words: str) -> None:
    (tmp_path / "house.css").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_css(tmp_path / "house.css")
    assert str(caught.value).startswith(f"house.css, line {number}: ")
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_a_style_sheet_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the style sheet"):
        read_css(tmp_path / "none.css")
    (tmp_path / "latin.css").write_bytes(b"a { content: '\xe9' }")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_css(tmp_path / "latin.css")


# colours and logo
# ----------------------------------------------------------------------------------------------------------------


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert contrast("#ffffff", "#ffffff") == 1
    for colour in ("#7a1f2b", "#000000", "#1f4e79"):
        assert contrast(lightened(colour), DARK_PAGE) >= LEAST


def test_an_accent_that_cannot_be_read() -> None:
    for colour, words in (("#ffcc00", "contrast of 1.5 to 1"), ("red", "no colour"), ("#12", "no colour")):
        with pytest.raises(UsageError, match=words):
            Job.from_options({"accent": colour})
    assert Job.from_options({"accent": "#7A1F2B"}).accent == "#7a1f2b"


def test_the_accent_is_everywhere() -> None:
    page = html(accent="#7a1f2b")
    assert ACCENT not in page
    assert ACCENT_ON_DARK not in page
    assert ACCENT in html()
    assert ACCENT_ON_DARK in html()
    assert 'fill="#7a1f2b"' in page


def test_a_logo_is_embedded(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "SecretCam"
    Image.new("RGBA", (3000, 1000), (200, 0, 0, 120)).save(tmp_path / "logo.png", exif=exif)
    logo = read_logo(tmp_path / "logo.png")
    assert (logo.width, logo.height, logo.media) == (900, 300, "image/png")
    assert b"SecretCam" not in logo.data
    assert base64.b64encode(logo.data).decode() in html(logo=logo)
    with pikepdf.open(io.BytesIO(render_pdf(document(logo=logo)))) as made:
        pictures = [one for one in made.objects if isinstance(one, pikepdf.Stream) and one.get("/Subtype") == "/Image"]
        assert (900, 300) in {(int(one["/Width"]), int(one["/Height"])) for one in pictures}
    (tmp_path / "logo.svg").write_text("<svg/>")
    with pytest.raises(UsageError, match=r"the logo 'logo.svg' cannot be used"):
        read_logo(tmp_path / "logo.svg")
    with pytest.raises(UsageError, match="give PNG or JPEG"):
        read_logo(tmp_path / "none.png")
