"""One self-contained HTML file: no request to anywhere, useful without JavaScript."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from markupsafe import Markup

from reportgen.figures.colour import gradient_png
from reportgen.figures.formula import formula_svg
from reportgen.report.document import Document
from reportgen.report.environment import Formula, KeptFiles, context_of, template_folder
from reportgen.report.facts import json_texts
from reportgen.report.fonts import font_faces
from reportgen.report.marks import Marks
from reportgen.report.page import check_page
from reportgen.report.screen_pictures import ScreenPictures
from reportgen.report.stylesheet import styled
from reportgen.report.templates import rendered
from reportgen.text import shown_page

MOST_LISTED = 1000
"""Beyond this many images the embedded facts leave out the list of predictions."""


def render_html(document: Document, formula: Formula = formula_svg) -> bytes:
    """The report as one HTML file."""
    return b"".join(html_parts(document, formula))


def html_parts(
    document: Document, formula: Formula = formula_svg, kept: KeptFiles = lambda _about, make: make()
) -> Iterator[bytes]:
    """The same piece by piece.

    Args:
        formula: sets a formula given in TeX.
        kept: may know what was encoded before.
    """
    marks = Marks()
    pictures = ScreenPictures(marks)
    folder = template_folder()
    css = styled(font_faces(kept) + (folder / "screen.css").read_text(encoding="utf-8"), document.style)
    script = (folder / "screen.js").read_text(encoding="utf-8")
    policy = _policy(css, script)
    context = context_of(
        document,
        pictures.show,
        formula,
        medium="screen",
        gradient=gradient_png,
        css=Markup(css),
        script=Markup(script),
        policy=policy,
        island=marks.mark(partial(_island, document.facts)),
        symbols=partial(marks.mark, pictures.symbols),
        shown_layers=_layers(document),
    )
    # filters escape single words; names inside sentences and attributes are seen to here
    made = shown_page(rendered("report.html.j2", context, document.style))
    if document.style.templates is not None:
        check_page(made, policy, document.style.templates.name)
    # the templates alone know what they show, and how often
    pictures.encode(kept)
    for piece in marks.filled(made):
        yield piece.encode("utf-8")


def _policy(css: str, script: str) -> str:
    """A Content-Security-Policy that allows exactly this style sheet, this script, and pictures and fonts inside the
    file."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    allowed = f"img-src data:; font-src data:; style-src 'sha256-{digest(css)}'; script-src 'sha256-{digest(script)}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _layers(document: Document) -> list[str]:
    """Layers that some figure shows something of, in the order of the model."""
    shown = {layer for section in document.sections for figure in section.figures for layer in figure.layers}
    order = {layer["name"]: place for place, layer in enumerate(document.facts["model"]["layers"])}
    return sorted(shown, key=lambda layer: (order.get(layer, len(order)), layer))


def _island(facts: Mapping[str, Any]) -> Iterator[str]:
    """The facts as inert JSON: nothing in them can end the element they stand in."""
    told = dict(facts)
    if len(told.get("predictions", ())) > MOST_LISTED:
        del told["predictions"]
    for piece in json_texts(told, indent=None, ascii_only=True):
        yield piece.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
