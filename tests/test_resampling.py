"""Intervals by the bootstrap, against SciPy's and by what they cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from reportgen.resampling import interval_of_mean


def test_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).gamma(2.0, size=30)
    expected = bootstrap((values,), np.mean, method="percentile", n_resamples=20000, rng=0).confidence_interval
    found = interval_of_mean(values)
    assert found is not None
    assert found == pytest.approx((expected.low, expected.high), abs=0.03)
    assert found == interval_of_mean(values)


def test_covers_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    found = [interval_of_mean(generator.normal(size=40)) for _ in range(200)]
    assert 0.88 <= np.mean([low <= 0 <= high for low, high in (one for one in found if one)]) <= 0.98


def test_one_value_has_no_interval() -> None:
    assert interval_of_mean(np.array([0.3])) is None
