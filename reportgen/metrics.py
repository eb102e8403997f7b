"""Numbers about predictions where the truth is known, each with its n and a 95 % interval.

Every number here is a mean, or close to one, over images; what one image adds to its error is its influence (Hampel
1974). From the influences, summed over images of one group since these are no independent witnesses, comes the
variance of the number, and from that the number of independent images that would know as much (Kish 1965: the design
effect). The interval is Wilson's (1927) for so many. Without groups, the interval of the accuracy is Wilson's as it is
usually computed, and the variance of the area under a curve that of DeLong, DeLong and Clarke-Pearson (1988), in
groups that of Obuchowski (1997), but for factors n/(n−1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054
"""Of the normal distribution, 2.5 % lie above."""
BINS = 15
"""Bins of equal width in which confidence is held against accuracy (Guo et al. 2017)."""
TOP = 5
MANY_CLASSES = 20
"""With more classes than this, being among the first `TOP` means something."""

FEWEST = 20
"""Fewer images, or groups of them, show nothing about a habit; a calibration error of them would be chance."""

Numbers = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Labelled:
    """Images whose true class is known, n of them, with what the model says of them.

    Attributes:
        truth: (n,) true classes.
        predicted: (n,) classes ranked first.
        confidence: (n,) probability of these, in [0, 1].
        units: (n,) which images belong together; equal numbers are one group.
        grouped: whether any do; if not, every image is its own unit.
        odds: (n, classes) log odds of every class, which rank images as its probability does and do not saturate; None
            where not all were kept.
        within: (n,) whether the true class is among the first `TOP`.
        slices: (n,) name of the part of the data, or None.
    """

    truth: Integers
    predicted: Integers
    confidence: Numbers
    units: Integers
    grouped: bool
    odds: Numbers | None
    within: NDArray[np.bool_]
    slices: Sequence[str | None]

    @property
    def witnesses(self) -> int:
        """How many images or groups there are that may differ by themselves."""
        return len(np.unique(self.units))

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n,) whether the class ranked first is the true one."""
        return np.equal(self.truth, self.predicted)


class Believed(Protocol):
    """Statements, n of them, with the confidence in each and whether it held: what calibration is about."""

    @property
    def confidence(self) -> Numbers:
        """(n,) probability that the model gives the statement."""

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n,) whether it holds."""

    @property
    def units(self) -> Integers:
        """(n,) which statements belong together; equal numbers are one group."""

    @property
    def grouped(self) -> bool:
        """Whether any do."""


def wilson(successes: float, n: float, z: float = Z) -> tuple[float, float]:
    """Score interval of a proportion, 95 % by default (Wilson 1927). Both ends in [0, 1].

    Args:
        successes: of `n` independent cases; both need not be whole numbers.
    """
    if n <= 0:
        return 0.0, 1.0
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(max(share * (1 - share), 0.0) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def interval(value: float, influence: Numbers, units: Integers, *, grouped: bool, most: float) -> tuple[float, float]:
    """95 % interval of a number in [0, 1].

    Args:
        influence: (n,) by how much each image moves the number; their sum is about zero.
        units: (n,) equal numbers for images of one group.
        grouped: whether any images share a group. Student's t then stands for the normal distribution.
        most: so many independent images at most: what holds where all influences are zero, as when nothing is wrong.
    """
    if not grouped:
        variance, z = float((influence**2).sum()), Z
    else:
        sums = np.bincount(units, weights=influence)
        groups = len(sums)
        most = min(most, groups)
        if groups < 2:
            return 0.0, 1.0
        variance = float((sums**2).sum()) * groups / (groups - 1)
        z = student(groups - 1)
    spread = value * (1 - value)
    n = spread / variance if variance > 0 and spread > 0 else most
    # few groups may agree by chance: they never know more than as many independent images
    independent = min(n, len(influence)) if grouped else n
    return wilson(value * independent, independent, z)


def student(freedom: int) -> float:
    """Quantile of Student's t that 2.5 % lie above."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def measured(value: float, n: int, ends: tuple[float, float]) -> dict[str, Any]:
    """A number as ``report.json`` tells it."""
    return {"value": float(value), "n": int(n), "interval": [float(end) for end in ends]}


def share(count: int, n: int) -> dict[str, Any]:
    """`count` of `n` independent images, n above 0, with its interval."""
    return measured(count / n, n, wilson(count, n))


def proportion(hits: NDArray[np.bool_], units: Integers, *, grouped: bool) -> dict[str, Any]:
    """Share of the images that `hits` marks. At least one image."""
    n = len(hits)
    value = float(hits.mean())
    ends = interval(value, (hits - value) / n, _numbered(units), grouped=grouped, most=n)
    return measured(value, n, ends)


def balanced_accuracy(seen: Labelled) -> dict[str, Any]:
    """Mean over the classes that occur of the share of their images that is named correctly."""
    counts = np.bincount(seen.truth)
    there = np.flatnonzero(counts)
    recalls = np.bincount(seen.truth, weights=seen.right, minlength=len(counts)) / np.maximum(counts, 1)
    value = float(recalls[there].mean())
    influence = (seen.right - recalls[seen.truth]) / counts[seen.truth] / len(there)
    # the variance of a mean of proportions that are alike, as that of one proportion
    most = len(there) ** 2 / float((1 / counts[there]).sum())
    ends = interval(value, influence, seen.units, grouped=seen.grouped, most=most)
    return measured(value, len(seen.truth), ends)


def auroc(seen: Labelled) -> dict[str, Any] | None:
    """Area under the receiver operating characteristic of each class against the rest, averaged over classes.

    The area is the share of pairs of an image of the class and one of another in which the former is given the greater
    probability of it, ties counting half. None where not all scores were kept, or no class has both kinds.
    """
    if seen.odds is None:
        return None
    both = [one for one in np.unique(seen.truth) if 0 < (seen.truth == one).sum() < len(seen.truth)]
    if not both:
        return None
    areas: list[float] = []
    influence = np.zeros(len(seen.truth))
    most = len(seen.truth)
    for one in both:
        area, own = area_under_curve(seen.odds[:, one], seen.truth == one)
        areas.append(area)
        influence += own / len(both)
        most = min(most, int((seen.truth == one).sum()), int((seen.truth != one).sum()))
    value = float(np.mean(areas))
    ends = interval(value, influence, seen.units, grouped=seen.grouped, most=most)
    return measured(value, len(seen.truth), ends)


def area_under_curve(odds: Numbers, positive: NDArray[np.bool_]) -> tuple[float, Numbers]:
    """Area under the ROC curve of one class, and each image's influence on it, by its placement among the other kind.

    Args:
        odds: (n,) what ranks the images.
        positive: (n,) whether they are of the class; some are and some are not.
    """
    above, below = np.sort(odds[positive]), np.sort(odds[~positive])

    def placed(values: Numbers, among: Numbers) -> Numbers:
        less, upto = np.searchsorted(among, values, "left"), np.searchsorted(among, values, "right")
        placement: Numbers = (less + upto) / (2 * len(among))
        return placement

    placements = np.empty(len(odds))
    placements[positive] = placed(odds[positive], below)
    placements[~positive] = 1 - placed(odds[~positive], above)
    area = float(placements[positive].mean())
    return area, (placements - area) / np.where(positive, len(above), len(below))


def calibration_bins(seen: Believed) -> list[dict[str, Any]]:
    """For each of `BINS` equal stretches of confidence that holds images: how many, mean confidence, accuracy."""
    place = binned(seen.confidence)
    bins: list[dict[str, Any]] = []
    for number in np.unique(place):
        inside = place == number
        bins.append(
            {
                "low": float(number / BINS),
                "high": float((number + 1) / BINS),
                "confidence": float(seen.confidence[inside].mean()),
                "accuracy": proportion(seen.right[inside], seen.units[inside], grouped=seen.grouped),
            }
        )
    return bins


def binned(confidence: Numbers) -> Integers:
    """Number of the bin; a bin includes its upper end, the first its lower end too."""
    place: Integers = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return place


def calibration_error(seen: Believed) -> dict[str, Any]:
    """Expected calibration error: mean over images of |mean confidence − accuracy| of their bin (Guo et al. 2017).

    Few images make it too large: within a bin, accuracy then differs from confidence by chance alone.
    """
    n = len(seen.confidence)
    place = binned(seen.confidence)
    gaps = np.bincount(place, weights=seen.confidence - seen.right, minlength=BINS)
    value = float(np.abs(gaps).sum() / n)
    influence = (np.sign(gaps)[place] * (seen.confidence - seen.right) - value) / n
    low, high = interval(value, influence, seen.units, grouped=seen.grouped, most=n)
    # where every answer is right, influences tell of the confidence alone: no narrower than of n answers right or wrong
    least, most = wilson(value * n, n)
    return measured(value, n, (min(low, least), max(high, most)))


def confusion(seen: Labelled) -> dict[tuple[int, int], int]:
    """Number of images by (true, predicted) class, pairs that occur only, in order."""
    span = int(max(seen.truth.max(), seen.predicted.max())) + 1
    pairs, counts = np.unique(seen.truth * span + seen.predicted, return_counts=True)
    return {divmod(int(pair), span): int(n) for pair, n in zip(pairs, counts, strict=True)}


def per_class(seen: Labelled, label: Callable[[int], str]) -> list[dict[str, Any]]:
    """Recall and precision of every class that occurs or is predicted; only what has a base.

    Args:
        label: name of a class by its number.
    """
    told: list[dict[str, Any]] = []
    for one in np.union1d(seen.truth, seen.predicted):
        of_class, so_called = seen.truth == one, seen.predicted == one
        entry: dict[str, Any] = {"index": int(one), "label": label(int(one))}
        if of_class.any():
            entry["recall"] = proportion(seen.right[of_class], seen.units[of_class], grouped=seen.grouped)
        if so_called.any():
            entry["precision"] = proportion(seen.right[so_called], seen.units[so_called], grouped=seen.grouped)
        told.append(entry)
    return told


def per_slice(seen: Labelled) -> list[dict[str, Any]]:
    """Accuracy of every named part of the data, in order of the names."""
    names = np.array([name if name is not None else "" for name in seen.slices], dtype=object)
    told: list[dict[str, Any]] = []
    for name in sorted({name for name in seen.slices if name is not None}):
        inside = names == name
        told.append(
            {"slice": name, "accuracy": proportion(seen.right[inside], seen.units[inside], grouped=seen.grouped)}
        )
    return told


def _numbered(units: Integers) -> Integers:
    """The same groups numbered without a gap, so that those of a part are counted and no others."""
    numbered: Integers = np.unique(units, return_inverse=True)[1].astype(np.int64)
    return numbered


def metrics(seen: Labelled, classes: int, label: Callable[[int], str]) -> Mapping[str, Any]:
    """The entry ``metrics`` of ``report.json``.

    Args:
        classes: number of the model's classes.
        label: name of a class by its number.
    """
    told: dict[str, Any] = {
        "accuracy": proportion(seen.right, seen.units, grouped=seen.grouped),
        "balanced_accuracy": balanced_accuracy(seen),
    }
    if (area := auroc(seen)) is not None:
        told["auroc"] = area
    if len(seen.truth) >= FEWEST:
        told["ece"] = calibration_error(seen)
    if classes > MANY_CLASSES:
        told["top5"] = proportion(seen.within, seen.units, grouped=seen.grouped)
    told["per_class"] = per_class(seen, label)
    if slices := per_slice(seen):
        told["per_slice"] = slices
    return told
