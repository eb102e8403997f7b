"""What happens in each of the six steps of an audit (`reportgen.pipeline` shows them in a row)."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from reportgen import exhibits
from reportgen.clock import today
from reportgen.engine.plan import (
    Examination,
    Planned,
    about_model,
    ascending,
    plan_examination,
    settle,
)
from reportgen.engine.resolution import Resolution
from reportgen.engine.sampling import Sampling, plan_sampling
from reportgen.engine.shards import Shards
from reportgen.errors import EntryVanished, ImagesError, PassError, UsageError
from reportgen.exhibits import Choice, Seen
from reportgen.job import Job
from reportgen.laboratory import Laboratory
from reportgen.privacy import Names, shown_groups, shown_names, shown_skipped
from reportgen.progress import Progress
from reportgen.reference import look_at_reference
from reportgen.rules import RULES
from reportgen.sample import Drawable, draw_sample
from reportgen.store import Array, Store, canonical, key_of
from reportgen.subject.feed import in_order
from reportgen.subject.images import ImageError, Skipped, decode, shown
from reportgen.subject.labels import read_labels
from reportgen.subject.masks import fitted_mask
from reportgen.subject.preprocessing import Pipeline, prepare, sighted
from reportgen.subject.subject import Subject
from reportgen.subject.truth import Truth, truth_from_csv, truth_from_folders
from reportgen.summary import UNANSWERED, Predicted
from reportgen.techniques import check_limits, chosen
from reportgen.techniques.predictions import Predictions
from reportgen.techniques.technique import Case, Technique
from reportgen.trial import Trial, opposite
from reportgen.versions import library_versions

if TYPE_CHECKING:
    from reportgen.engine.local import Prepare, Worker

ORIGINAL_SIDE = 900
"""Longer side, in pixels, to which the whole image is reduced for the report."""


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


@dataclass(frozen=True)
class Scanned:
    """What step 3 found out about all images.

    Attributes:
        used: usable images in order of their names.
        skipped: the others.
        choices: the exhibits and why.
        cases: the exhibits with the classes explained.
        sample: images on which maps are measured, in the order of the draw, with the predicted class explained.
        shards: rows of the scanning techniques, by technique.
        unmatched: folders whose names are no class.
        failures: reason by technique.
        computed: techniques of which rows were computed in this run.
        seconds: own computation by technique.
        reference: images of ``--reference`` that can be read.
        trial: of the opposite order of colour channels, where it can tell anything.
    """

    used: tuple[Predicted, ...]
    skipped: tuple[Skipped, ...]
    choices: tuple[Choice, ...]
    cases: tuple[Case, ...]
    shards: Mapping[str, Shards]
    unmatched: tuple[str, ...] = ()
    sample: tuple[Case, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    computed: frozenset[str] = frozenset()
    seconds: Mapping[str, float] = field(default_factory=dict)
    reference: tuple[Case, ...] = ()
    trial: Trial | None = None


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


# 2 plan
# ----------------------------------------------------------------------------------------------------------------


def resolve(job: Job, subject: Subject, store: Store, laboratory: Laboratory) -> Blueprint:
    """Settle model and techniques: from the record of an earlier run, or by opening the model."""
    techniques = chosen(job)
    check_limits(job, RULES)
    labels = given_labels(job)
    key = subject.resolution_key(job, labels)
    resolution = _recorded(store, key)
    if resolution is None:
        resolution = _record(store, key, laboratory.resolve(labels))
    return blueprint(techniques, resolution, subject)


def given_labels(job: Job) -> tuple[str, ...] | None:
    """The user's class names. Raises LabelsError."""
    if job.labels is None or isinstance(job.labels, Path):
        return None if job.labels is None else read_labels(job.labels)
    return tuple(shown(" ".join(name.split())) for name in job.labels)


def blueprint(techniques: Sequence[Technique], resolution: Resolution, subject: Subject) -> Blueprint:
    """Techniques settled for a resolved model. Predictions always run: exhibits and targets follow from them."""
    shown = frozenset(technique.name for technique in techniques)
    if Predictions.name not in shown:
        techniques = (Predictions(), *techniques)
    return Blueprint(resolution, settle(techniques, resolution, subject.identity), shown)


def halved(made: Blueprint, job: Job, subject: Subject, store: Store) -> Blueprint:
    """The same with half the batch, and a record of it, so that the next run begins there. Raises OutOfMemory at one
    image.
    """
    from reportgen.errors import OutOfMemory

    if made.batch == 1:
        raise OutOfMemory
    numerics = {**made.resolution.numerics, "batch": made.batch // 2}
    labels = given_labels(job)
    key = subject.resolution_key(job, labels)
    resolution = _record(store, key, replace(made.resolution, numerics=numerics))
    return blueprint(chosen(job), resolution, subject)


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
        OutOfMemory: if a batch did not fit.
    """
    shards = open_shards(made, store)
    digests = {image.digest for image in subject.images}
    lacking = sum(not all(one.knows(digest) for one in shards.values()) for digest in digests)
    progress.step(3, "scan", f"{len(subject.images)} images, {lacking} of them new")
    told, threads = provenance(made.resolution), laboratory.threads
    failures: Mapping[str, str] = {}
    seconds: Mapping[str, float] = {}
    computed = frozenset(name for name, one in shards.items() if not all(one.knows(digest) for digest in digests))
    if lacking:
        worker = laboratory.worker(made.resolution, _preparer(subject, made.resolution), told)
        progress.each(worker.scan(digests, tuple(shards.values())), "scan", lacking, "image")
        failures, seconds = worker.failures, worker.seconds
    else:
        for one in shards.values():
            one.release()
    scanned = read_scan(job, subject, made, shards)
    compared = look_at_reference(
        subject.reference, shards.values(), job.names, told, threads=threads, progress=progress
    )
    tested = trial(job, subject, made, store)
    if tested is not None and tested.lacking:
        turned = opposite(_preparer(subject, made.resolution))
        worker = laboratory.worker(made.resolution, turned, told)
        progress.each(tested.run(worker), "swap", tested.lacking, "image")
    return replace(scanned, failures=failures, computed=computed, seconds=seconds, reference=compared, trial=tested)


def trial(job: Job, subject: Subject, made: Blueprint, store: Store) -> Trial | None:
    """Which labelled images are tried with their channels in the opposite order; None where that tells nothing."""
    if Predictions.name not in made.shown or int(made.resolution.pipeline["channels"]) != 3:
        return None
    truth, _unmatched = known_truth(job, subject, made.resolution)
    labelled = [image.digest for image in subject.images if image.name in truth]
    planned = next(one for one in made.planned if one.name == Predictions.name)
    return Trial.of(labelled, planned, store, job.seed)


def read_scan(job: Job, subject: Subject, made: Blueprint, shards: Mapping[str, Shards]) -> Scanned:
    """What the rows of a finished scan say: usable images, exhibits, classes explained."""
    truth, unmatched = known_truth(job, subject, made.resolution)
    used: list[Predicted] = []
    skipped = list(subject.skipped)
    predictions = shards[Predictions.name]
    for image in subject.images:
        row = predictions.row(image.digest)
        if row is None:
            reason = predictions.error(image.digest)
            if reason is None:
                raise EntryVanished
            skipped.append(Skipped(image.name, reason))
        else:
            used.append(Predicted(image.name, image.digest, row, truth.get(image.name)))
    if not used:
        if failed := [one.reason for one in skipped if one.reason.startswith(UNANSWERED)]:
            raise PassError(failed[0], "see that it takes images of this size, and --batch-size of them at once")
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in skipped[:3])
        remedy = "see the options named" if "--" in reasons else "give JPEG, PNG or WebP images"
        raise ImagesError(f"none of {len(skipped)} files is a usable image ({reasons})", remedy)
    showable = used if job.exhibit else [one for one in used if one.answered] or used
    choices = exhibits.choose([_seen(one) for one in showable], wanted_exhibits(job), given=job.exhibit, seed=job.seed)
    skipped.sort(key=lambda one: one.name)
    used, choices = _called(job.names, used, choices)
    by_name = {one.name: one for one in used}
    cases = tuple(_case(by_name[choice.name], place, job, made.resolution) for place, choice in enumerate(choices))
    sample = _sample(job, made, used)
    return Scanned(tuple(used), tuple(shown_skipped(job.names, skipped)), choices, cases, shards, unmatched, sample)


def _sample(job: Job, made: Blueprint, used: Sequence[Predicted]) -> tuple[Case, ...]:
    """Empty where no technique measures anything."""
    count = job.preset_values.sample
    if not count or not any(one.technique.scope == "sample" for one in made.planned):
        return ()
    by_name = {one.name: one for one in used}
    drawable = [
        Drawable(one.name, one.digest, one.truth.label if one.truth else one.first) for one in used if one.answered
    ]
    drawn = (by_name[name] for name in draw_sample(drawable, count, seed=job.seed))
    return tuple(
        Case(one.name, one.digest, (one.first,), ("predicted",), place, one.truth) for place, one in enumerate(drawn)
    )


def _called(
    how: Names, used: Sequence[Predicted], choices: Sequence[Choice]
) -> tuple[list[Predicted], tuple[Choice, ...]]:
    """Images and exhibits under the names that the report may tell, in the order of these."""
    named = shown_names(how, [(one.name, one.digest) for one in used])
    called = {one.name: name for one, name in zip(used, named, strict=True)}
    ordered = sorted(used, key=lambda one: called[one.name])
    groups = shown_groups(how, [one.truth.group if one.truth else None for one in ordered])
    renamed = [
        replace(one, name=called[one.name], truth=replace(one.truth, group=group) if one.truth else None)
        for one, group in zip(ordered, groups, strict=True)
    ]
    return renamed, tuple(replace(choice, name=called[choice.name]) for choice in choices)


def wanted_exhibits(job: Job) -> int:
    """How many exhibits are wanted."""
    return job.preset_values.exhibits


def known_truth(job: Job, subject: Subject, resolution: Resolution) -> tuple[Mapping[str, Truth], tuple[str, ...]]:
    """True classes by image name, and the folders whose names are no class."""
    classes = resolution.labels or tuple(str(i) for i in range(resolution.classes))
    if job.truth is not None:
        others = (*subject.others, *(one.name for one in subject.skipped))
        return truth_from_csv(job.truth, [image.name for image in subject.images], classes, others=others), ()
    if subject.given_truth:
        return subject.given_truth, ()
    found = truth_from_folders([image.name for image in subject.images], classes)
    return found.truth, found.unmatched


def _seen(one: Predicted) -> Seen:
    probability = one.row["probability"]
    second = float(probability[1]) if len(probability) > 1 else 0.0
    first = float(probability[0])
    return Seen(one.name, one.digest, one.first, first, first - second, one.truth.label if one.truth else None)


def _case(one: Predicted, place: int, job: Job, resolution: Resolution) -> Case:
    """The exhibit with the classes that ``--target`` means for it, each once."""
    targets: dict[int, str] = {}
    for word in job.target:
        if word == "predicted":
            targets.setdefault(one.first, word)
        elif word == "true":
            if one.truth is not None:
                targets.setdefault(one.truth.label, word)
        else:
            targets.setdefault(class_named(word, resolution), word)
    if not targets:
        targets[one.first] = "predicted"
    return Case(one.name, one.digest, tuple(targets), tuple(targets.values()), place, one.truth)


def class_named(word: str, resolution: Resolution) -> int:
    """Number of the class that a word of ``--target`` means. Raises UsageError."""
    if word.isdigit() and int(word) < resolution.classes:
        return int(word)
    for index, label in enumerate(resolution.labels):
        if label.casefold() == word.casefold():
            return index
    raise UsageError(
        f"--target {word!r} is no class of this model",
        f"use predicted, true, a class name or 0 to {resolution.classes - 1}",
    )


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
    words = f"{len(scanned.cases)} exhibits: {examination.missing} results to compute, {examination.stored} stored"
    if scanned.sample:
        words += f"; a sample of {len(scanned.sample)}: {sampling.missing} to compute, {sampling.stored} stored"
    progress.step(4, "examine", words)
    pictures.make(case.digest for case in scanned.cases)
    if not examination.missing and not models and not sampling.missing:
        return Examined(scanned.failures, scanned.computed, scanned.seconds)
    decode = _preparer(subject, made.resolution)
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


@dataclass
class Pictures:
    """Exhibits as the network saw them, kept in the store: a warm run decodes nothing.

    An entry holds ``input`` (C,H,W) float32, ``fitted`` (H,W,3) or (H,W) uint8 before normalisation, and ``original``
    (h,w,3)
    uint8, the whole image upright and reduced.
    """

    subject: Subject
    resolution: Resolution
    store: Store
    threads: int
    _pipeline: Pipeline = field(init=False)

    def __post_init__(self) -> None:
        self._pipeline = pipeline_of(self.resolution)

    def make(self, digests: Iterator[str]) -> None:
        """Decode, in parallel, what is not stored yet."""
        lacking = [digest for digest in dict.fromkeys(digests) if not self.store.has(self.key(digest))]
        for digest, made in in_order(self._arrays, lacking, threads=self.threads, ahead=2 * self.threads):
            if isinstance(made, Exception):
                raise made
            self.store.put(self.key(digest), made, {"kind": "picture"})

    def input(self, digest: str) -> Array:
        """(C,H,W) float32."""
        return self.read(digest)["input"]

    def read(self, digest: str) -> Mapping[str, Array]:
        """The three arrays. Raises EntryVanished."""
        entry = self.store.get(self.key(digest))
        if entry is None:
            raise EntryVanished
        return entry.arrays

    def fitted(self, digests: Iterable[str]) -> Iterator[tuple[str, Array]]:
        """Images as the network saw them, (H,W,3) or (H,W) uint8, one at a time: decoded, in parallel, and not kept.

        Raises:
            EntryVanished: if one cannot be read any more.
        """
        pipeline = self._pipeline

        def fit(digest: str) -> Array:
            ref = self.subject.refs[digest]
            return pipeline.visible(prepare(ref, pipeline)) if ref.ready else pipeline.fit(decode(ref))

        for digest, made in in_order(fit, digests, threads=self.threads, ahead=2 * self.threads):
            if isinstance(made, Exception):
                raise made
            yield digest, made

    def mask(self, digest: str) -> Array | None:
        """The segmentation mask of an image, see `reportgen.subject.masks.fitted_mask`; None where there is none."""
        path = self.subject.masks.get(digest)
        return None if path is None else fitted_mask(path, self._pipeline, whole=self.subject.refs[digest].ready)

    def digest_of_masks(self) -> str:
        """Over the bytes of all masks and the images they belong to; empty where there are none."""
        over = hashlib.sha256()
        for digest, path in sorted(self.subject.masks.items()):
            over.update(digest.encode())
            with contextlib.suppress(OSError):
                over.update(hashlib.sha256(path.read_bytes()).digest())
        return over.hexdigest() if self.subject.masks else ""

    def key(self, digest: str) -> str:
        """Key of the entry of an image."""
        versions = library_versions()
        return key_of("picture", image=digest, pipeline=dict(self.resolution.pipeline), pillow=versions["pillow"])

    def _arrays(self, digest: str) -> dict[str, Array]:
        ref = self.subject.refs[digest]
        values = prepare(ref, self._pipeline)
        if ref.ready:
            fitted = self._pipeline.visible(values)
            return {"input": values, "fitted": fitted, "original": fitted}
        image = decode(ref)
        fitted = self._pipeline.visible(values) if self._pipeline.transform else self._pipeline.fit(image)
        small = image.convert("L" if image.mode in ("1", "L") else "RGB")
        small.thumbnail((ORIGINAL_SIDE, ORIGINAL_SIDE))
        original = np.asarray(small)
        return {"input": values, "fitted": fitted, "original": original}


def pipeline_of(resolution: Resolution) -> Pipeline:
    """The preprocessing as resolved."""
    return TypeAdapter(Pipeline).validate_python(dict(resolution.pipeline))


def _preparer(subject: Subject, resolution: Resolution) -> Prepare:
    from reportgen.engine.local import Sight, Unusable

    pipeline = pipeline_of(resolution)

    def sight_of(digest: str) -> Sight:
        try:
            return Sight(*sighted(subject.refs[digest], pipeline))
        except ImageError as error:
            raise Unusable(error.reason) from None

    return sight_of


def provenance(resolution: Resolution) -> dict[str, Any]:
    """Stored beside every result: where and when it was made."""
    return {"made": today(), "device": resolution.numerics["device"], "versions": library_versions()}
