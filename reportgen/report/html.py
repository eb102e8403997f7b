"""One self-contained HTML file: no request to anywhere, useful without JavaScript."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from markupsafe import Markup, escape

from reportgen.figures.colour import gradient_png
from reportgen.figures.figure import Picture
from reportgen.figures.formula import formula_svg
from reportgen.report.document import Document
from reportgen.report.environment import Formula, context_of, environment, template_folder
from reportgen.report.facts import json_texts

MOST_LISTED = 1000
"""Beyond this many images the embedded facts leave out the list of predictions."""


def render_html(document: Document, formula: Formula = formula_svg) -> bytes:
    """The report as one HTML file."""
    return b"".join(html_parts(document, formula))


def html_parts(document: Document, formula: Formula = formula_svg) -> Iterator[bytes]:
    """The same piece by piece: no more than one picture is in memory.

    Args:
        formula: sets a formula given in TeX.
    """
    folder = template_folder()
    css = (folder / "screen.css").read_text(encoding="utf-8")
    script = (folder / "screen.js").read_text(encoding="utf-8")
    marks = _Marks()
    pictures = _Pictures(marks)
    context = context_of(
        document,
        pictures.show,
        formula,
        medium="screen",
        gradient=gradient_png,
        css=Markup(css),
        script=Markup(script),
        policy=_policy(css, script),
        island=marks.mark(partial(_island, document.facts)),
        symbols=partial(marks.mark, pictures.symbols),
    )
    text = environment().get_template("report.html.j2").render(context)
    for piece in marks.filled(text):
        yield piece.encode("utf-8", "backslashreplace")


def _policy(css: str, script: str) -> str:
    """A Content-Security-Policy that allows exactly this style sheet, this script, and pictures inside the file."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    allowed = f"img-src data:; style-src 'sha256-{digest(css)}'; script-src 'sha256-{digest(script)}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _island(facts: Mapping[str, Any]) -> Iterator[str]:
    """The facts as inert JSON: nothing in them can end the element they stand in."""
    told = dict(facts)
    if len(told.get("predictions", ())) > MOST_LISTED:
        del told["predictions"]
    for piece in json_texts(told, indent=None, ascii_only=True):
        yield piece.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Marks:
    """What is large, or known only at the end, has a mark in the text that the templates give, and replaces it then.

    No word in the document can be taken for a mark: no one knows what marks are made of, and none is left.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_hex(8)
        self._made: list[Callable[[], Iterable[str]]] = []

    def mark(self, make: Callable[[], Iterable[str]]) -> Markup:
        """Stands for the pieces of HTML that `make` will give."""
        self._made.append(make)
        return Markup(f"\0{self._secret}:{len(self._made) - 1}\0")

    def filled(self, text: str) -> Iterator[str]:
        """`text` in pieces, with what they stand for in place of marks."""
        for place, piece in enumerate(re.split(f"\0{self._secret}:([0-9]+)\0", text)):
            yield from (piece,) if place % 2 == 0 else self._made[int(piece)]()


class _Pictures:
    """Every picture once: what appears twice becomes a symbol that both places use."""

    def __init__(self, marks: _Marks) -> None:
        self._marks = marks
        self._counted: Counter[str] = Counter()
        self._shared: dict[str, Picture] = {}

    def show(self, picture: Picture, alt: str) -> Markup:
        """What stands for the element of a picture: the templates alone know what they show how often."""
        if picture.media != "image/svg+xml":
            self._counted[picture.digest] += 1
            if self._counted[picture.digest] > 1:
                self._shared[picture.digest] = picture
        return self._marks.mark(partial(self._element, picture, alt))

    def _element(self, picture: Picture, alt: str) -> Iterator[str]:
        if picture.media == "image/svg+xml":
            svg = picture.data.decode("utf-8")
            begin = svg.index("<svg")
            yield svg[begin:].replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)
            return
        kind = "picture pixelated" if picture.pixelated else "picture"
        if picture.digest in self._shared:
            # a strip of one pixel's height, such as a colour bar, fills the place it is given
            fill = ' preserveAspectRatio="none"' if picture.height == 1 else ""
            box = f'viewBox="0 0 {picture.width} {picture.height}"{fill}'
            yield f'<svg class="{kind}" role="img" aria-label="{escape(alt)}" {box}>'
            yield f'<use href="#p-{picture.digest}"></use></svg>'
        else:
            size = f'width="{picture.width}" height="{picture.height}"'
            yield f'<img class="{kind}" alt="{escape(alt)}" {size} src="'
            yield _data(picture)
            yield '" loading="lazy" decoding="async">'

    def symbols(self) -> Iterator[str]:
        """Definitions of the shared pictures."""
        if not self._shared:
            return
        yield '<svg class="symbols" aria-hidden="true" width="0" height="0">'
        for digest, p in sorted(self._shared.items()):
            size = f'width="{p.width}" height="{p.height}"'
            yield f'<symbol id="p-{digest}" viewBox="0 0 {p.width} {p.height}"><image {size} href="'
            yield _data(p)
            yield '"></image></symbol>'
        yield "</svg>"


def _data(picture: Picture) -> str:
    return f"data:{picture.media};base64,{base64.b64encode(picture.data).decode()}"
