"""Step 5: results, findings and figures of every technique, and the document they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from time import perf_counter
from typing import Any

import numpy as np

from reportgen import summary
from reportgen.clock import reproducible
from reportgen.engine.plan import (
    Planned,
)
from reportgen.errors import EntryVanished, ReportgenError
from reportgen.exhibits import Choice
from reportgen.figures.colour import MID_GREY
from reportgen.figures.figure import Figure
from reportgen.figures.tiles import photograph
from reportgen.findings import Finding, worst_first
from reportgen.job import Job
from reportgen.laboratory import Laboratory
from reportgen.report.document import Document, Exhibit, Section, Style
from reportgen.steps import ORIGINAL_SIDE, Blueprint, Examined, Pictures, Scanned
from reportgen.store import Array, Store
from reportgen.subject.subject import Subject
from reportgen.techniques.technique import Case, Evidence
from reportgen.text import Message, verbatim


def draw(
    job: Job,
    subject: Subject,
    made: Blueprint,
    scanned: Scanned,
    examined: Examined,
    store: Store,
    laboratory: Laboratory,
    timings: dict[str, float],
    command: str,
    style: Style,
) -> Document:
    """Figures, results and findings of every technique; then the facts, the verdict, and the document they make.

    Raises:
        EntryVanished: if a tensor that was planned on is gone.
    """
    pictures = Pictures(subject, made.resolution, store, laboratory.threads)
    findings = summary.subject_findings(
        subject, made.resolution, scanned.used, scanned.skipped, scanned.unmatched, job.colormap
    )
    begin = perf_counter()
    sections: list[Section] = []
    for planned in made.planned:
        if planned.name in made.shown:
            section, found = _section(planned, job, made, scanned, examined, store, pictures)
            sections.append(section)
            findings += found
    timings["draw"] = perf_counter() - begin
    findings = worst_first(findings)
    facts = _facts(job, subject, made, scanned, sections, findings, laboratory, timings)
    if style.notes:
        facts["notes"] = style.notes
    return Document(
        facts=facts,
        verdict=summary.verdict(scanned.used, scanned.choices, findings),
        findings=tuple({**finding.facts(), "title": finding.title, "detail": finding.detail} for finding in findings),
        sections=tuple(sections),
        exhibits=tuple(
            _exhibit(choice, facts, sections, None if job.no_originals else pictures) for choice in scanned.choices
        ),
        style=style,
        command=command,
    )


def _section(
    planned: Planned,
    job: Job,
    made: Blueprint,
    scanned: Scanned,
    examined: Examined,
    store: Store,
    pictures: Pictures,
) -> tuple[Section, list[Finding]]:
    technique = planned.technique
    facts: dict[str, Any] = {"status": "complete", "options": technique.options(), "results": {}, "figures": []}
    reason: Message | None = None
    figures: tuple[Figure, ...] = ()
    findings: list[Finding] = []
    failure = examined.failures.get(planned.name)
    if planned.reason is not None:
        facts["status"], reason = "not_applicable", planned.reason
    elif failure is not None:
        facts["status"], reason = "failed", verbatim(failure)
    else:
        evidence = _evidence(planned, job, made, scanned, store, pictures)
        try:
            facts["results"] = technique.results(evidence)
            findings = technique.findings(facts["results"], evidence)
            figures = tuple(technique.figures(evidence))
        except EntryVanished:
            raise
        except Exception as error:
            words = error.thing if isinstance(error, ReportgenError) else f"{type(error).__name__}: {error}"
            facts["status"], reason = "failed", verbatim(words.splitlines()[0][:200])
    if reason is not None:
        facts["reason"] = str(reason)
    facts["figures"] = [figure.id for figure in figures]
    if not reproducible():
        facts["seconds"] = round(examined.seconds.get(planned.name, 0.0), 3)
        facts["cached"] = planned.name not in examined.computed
    section = Section(planned.name, technique.title, technique.template, facts, figures, technique.references, reason)
    return section, findings


def _evidence(
    planned: Planned, job: Job, made: Blueprint, scanned: Scanned, store: Store, pictures: Pictures
) -> Evidence:
    def stored(case: Case | None) -> Mapping[str, Array]:
        found = planned.read(case, store)
        if found is None:
            raise EntryVanished
        return found

    def scanned_row(case: Case | None) -> Mapping[str, Array]:
        row = scanned.shards[planned.name].row(case.digest) if case is not None else None
        if row is None:
            raise EntryVanished
        return row

    scope = planned.technique.scope
    cases = {"exhibit": scanned.cases, "scan": tuple(Case(one.name, one.digest) for one in scanned.used)}.get(scope, ())
    return Evidence(
        made.resolution,
        cases,
        scanned_row if scope == "scan" else stored,
        lru_cache(maxsize=1)(lambda case: withheld(pictures.read(case.digest)["fitted"], job)),
        job.colormap,
        not job.no_originals,
        job.lang,
    )


def withheld(pixels: Array, job: Job) -> Array:
    """`pixels` (H, W, 3) or (H, W), all of them mid grey where photographs must not be shown."""
    return np.full_like(pixels, MID_GREY) if job.no_originals else pixels


def _facts(
    job: Job,
    subject: Subject,
    made: Blueprint,
    scanned: Scanned,
    sections: Sequence[Section],
    findings: Sequence[Finding],
    laboratory: Laboratory,
    timings: Mapping[str, float],
) -> dict[str, Any]:
    resolution = made.resolution
    recorded = {section.name: section.facts["results"] for section in sections}.get("architecture", {})
    model = summary.model_facts(subject, resolution)
    if "macs" in recorded:
        model["macs"] = recorded["macs"]
    facts: dict[str, Any] = {
        "schema": summary.SCHEMA_VERSION,
        "generator": summary.generator_facts(job),
        "model": model,
        "images": summary.image_facts(subject, scanned.used, scanned.skipped, scanned.choices),
        "predictions": [summary.prediction_facts(one, resolution) for one in scanned.used],
        "metrics": summary.metrics_facts(scanned.used),
        "techniques": {section.name: dict(section.facts) for section in sections},
        "findings": [finding.facts() for finding in findings],
        "environment": summary.environment_facts(resolution),
    }
    if not reproducible():
        facts["passes"] = laboratory.pass_facts
        facts["timings"] = {step: round(seconds, 3) for step, seconds in timings.items()}
    return facts


def _exhibit(
    choice: Choice, facts: Mapping[str, Any], sections: Sequence[Section], pictures: Pictures | None
) -> Exhibit:
    prediction = next(one for one in facts["predictions"] if one["image"] == choice.name)
    arrays = pictures.read(prediction["sha256"]) if pictures is not None else {}
    own = [figure for section in sections for figure in section.figures if figure.exhibit == choice.name]
    return Exhibit(
        name=choice.name,
        why=summary.why(choice),
        picture=photograph(arrays["fitted"]) if arrays else None,
        original=photograph(arrays["original"], longest=ORIGINAL_SIDE) if arrays else None,
        prediction=prediction,
        figures=_ordered(own),
    )


def _ordered(figures: Sequence[Figure]) -> tuple[Figure, ...]:
    """Figures of one image as they fill its pages: maps of all layers, single techniques side by side, one layer each,
    single units.
    """
    first = next((place for place, figure in enumerate(figures) if figure.beside), len(figures))

    def rank(place: int) -> int:
        figure = figures[place]
        return 1 if figure.beside else 2 if figure.layer is not None else 3 if place > first else 0

    return tuple(figures[place] for place in sorted(range(len(figures)), key=rank))
