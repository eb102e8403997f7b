"""Whether the answers would be right under other names: a class list in another order than the model was trained with.

The best renaming of a confusion matrix is an assignment (Kuhn 1955). It always fits at least as well as the names
given, so its gain is measured on images that it was not chosen by: each half of them under the renaming of the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reportgen.metrics import FEWEST, Integers, Labelled, measured, student

MOST_CLASSES = 2000
"""An assignment takes time by the cube of the classes."""

Pattern = Literal["shift", "sorted", "other"]


@dataclass(frozen=True)
class Renamed:
    """A renaming and what it gains.

    Attributes:
        gain: accuracy under the renaming less accuracy as given, on images that it was not chosen by.
        names: class meant by each class that is predicted and renamed.
        pattern: whether all names are shifted alike, or in the order of their spelling, or neither.
        shift: by how much, where they are shifted.
        helped: number of predicted classes of which the renaming makes more images right.
    """

    gain: Mapping[str, Any]
    names: Mapping[int, int]
    pattern: Pattern
    shift: int
    helped: int


def paired_gain(before: NDArray[np.bool_], after: NDArray[np.bool_], units: Integers) -> dict[str, Any]:
    """By how much more images are right after than before: value, n and a 95 % interval, with the images of one group
    as one witness.
    """
    n = len(before)
    change = after.astype(np.float64) - before
    value = float(change.mean())
    sums = np.bincount(np.unique(units, return_inverse=True)[1], weights=(change - value) / n)
    if len(sums) < 2:
        return measured(value, n, (-1.0, 1.0))
    half = student(len(sums) - 1) * sqrt(float((sums**2).sum()) * len(sums) / (len(sums) - 1))
    return measured(value, n, (value - half, value + half))


def renamed(seen: Labelled, labels: Sequence[str]) -> Renamed | None:
    """The renaming of predicted classes that fits the truth best; None where there is too little to choose it by.

    Args:
        labels: names of all classes, in order.
    """
    there = np.union1d(seen.truth, seen.predicted)
    if len(np.unique(seen.units)) < FEWEST or len(np.unique(seen.truth)) < 2 or len(there) > MOST_CLASSES:
        return None
    truth, predicted = np.searchsorted(there, seen.truth), np.searchsorted(there, seen.predicted)
    count = int(seen.units.max()) + 1
    half = np.random.default_rng(0).permutation(count)[seen.units] % 2 == 0
    after = np.empty(len(truth), bool)
    for part in (half, ~half):
        after[part] = _assigned(truth[~part], predicted[~part], len(there))[predicted[part]] == truth[part]
    change = np.bincount(predicted, weights=after.astype(int) - seen.right, minlength=len(there))
    meant = _assigned(truth, predicted, len(there))
    occurring = np.unique(predicted)
    moved = {int(there[one]): int(there[meant[one]]) for one in occurring if meant[one] != one}
    shift, pattern = _pattern(moved, labels)
    return Renamed(paired_gain(seen.right, after, seen.units), moved, pattern, shift, int((change > 0).sum()))


def _assigned(truth: Integers, predicted: Integers, classes: int) -> Integers:
    """The class meant by each predicted one; itself where nothing is gained by another."""
    from scipy.optimize import linear_sum_assignment

    fit = np.zeros((classes, classes))
    np.add.at(fit, (predicted, truth), 1.0)
    fit[np.diag_indices(classes)] += 0.5
    return np.asarray(linear_sum_assignment(fit, maximize=True)[1])


def _pattern(moved: Mapping[int, int], labels: Sequence[str]) -> tuple[int, Pattern]:
    if not moved:
        return 0, "other"
    steps = {(meant - one) % len(labels) for one, meant in moved.items()}
    if len(steps) == 1:
        step = steps.pop()
        return step if step <= len(labels) // 2 else step - len(labels), "shift"
    spelled = sorted(range(len(labels)), key=lambda place: labels[place])
    return 0, "sorted" if all(spelled[one] == meant for one, meant in moved.items()) else "other"
