"""Step 2 of an audit: model and techniques settled, from the record of an earlier run or by opening the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from reportgen.engine.plan import Planned, settle
from reportgen.engine.resolution import Resolution
from reportgen.entry import canonical
from reportgen.errors import OutOfMemory
from reportgen.job import Job
from reportgen.laboratory import Laboratory
from reportgen.rules import RULES
from reportgen.store import Store
from reportgen.subject.images import shown
from reportgen.subject.labels import read_labels
from reportgen.subject.subject import Subject
from reportgen.techniques import check_limits, chosen
from reportgen.techniques.predictions import Predictions
from reportgen.techniques.technique import Technique


@dataclass(frozen=True)
class Blueprint:
    """What step 2 settled.

    Attributes:
        resolution: facts of the model.
        planned: every technique that runs, settled for this model.
        shown: names of those that get a section.
    """

    resolution: Resolution
    planned: tuple[Planned, ...]
    shown: frozenset[str]

    @property
    def batch(self) -> int:
        """Images a pass."""
        return int(self.resolution.numerics["batch"])


def resolve(job: Job, subject: Subject, store: Store, laboratory: Laboratory) -> Blueprint:
    """Settle model and techniques: from the record of an earlier run, or by opening the model."""
    techniques = chosen(job)
    check_limits(job, RULES)
    labels = given_labels(job)
    key = subject.resolution_key(job, labels)
    resolution = _recorded(store, key)
    if resolution is None:
        resolution = _record(store, key, laboratory.resolve(labels))
    return _blueprint(techniques, resolution, subject)


def given_labels(job: Job) -> tuple[str, ...] | None:
    """The user's class names. Raises LabelsError."""
    if job.labels is None or isinstance(job.labels, Path):
        return None if job.labels is None else read_labels(job.labels)
    return tuple(shown(" ".join(name.split())) for name in job.labels)


def _blueprint(techniques: Sequence[Technique], resolution: Resolution, subject: Subject) -> Blueprint:
    """Techniques settled for a resolved model. Predictions always run: exhibits and targets follow from them."""
    shown = frozenset(technique.name for technique in techniques)
    if Predictions.name not in shown:
        techniques = (Predictions(), *techniques)
    return Blueprint(resolution, settle(techniques, resolution, subject.identity), shown)


def halved(made: Blueprint, job: Job, subject: Subject, store: Store) -> Blueprint:
    """The same with half the batch, and a record of it, so that the next run begins there. Raises OutOfMemory at one
    image.
    """
    if made.batch == 1:
        raise OutOfMemory
    numerics = {**made.resolution.numerics, "batch": made.batch // 2}
    labels = given_labels(job)
    key = subject.resolution_key(job, labels)
    resolution = _record(store, key, replace(made.resolution, numerics=numerics))
    return _blueprint(chosen(job), resolution, subject)


def _recorded(store: Store, key: str) -> Resolution | None:
    entry = store.get(key)
    if entry is None:
        return None
    try:
        return Resolution.from_json(entry.facts["resolution"])
    except (KeyError, ValidationError):
        return None


def _record(store: Store, key: str, resolution: Resolution) -> Resolution:
    """Keep the record, and go on with what a later run will read: the same order, lists for tuples, the same keys."""
    told = json.loads(canonical(resolution.to_json()))
    store.put(key, {}, {"kind": "resolution", "resolution": told})
    return Resolution.from_json(told)
