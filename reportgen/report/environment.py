"""The Jinja environment: escapes by default, refuses what is not defined, and knows words, figures and references."""

from __future__ import annotations

import gettext
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

import reportgen
from reportgen.figures.figure import Figure, Picture
from reportgen.report.document import Document, Reference, Section
from reportgen.text import Message

Show = Callable[[Picture, str], Markup]
"""Writes a picture into the document; the words are its text alternative."""
Formula = Callable[[str], Picture]
"""Sets a formula given in TeX."""


def template_folder() -> Path:
    """Where the templates lie: inside the installed package, or beside it in a checkout."""
    package = Path(reportgen.__file__).parent
    inside = package / "templates"
    return inside if inside.is_dir() else package.parent / "templates"


@cache
def environment() -> Environment:
    """One environment for all documents."""
    made = Environment(
        loader=FileSystemLoader(template_folder()),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    translations = gettext.NullTranslations()
    made.install_gettext_translations(translations, newstyle=True)  # type: ignore[attr-defined]
    made.filters["words"] = lambda value: (
        value.translated(translations.gettext) if isinstance(value, Message) else str(value)
    )
    made.filters["grouped"] = lambda value: f"{value:,}".replace(",", "\u2009")
    made.filters["percent"] = lambda value: f"{100 * value:.1f}\u00a0%"
    made.filters["decimals"] = lambda value, places=3: f"{value:.{places}f}"
    made.filters["softly"] = _softly
    made.globals["formula"] = _formula
    made.globals["cite"] = _cite
    return made


@pass_context
def _softly(context: Context, value: object) -> Markup:
    """On the screen a long word may break after ``_``, ``.``, ``/``, ``:`` and ``-``; on paper the style sheet sees
    to it.
    """
    if context["medium"] == "print":
        return Markup("{}").format(value)
    parts = [Markup("{}").format(part) for part in re.split("(?<=[_./:-])", str(value))]
    return Markup("<wbr>").join(parts)


@pass_context
def _formula(context: Context, tex: str, alt: str) -> Markup:
    show: Show = context["show"]
    set_: Formula = context["set_formula"]
    return Markup('<p class="formula">{}</p>').format(show(set_(tex), alt))


@pass_context
def _cite(context: Context, key: str) -> Markup:
    number = context["references"][key]
    return Markup('<a class="cite" href="#ref-{}">[{}]</a>').format(key, number)


def numbered_figures(document: Document) -> dict[str, int]:
    """Figure ids to their numbers, in the order in which they stand in the document."""
    ordered: list[Figure] = [f for section in document.sections for f in section.figures if f.exhibit is None]
    ordered += [f for exhibit in document.exhibits for f in exhibit.figures]
    return {figure.id: number for number, figure in enumerate(ordered, 1)}


def numbered_references(sections: tuple[Section, ...]) -> tuple[dict[str, int], list[Reference]]:
    """References of all sections, each once, with their numbers."""
    listed: dict[str, Reference] = {}
    for section in sections:
        for reference in section.references:
            listed.setdefault(reference.key, reference)
    return {key: number for number, key in enumerate(listed, 1)}, list(listed.values())


def context_of(document: Document, show: Show, formula: Formula, **more: Any) -> Mapping[str, Any]:
    """What every template sees."""
    references, listed = numbered_references(document.sections)
    return {
        "document": document,
        "facts": document.facts,
        "style": document.style,
        "show": show,
        "set_formula": formula,
        "figure_numbers": numbered_figures(document),
        "references": references,
        "listed_references": listed,
        **more,
    }
