"""Step 5: results, findings and figures of every technique, and the document they make."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache, partial
from time import perf_counter
from typing import Any

import numpy as np

from reportgen import rules, summary
from reportgen.album import digest_of_module, drawn
from reportgen.blueprint import Blueprint
from reportgen.clock import reproducible, today
from reportgen.engine.plan import Planned, bucket_of, looks_only
from reportgen.engine.shards import blocks
from reportgen.errors import EntryVanished, ReportgenError
from reportgen.figures.colour import MID_GREY
from reportgen.figures.figure import Figure, Picture
from reportgen.figures.tiles import photograph
from reportgen.findings import Finding, gathered, waived, worst_first
from reportgen.job import Job
from reportgen.laboratory import Laboratory
from reportgen.pictures import ORIGINAL_SIDE, Pictures
from reportgen.report.document import Document, Exhibit, Section, Style
from reportgen.report.facts import Listed
from reportgen.scanned import Scanned
from reportgen.steps import Examined
from reportgen.store import Array, Store, key_of
from reportgen.subject.subject import Subject
from reportgen.techniques.predictions import Predictions
from reportgen.techniques.technique import Case, Evidence, Technique
from reportgen.text import Message, verbatim
from reportgen.verdict import verdict


@dataclass(frozen=True)
class _Desk:
    """What drawing looks at.

    Attributes:
        about: digest of everything that is known of the model.
    """

    job: Job
    made: Blueprint
    scanned: Scanned
    store: Store
    pictures: Pictures
    about: str

    @cached_property
    def everyone(self) -> tuple[Case, ...]:
        """All usable images, in order of their names."""
        return tuple(Case(one.name, one.digest, truth=one.truth) for one in self.scanned.used)


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
    desk = _Desk(job, made, scanned, store, pictures, key_of("resolution", resolution=made.resolution.to_json()))
    findings = rules.subject_findings(
        subject, made.resolution, scanned.used, scanned.skipped, scanned.unmatched, job.colormap, job.findings
    )
    begin = perf_counter()
    sections: list[Section] = []
    metrics: Mapping[str, Any] = {}
    for planned in made.planned:
        section, found = _section(planned, desk, examined)
        findings += found
        if planned.name == Predictions.name:
            # they stand at the top of report.json, whether the section is shown or not
            metrics = section.facts["results"].pop("metrics", {})
        if planned.name in made.shown:
            sections.append(section)
    timings["draw"] = perf_counter() - begin
    findings = worst_first(waived(gathered(findings), job.waivers, today()))
    facts = _facts(job, subject, made, scanned, sections, findings, metrics, laboratory, timings)
    if style.notes:
        facts["notes"] = style.notes
    return Document(
        facts=facts,
        verdict=verdict(facts, findings),
        findings=tuple({**finding.facts(), "title": finding.title, "detail": finding.detail} for finding in findings),
        sections=tuple(sections),
        exhibits=tuple(_exhibits(sections, desk)),
        style=style,
        command=command,
    )


def _section(planned: Planned, desk: _Desk, examined: Examined) -> tuple[Section, list[Finding]]:
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
        evidence = _evidence(planned, desk)
        about = _about(planned, evidence, desk)
        try:
            made = drawn(desk.store, about, partial(_drawn, technique, evidence))
            facts["results"], findings, figures = made["results"], list(made["findings"]), tuple(made["figures"])
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


def _drawn(technique: Technique, evidence: Evidence) -> Mapping[str, Any]:
    results = technique.results(evidence)
    findings = technique.findings(results, evidence)
    return {"results": results, "findings": findings, "figures": technique.figures(evidence)}


def _about(planned: Planned, evidence: Evidence, desk: _Desk) -> dict[str, Any]:
    """What the section of a technique depends on: everything that its `Evidence` tells. Raises EntryVanished."""
    cases = evidence.cases
    keys = planned.keys(None) if planned.technique.scope in ("model", "scan") else ()
    if planned.technique.scope == "sample":
        keys = tuple(key for case in cases for key in planned.keys(case))
    if planned.technique.scope == "exhibit":
        keys = tuple(key for case in cases for key in (desk.pictures.key(case.digest), *planned.keys(case)))
    if planned.technique.scope == "scan":
        cases = (*cases, *evidence.reference)
        buckets = sorted({bucket_of(case.digest) for case in cases})
        keys = (*keys, *(planned.bucket_key(bucket) for bucket in buckets))
        if planned.name == Predictions.name and (trial := desk.scanned.trial) is not None:
            tried = sorted({bucket_of(digest) for digest in trial.digests})
            keys = (*keys, *(trial.rows.planned.bucket_key(bucket) for bucket in tried))
    others = [one for one in desk.made.planned if one.name in planned.beside and one.reason is None]
    found = [own for one in others if all(map(desk.store.has, own := one.keys(None)))]
    keys = (*keys, *(key for own in found for key in own))
    over = hashlib.sha256()
    for case in cases:
        over.update(repr(case).encode("utf-8", "backslashreplace"))
    for key in keys:
        # not the key alone: what is measured is another each time
        digest = desk.store.digest(key)
        if digest is None:
            raise EntryVanished
        over.update(digest.encode())
    if planned.technique.scope == "scan":
        over.update(desk.pictures.digest_of_masks().encode())
    technique = planned.technique
    covered = ("resolution", "cases", "read", "picture", "scan", "pictures", "beside", "mask", "reference", "distinct")
    return {
        "technique": technique.name,
        "options": technique.options(),
        "code": digest_of_module(type(technique)),
        "model": desk.about,
        "evidence": over.hexdigest(),
        "images": len(evidence.cases),
        **{field.name: getattr(evidence, field.name) for field in fields(evidence) if field.name not in covered},
    }


def _evidence(planned: Planned, desk: _Desk) -> Evidence:
    @lru_cache(maxsize=2)
    def stored(case: Case | None) -> Mapping[str, Array]:
        found = planned.read(case, desk.store)
        if found is None:
            raise EntryVanished
        return found

    def scanned_row(case: Case) -> Mapping[str, Array]:
        row = desk.scanned.shards[planned.name].row(case.digest)
        if row is None:
            raise EntryVanished
        trial = desk.scanned.trial if planned.name == Predictions.name else None
        answer = trial.answer(case.digest) if trial is not None and case is not None else None
        return row if answer is None else {**row, "swapped": answer}

    scope = planned.technique.scope
    cases: tuple[Case, ...] = ()
    if scope == "exhibit":
        cases = desk.scanned.cases
    elif scope == "sample":
        cases = planned.technique.of_sample(desk.scanned.sample)
    elif scope == "scan":
        cases = desk.everyone
    common = Evidence(
        desk.made.resolution,
        cases,
        stored,
        lru_cache(maxsize=1)(lambda case: withheld(desk.pictures.read(case.digest)["fitted"], desk.job)),
        desk.job.colormap,
        not desk.job.no_originals,
        desk.job.lang,
        limits=desk.job.findings,
        reference=desk.scanned.reference if looks_only(planned.needs) else (),
        beside=partial(_beside, planned, desk),
    )
    if scope != "scan":
        return common
    return replace(
        common,
        read=lambda case: stored(None) if case is None else scanned_row(case),
        scan=partial(blocks, desk.scanned.shards[planned.name], cases),
        pictures=partial(_pictures, desk),
        mask=lambda case: desk.pictures.mask(case.digest),
        distinct=partial(_distinct, desk),
        masks=sum(case.digest in desk.pictures.subject.masks for case in cases),
    )


def _beside(planned: Planned, desk: _Desk, technique: str) -> Mapping[str, Array]:
    """What another technique stored about the model, if it was declared and there is anything."""
    other = next((one for one in desk.made.planned if one.name == technique), None)
    if technique not in planned.beside:
        raise KeyError(technique)
    if other is None or other.reason is not None:
        return {}
    return other.read(None, desk.store) or {}


def _pictures(desk: _Desk, cases: Sequence[Case]) -> Iterator[tuple[Case, Array]]:
    """Images of the scan as the network saw them, or mid grey of that size."""
    if desk.job.no_originals:
        height, width = desk.made.resolution.pipeline["size"]
        shape = (height, width, 3) if desk.made.resolution.pipeline["channels"] == 3 else (height, width)
        yield from ((case, np.full(shape, MID_GREY, np.uint8)) for case in cases)
        return
    named: dict[str, list[Case]] = {}
    for case in cases:
        named.setdefault(case.digest, []).append(case)
    for digest, pixels in desk.pictures.fitted(named):
        yield from ((case, pixels) for case in named[digest])


def _distinct(desk: _Desk, cases: Sequence[Case]) -> int:
    return len({pixels.tobytes() for _digest, pixels in desk.pictures.fitted(dict.fromkeys(c.digest for c in cases))})


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
    metrics: Mapping[str, Any],
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
        "images": summary.image_facts(
            subject, scanned.used, scanned.skipped, scanned.choices, [case.name for case in scanned.sample]
        ),
        "predictions": Listed(scanned.used, partial(summary.prediction_facts, resolution=resolution)),
        "metrics": dict(metrics),
        "techniques": {section.name: dict(section.facts) for section in sections},
        "findings": [finding.facts() for finding in findings],
        "environment": summary.environment_facts(resolution),
    }
    if not reproducible():
        facts["passes"] = laboratory.pass_facts
        facts["timings"] = {step: round(seconds, 3) for step, seconds in timings.items()}
    return facts


def _exhibits(sections: Sequence[Section], desk: _Desk) -> Iterator[Exhibit]:
    own: dict[str, list[Figure]] = {}
    for figure in (figure for section in sections for figure in section.figures if figure.exhibit is not None):
        own.setdefault(str(figure.exhibit), []).append(figure)
    chosen = {choice.name for choice in desk.scanned.choices}
    used = {one.name: one for one in desk.scanned.used if one.name in chosen}
    for choice in desk.scanned.choices:
        one = used[choice.name]
        shown = {} if desk.job.no_originals else _photographs(one.digest, desk)
        yield Exhibit(
            name=choice.name,
            why=summary.why(choice),
            picture=shown.get("picture"),
            original=shown.get("original"),
            prediction=summary.prediction_facts(one, desk.made.resolution),
            figures=_ordered(own.get(choice.name, [])),
        )


def _photographs(image: str, desk: _Desk) -> Mapping[str, Picture]:
    """An exhibit as the network saw it, and as it is. Raises EntryVanished."""

    def draw() -> dict[str, Picture]:
        arrays = desk.pictures.read(image)
        return {
            "picture": photograph(arrays["fitted"]),
            "original": photograph(arrays["original"], longest=ORIGINAL_SIDE),
        }

    digest = desk.store.digest(desk.pictures.key(image))
    if digest is None:
        raise EntryVanished
    return drawn(desk.store, {"exhibit": digest, "side": ORIGINAL_SIDE}, draw)


def _ordered(figures: Sequence[Figure]) -> tuple[Figure, ...]:
    """Figures of one image as they fill its pages: maps of all layers, single techniques side by side, one layer each,
    single units.
    """
    first = next((place for place, figure in enumerate(figures) if figure.beside), len(figures))

    def rank(place: int) -> int:
        figure = figures[place]
        return 1 if figure.beside else 2 if figure.layer is not None else 3 if place > first else 0

    return tuple(figures[place] for place in sorted(range(len(figures)), key=rank))
