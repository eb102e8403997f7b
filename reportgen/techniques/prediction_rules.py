"""Rules about answers: whether there are any, whether they depend on the image, and whether they deserve belief."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import pi, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from reportgen.findings import Finding, FindingRule, Limits
from reportgen.metrics import BINS, FEWEST, Believed, Labelled, binned, calibration_error, proportion, wilson
from reportgen.multilabel import Marked
from reportgen.relabelling import Renamed
from reportgen.text import Message, _

CERTAIN: Final = 1e-6
"""What is left for all other classes where an answer is saturated."""


@dataclass(frozen=True)
class Answers:
    """What rules about predictions look at. n different images, m of them labelled, in order of their names.

    Attributes:
        logits: (n, K) scores of the classes kept, strongest first.
        index: (n, K) their class numbers.
        rest: (n,) probability that the first class leaves to the others.
        seen: the labelled ones; None where there are none, or where images may show several classes.
        marked: the same where they may.
        renamed: the renaming of classes that fits best, where one could be looked for.
        channels: what the opposite order of colour channels gains, where it was tried.
        varied: whether any of the images differ as the network saw them.
    """

    logits: NDArray[np.float64]
    index: NDArray[np.int64]
    rest: NDArray[np.float64]
    seen: Labelled | None
    marked: Marked | None
    renamed: Renamed | None
    channels: Mapping[str, Any] | None
    varied: Callable[[], bool]
    label: Callable[[int], str]
    limits: Limits


NOT_FINITE = FindingRule(
    "predictions.not_finite", "model", "critical", _("The model gives scores that are no numbers"), 1
)
CONSTANT = FindingRule("predictions.constant", "model", "critical", _("The answer does not depend on the image"))
ONE_CLASS = FindingRule(
    "predictions.one_class", "model", "warning", _("Nearly every image is given the same class"), 0.95
)
SATURATED = FindingRule("predictions.saturated", "model", "notice", _("Answers are saturated"), 0.5)
NO_BETTER = FindingRule(
    "predictions.below_majority", "model", "warning", _("Naming one class always would be right more often")
)
CALIBRATION = FindingRule("predictions.calibration", "model", "warning", _("Confidence is not deserved"), 0.1)
WEAK_SLICE = FindingRule(
    "predictions.weak_slice", "model", "warning", _("A part of the data is named less well than the rest"), 0.1
)
RENAMED = FindingRule(
    "predictions.labels_permuted", "data", "critical", _("Other class names fit the answers better"), 0.1
)
CHANNELS = FindingRule(
    "predictions.channels_swapped",
    "model",
    "critical",
    _("Colour channels in the opposite order are named better"),
    0.1,
)
RULES: Final = (
    NOT_FINITE, CONSTANT, ONE_CLASS, SATURATED, NO_BETTER, CALIBRATION, WEAK_SLICE, RENAMED, CHANNELS,
)  # fmt: skip


def concluded(answers: Answers) -> Iterator[Finding]:
    """What all rules find. Where scores are no numbers, or the same for every image, nothing else can be said."""
    for hopeless in (_not_finite, _constant):
        found = list(hopeless(answers))
        if found:
            yield from found
            return
    yield from _one_class(answers)
    if answers.marked is None:  # what is left to other classes tells nothing where an image may show several
        yield from _saturated(answers)
    if answers.seen is not None:
        yield from _below_majority(answers.seen, answers.limits)
    if (known := answers.marked or answers.seen) is not None:
        for about_truth in (_calibration, _weak_slice):
            yield from about_truth(known, answers.limits)
    yield from _renamed(answers)
    yield from _channels(answers)


def _not_finite(answers: Answers) -> Iterator[Finding]:
    broken = int((~np.isfinite(answers.logits)).any(axis=1).sum())
    limit = NOT_FINITE.limit(answers.limits)
    if broken >= max(limit, 1):
        yield NOT_FINITE.found(
            _(
                "For {broken} of {n} images a score is infinite or not a number. Nothing said about them means "
                "anything. Look for such numbers in the weights, and for a precision that is too low.",
                broken=broken,
                n=len(answers.logits),
            ),
            value=broken,
            threshold=limit,
            n=len(answers.logits),
        )


def _constant(answers: Answers) -> Iterator[Finding]:
    n = len(answers.logits)
    same_order = n > 1 and bool((answers.index == answers.index[0]).all())
    if not same_order:
        return
    spread = float(np.ptp(answers.logits, axis=0).max())
    if spread <= 1e-5 * max(float(np.abs(answers.logits).max()), 1e-12) and answers.varied():
        yield CONSTANT.found(
            _(
                "All {n} images are given the same scores. The network is dead somewhere between its input and its "
                "output, or it was never trained; maps and pictures of units show nothing.",
                n=n,
            ),
            value=spread,
            n=n,
        )


def _one_class(answers: Answers) -> Iterator[Finding]:
    seen = answers.seen
    if seen is None or seen.witnesses < FEWEST or len(np.unique(seen.truth)) < 2:
        return
    classes, counts = np.unique(seen.predicted, return_counts=True)
    usual = int(classes[counts.argmax()])
    value, due = float(counts.max() / len(seen.truth)), float((seen.truth == usual).mean())
    limit = ONE_CLASS.limit(answers.limits)
    if value >= limit and value - due >= 0.2:
        yield ONE_CLASS.found(
            _(
                "{value} of {n} labelled images are called {label}, and {due} of them are. The network may have "
                "learned nothing else, or it sees images that are not prepared as those it learned from.",
                value=_percent(value),
                n=len(seen.truth),
                label=answers.label(usual),
                due=_percent(due),
            ),
            subject=answers.label(usual),
            value=value,
            threshold=limit,
            n=len(seen.truth),
            interval=proportion(seen.predicted == usual, seen.units, grouped=seen.grouped)["interval"],
        )


def _saturated(answers: Answers) -> Iterator[Finding]:
    n = len(answers.rest)
    value = float((answers.rest < CERTAIN).mean())
    limit = SATURATED.limit(answers.limits)
    if n >= FEWEST and value >= limit and answers.varied():
        yield SATURATED.found(
            _(
                "{value} of {n} images leave less than a millionth for all other classes together. Such a confidence "
                "tells no image from another, and gradients of probabilities vanish; maps here are of scores. Scale "
                "the scores by a temperature before confidence is used.",
                value=_percent(value),
                n=n,
            ),
            value=value,
            threshold=limit,
            n=n,
            interval=wilson(value * n, n),
        )


def _below_majority(seen: Labelled, limits: Limits) -> Iterator[Finding]:
    counts = np.bincount(seen.truth)
    majority = float(counts.max() / len(seen.truth))
    found = proportion(seen.right, seen.units, grouped=seen.grouped)
    if seen.witnesses >= FEWEST and (counts > 0).sum() > 1 and found["interval"][1] < majority:
        yield NO_BETTER.found(
            _(
                "{value} of {n} labelled images are named correctly (95 % interval {ends}); naming the most frequent "
                "class always would be right for {majority}. Check class names, preprocessing and weights before "
                "anything else here is believed.",
                value=_percent(found["value"]),
                n=found["n"],
                ends=_ends(found["interval"]),
                majority=_percent(majority),
            ),
            value=found["value"],
            threshold=majority,
            n=found["n"],
            interval=tuple(found["interval"]),
        )


def chance_error(seen: Believed) -> float:
    """The calibration error to be expected of confidence that is deserved to the last digit, for so many images.

    In a bin the number of right answers then scatters about the sum of the confidences by the root of Σ p(1−p); the
    mean of the absolute deviation is √(2/π) times that.
    """
    scatter = np.bincount(binned(seen.confidence), weights=seen.confidence * (1 - seen.confidence), minlength=BINS)
    return float(np.sqrt(np.maximum(scatter, 0)).sum() * sqrt(2 / pi) / len(seen.confidence))


def _calibration(seen: Labelled | Marked, limits: Limits) -> Iterator[Finding]:
    believed: Believed = seen.decisions if isinstance(seen, Marked) else seen
    found, n = calibration_error(believed), len(seen.truth)
    limit, chance = CALIBRATION.limit(limits), chance_error(believed)
    if seen.witnesses < FEWEST or n < 5 * FEWEST or found["interval"][0] - chance < limit:
        return
    over = float(believed.confidence.mean()) > float(believed.right.mean())
    told = {"value": _percent(found["value"]), "n": n, "ends": _ends(found["interval"]), "chance": _percent(chance)}
    yield CALIBRATION.found(
        _of_decisions(over, told) if isinstance(seen, Marked) else _of_answers(over, told),
        value=found["value"],
        threshold=limit,
        n=n,
        interval=tuple(found["interval"]),
        figures=("predictions-reliability",),
    )


def _of_answers(over: bool, told: Mapping[str, Any]) -> Message:
    return _(
        "Confidence and accuracy differ by {value} on average (expected calibration error on {n} images, 95 % "
        "interval {ends}; {chance} would be chance): the network is {how}. Calibrate it, as by a temperature "
        "chosen on images that were not trained on, before a threshold on confidence is used.",
        how=_("surer than it is right") if over else _("right more often than it is sure"),
        **told,
    )


def _of_decisions(over: bool, told: Mapping[str, Any]) -> Message:
    return _(
        "The probability of a class and the share of images that show it differ by {value} on average (expected "
        "calibration error of all classes on {n} images, 95 % interval {ends}; {chance} would be chance): "
        "probabilities are {how}. Calibrate them on images that were not trained on before a threshold is used.",
        how=_("too high") if over else _("too low"),
        **told,
    )


def _weak_slice(seen: Labelled | Marked, limits: Limits) -> Iterator[Finding]:
    limit = WEAK_SLICE.limit(limits)
    names = sorted({name for name in seen.slices if name is not None})
    weak: list[tuple[float, str, int, tuple[float, float]]] = []
    for name in names if len(names) > 1 else ():
        inside = np.array([one == name for one in seen.slices])
        if min(len(np.unique(seen.units[part])) for part in (inside, ~inside)) < FEWEST:
            continue
        gap, ends = _gap(seen, inside, len(names))
        if gap >= limit and ends[0] > 0:
            weak.append((gap, name, int(inside.sum()), ends))
    if weak:
        gap, name, n, ends = max(weak)
        yield WEAK_SLICE.found(
            _(
                "{what} on {slice} ({n} images) is {gap} percentage points below that on the rest (interval {ends}, "
                "widened for the {all} parts that were looked at). Such parts: {weak}. Look at their images and at how "
                "many the network learned from.",
                what=_("Accuracy") if isinstance(seen, Labelled) else _("Exact-match ratio"),
                slice=name,
                n=n,
                gap=f"{100 * gap:.1f}",
                ends=_ends(ends),
                all=len(names),
                weak=", ".join(one[1] for one in sorted(weak, reverse=True)[:5]),
            ),
            subject=name,
            value=gap,
            threshold=limit,
            n=n,
            interval=ends,
        )


def _gap(seen: Labelled | Marked, inside: NDArray[np.bool_], looked_at: int) -> tuple[float, tuple[float, float]]:
    """Share of right answers outside less that inside; the interval holds for all parts at once (Bonferroni)."""
    from scipy.special import stdtrit

    within, beyond = float(seen.right[inside].mean()), float(seen.right[~inside].mean())
    influence = np.where(inside, within - seen.right, seen.right - beyond) / np.where(
        inside, inside.sum(), (~inside).sum()
    )
    sums = np.bincount(seen.units, weights=influence)
    freedom = min(len(np.unique(seen.units[part])) for part in (inside, ~inside)) - 1
    half = float(stdtrit(freedom, 1 - 0.025 / looked_at)) * sqrt(float((sums**2).sum()))
    return beyond - within, (beyond - within - half, beyond - within + half)


def _renamed(answers: Answers) -> Iterator[Finding]:
    renamed, limit = answers.renamed, RENAMED.limit(answers.limits)
    if renamed is None or renamed.helped < 2:  # one class that takes in others is a mistake of the network
        return
    gain = renamed.gain
    if gain["value"] < limit or gain["interval"][0] <= 0:
        return
    named = [f"{answers.label(one)} → {answers.label(meant)}" for one, meant in list(renamed.names.items())[:3]]
    yield RENAMED.found(
        _(
            "Under other names {gain} more of the {n} labelled images are right (95 % interval {ends}; each half of "
            "the images under names chosen by the other): {named}. {pattern} Check --labels, and numbers in --truth, "
            "against the class list that the model was trained with.",
            gain=_percent(gain["value"]),
            n=gain["n"],
            ends=_ends(gain["interval"]),
            named="; ".join(named) + (" …" if len(renamed.names) > 3 else ""),
            pattern=_pattern(renamed),
        ),
        value=gain["value"],
        threshold=limit,
        n=gain["n"],
        interval=tuple(gain["interval"]),
        figures=("predictions-confusion",),
    )


def _pattern(renamed: Renamed) -> Message:
    if renamed.pattern == "shift":
        return _("All are shifted by {n}.", n=renamed.shift)
    if renamed.pattern == "sorted":
        return _("They would be in the order of their spelling.")
    return _("There is no plain order in them.")


def _channels(answers: Answers) -> Iterator[Finding]:
    gain, limit = answers.channels, CHANNELS.limit(answers.limits)
    if gain is None or gain["n"] < FEWEST or gain["value"] < limit or gain["interval"][0] <= 0:
        return
    yield CHANNELS.found(
        _(
            "With red and blue exchanged {gain} more of {n} labelled images are named correctly (95 % interval "
            "{ends}). The model was probably trained on the other order: try --bgr, or leave it out.",
            gain=_percent(gain["value"]),
            n=gain["n"],
            ends=_ends(gain["interval"]),
        ),
        value=gain["value"],
        threshold=limit,
        n=gain["n"],
        interval=tuple(gain["interval"]),
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _ends(ends: Sequence[float]) -> Message:
    return _("{low} to {high}", low=_percent(ends[0]), high=_percent(ends[1]))
