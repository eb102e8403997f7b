"""A paged PDF by WeasyPrint, tagged: PDF/UA-1, or PDF/A-3u. Everything it shows comes from memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from reportgen.errors import UsageError
from reportgen.figures.colour import gradient_png
from reportgen.figures.fonts import drawable, wants_han
from reportgen.figures.formula import formula_svg
from reportgen.language import translator
from reportgen.report.document import Document
from reportgen.report.environment import Formula, context_of, places, template_folder
from reportgen.report.facts import json_bytes
from reportgen.report.leaves import Leaves, exhibit_anchor
from reportgen.report.paper_pictures import Letters, PaperPictures
from reportgen.report.pdf_a import archival_options, finish
from reportgen.report.stylesheet import styled, with_han
from reportgen.report.tags import mend_tags
from reportgen.report.templates import rendered
from reportgen.report.typesetter import read_html, typesetting, uncollected, weasyprint_module
from reportgen.text import shown

Pages = Callable[[Mapping[str, Any], Callable[[], bytes]], bytes]
"""Gives the pages of a document, told what they depend on and how they are made."""


def render_pdf(document: Document, formula: Formula = formula_svg, pages: Pages = lambda _about, make: make()) -> bytes:
    """The report as PDF/UA-1, or as PDF/A-3u where its style asks for it. The same document gives the same bytes under
    ``SOURCE_DATE_EPOCH``.

    Args:
        formula: sets a formula given in TeX.
        pages: may know pages that were made before.

    Raises:
        OutputError: if WeasyPrint cannot be used on this machine.
    """
    weasyprint = weasyprint_module()
    style = document.style
    translate = translator(style.lang)
    pictures = PaperPictures(style.paper, translate, style.accent)
    css = styled((template_folder() / "print.css").read_text(encoding="utf-8"), style)
    han = style.lang != "en" or wants_han(json_bytes(document.facts).decode("utf-8"))
    words = {anchor: shown(one.translated(translate)) for anchor, one in places(document).items()}
    mark = identifier(document.facts)

    def text(leaves: Leaves) -> str:
        pictures.close = frozenset(document.exhibits[n].name for n in leaves.close)
        context = context_of(
            document,
            pictures.show,
            formula,
            medium="print",
            gradient=gradient_png,
            strips=pictures.strips,
            caption=pictures.caption,
            side_by_side=pictures.side_by_side,
            bar=pictures.bar,
            parted={exhibit_anchor(n) for n in leaves.parted},
            css=Markup(with_han(css) if han else css),
        )
        return drawable(rendered("print.html.j2", context, style))

    first = text(Leaves())

    def finisher(_document: Any, pdf: Any) -> None:
        mend_tags(pdf, words)
        if style.pdf_a:
            finish(pdf)

    def make() -> bytes:
        variant = archival_options(document) if style.pdf_a else {"pdf_variant": "pdf/ua-1"}
        try:
            with typesetting(), uncollected():
                fonts = weasyprint.text.fonts.FontConfiguration()
                letters = Letters(fonts, style.lang, style.accent, han=han)
                leaves, html = Leaves(), first
                while True:
                    read = read_html(html, pictures.drawings)
                    laid = read.render(font_config=fonts, cache=pictures.cache(letters), **variant)
                    told = leaves.after(laid.pages, document)
                    if told == leaves:
                        return bytes(laid.write_pdf(pdf_identifier=mark, finisher=finisher, **variant))
                    leaves, html = told, text(told)
        except weasyprint.urls.FatalURLFetchingError as error:
            if style.templates is None:
                raise
            raise UsageError(f"a template in {style.templates.name!r} asks for something: {error}") from None

    if style.pdf_a:  # which holds report.json, another one each time
        return make()
    # the text names its pictures by their digests
    digest = hashlib.sha256(first.encode("utf-8", "backslashreplace")).hexdigest()
    pango = weasyprint.text.ffi.pango.pango_version()
    return pages({"html": digest, "identifier": str(mark), "pango": pango}, make)


def identifier(facts: Mapping[str, Any]) -> bytes | None:
    """A fixed file identifier where output must not depend on the clock."""
    return str(facts["images"]["digest"])[:32].encode() if os.environ.get("SOURCE_DATE_EPOCH") else None
