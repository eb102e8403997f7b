"""Compositions as PDF files of one page each, letters and drawings as vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from reportgen.figures.composition import Composition, Placed, Words
from reportgen.figures.figure import Picture
from reportgen.figures.fonts import wants_han
from reportgen.figures.lettering import LINE
from reportgen.report.stylesheet import with_han
from reportgen.report.typesetter import read_html, typesetting

VERSION: Final = "1.5"
"""What pdfTeX takes without a warning."""

_AT_ONCE: Final = 64
"""So many pages are laid out together: fonts are read once, and pictures of a whole report need not fit into memory."""

_STYLE: Final = (
    # the names by which drawings ask for them, too
    '@font-face { font-family: "Report Sans"; src: url(font:sans) }'
    '@font-face { font-family: "Report Sans"; font-weight: 600; src: url(font:sans-semibold) }'
    '@font-face { font-family: "Report Mono"; src: url(font:mono) }'
    '@page { margin: 0 } body { margin: 0; font: 7pt/1 "Report Sans", "Report Mono"; color: #1a1c20 }'
    "section { position: relative } img, span { position: absolute } "
    f"span {{ white-space: pre; line-height: {LINE} }}"
)


def pdf_files(compositions: Sequence[Composition], identifier: bytes | None = None) -> Iterator[bytes]:
    """One PDF for each composition, in their order.

    Args:
        identifier: of the files; None for one that WeasyPrint makes.

    Raises:
        OutputError: if WeasyPrint cannot be used on this machine.
    """
    for start in range(0, len(compositions), _AT_ONCE):
        some = compositions[start : start + _AT_ONCE]
        pictures = {placed.picture.digest: placed.picture for one in some for placed in one.pictures}
        with typesetting():
            document = read_html(_page(some), pictures).render()
            singles = (document.copy([one]) for one in document.pages)
            made = [bytes(one.write_pdf(pdf_version=VERSION, pdf_identifier=identifier)) for one in singles]
        yield from made


def _page(compositions: Sequence[Composition]) -> str:
    """A document with a page of its own size for each composition; everything on it stands where it was composed."""
    rules, sections = [with_han(_STYLE) if _has_han(compositions) else _STYLE], []
    for number, one in enumerate(compositions):
        size = f"{_mm(one.width)} {_mm(one.height)}"
        # a hair more than the page would be a second page
        rules.append(f"@page p{number} {{ size: {size} }}")
        rules.append(f"#s{number} {{ page: p{number}; width: {_mm(one.width)}; height: {_mm(one.height - 0.01)} }}")
        inner = "".join(map(_picture, one.pictures)) + "".join(map(_words, one.words))
        sections.append(f'<section id="s{number}">{inner}</section>')
    return f"<!DOCTYPE html><meta charset=utf-8><title>-</title><style>{''.join(rules)}</style>{''.join(sections)}"


def _has_han(compositions: Sequence[Composition]) -> bool:
    drawn = (p.picture.data for one in compositions for p in one.pictures if p.picture.media == "image/svg+xml")
    texts = [*(words.text for one in compositions for words in one.words), *(data.decode("utf-8") for data in drawn)]
    return wants_han("".join(texts))


def _picture(placed: Placed) -> str:
    picture: Picture = placed.picture
    sharp = "; image-rendering: pixelated" if picture.pixelated else ""
    place = f"left: {_mm(placed.x)}; top: {_mm(placed.y)}; width: {_mm(placed.width)}; height: {_mm(placed.height)}"
    return f'<img alt="" src="figure:{picture.digest}" style="{place}{sharp}">'


def _words(words: Words) -> str:
    place = f"left: {_mm(words.x)}; top: {_mm(words.y)}; font-size: {words.size}pt"
    return f'<span style="{place}">{escape(words.text)}</span>'


def _mm(value: float) -> str:
    return f"{value:.3f}mm"
