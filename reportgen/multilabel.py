"""Numbers about predictions where an image may show several classes or none, each with its n and a 95 % interval.

Every class is a decision by itself: the model names it where it gives it a probability of `THRESHOLD` or more. F1 is
2J/(1+J) of the share J that right namings are of all images which show the class or are said to; its interval is that
of J, turned likewise. Decisions about one image are no independent witnesses: what stands for all classes has its
variance from the sums over images, or over groups of them, as `reportgen.metrics` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reportgen.metrics import (
    FEWEST,
    Integers,
    Numbers,
    Z,
    area_under_curve,
    calibration_error,
    interval,
    measured,
    proportion,
    student,
)

THRESHOLD: Final = 0.5
"""Probability from which on a class is named."""

Flags = NDArray[np.bool_]


class Decisions(NamedTuple):
    """One statement for each image and class: that the image shows it (see `reportgen.metrics.Believed`)."""

    confidence: Numbers
    right: Flags
    units: Integers
    grouped: bool


@dataclass(frozen=True)
class Marked:
    """Images of which is known which classes they show, n of them, with what the model says of each class.

    Attributes:
        truth: (n, classes) whether the image shows the class.
        probability: (n, classes) that the model gives it, in [0, 1].
        odds: (n, classes) log odds, which rank images as the probability does and do not saturate.
        units: (n,) which images belong together; equal numbers are one group.
        grouped: whether any do; if not, every image is its own unit.
        slices: (n,) name of the part of the data, or None.
    """

    truth: Flags
    probability: Numbers
    odds: Numbers
    units: Integers
    grouped: bool
    slices: Sequence[str | None]

    @cached_property
    def named(self) -> Flags:
        """(n, classes) whether the model names the class."""
        named: Flags = self.probability >= THRESHOLD
        return named

    @property
    def right(self) -> Flags:
        """(n,) whether all classes are decided correctly."""
        right: Flags = (self.truth == self.named).all(axis=1)
        return right

    @property
    def witnesses(self) -> int:
        """How many images or groups there are that may differ by themselves."""
        return len(np.unique(self.units))

    @property
    def decisions(self) -> Decisions:
        """All n × classes of them; those about one image belong together."""
        units = np.repeat(self.units, self.truth.shape[1])
        return Decisions(self.probability.ravel(), self.truth.ravel(), units, True)

    def part(self, inside: Flags) -> Marked:
        """Some of the images."""
        units = np.unique(self.units[inside], return_inverse=True)[1].astype(np.int64)
        slices = [name for name, kept in zip(self.slices, inside, strict=True) if kept]
        return Marked(self.truth[inside], self.probability[inside], self.odds[inside], units, self.grouped, slices)


class _Share(NamedTuple):
    """A number in [0, 1] before it has an interval: what moves it, and how many images know it at most."""

    value: float
    influence: Numbers
    most: float


def _told(share: _Share, seen: Marked) -> dict[str, Any]:
    ends = interval(share.value, share.influence, seen.units, grouped=seen.grouped, most=share.most)
    return measured(share.value, len(seen.units), ends)


def _mean(shares: Sequence[_Share]) -> _Share:
    """The mean over classes."""
    influence = np.mean([one.influence for one in shares], axis=0)
    # the variance of a mean of proportions that are alike, as that of one proportion
    most = len(shares) ** 2 / sum(1 / one.most for one in shares)
    return _Share(float(np.mean([one.value for one in shares])), influence, min(most, len(influence)))


def _f1(jaccard: Mapping[str, Any]) -> dict[str, Any]:
    """The F1 of a share J of right namings, which grows with it."""
    low, high = (2 * end / (1 + end) for end in jaccard["interval"])
    return measured(2 * jaccard["value"] / (1 + jaccard["value"]), jaccard["n"], (low, high))


def _f1_of(truth: Flags, named: Flags) -> _Share:
    """F1 of one class that some image shows or is said to."""
    weight = truth.astype(np.float64) + named
    total = float(weight.sum())
    value = 2 * float((truth & named).sum()) / total
    return _Share(value, (2.0 * (truth & named) - value * weight) / total, float((truth | named).sum()))


def average_precision(odds: Numbers, positive: Flags) -> tuple[float, Numbers]:
    """Mean over the images of a class of the precision among those ranked as high or higher, and each image's
    influence on it. It is the sum of precisions weighted by the growth of recall, without interpolation.

    Args:
        odds: (n,) what ranks the images.
        positive: (n,) whether they show the class; some do.
    """
    order = np.argsort(-odds, kind="stable")
    ranked, shows = odds[order], positive[order].astype(np.float64)
    first = np.searchsorted(-ranked, -ranked, "left")
    upto = np.searchsorted(-ranked, -ranked, "right")
    precision = np.cumsum(shows)[upto - 1] / upto
    n = shows.sum()
    value = float((precision * shows).sum() / n)

    def beyond(weight: Numbers) -> Numbers:
        """Sum over the images ranked as high as each or lower."""
        sums: Numbers = np.cumsum(weight[::-1])[::-1][first]
        return sums

    moved = shows * (precision - value) + shows * beyond(shows / upto) - beyond(shows * precision / upto)
    influence = np.empty(len(odds))
    influence[order] = moved / n
    return value, influence


def _ranking(seen: Marked, index: int) -> Iterable[tuple[str, _Share]]:
    """How well one class ranks images, by the name of the number; only what has a base."""
    odds, positive = seen.odds[:, index], seen.truth[:, index]
    if positive.any() and not positive.all():
        yield "auroc", _ranked(*area_under_curve(odds, positive), positive, seen.units)
    if positive.any():
        yield "average_precision", _ranked(*average_precision(odds, positive), positive, seen.units)


def _ranked(value: float, influence: Numbers, positive: Flags, units: Integers) -> _Share:
    """What ranks images, with the doubt that is left where few show a class: of k witnesses of a kind the variance has
    k − 1 degrees of freedom, for which Student's t stands. Such a number knows no less than a share of k would.
    """
    widened = influence.copy()
    few = len(influence)
    for kind in (positive, ~positive):
        members = np.bincount(units[kind], minlength=1)
        k = int((members > 0).sum())
        if not k:
            continue
        own = float((np.bincount(units[kind], weights=influence[kind]) ** 2).sum())
        least, few = value * (1 - value) / k, min(few, k)
        doubt = own * k / (k - 1) * (student(k - 1) / Z) ** 2 if k > 1 else least
        if own > 0:
            widened[kind] *= sqrt(max(own, min(doubt, least)) / own)
        else:
            widened[kind] = sqrt(least / k) / members[units[kind]]
    return _Share(value, widened, few)


def _of_class(seen: Marked, index: int, ranking: Mapping[str, _Share]) -> dict[str, Any]:
    """Everything about one class; only what has a base."""
    truth, named = seen.truth[:, index], seen.named[:, index]
    told: dict[str, Any] = {"positives": int(truth.sum())}
    for name, hits, among in (
        ("prevalence", truth, np.ones_like(truth)),
        ("recall", named, truth),
        ("precision", truth, named),
        ("f1", truth & named, truth | named),
    ):
        if among.any():
            found = proportion(hits[among], seen.units[among], grouped=seen.grouped)
            told[name] = _f1(found) if name == "f1" else found
    return told | {name: _told(share, seen) for name, share in ranking.items()}


def _hamming(seen: Marked) -> dict[str, Any]:
    wrong = seen.truth != seen.named
    return {**proportion(wrong.ravel(), seen.decisions.units, grouped=True), "n": len(wrong)}


def _micro_f1(seen: Marked) -> dict[str, Any] | None:
    """F1 of all decisions together; None where no class is shown or named."""
    among = (seen.truth | seen.named).ravel()
    if not among.any():
        return None
    hits = (seen.truth & seen.named).ravel()[among]
    return {**_f1(proportion(hits, seen.decisions.units[among], grouped=True)), "n": len(seen.truth)}


def per_slice(seen: Marked) -> list[dict[str, Any]]:
    """Exact-match ratio and F1 of all decisions in every named part of the data, in order of the names."""
    told: list[dict[str, Any]] = []
    for name in sorted({name for name in seen.slices if name is not None}):
        part = seen.part(np.array([one == name for one in seen.slices]))
        exact = proportion(part.right, part.units, grouped=part.grouped)
        micro = _micro_f1(part)
        told.append({"slice": name, "exact_match": exact} | ({} if micro is None else {"micro_f1": micro}))
    return told


def metrics(seen: Marked, label: Callable[[int], str]) -> Mapping[str, Any]:
    """The entry ``metrics`` of ``report.json``. Means over classes are over those for which the number exists.

    Args:
        label: name of a class by its number.
    """
    told: dict[str, Any] = {
        "exact_match": proportion(seen.right, seen.units, grouped=seen.grouped),
        "hamming_loss": _hamming(seen),
    }
    if (micro := _micro_f1(seen)) is not None:
        told["micro_f1"] = micro
    shares: dict[str, list[_Share]] = {"macro_f1": [], "auroc": [], "mean_average_precision": []}
    classes: list[dict[str, Any]] = []
    for index in (int(one) for one in np.flatnonzero((seen.truth | seen.named).any(axis=0))):
        ranking = dict(_ranking(seen, index))
        shares["macro_f1"].append(_f1_of(seen.truth[:, index], seen.named[:, index]))
        for name, share in ranking.items():
            shares["auroc" if name == "auroc" else "mean_average_precision"].append(share)
        classes.append({"index": index, "label": label(index)} | _of_class(seen, index, ranking))
    told |= {name: _told(_mean(found), seen) for name, found in shares.items() if found}
    if len(seen.truth) >= FEWEST:
        told["ece"] = {**calibration_error(seen.decisions), "n": len(seen.truth)}
    told["per_class"] = classes
    if slices := per_slice(seen):
        told["per_slice"] = slices
    return told
