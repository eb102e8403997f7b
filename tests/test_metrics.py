"""Metrics agree with scikit-learn and with derivations by hand; their intervals cover what they say they cover."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, roc_auc_score, top_k_accuracy_score

from reportgen.metrics import (
    BINS,
    Labelled,
    auroc,
    balanced_accuracy,
    calibration_bins,
    calibration_error,
    confusion,
    metrics,
    per_class,
    per_slice,
    proportion,
    wilson,
)


def labelled(
    scores: Any,
    truth: Sequence[int],
    *,
    groups: Sequence[int] | None = None,
    slices: Sequence[str | None] | None = None,
) -> Labelled:
    """As the rows of a scan would make it, from (n, classes) logits."""
    logits = np.asarray(scores, np.float64)
    own = np.asarray(truth)
    probability = np.exp(logits - logits.max(1, keepdims=True))
    probability /= probability.sum(1, keepdims=True)
    order = np.argsort(-logits, axis=1, kind="stable")
    units = np.arange(len(own)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    return Labelled(
        truth=own,
        predicted=order[:, 0],
        confidence=probability.max(1),
        units=units,
        grouped=groups is not None,
        odds=np.log(probability) - np.log1p(-probability),
        within=(order[:, :5] == own[:, None]).any(1),
        slices=slices or [None] * len(own),
    )


def drawn(n: int, classes: int, *, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Logits that know something of the truth, and the truth, classes of unequal size."""
    random = np.random.default_rng(seed)
    truth = np.minimum(random.geometric(0.35, n) - 1, classes - 1)
    truth[:classes] = np.arange(classes)  # every class occurs
    logits = random.normal(size=(n, classes))
    logits[np.arange(n), truth] += 1.0
    return logits, truth


@pytest.mark.parametrize(("n", "classes"), [(10, 3), (10_000, 3), (10_000, 30), (40, 2)])
def test_numbers_are_those_of_scikit_learn(n: int, classes: int) -> None:
    logits, truth = drawn(n, classes)
    seen = labelled(logits, truth)
    found = metrics(seen, classes, str)
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found["accuracy"]["value"] == pytest.approx((logits.argmax(1) == truth).mean(), abs=1e-12)
    assert found["balanced_accuracy"]["value"] == pytest.approx(balanced_accuracy_score(truth, logits.argmax(1)))
    expected = roc_auc_score(truth, probability[:, 1] if classes == 2 else probability, multi_class="ovr")
    assert found["auroc"]["value"] == pytest.approx(expected, abs=1e-12)
    assert ("top5" in found) == (classes > 20)
    if classes > 20:
        assert found["top5"]["value"] == pytest.approx(top_k_accuracy_score(truth, logits, k=5))
    matrix = np.zeros((classes, classes), int)
    for (row, column), count in confusion(seen).items():
        matrix[row, column] = count
    assert (matrix == confusion_matrix(truth, logits.argmax(1), labels=range(classes))).all()
    for one in found["per_class"]:
        index = one["index"]
        if "recall" in one:
            assert one["recall"]["value"] == pytest.approx(matrix[index, index] / matrix[index].sum())
            assert one["recall"]["n"] == matrix[index].sum()
        if "precision" in one:
            assert one["precision"]["value"] == pytest.approx(matrix[index, index] / matrix[:, index].sum())
    assert all(0 <= end <= 1 for one in found.values() if isinstance(one, dict) for end in one["interval"])


def test_wilson_by_hand() -> None:
    """8 of 10: centre (0.8 + 0.19207)/(1.38415), half width as in Wilson's formula, worked out apart."""
    assert wilson(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10) == pytest.approx((0.722467, 1.0), abs=1e-6)
    assert wilson(0, 0) == (0.0, 1.0)


def test_without_groups_the_interval_is_wilsons() -> None:
    hits = np.array([True] * 8 + [False] * 2)
    assert tuple(proportion(hits, np.arange(10), grouped=False)["interval"]) == pytest.approx(wilson(8, 10))
    every = np.ones(10, bool)
    assert tuple(proportion(every, np.arange(10), grouped=False)["interval"]) == pytest.approx(wilson(10, 10))


def test_repeated_images_of_a_group_are_one_witness() -> None:
    """Each of 10 images 50 times over: as much is known as from 10, a little less for the estimated variance."""
    hits = np.repeat(np.array([True] * 8 + [False] * 2), 50)
    groups = np.repeat(np.arange(10), 50)
    low, high = proportion(hits, groups, grouped=True)["interval"]
    once = wilson(8, 10)
    assert low < once[0] < 0.8 < once[1] < high + 0.02
    every = proportion(np.ones(500, bool), groups, grouped=True)["interval"]
    assert every[0] < wilson(10, 10)[0] + 1e-9
    assert proportion(np.ones(5, bool), np.zeros(5, int), grouped=True)["interval"] == [0.0, 1.0]


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_cover_the_truth_as_often_as_they_say(grouped: bool) -> None:
    """500 data sets of 120 images, in groups of 6 that share their luck or not: of 95 % intervals about 95 % hold."""
    random = np.random.default_rng(4)
    covered = {"accuracy": 0, "balanced": 0, "auroc": 0}
    area = 0.7602499389  # of two normal distributions one standard deviation apart: Φ(1/√2)
    for _ in range(500):
        groups = np.repeat(np.arange(20), 6)
        truth = groups % 2  # the images of a group show the same
        common = random.normal(size=20)[groups] if grouped else 0.0
        share_ = np.sqrt(0.5) if grouped else 0.0
        noise = share_ * common + np.sqrt(1 - share_**2) * random.normal(size=120)
        score = truth + noise - 0.5
        seen = labelled(np.stack([-score / 2, score / 2], 1), truth, groups=groups if grouped else None)
        for name, found, expected in (
            ("accuracy", proportion(seen.right, seen.units, grouped=grouped), 0.6914624613),  # Φ(1/2)
            ("balanced", balanced_accuracy(seen), 0.6914624613),
            ("auroc", auroc(seen), area),
        ):
            assert found is not None
            low, high = found["interval"]
            covered[name] += low <= expected <= high
    assert {name: round(count / 500, 2) for name, count in covered.items()} == pytest.approx(
        dict.fromkeys(covered, 0.95), abs=0.025
    )


def test_area_under_the_curve_by_hand() -> None:
    """Class 1 has the scores 1, 3 and class 0 the scores 0, 1: three pairs right, one tie: 3.5 of 4."""
    scores = np.array([[0, 0.0], [0, 1.0], [0, 1.0], [0, 3.0]])
    found = auroc(labelled(scores, [0, 0, 1, 1]))
    assert found is not None
    assert found["value"] == pytest.approx(3.5 / 4)
    # DeLong by hand: placements 3/4 and 1 of class 1, 1 and 3/4 of class 0; deviations ±1/8, divided by 2 each
    variance = 4 * (0.125 / 2) ** 2
    n = 0.875 * 0.125 / variance
    assert tuple(found["interval"]) == pytest.approx(wilson(0.875 * n, n))
    assert auroc(labelled(scores, [1, 1, 1, 1])) is None


def test_certain_answers_are_still_told_apart() -> None:
    """Softmax is 1 for all of these to the last digit; their scores are not equal."""
    odds = np.array([[-60.0, 60.0], [-50.0, 50.0], [-40.0, 40.0], [-45.0, 45.0]])
    truth = np.array([1, 1, 0, 0])
    seen = Labelled(truth, np.ones(4, int), np.ones(4), np.arange(4), False, odds, truth >= 0, [None] * 4)
    found = auroc(seen)
    assert found is not None
    assert found["value"] == 1.0
    assert found["interval"][0] < 0.5  # two of each kind prove little


def test_calibration_by_hand() -> None:
    """Two images at 0.9 of which one is right, two at 0.6 that are right: (0.8 + 0.8)/4 = 0.4."""
    confidence = np.array([0.9, 0.9, 0.6, 0.6])
    truth = np.array([1, 0, 1, 1])
    seen = Labelled(truth, np.ones(4, int), confidence, np.arange(4), False, None, truth >= 0, [None] * 4)
    assert calibration_error(seen)["value"] == pytest.approx(0.4)
    bins = calibration_bins(seen)
    assert [(one["low"], one["high"]) for one in bins] == [(8 / BINS, 9 / BINS), (13 / BINS, 14 / BINS)]
    assert [one["accuracy"]["value"] for one in bins] == [1.0, 0.5]
    assert [one["accuracy"]["n"] for one in bins] == [2, 2]
    assert auroc(seen) is None


def test_few_right_answers_do_not_settle_the_calibration() -> None:
    """24 images at 0.98 to 0.99, all right: the network may be right as seldom as in 86 of 100 cases."""
    confidence, ones = np.linspace(0.98, 0.99, 24), np.ones(24, int)
    seen = Labelled(ones, ones, confidence, np.arange(24), False, None, ones > 0, [None] * 24)
    found = calibration_error(seen)
    assert found["value"] == pytest.approx(0.015)
    assert found["interval"][0] < 0.005
    assert found["interval"][1] > 0.1


def test_bins_include_their_upper_end() -> None:
    confidence = np.array([0.0, 1 / BINS, 2 / BINS, 1.0])
    seen = Labelled(
        np.ones(4, int), np.ones(4, int), confidence, np.arange(4), False, None, np.ones(4, bool), [None] * 4
    )
    assert [round(one["low"] * BINS) for one in calibration_bins(seen)] == [0, 1, BINS - 1]


def test_calibration_error_of_ten_thousand_is_a_plain_sum() -> None:
    logits, truth = drawn(10_000, 5, seed=3)
    seen = labelled(logits, truth)
    edges = np.linspace(0, 1, BINS + 1)
    expected = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (seen.confidence > low) & (seen.confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(seen.confidence[inside].mean() - seen.right[inside].mean())
    assert calibration_error(seen)["value"] == pytest.approx(expected, abs=1e-12)


def test_slices_and_classes_have_their_own_base() -> None:
    logits = np.eye(3)[[0, 0, 1, 2, 1]] * 5
    seen = labelled(logits, [0, 0, 1, 1, 1], slices=["day", "night", "night", None, "day"])
    assert [(one["slice"], one["accuracy"]["value"], one["accuracy"]["n"]) for one in per_slice(seen)] == [
        ("day", 1.0, 2),
        ("night", 1.0, 2),
    ]
    classes = {one["label"]: one for one in per_class(seen, "class {}".format)}
    assert classes["class 1"]["recall"]["value"] == pytest.approx(2 / 3)
    assert classes["class 2"]["precision"]["value"] == 0.0
    assert "recall" not in classes["class 2"]
