"""The two steps of an audit that run passes: the scan of all images, and what is examined after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from reportgen.blueprint import Blueprint
from reportgen.clock import today
from reportgen.engine.plan import Examination, about_model, ascending, plan_examination
from reportgen.engine.resolution import Resolution
from reportgen.engine.sampling import Sampling, plan_sampling
from reportgen.engine.shards import Shards
from reportgen.errors import ImagesError, PassError
from reportgen.job import Job
from reportgen.laboratory import Laboratory
from reportgen.pictures import Pictures, preparer
from reportgen.progress import Progress
from reportgen.reference import look_at_reference
from reportgen.scanned import KnownTruth, Scanned, known_truth, read_scan, refuse_early
from reportgen.store import Array, Store, key_of
from reportgen.subject.feed import in_order
from reportgen.subject.subject import Subject
from reportgen.techniques.predictions import Predictions
from reportgen.text import counted
from reportgen.trial import Trial, opposite
from reportgen.versions import library_versions

if TYPE_CHECKING:
    from reportgen.engine.local import Prepare, Worker


@dataclass(frozen=True)
class Examined:
    """What step 4 left besides tensors in the store.

    Attributes:
        failures: reason by technique, those of the scan included.
        computed: techniques of which anything was computed in this run.
        seconds: own computation by technique.
    """

    failures: Mapping[str, str]
    computed: frozenset[str]
    seconds: Mapping[str, float]


# 3 scan
# ----------------------------------------------------------------------------------------------------------------


def open_shards(made: Blueprint, store: Store) -> dict[str, Shards]:
    """Rows of the scanning techniques that apply."""
    scanning = [p for p in made.planned if p.technique.scope == "scan" and p.reason is None]
    # rows of predictions are looked at in the order of names, and by much that comes after
    return {planned.name: Shards(store, planned, held=planned.name == Predictions.name) for planned in scanning}


def scan(
    job: Job, subject: Subject, made: Blueprint, store: Store, laboratory: Laboratory, progress: Progress
) -> Scanned:
    """One forward over all images the store does not know; then the choice of the exhibits.

    Raises:
        EntryVanished: if rows that were planned on are gone.
        ImagesError: if no image can be used.
        LabelsError: if the true classes cannot be read, before anything is run.
        OutOfMemory: if a batch did not fit.
        ReportgenError: if the job names classes or images that are not there.
    """
    known = known_truth(job, subject, made)
    refuse_early(job, subject, made.resolution)
    shards = open_shards(made, store)
    digests = {image.digest for image in subject.images}
    lacking = sum(not all(one.knows(digest) for one in shards.values()) for digest in digests)
    progress.step(3, "scan", f"{counted(len(subject.images), 'image')}, {lacking} of them new")
    told, threads = provenance(made.resolution), laboratory.threads
    failures: Mapping[str, str] = {}
    seconds: Mapping[str, float] = {}
    computed = frozenset(name for name, one in shards.items() if not all(one.knows(digest) for digest in digests))
    if lacking:
        worker = laboratory.worker(made.resolution, preparer(subject, made.resolution), told)
        progress.each(worker.scan(digests, tuple(shards.values())), "scan", lacking, "image")
        failures, seconds = worker.failures, worker.seconds
    else:
        for one in shards.values():
            one.release()
    scanned = read_scan(job, subject, made, shards, known)
    if unusable := len(scanned.skipped) - len(subject.skipped):
        progress.note(f"{counted(unusable, 'image')} could not be used; the report says why")
    compared = look_at_reference(
        subject.reference, shards.values(), job.names, told, threads=threads, progress=progress
    )
    tested = trial(job, subject, made, store, known)
    if tested is not None and tested.lacking:
        turned = opposite(preparer(subject, made.resolution))
        worker = laboratory.worker(made.resolution, turned, told)
        progress.each(tested.run(worker), "swap", tested.lacking, "image")
    return replace(scanned, failures=failures, computed=computed, seconds=seconds, reference=compared, trial=tested)


def trial(job: Job, subject: Subject, made: Blueprint, store: Store, known: KnownTruth) -> Trial | None:
    """Which labelled images are tried with their channels in the opposite order; None where that tells nothing."""
    if Predictions.name not in made.shown or int(made.resolution.pipeline["channels"]) != 3:
        return None
    truth, _unmatched = known
    labelled = [image.digest for image in subject.images if (one := truth.get(image.name)) and one.single is not None]
    planned = next(one for one in made.planned if one.name == Predictions.name)
    return Trial.of(labelled, planned, store, job.seed)


# 4 examine
# -------------------------------------------------------------------------------------------------------------


def examine(
    subject: Subject, made: Blueprint, scanned: Scanned, store: Store, laboratory: Laboratory, progress: Progress
) -> Examined:
    """Everything about the exhibits and about the model that the store does not have."""
    examination = plan_examination(made.planned, scanned.cases, store, made.batch)
    models = about_model(made.planned, store)
    sampling = plan_sampling(made.planned, scanned.sample, store, made.batch)
    pictures = Pictures(subject, made.resolution, store, laboratory.threads)
    results = counted(examination.missing, "result")
    words = f"{counted(len(scanned.cases), 'exhibit')}: {results} to compute, {examination.stored} stored"
    if scanned.sample:
        words += f"; a sample of {len(scanned.sample)}: {sampling.missing} to compute, {sampling.stored} stored"
    progress.step(4, "examine", words)
    pictures.make(case.digest for case in scanned.cases)
    if not examination.missing and not models and not sampling.missing:
        return Examined(scanned.failures, scanned.computed, scanned.seconds)
    decode = preparer(subject, made.resolution)
    worker = laboratory.worker(made.resolution, decode, provenance(made.resolution))
    failures: dict[str, str] = dict(scanned.failures)
    with progress.bar("ascend", sum(map(ascending, models)), "step") as tick:
        for task in models:
            if (reason := worker.about_model(task, tick)) is not None:
                failures[task.name] = reason
    total = sum(len(batch.cases) for batch in examination.batches) + len(examination.closeups)
    progress.each(_works(worker, examination, pictures, failures), "examine", total, "image")
    measuring = _trials(worker, sampling, decode, laboratory.threads, failures)
    progress.each(measuring, "measure", sum(len(trial.cases) for trial in sampling.trials), "image")
    works = (*examination.works, *sampling.trials)
    computed = {task.name for work in works for task in work.tasks} | {task.name for task in models}
    seconds = {name: scanned.seconds.get(name, 0.0) + worker.seconds.get(name, 0.0) for name in computed}
    return Examined(failures, scanned.computed | computed, {**scanned.seconds, **seconds})


def _works(worker: Worker, examination: Examination, pictures: Pictures, failures: dict[str, str]) -> Iterator[int]:
    for batch in examination.batches:
        failures.update(worker.examine(batch, {case.digest: pictures.input(case.digest) for case in batch.cases}))
        yield len(batch.cases)
    for closeup in examination.closeups:
        failures.update(worker.close_up(closeup, pictures.input(closeup.case.digest)))
        yield 1


def _trials(
    worker: Worker, sampling: Sampling, decode: Prepare, threads: int, failures: dict[str, str]
) -> Iterator[int]:
    """Everything about the sample; its inputs are not kept: the exhibits alone are drawn."""
    if not sampling.trials:
        return
    from reportgen.engine.trials import Trials

    trials = Trials(worker)
    for trial in sampling.trials:
        inputs: dict[str, Array] = {}
        for digest, made in in_order(decode, [case.digest for case in trial.cases], threads=threads, ahead=threads):
            if isinstance(made, Exception):
                raise ImagesError(f"an image of the sample cannot be read any more ({made})", "run the audit again")
            inputs[digest] = made.values
        failures.update(trials.run(trial, inputs))
        yield len(trial.cases)


def graph(
    subject: Subject, made: Blueprint, store: Store, laboratory: Laboratory, progress: Progress
) -> tuple[bytes, bytes]:
    """The graph for TensorBoard and its metadata, traced once and kept; empty where the model cannot be traced."""
    key = key_of(
        "graph",
        model=dict(subject.identity),
        pipeline=dict(made.resolution.pipeline),
        numerics=dict(made.resolution.numerics),
    )
    entry = store.get(key)
    if entry is not None:
        return entry.arrays["graph"].tobytes(), entry.arrays["metadata"].tobytes()
    try:
        found, metadata = laboratory.graph(made.resolution)
    except PassError as error:
        progress.note(f"no graph for TensorBoard: {error.thing}")
        return b"", b""
    arrays = {"graph": np.frombuffer(found, np.uint8), "metadata": np.frombuffer(metadata, np.uint8)}
    store.put(key, arrays, {"kind": "graph", **provenance(made.resolution)})
    return found, metadata


def provenance(resolution: Resolution) -> dict[str, Any]:
    """Stored beside every result: where and when it was made."""
    return {"made": today(), "device": resolution.numerics["device"], "versions": library_versions()}
