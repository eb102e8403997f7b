"""What the rows of a finished scan say: which images can be used, which are shown or measured, for which classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from reportgen import exhibits
from reportgen.blueprint import Blueprint
from reportgen.engine.resolution import Resolution
from reportgen.engine.shards import Shards
from reportgen.errors import EntryVanished, ImagesError, LabelsError, PassError, UsageError
from reportgen.exhibits import Choice, Seen
from reportgen.job import Job
from reportgen.privacy import Names, shown_groups, shown_names, shown_skipped
from reportgen.sample import Drawable, draw_sample
from reportgen.subject.images import Skipped
from reportgen.subject.subject import Subject
from reportgen.subject.truth import Truth, truth_from_folders
from reportgen.subject.truth_table import truth_from_csv
from reportgen.summary import UNANSWERED, Predicted
from reportgen.techniques.predictions import Predictions
from reportgen.techniques.technique import Case
from reportgen.text import counted
from reportgen.trial import Trial

KnownTruth = tuple[Mapping[str, Truth], tuple[str, ...]]
"""True classes by image name, and the folders whose names are no class."""


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


def read_scan(job: Job, subject: Subject, made: Blueprint, shards: Mapping[str, Shards], known: KnownTruth) -> Scanned:
    """What the rows of a finished scan say: usable images, exhibits, classes explained."""
    truth, unmatched = known
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
        raise ImagesError(f"no usable image among {counted(len(skipped), 'file')} ({reasons})", remedy)
    showable = used if job.exhibit else [one for one in used if one.answered] or used
    wanted = job.preset_values.exhibits
    see = _decided if any(one.single is None for one in truth.values()) else _seen
    choices = exhibits.choose([see(one) for one in showable], wanted, given=job.exhibit, seed=job.seed)
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
    drawable = [Drawable(one.name, one.digest, _stratum(one)) for one in used if one.answered]
    drawn = (by_name[name] for name in draw_sample(drawable, count, seed=job.seed))
    return tuple(
        Case(one.name, one.digest, (one.first,), ("predicted",), place, one.truth) for place, one in enumerate(drawn)
    )


def _stratum(one: Predicted) -> int:
    single = one.truth.single if one.truth is not None else None
    return one.first if single is None else single


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


def known_truth(job: Job, subject: Subject, made: Blueprint) -> KnownTruth:
    """What ``--truth``, the images themselves, or else their folders say. Raises LabelsError."""
    resolution = made.resolution
    classes = resolution.labels or tuple(str(i) for i in range(resolution.classes))
    if job.truth is not None:
        others = (*subject.others, *(one.name for one in subject.skipped))
        images = [image.name for image in subject.images]
        truth = truth_from_csv(job.truth, images, classes, others=others, several=resolution.several)
        if any(one.single is None for one in truth.values()):
            _check_kept(made)
        return truth, ()
    if subject.given_truth:
        return subject.given_truth, ()
    found = truth_from_folders([image.name for image in subject.images], classes)
    return found.truth, found.unmatched


def _check_kept(made: Blueprint) -> None:
    """Where an image may show several classes, all of them are decided. Raises LabelsError."""
    classes = made.resolution.classes
    predictions = next(one.technique for one in made.planned if isinstance(one.technique, Predictions))
    kept = predictions.kept(classes, independent=True)
    if kept < classes:
        raise LabelsError(
            f"--truth gives images several of {classes} classes, and the scores of {kept} are kept",
            f"--set predictions.top={classes} keeps all",
        )


def refuse_early(job: Job, subject: Subject, resolution: Resolution) -> None:
    """Tell what the job names and nobody has before the scan, which may take hours, and not after it.

    Raises:
        UsageError: for a class that the model does not have, an image that is not there.
    """
    for word in job.target:
        if word not in ("predicted", "true"):
            class_named(word, resolution)
    exhibits.refuse_strangers(job.exhibit, [image.name for image in subject.images])


def _seen(one: Predicted) -> Seen:
    probability = one.row["probability"]
    second = float(probability[1]) if len(probability) > 1 else 0.0
    first = float(probability[0])
    wrong = one.truth is not None and one.truth.single != one.first
    return Seen(one.name, one.digest, one.first, first, first - second, first if wrong else None)


def _decided(one: Predicted) -> Seen:
    """The same where every class is decided by itself."""
    probability = dict(zip(one.row["index"].tolist(), one.row["probability"].tolist(), strict=True))
    mistakes = [probability[index] for index in one.wrongly_named] + [1 - probability[index] for index in one.missed]
    margin = float(np.abs(2 * one.row["probability"] - 1).min())
    first = float(one.row["probability"][0])
    return Seen(one.name, one.digest, one.first, first, margin, max(mistakes, default=None), several=True)


def _case(one: Predicted, place: int, job: Job, resolution: Resolution) -> Case:
    """The exhibit with the classes that ``--target`` means for it, each once."""
    targets: dict[int, str] = {}
    for word in job.target:
        for index, known in _meant(one, word, resolution):
            targets.setdefault(index, known)
    if not targets:
        targets[one.first] = "predicted"
    return Case(one.name, one.digest, tuple(targets), tuple(targets.values()), place, one.truth)


def _meant(one: Predicted, word: str, resolution: Resolution) -> list[tuple[int, str]]:
    """The classes that a word of ``--target`` means for an image, each with what it is of it (see `Case.known`).

    Where an image may show several: as predicted the first, and the most probable of those that are wrongly named; as
    true the one that is missed by most, or else the most probable.
    """
    truth = one.truth
    several = truth is not None and truth.single is None
    if word == "predicted":
        return [(one.first, word), *((index, "named") for index in one.wrongly_named[:1] if several)]
    if word != "true":
        return [(class_named(word, resolution), word)]
    if truth is None or not several:
        return [] if truth is None else [(index, word) for index in truth.labels]
    known = word if one.first in one.wrongly_named else "missed"
    right = [index for index in one.named if index in truth.labels]
    return [(index, known) for index in (*one.missed, *right)[:1]]


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
