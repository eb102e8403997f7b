"""WeasyPrint as this project uses it: from memory, silent, and sparing of time."""

from __future__ import annotations

import gc
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import copy
from email.message import EmailMessage
from functools import cache
from io import BytesIO
from types import SimpleNamespace
from typing import Any, Final

from reportgen.errors import OutputError
from reportgen.figures.figure import Picture
from reportgen.figures.fonts import FONTS, HAN, font_file
from reportgen.report.outlines import operators

_LOCK = threading.Lock()

_LEVEL: Final = 6
"""Of compression. Pages take a third of the time that they take at 9, and 4 % more room."""


def weasyprint_module() -> Any:
    """WeasyPrint, imported when it is needed. Raises OutputError if it cannot be used on this machine."""
    try:
        import weasyprint
    except OSError as error:
        raise OutputError(f"PDF needs the system library Pango: {error}", "install Pango, or write .html") from None
    return weasyprint


@contextmanager
def typesetting() -> Iterator[None]:
    """What holds while WeasyPrint works. One document is made at a time."""
    with _LOCK, hushed(), _sparing():
        yield


def read_html(html: str, pictures: Mapping[str, Picture]) -> Any:
    """A document of WeasyPrint, which asks for nothing but `pictures` and fonts."""
    weasyprint = weasyprint_module()

    class Read(weasyprint.HTML):  # type: ignore[misc, name-defined]
        """Every element would have styles for the mark of a list and for the five parts of a note that it might be."""

        def _ua_stylesheets(self, forms: bool = False) -> list[Any]:
            sheets: list[Any] = super()._ua_stylesheets(forms)
            return sheets if _MARKED.search(html) else list(map(_lean, sheets))

    return Read(string=html, url_fetcher=memory_fetcher(pictures), base_url="figure:")


_MARKED: Final = re.compile(r"(foot)?note-(call|mark)|float\s*:\s*(foot)?note|list-item")
"""What a style sheet says that has notes, or lists of other elements than those of HTML."""


def _lean(sheet: Any) -> Any:
    """A style sheet whose rules for all elements leave out notes, and give marks to those of lists alone."""
    made, matcher = copy(sheet), copy(sheet.matcher)
    made.matcher = matcher
    pseudo: list[tuple[str, Any]] = [(one[3] or "", one) for one in matcher.other_selectors]
    matcher.other_selectors = [one for name, one in pseudo if name != "marker" and "note" not in name]
    marks = [one for name, one in pseudo if name == "marker"]
    named = matcher.lower_local_name_selectors
    matcher.lower_local_name_selectors = {**named, **{name: [*named.get(name, ()), *marks] for name in _LISTED}}
    return made


_LISTED: Final = ("li", "summary")


@contextmanager
def hushed() -> Iterator[None]:
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
def uncollected() -> Iterator[None]:
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
def _sparing() -> Iterator[None]:
    """The list of all pages is made once, plain paths are drawn at once, and streams are compressed with less effort.

    WeasyPrint takes ``page_references[number]`` of pydyf's document for every tag: the time to tag a page would grow
    with their number. pydyf knows one level of compression, the highest. Versions that do it otherwise are left alone.
    """
    import pydyf
    from weasyprint import svg

    with ExitStack() as replaced:
        for owner, name, instead in ((pydyf.PDF, "page_references", _listed_once), (pydyf, "zlib", _brief)):
            known = vars(owner).get(name)
            if known is not None:
                setattr(owner, name, instead(known))
                replaced.callback(setattr, owner, name, known)
        tags = getattr(svg, "TAGS", {})
        if "path" in tags:
            known = tags["path"]
            tags["path"] = _outlined(known)
            replaced.callback(tags.__setitem__, "path", known)
        yield


def _listed_once(known: Any) -> Any:
    """The property `known` of a document, made anew only when there are more pages."""

    def references(pdf: Any) -> Any:
        count = pdf.pages["Count"]
        if vars(pdf).get("listed", ((), 0))[1] != count:
            pdf.listed = known.fget(pdf), count
        return pdf.listed[0] if count else known.fget(pdf)

    return property(references)


def _brief(known: Any) -> Any:
    """The module `known` as far as pydyf uses it."""
    return SimpleNamespace(compressobj=lambda level=_LEVEL: known.compressobj(level=min(level, _LEVEL)))


def _outlined(known: Any) -> Any:
    """Draws a path of SVG; what is not plain is left to `known`."""

    def draw(svg: Any, node: Any, font_size: float) -> None:
        plain = operators(node.get("d", ""))
        if plain is None:
            known(svg, node, font_size)
        else:
            svg.stream.stream.append(plain)

    return draw


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
