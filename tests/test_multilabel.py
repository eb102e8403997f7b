"""Metrics of several labels agree with scikit-learn and with derivations by hand; their intervals cover the truth."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    hamming_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from reportgen.metrics import BINS, calibration_bins, calibration_error, wilson
from reportgen.multilabel import Marked, average_precision, metrics, per_slice

MEANS = ("exact_match", "hamming_loss", "micro_f1", "macro_f1", "auroc", "mean_average_precision", "ece")


def marked(
    odds: Any, truth: Any, *, groups: Sequence[int] | None = None, slices: Sequence[str | None] | None = None
) -> Marked:
    """As the rows of a scan would make it, from (n, classes) log odds."""
    scores, shown = np.asarray(odds, np.float64), np.asarray(truth, bool)
    units = np.arange(len(shown)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    return Marked(shown, 1 / (1 + np.exp(-scores)), scores, units, groups is not None, slices or [None] * len(shown))


def drawn(n: int, shares: Sequence[float], *, seed: int = 0, digits: int = 9) -> tuple[Any, Any]:
    """Log odds that know something of the truth, and the truth: each class is shown by a share of the images."""
    random = np.random.default_rng(seed)
    truth = random.random((n, len(shares))) < np.asarray(shares)
    return np.round(random.normal(size=truth.shape) + 2.0 * truth - 1.0, digits), truth


@pytest.mark.parametrize(
    ("n", "shares", "digits"),
    [
        (40, (0.5, 0.3, 0.1), 9),
        (5000, (0.5, 0.2, 0.05, 0.01), 9),
        (500, (0.5, 0.2), 1),  # many ties
        (60, (0.5, 0.0, 1.0), 9),  # none shows the second class, all the third
    ],
)
def test_numbers_are_those_of_scikit_learn(n: int, shares: tuple[float, ...], digits: int) -> None:
    odds, truth = drawn(n, shares, digits=digits)
    seen = marked(odds, truth)
    found = metrics(seen, str)
    named = odds >= 0

    def is_about(number: dict[str, Any], expected: float) -> None:
        assert number["value"] == pytest.approx(expected, abs=1e-12)
        assert 0 <= number["interval"][0] <= number["value"] + 1e-9 <= number["interval"][1] + 2e-9 <= 1 + 2e-9

    is_about(found["exact_match"], accuracy_score(truth, named))
    is_about(found["hamming_loss"], hamming_loss(truth, named))
    is_about(found["micro_f1"], f1_score(truth, named, average="micro"))
    is_about(found["macro_f1"], f1_score(truth, named, average="macro", zero_division=np.nan))
    shown = [one for one in range(len(shares)) if truth[:, one].any()]
    both = [one for one in shown if not truth[:, one].all()]
    is_about(found["mean_average_precision"], average_precision_score(truth[:, shown], odds[:, shown]))
    is_about(found["auroc"], roc_auc_score(truth[:, both], odds[:, both]))
    classes = {one["index"]: one for one in found["per_class"]}
    for index, one in classes.items():
        own, said = truth[:, index], named[:, index]
        assert one["positives"] == own.sum()
        is_about(one["prevalence"], own.mean())
        is_about(one["f1"], f1_score(own, said))
        is_about(one["precision"], precision_score(own, said))
        if index in shown:
            is_about(one["recall"], recall_score(own, said))
            is_about(one["average_precision"], average_precision_score(own, odds[:, index]))
        if index in both:
            is_about(one["auroc"], roc_auc_score(own, odds[:, index]))
        assert ("recall" in one, "auroc" in one) == (index in shown, index in both)
    assert set(classes) == {one for one in range(len(shares)) if truth[:, one].any() or named[:, one].any()}


def test_a_class_that_nobody_shows_and_nobody_names_is_left_out() -> None:
    odds, truth = drawn(40, (0.5, 0.0))
    odds[:, 1] = -3
    found = metrics(marked(odds, truth), str)
    assert [one["index"] for one in found["per_class"]] == [0]
    assert found["macro_f1"] == {**found["macro_f1"], "value": pytest.approx(found["per_class"][0]["f1"]["value"])}
    silent = metrics(marked(np.full((5, 2), -1.0), np.zeros((5, 2))), str)
    assert set(silent) == {"exact_match", "hamming_loss", "per_class"}  # five images are too few for calibration
    assert silent["exact_match"]["value"] == 1.0


def test_what_moves_average_precision_is_its_derivative_by_weights() -> None:
    odds, truth = drawn(60, (0.4,), digits=1)
    value, influence = average_precision(odds[:, 0], truth[:, 0])
    small = 1e-6
    for place in range(60):
        weights = np.ones(60)
        weights[place] += small
        moved = average_precision_score(truth[:, 0], odds[:, 0], sample_weight=weights)
        assert (moved - value) / small == pytest.approx(influence[place], abs=1e-5)
    assert influence.sum() == pytest.approx(0, abs=1e-12)


def test_f1_by_hand() -> None:
    """Of 5 images that show a class or are said to, 3 both: J = 3/5, F1 = 6/8; Wilson's ends of J, turned likewise."""
    odds = np.array([[1.0], [1.0], [1.0], [1.0], [-1.0], [-1.0]])
    (found,) = metrics(marked(odds, np.array([[1], [1], [1], [0], [1], [0]])), str)["per_class"]
    assert (found["f1"]["value"], found["f1"]["n"]) == (pytest.approx(0.75), 5)
    assert found["f1"]["interval"] == pytest.approx([2 * end / (1 + end) for end in wilson(3, 5)])
    assert (found["recall"]["n"], found["precision"]["n"], found["prevalence"]["n"]) == (4, 4, 6)


def test_calibration_is_that_of_all_decisions() -> None:
    odds, truth = drawn(3000, (0.5, 0.2, 0.05))
    decisions = marked(odds, truth).decisions
    probability, shown = (1 / (1 + np.exp(-odds))).ravel(), truth.ravel()
    expected = 0.0
    for low, high in itertools.pairwise(np.linspace(0, 1, BINS + 1)):
        inside = (probability > low) & (probability <= high)
        if inside.any():
            expected += inside.mean() * abs(probability[inside].mean() - shown[inside].mean())
    assert calibration_error(decisions)["value"] == pytest.approx(expected, abs=1e-12)
    bins = calibration_bins(decisions)
    assert sum(one["accuracy"]["n"] for one in bins) == 9000


def test_a_single_image_of_a_class_proves_little() -> None:
    odds, truth = drawn(200, (0.0,))
    truth[np.argsort(odds[:, 0])[-20]] = True
    (found,) = metrics(marked(odds, truth), str)["per_class"]
    assert found["auroc"]["value"] == pytest.approx(180 / 199)
    assert found["auroc"]["interval"][0] < 0.3
    assert found["average_precision"]["interval"][1] > 0.8


def test_repeated_images_of_a_group_are_one_witness() -> None:
    """Each of 30 images 20 times over: about as much is known as from 30."""
    odds, truth = drawn(30, (0.5, 0.3))
    once = metrics(marked(odds, truth), str)
    often = metrics(marked(np.repeat(odds, 20, 0), np.repeat(truth, 20, 0), groups=np.repeat(np.arange(30), 20)), str)
    for name in MEANS:
        assert often[name]["value"] == pytest.approx(once[name]["value"])
        low, high = often[name]["interval"]
        # few decisions are never taken to know more than as many independent ones
        kept = 0.6 if name == "ece" else 0.95
        assert high - low > kept * (once[name]["interval"][1] - once[name]["interval"][0])
    one = metrics(marked(odds, truth, groups=[0] * 30), str)
    assert all(one[name]["interval"] == [0.0, 1.0] for name in MEANS)


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_cover_the_truth_as_often_as_they_say(grouped: bool) -> None:
    """200 data sets of 180 images, in groups of 6 that share their luck or not: at least 91 % of the intervals hold."""
    random = np.random.default_rng(3)
    shares, shift = np.array([0.5, 0.3, 0.15, 0.08]), np.array([1.0, 2.0, 2.0, 3.0])

    def data(n: int, *, lucky: bool) -> tuple[Any, Any, Any]:
        groups = np.arange(n) // 6
        luck = random.normal(size=(groups.max() + 1, 4))[groups] if lucky else np.zeros((n, 4))
        own = random.normal(size=(n, 4))
        truth = random.random((n, 4)) < shares
        part = np.sqrt(0.5) if lucky else 0.0
        return part * luck + np.sqrt(1 - part**2) * own + shift * (truth - 0.6), truth, groups

    odds, truth, _groups = data(200_000, lucky=False)
    expected = metrics(marked(odds, truth), str)
    covered = dict.fromkeys(MEANS, 0)
    for _ in range(200):
        odds, truth, groups = data(180, lucky=grouped)
        found = metrics(marked(odds, truth, groups=groups if grouped else None), str)
        for name in MEANS:
            low, high = found[name]["interval"]
            covered[name] += low <= expected[name]["value"] <= high
    assert min(covered.values()) >= 0.91 * 200, covered


def test_slices_have_their_own_base() -> None:
    odds = np.array([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    seen = marked(odds, [[1, 0], [1, 0], [0, 0]], slices=["day", "night", None])
    day, night = per_slice(seen)
    assert (day["slice"], day["exact_match"]["value"], day["micro_f1"]["value"]) == ("day", 1.0, 1.0)
    assert (night["slice"], night["exact_match"]["n"], night["exact_match"]["value"]) == ("night", 1, 0.0)
    assert night["micro_f1"]["value"] == pytest.approx(2 / 3)
