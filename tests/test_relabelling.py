"""A class list in another order is noticed; a network that errs, or has given up, is not taken for one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from reportgen.metrics import Labelled
from reportgen.relabelling import paired_gain, renamed


def answered(truth: Sequence[int], predicted: Sequence[int], groups: Sequence[int] | None = None) -> Labelled:
    own, said = np.asarray(truth), np.asarray(predicted)
    units = np.arange(len(own)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    return Labelled(own, said, np.ones(len(own)), units, groups is not None, None, own == said, [None] * len(own))


def good(n: int, classes: int, *, right: float = 0.85, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, n)
    return truth, np.where(random.random(n) < right, truth, random.integers(0, classes, n))


def speaks(seen: Labelled, labels: Sequence[str]) -> bool:
    found = renamed(seen, labels)
    return found is not None and found.gain["interval"][0] > 0 and found.gain["value"] >= 0.1 and found.helped >= 2


@pytest.mark.parametrize("classes", [2, 10, 200])
def test_a_shifted_list_is_noticed(classes: int) -> None:
    truth, predicted = good(60 * classes, classes)
    labels = [f"class {n}" for n in range(classes)]
    seen = answered(truth, (predicted + 1) % classes)
    found = renamed(seen, labels)
    assert found is not None
    assert speaks(seen, labels)
    assert (found.pattern, abs(found.shift)) == ("shift", 1)
    assert all((one - meant) % classes == 1 for one, meant in found.names.items())
    assert found.gain["value"] == pytest.approx((predicted == truth).mean() - seen.right.mean(), abs=0.02)
    assert not speaks(answered(truth, predicted), labels)


def test_a_list_sorted_by_spelling_is_noticed() -> None:
    """Trained with folders in the order of their spelling, 0, 1, 10, 11, 2, …; told that they are 0, 1, 2, …"""
    labels = [str(n) for n in range(12)]
    spelled = sorted(range(12), key=lambda n: labels[n])
    truth, meant = good(600, 12)
    place = np.argsort(spelled)  # the model's own number of each class
    seen = answered(truth, place[meant])
    found = renamed(seen, labels)
    assert found is not None
    assert speaks(seen, labels)
    assert found.pattern == "sorted"


@pytest.mark.parametrize("seed", range(20))
def test_chance_is_no_renaming(seed: int) -> None:
    """Where answers are noise, some renaming always fits these images better, and never others."""
    truth, predicted = good(60, 10, right=0.0, seed=seed)
    assert not speaks(answered(truth, predicted), [str(n) for n in range(10)])


def test_groups_count_as_one() -> None:
    """Forty images, but two patients: nothing can be chosen by one and measured on others."""
    truth = np.repeat([0, 1], 20)
    predicted = np.repeat([1, 0], 20)
    assert speaks(answered(truth, predicted), ["a", "b"])
    assert renamed(answered(truth, predicted, groups=truth), ["a", "b"]) is None


def test_a_network_that_names_one_class_is_no_renaming() -> None:
    truth = np.repeat([0, 1, 2], [10, 80, 10])
    assert not speaks(answered(truth, np.zeros(100, int)), ["a", "b", "c"])


def test_too_few_to_say() -> None:
    assert renamed(answered([0, 1] * 5, [1, 0] * 5), ["a", "b"]) is None
    assert renamed(answered([0] * 50, [1] * 50), ["a", "b"]) is None


def test_gain_by_hand() -> None:
    """Of eight images four become right and one wrong: 3/8, deviations 5/8 four times, −3/8 three times, −11/8 once."""
    before = np.array([False] * 4 + [True] * 4)
    after = np.array([True] * 4 + [True] * 3 + [False])
    found = paired_gain(before, after, np.arange(8))
    assert found["value"] == pytest.approx(3 / 8)
    half = 2.364624 * ((4 * 25 + 3 * 9 + 121) / 64 * 8 / 7) ** 0.5 / 8  # Student's t of seven
    assert tuple(found["interval"]) == pytest.approx((3 / 8 - half, 3 / 8 + half), rel=1e-6)


def test_one_group_proves_no_gain() -> None:
    found = paired_gain(np.zeros(40, bool), np.ones(40, bool), np.zeros(40, int))
    assert (found["value"], found["interval"]) == (1.0, [-1.0, 1.0])
