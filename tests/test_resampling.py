"""Intervals by the bootstrap, against SciPy's and by what they cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, t

from reportgen.resampling import interval_of_mean, jackknife


def test_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).gamma(2.0, size=30)
    expected = bootstrap((values,), np.mean, method="percentile", n_resamples=20000, rng=0).confidence_interval
    found = interval_of_mean(values)
    assert found is not None
    assert found == pytest.approx((expected.low, expected.high), abs=0.03)
    assert found == interval_of_mean(values)


@pytest.mark.parametrize(("n", "least"), [(6, 0.83), (40, 0.88)])
def test_covers_the_mean_about_as_often_as_it_says(n: int, least: float) -> None:
    generator = np.random.default_rng(0)
    found = [interval_of_mean(generator.normal(size=n)) for _ in range(200)]
    assert least <= np.mean([low <= 0 <= high for low, high in (one for one in found if one)]) <= 0.98


@pytest.mark.parametrize("n", [1, 4])
def test_a_handful_of_values_has_no_interval(n: int) -> None:
    assert interval_of_mean(np.linspace(0.3, 0.4, n)) is None


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(1).normal(size=12)
    left_out = [float(np.delete(values, place).mean()) for place in range(12)]
    half = t.ppf(0.975, 11) * values.std(ddof=1) / np.sqrt(12)
    assert jackknife(float(values.mean()), left_out) == pytest.approx((values.mean() - half, values.mean() + half))
    assert jackknife(0.3, [0.3]) is None
