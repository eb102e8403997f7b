"""Similarity of maps against SciPy and scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity as reference

from reportgen.similarity import rank_correlation, structural_similarity


@pytest.mark.parametrize("shape", [(7, 7), (40, 56)])
def test_agrees_with_the_references(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    one = generator.normal(size=shape)
    for other in (generator.normal(size=shape), one + 0.3 * generator.normal(size=shape), -one):
        ties = np.maximum(other, 0)
        assert rank_correlation(one, ties) == pytest.approx(spearmanr(one.ravel(), ties.ravel()).statistic)
        if min(shape) >= 11:
            x, y = ((values - values.min()) / np.ptp(values) for values in (one, other))
            expected = reference(x, y, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
            assert structural_similarity(one, other) == pytest.approx(expected)


@pytest.mark.parametrize("how", [rank_correlation, structural_similarity])
def test_maps_without_order(how: object) -> None:
    assert callable(how)
    map_, flat = np.random.default_rng(0).normal(size=(20, 20)), np.zeros((20, 20))
    assert how(map_, 3 * map_ + 1) == pytest.approx(1)
    assert how(map_, flat) == how(flat, map_) == 0
    assert math.isnan(how(flat, flat + 1))
    assert math.isnan(how(map_, np.full((20, 20), np.inf)))
