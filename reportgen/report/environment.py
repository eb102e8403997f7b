"""The Jinja environment: escapes by default, refuses what is not defined, and knows words, figures and references."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

import reportgen
from reportgen.figures.figure import Figure, Picture
from reportgen.language import catalogue
from reportgen.report.document import Document, Reference, Section
from reportgen.report.notes import notes_html
from reportgen.report.terms import reason, term
from reportgen.text import Message, _, shown, signed, verbatim

Show = Callable[[Picture, str], Markup]
"""Writes a picture into the document; the words are its text alternative."""
Formula = Callable[[str], Picture]
"""Sets a formula given in TeX."""
KeptFiles = Callable[[Mapping[str, Any], Callable[[], Mapping[str, bytes]]], Mapping[str, bytes]]
"""Files by name: what a function makes, or what it made before from what the mapping tells, besides our own code."""


def template_folder() -> Path:
    """Where the templates lie: inside the installed package, or beside it in a checkout."""
    package = Path(reportgen.__file__).parent
    inside = package / "templates"
    return inside if inside.is_dir() else package.parent / "templates"


@cache
def environment(lang: str = "en", templates: Path | None = None) -> Environment:
    """One environment for all documents in a language.

    It is a sandbox: a template reads what it is given, and neither changes it nor reaches further.

    Args:
        lang: of all sentences.
        templates: folder of a user's own templates. They come before those of the same name here, which stay within
            their reach as ``reportgen/<name>``.
    """
    own = FileSystemLoader(template_folder())
    users = [FileSystemLoader(templates)] if templates is not None else []
    made = ImmutableSandboxedEnvironment(
        loader=ChoiceLoader([*users, own, PrefixLoader({"reportgen": own})]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    translations = catalogue(lang)
    made.install_gettext_translations(translations, newstyle=True)  # type: ignore[attr-defined]
    made.filters["words"] = lambda value: shown(
        value.translated(translations.gettext) if isinstance(value, Message) else str(value)
    )
    made.filters["shown"] = lambda value: shown(str(value))
    made.filters["term"] = lambda value: shown(term(str(value)).translated(translations.gettext))
    made.filters["reason"] = lambda value: shown(reason(str(value)).translated(translations.gettext))
    made.filters["grouped"] = lambda value: f"{value:,}".replace(",", "\u2009")
    made.filters["percent"] = lambda value: f"{100 * value:.1f}\u00a0%"
    made.filters["decimals"] = lambda value, places=3: signed(value, f".{places}f")
    made.filters["markdown"] = notes_html
    made.filters["softly"] = _softly
    made.filters["value"] = _value
    made.globals["formula"] = _formula
    made.globals["cite"] = _cite
    return made


def _value(value: Any) -> str:
    """The value of an option in words: lists with commas, numbers with four digits."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name} = {_value(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@pass_context
def _softly(context: Context, value: object) -> Markup:
    """On the screen a long word may break after ``_``, ``.``, ``/``, ``:`` and ``-``; on paper the style sheet sees
    to it.
    """
    if context["medium"] != "screen":
        return Markup("{}").format(shown(str(value)))
    parts = [Markup("{}").format(part) for part in re.split("(?<=[_./:-])", shown(str(value)))]
    return Markup("<wbr>").join(parts)


@pass_context
def _formula(context: Context, tex: str, alt: str) -> Markup:
    if context["medium"] == "tex":
        return Markup('<p data-tex="{}"></p>').format(tex)
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


def numbered_sections(document: Document) -> dict[str, str]:
    """Names of techniques to the numbers of their sections."""
    return {section.name: f"3.{number}" for number, section in enumerate(document.sections, 1)}


@dataclass(frozen=True)
class Entry:
    """A line of the contents."""

    number: str
    anchor: str
    title: Message
    exhibit: bool = False


def contents(document: Document) -> list[Entry]:
    """All chapters, in their order."""
    numbers = numbered_sections(document)
    return [
        Entry("1", "summary", _("Summary")),
        Entry("2", "subject", _("Subject")),
        *(Entry(numbers[one.name], one.name, one.title) for one in document.sections),
        *(Entry(f"E{n}", f"exhibit-{n}", verbatim(one.name), True) for n, one in enumerate(document.exhibits, 1)),
        Entry("A", "appendix", _("Appendix")),
    ]


def places(document: Document) -> dict[str, Message]:
    """What links lead to, by its anchor: in words, for who hears of a link what a reader sees of it."""
    chapters = {one.anchor: _("{number} {title}", number=one.number, title=one.title) for one in contents(document)}
    figures = {f"fig-{name}": _("Figure {number}", number=n) for name, n in numbered_figures(document).items()}
    numbers, _listed = numbered_references(document.sections)
    references = {f"ref-{key}": _("Reference {number}", number=n) for key, n in numbers.items()}
    return {**chapters, "skipped": _("Skipped files"), **figures, **references}


def true_indices(prediction: Mapping[str, Any]) -> set[int]:
    """Numbers of the classes that an image is known to show."""
    truth = prediction.get("truth")
    return {one["index"] for one in (prediction.get("truths") or ([truth] if truth else []))}


def said_indices(prediction: Mapping[str, Any]) -> set[int]:
    """Number of the class that the model ranks first; of those that it names where an image may show several."""
    named = prediction.get("named")
    return {one["index"] for one in (prediction["top"][:1] if named is None else named)}


def classes_of(predictions: Iterable[Mapping[str, Any]], indices: Callable[[Mapping[str, Any]], set[int]]) -> set[int]:
    """Numbers of the classes that any image is known to show, or is said to."""
    return {index for one in predictions for index in indices(one)}


def verdict_of(prediction: Mapping[str, Any]) -> str:
    """``right`` or ``wrong`` where the true classes are known, otherwise ``unknown``."""
    if not prediction.get("truth") and prediction.get("truths") is None:
        return "unknown"
    return "right" if said_indices(prediction) == true_indices(prediction) else "wrong"


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
        "contents": contents(document),
        "section_numbers": numbered_sections(document),
        "verdict_of": verdict_of,
        "true_indices": true_indices,
        "said_indices": said_indices,
        "classes_of": classes_of,
        "references": references,
        "listed_references": listed,
        **more,
    }
