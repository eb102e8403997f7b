"""A paged PDF by WeasyPrint, tagged: PDF/UA-1, or PDF/A-3u. Everything it shows comes from memory."""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import EmailMessage
from functools import cache
from io import BytesIO
from typing import Any

from markupsafe import Markup

from reportgen.errors import OutputError, UsageError
from reportgen.figures.colour import gradient_png
from reportgen.figures.figure import Picture
from reportgen.figures.fonts import FONTS, HAN, drawable, font_file, wants_han
from reportgen.figures.formula import formula_svg
from reportgen.language import translator
from reportgen.report.document import Document
from reportgen.report.environment import Formula, context_of, template_folder
from reportgen.report.facts import json_bytes
from reportgen.report.paper_pictures import Letters, PaperPictures
from reportgen.report.pdf_a import archival_options
from reportgen.report.stylesheet import styled, with_han
from reportgen.report.templates import rendered

_LOCK = threading.Lock()

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
    pictures = PaperPictures(style.paper, translator(style.lang), style.accent)
    css = styled((template_folder() / "print.css").read_text(encoding="utf-8"), style)
    han = style.lang != "en" or wants_han(json_bytes(document.facts).decode("utf-8"))
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
        css=Markup(with_han(css) if han else css),
    )
    html = drawable(rendered("print.html.j2", context, style))
    mark = identifier(document.facts)

    def make() -> bytes:
        variant = archival_options(document) if style.pdf_a else {"pdf_variant": "pdf/ua-1"}
        try:
            with hushed(), _uncollected(), _linear():
                fonts = weasyprint.text.fonts.FontConfiguration()
                kept = pictures.cache(Letters(fonts, style.lang, style.accent, han=han))
                fetcher = memory_fetcher(pictures.drawings)
                read = weasyprint.HTML(string=html, url_fetcher=fetcher, base_url="figure:")
                return bytes(read.write_pdf(font_config=fonts, cache=kept, pdf_identifier=mark, **variant))
        except weasyprint.urls.FatalURLFetchingError as error:
            if style.templates is None:
                raise
            raise UsageError(f"a template in {style.templates.name!r} asks for something: {error}") from None

    if style.pdf_a:  # which holds report.json, another one each time
        return make()
    # the text names its pictures by their digests
    text = hashlib.sha256(html.encode("utf-8", "backslashreplace")).hexdigest()
    pango = weasyprint.text.ffi.pango.pango_version()
    return pages({"html": text, "identifier": str(mark), "pango": pango}, make)


def weasyprint_module() -> Any:
    """WeasyPrint, imported when it is needed. Raises OutputError if it cannot be used on this machine."""
    try:
        import weasyprint
    except OSError as error:
        raise OutputError(f"PDF needs the system library Pango: {error}", "install Pango, or write .html") from None
    return weasyprint


def identifier(facts: Mapping[str, Any]) -> bytes | None:
    """A fixed file identifier where output must not depend on the clock."""
    return str(facts["images"]["digest"])[:32].encode() if os.environ.get("SOURCE_DATE_EPOCH") else None


@contextmanager
def hushed() -> Any:
    """WeasyPrint and fontTools tell of every property and font table they do not use."""
    loggers = [logging.getLogger(name) for name in ("weasyprint", "fontTools")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for garbage in cycles meanwhile: WeasyPrint makes little of it, and millions of objects to search."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def _linear() -> Iterator[None]:
    """The list of all pages is made once, not once for each tag: the time to tag a page would grow with their number.

    WeasyPrint takes ``page_references[number]`` of pydyf's document for every tag. One document is made at a time.
    """
    from pydyf import PDF

    known: dict[int, tuple[bytes, ...]] = {}

    def references(pdf: Any) -> tuple[bytes, ...]:
        count = len(pdf.pages["Kids"])
        if count not in known:
            known[count] = made.fget(pdf)
        return known[count]

    with _LOCK:
        made = PDF.page_references
        PDF.page_references = property(references)
        try:
            yield
        finally:
            PDF.page_references = made


def memory_fetcher(pictures: Mapping[str, Picture]) -> Any:
    """A `URLFetcher` of WeasyPrint for documents that must not ask for anything outside."""
    from weasyprint.urls import FatalURLFetchingError, URLFetcher, URLFetcherResponse

    class Memory(URLFetcher):  # type: ignore[misc]
        """Serves ``figure:`` and ``font:`` from memory and refuses everything else."""

        def fetch(self, url: str, headers: Any = None) -> Any:
            scheme, _colon, name = url.partition(":")
            if scheme == "figure" and name in pictures:
                picture = pictures[name]
                return URLFetcherResponse(url, BytesIO(picture.data), _headers(picture.media))
            if scheme == "font" and name in (*FONTS, HAN):
                return URLFetcherResponse(url, BytesIO(font_file(name).read_bytes()), _headers("font/otf"))
            raise FatalURLFetchingError(f"{scheme!r} addresses are not fetched")

    return Memory()


@cache
def _headers(media: str) -> EmailMessage:
    """Made once for all pictures of a kind: to take a header apart takes longer than to read a picture."""
    headers = EmailMessage()
    headers["Content-Type"] = media
    return headers
