"""What a document is made of: plain data that every writer (HTML, PDF) renders alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from reportgen.figures.figure import Figure, Picture
from reportgen.text import Message

ACCENT: Final = "#1f4e79"
"""The report's own blue."""


@dataclass(frozen=True)
class Reference:
    """A numbered reference. `key` is stable (``selvaraju2017``) and is how texts cite it."""

    key: str
    authors: str
    title: str
    venue: str
    year: int
    doi: str = ""


@dataclass(frozen=True)
class Section:
    """What one technique contributes: its facts, its figures and the template that words them.

    Attributes:
        name: the technique's registry key, its anchor and the stem of its template.
        title: heading.
        template: path of the technique's partial below the template folders.
        facts: the technique's entry in ``report.json`` (status, reason, options, results, …).
        figures: in reading order; those with an `exhibit` also serve that image's pages.
        references: what its template may cite.
        reason: why it is not applicable or failed.
    """

    name: str
    title: Message
    template: str
    facts: Mapping[str, Any]
    figures: tuple[Figure, ...]
    references: tuple[Reference, ...]
    reason: Message | None = None


@dataclass(frozen=True)
class Exhibit:
    """One image shown in detail.

    Attributes:
        name: as it is called everywhere in the report.
        why: why it was chosen.
        picture: the image as the network saw it, before normalisation; None where photographs are withheld.
        original: the whole image, upright, reduced; None with `picture`.
        prediction: its entry of ``predictions`` in ``report.json``.
        figures: everything known about it, in the order of the techniques.
    """

    name: str
    why: Message
    picture: Picture | None
    original: Picture | None
    prediction: Mapping[str, Any]
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Style:
    """How the document looks and what its cover says; from the options of the section "The document"."""

    title: str
    author: str = ""
    date: str = ""
    paper: Literal["a4", "letter"] = "a4"
    lang: str = "en"
    pdf_a: bool = False
    """Whether the PDF is PDF/A-3u, for archives, instead of PDF/UA-1."""
    notes: str = ""
    """The reviewer's own words, in Markdown."""
    css: str = ""
    """Style sheet that comes after the report's own; it fetches nothing."""
    templates: Path | None = None
    """Folder of templates that replace the report's own."""
    logo: Picture | None = None
    accent: str = ACCENT
    """The one colour of headings and rules, ``#rrggbb``, to be read on white."""


@dataclass(frozen=True)
class Document:
    """A whole report before it has a format."""

    facts: Mapping[str, Any]
    verdict: Message
    findings: tuple[Mapping[str, Any], ...]
    sections: tuple[Section, ...]
    exhibits: tuple[Exhibit, ...]
    style: Style
    command: str = ""
    """The command that makes this report again."""
