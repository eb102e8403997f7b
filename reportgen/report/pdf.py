"""A paged PDF by WeasyPrint, tagged as PDF/UA-1. Everything it shows comes from memory."""

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
from importlib.resources import files
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from markupsafe import Markup

from reportgen.errors import OutputError
from reportgen.figures.colour import gradient_png
from reportgen.figures.figure import Picture
from reportgen.figures.formula import formula_svg
from reportgen.report.document import Document
from reportgen.report.environment import Formula, context_of, environment, template_folder

_LOCK = threading.Lock()
FONTS = ("serif", "serif-italic", "serif-semibold", "sans", "sans-italic", "sans-semibold", "mono")


Pages = Callable[[Mapping[str, Any], Callable[[], bytes]], bytes]
"""Gives the pages of a document, told what they depend on and how they are made."""


def render_pdf(document: Document, formula: Formula = formula_svg, pages: Pages = lambda _about, make: make()) -> bytes:
    """The report as PDF/UA-1. The same document gives the same bytes under ``SOURCE_DATE_EPOCH``.

    Args:
        formula: sets a formula given in TeX.
        pages: may know pages that were made before.

    Raises:
        OutputError: if WeasyPrint cannot be used on this machine.
    """
    try:
        import weasyprint
        from weasyprint.text.ffi import pango
    except OSError as error:
        raise OutputError(f"PDF needs the system library Pango: {error}", "install Pango, or write .html") from None
    pictures: dict[str, Picture] = {}

    def show(picture: Picture, alt: str) -> Markup:
        pictures[picture.digest] = picture
        kind = " pixelated" if picture.pixelated else ""
        if picture.media == "image/svg+xml":
            return Markup('<img class="drawn" alt="{}" src="figure:{}" width="{}" height="{}">').format(
                alt, picture.digest, picture.width, picture.height
            )
        return Markup('<img class="picture{}" alt="{}" src="figure:{}">').format(kind, alt, picture.digest)

    css = (template_folder() / "print.css").read_text(encoding="utf-8")
    context = context_of(document, show, formula, medium="print", gradient=gradient_png, css=Markup(css))
    html = drawable(environment().get_template("print.html.j2").render(context))
    identifier = _identifier(document.facts)

    def make() -> bytes:
        with _quiet(), _uncollected(), _linear():
            read = weasyprint.HTML(string=html, url_fetcher=_fetcher(pictures), base_url="figure:")
            return bytes(read.write_pdf(pdf_variant="pdf/ua-1", pdf_identifier=identifier))

    # the text names its pictures by their digests
    text = hashlib.sha256(html.encode("utf-8", "backslashreplace")).hexdigest()
    return pages({"html": text, "identifier": str(identifier), "pango": pango.pango_version()}, make)


def _identifier(facts: Mapping[str, Any]) -> bytes | None:
    """A fixed file identifier where output must not depend on the clock."""
    return str(facts["images"]["digest"])[:32].encode() if os.environ.get("SOURCE_DATE_EPOCH") else None


@contextmanager
def _quiet() -> Any:
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


def _fetcher(pictures: Mapping[str, Picture]) -> Any:
    from weasyprint.urls import FatalURLFetchingError, URLFetcher, URLFetcherResponse

    class Memory(URLFetcher):  # type: ignore[misc]
        """Serves ``figure:`` and ``font:`` from memory and refuses everything else."""

        def fetch(self, url: str, headers: Any = None) -> Any:
            scheme, _colon, name = url.partition(":")
            if scheme == "figure" and name in pictures:
                picture = pictures[name]
                return URLFetcherResponse(url, BytesIO(picture.data), _headers(picture.media))
            if scheme == "font" and name in FONTS:
                return URLFetcherResponse(url, BytesIO(font_file(name).read_bytes()), _headers("font/otf"))
            raise FatalURLFetchingError(f"{scheme!r} addresses are not fetched")

    return Memory()


@cache
def _headers(media: str) -> EmailMessage:
    """Made once for all pictures of a kind: to take a header apart takes longer than to read a picture."""
    headers = EmailMessage()
    headers["Content-Type"] = media
    return headers


# fonts
# -----------------------------------------------------------------------------------------------------------------


@cache
def font_file(name: str) -> Path:
    """The file of one of `FONTS`; they come with packages, so that a machine without fonts gives the same pages."""
    if name == "mono":
        spec = find_spec("matplotlib")  # to import it would take longer than to embed the font
        assert spec is not None
        assert spec.origin is not None
        return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSansMono.ttf"
    family, _dash, variant = name.partition("-")
    style = {"": "Regular", "italic": "It", "semibold": "Semibold"}[variant]
    package = f"font_source_{family}_pro"
    stem = f"Source{family.title()}Pro-{style}"
    found = [entry for entry in Path(str(files(package))).rglob(f"{stem}*") if entry.suffix.lower() in (".otf", ".ttf")]
    if not found:
        raise OutputError(
            f"the package {package.replace('_', '-')} holds no font {stem}",
            f"pip install -U {package.replace('_', '-')}",
        )
    return sorted(found)[0]


@cache
def _drawable() -> frozenset[int]:
    """Characters that the fonts together can draw, and those that draw nothing."""
    from fontTools.ttLib import TTFont

    found: set[int] = {0x0A, 0x09, 0x0D, 0x200B}
    for name in ("serif", "sans", "mono"):
        with TTFont(font_file(name), lazy=True) as font:
            found |= set(font.getBestCmap())
    return frozenset(found)


def drawable(text: str) -> str:
    """`text` with every character that no font can draw written as an escape (``\\u732b``): never a box."""
    known = _drawable()
    if all(ord(c) in known for c in set(text)):
        return text
    return "".join(c if ord(c) in known else _escape(c) for c in text)


def _escape(c: str) -> str:
    return f"\\u{ord(c):04x}" if ord(c) <= 0xFFFF else f"\\U{ord(c):08x}"
