"""One self-contained HTML file: no request to anywhere, useful without JavaScript."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from reportgen.figures.colour import gradient_png
from reportgen.figures.figure import Picture
from reportgen.figures.formula import formula_svg
from reportgen.report.document import Document
from reportgen.report.environment import Formula, context_of, environment, template_folder
from reportgen.report.facts import finite

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
    island = _island(document.facts)
    pictures = _Pictures(island)
    context = context_of(
        document,
        pictures.show,
        formula,
        medium="screen",
        gradient=gradient_png,
        css=Markup(css),
        script=Markup(script),
        policy=_policy(css, script),
        island=island,
        symbols=pictures.symbols,
    )
    text = environment().get_template("report.html.j2").render(context)
    for piece in pictures.filled(text):
        yield piece.encode("utf-8", "backslashreplace")


def _policy(css: str, script: str) -> str:
    """A Content-Security-Policy that allows exactly this style sheet, this script, and pictures inside the file."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    allowed = f"img-src data:; style-src 'sha256-{digest(css)}'; script-src 'sha256-{digest(script)}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _island(facts: Mapping[str, Any]) -> Markup:
    """The facts as inert JSON: nothing in them can end the element they stand in."""
    told = dict(facts)
    if len(told.get("predictions", ())) > MOST_LISTED:
        del told["predictions"]
    text = json.dumps(finite(told), ensure_ascii=True, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


class _Pictures:
    """Every picture once: what appears twice becomes a symbol that both places use.

    The templates alone know what they show how often, so they are given marks, which pictures replace once all is
    known.

    Args:
        facts: of the document. Marks are made of their digest, so that no word in them can be taken for one.
    """

    def __init__(self, facts: str) -> None:
        self._secret = hashlib.sha256(facts.encode()).hexdigest()[:20]
        self._shown: list[tuple[Picture, str]] = []

    def show(self, picture: Picture, alt: str) -> Markup:
        """What stands for the element of a picture in the template."""
        if picture.media == "image/svg+xml":
            svg = picture.data.decode("utf-8")
            begin = svg.index("<svg")
            labelled = svg[begin:].replace("<svg", f'<svg role="img" aria-label="{Markup.escape(alt)}"', 1)
            return Markup(labelled)
        self._shown.append((picture, alt))
        return self._mark(str(len(self._shown) - 1))

    def symbols(self) -> Markup:
        """What stands for the definitions of the shared pictures."""
        return self._mark("symbols")

    def _mark(self, what: str) -> Markup:
        return Markup(f"\0{self._secret}:{what}\0")

    def filled(self, text: str) -> Iterator[str]:
        """`text` in pieces, with pictures for marks."""
        counted = Counter(picture.digest for picture, _alt in self._shown)
        shared = {picture.digest: picture for picture, _alt in self._shown if counted[picture.digest] > 1}
        for place, piece in enumerate(re.split(f"\0{self._secret}:([a-z0-9]+)\0", text)):
            if place % 2 == 0:
                yield piece
            elif piece == "symbols":
                yield from _symbols(shared)
            else:
                picture, alt = self._shown[int(piece)]
                yield _use(picture, alt) if picture.digest in shared else _img(picture, alt)


def _img(picture: Picture, alt: str) -> str:
    kind = " pixelated" if picture.pixelated else ""
    return Markup(
        '<img class="picture{}" alt="{}" width="{}" height="{}" src="{}" loading="lazy" decoding="async">'
    ).format(kind, alt, picture.width, picture.height, Markup(_data(picture)))


def _use(picture: Picture, alt: str) -> str:
    kind = " pixelated" if picture.pixelated else ""
    # a strip of one pixel's height, such as a colour bar, fills the place it is given
    fill = Markup(' preserveAspectRatio="none"') if picture.height == 1 else ""
    return Markup(
        '<svg class="picture{}" role="img" aria-label="{}" viewBox="0 0 {} {}"{}><use href="#p-{}"></use></svg>'
    ).format(kind, alt, picture.width, picture.height, fill, picture.digest)


def _symbols(shared: Mapping[str, Picture]) -> Iterator[str]:
    """Definitions of the pictures that are used in several places."""
    if shared:
        yield '<svg class="symbols" aria-hidden="true" width="0" height="0">'
        for digest, p in sorted(shared.items()):
            yield (
                f'<symbol id="p-{digest}" viewBox="0 0 {p.width} {p.height}">'
                f'<image width="{p.width}" height="{p.height}" href="{_data(p)}"></image></symbol>'
            )
        yield "</svg>"


def _data(picture: Picture) -> str:
    return f"data:{picture.media};base64,{base64.b64encode(picture.data).decode()}"
