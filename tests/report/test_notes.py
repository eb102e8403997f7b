"""The reviewer's words stay words, whatever they hold."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pikepdf
import pytest

from reportgen.errors import UsageError
from reportgen.report.document import Document
from reportgen.report.facts import Facts
from reportgen.report.html import render_html
from reportgen.report.notes import MOST_BYTES, notes_html, read_notes
from reportgen.report.pdf import render_pdf
from tests.report.small import document
from tests.report.test_html import Page

HOSTILE = """# Scope <b>bold</b>

## Second level

<script>alert(1)</script> <img src=https://example.org/a.png onerror=alert(1)>

![a *picture*](https://example.org/pixel.png) ![local](../secret.png "title")

[good](https://example.org/?a=1&b=2 "t") [mail](mailto:a@example.org) [figure](#fig-filters-20)
[bad](javascript:alert(1)) [bad](JaVaScRiPt:alert(1)) [bad](data:text/html,x) [bad](file:///etc/passwd) [bad](x.html)
<https://example.org> <javascript:alert(2)>

| a | b |
|---|--:|
| `<i>` | 2 |

```html
</style></script><script>alert(3)</script>
```

- one {{ facts }} {% raw %}
- ~~two~~ 猫

###### Sixth

[ref]: javascript:alert(4)
[ref]
"""


def noted(text: str) -> Document:
    made = document()
    return replace(made, facts={**made.facts, "notes": text})


def test_markdown_becomes_harmless_html() -> None:
    made = notes_html(HOSTILE)
    page = Page(str(made))
    assert not page.faults
    assert not page.open
    allowed = {"h4", "h5", "h6", "p", "a", "table", "thead", "tbody", "tr", "th", "td", "code", "pre", "ul", "li", "s"}
    assert {tag for tag, _attributes in page.elements} <= allowed
    assert {name for _tag, attributes in page.elements for name in attributes} == {"href", "rel", "class", "title"}
    links = [attributes["href"] for attributes in page.of("a")]
    assert links == [
        "https://example.org/?a=1&b=2",
        "mailto:a@example.org",
        "#fig-filters-20",
        "https://example.org",
    ]
    assert "[a picture]" in made
    assert "example.org/pixel.png" not in made
    assert "[bad](javascript:alert(1))" in "".join(page.texts["p"])
    assert page.of("td")[1] == {"class": "r"}


def test_headings_fit_below_those_of_the_report() -> None:
    assert "<h4>Scope &lt;b&gt;bold&lt;/b&gt;</h4>" in notes_html(HOSTILE)
    assert "<h5>Second level</h5>" in notes_html(HOSTILE)
    assert "<h6>Sixth</h6>" in notes_html(HOSTILE)
    assert notes_html("# a") == notes_html("# a")  # the rules change tokens, not the reader


def test_notes_stand_in_the_html() -> None:
    made = render_html(noted(HOSTILE)).decode()
    assert "Notes of the reviewer" in made
    assert "<script>alert" not in made
    assert made.count("<script") == 2
    page = Page(made)
    assert not page.faults
    assert not [tag for tag, attributes in page.elements if "style" in attributes]
    assert not [one for one in page.of("img") if not one["src"].startswith("data:image/")]
    assert "Notes of the reviewer" not in render_html(document()).decode()


def test_notes_stand_in_the_pdf() -> None:
    with pikepdf.open(io.BytesIO(render_pdf(noted(HOSTILE)))) as made:
        links = [str(one["/A"]["/URI"]) for page in made.pages for one in page.get("/Annots", []) if "/A" in one]
        assert sorted(set(links)) == ["https://example.org", "https://example.org/?a=1&b=2", "mailto:a@example.org"]


def test_notes_stand_in_the_facts() -> None:
    assert Facts.model_validate(noted(HOSTILE).facts).notes == HOSTILE


def test_reading(tmp_path: Path) -> None:
    file = tmp_path / "notes.md"
    file.write_bytes(b"\xef\xbb\xbf# a\r\nb")
    assert read_notes(file) == "# a\nb"
    for data, words in ((b"a\nb\xff", r"not UTF-8 text \(line 2\)"), (b"a" * (MOST_BYTES + 1), "more than 1000 kB")):
        file.write_bytes(data)
        with pytest.raises(UsageError, match=words):
            read_notes(file)
    with pytest.raises(UsageError, match=r"cannot read the notes 'none.md'"):
        read_notes(tmp_path / "none.md")
