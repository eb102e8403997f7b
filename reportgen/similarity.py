"""How alike two maps are."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

DEVIATION: Final = 1.5
"""Standard deviation of the window of `structural_similarity`, in pixels; it is cut off at `REACH` of these."""
REACH: Final = 3.5
STABLE: Final = (0.01**2, 0.03**2)
"""Constants that keep the quotients finite, for values over a range of 1."""


def rank_correlation(one: Values, other: Values) -> float:
    """Spearman's rank correlation of all values of two arrays of one shape, ties at their mean rank.

    0 where one of them alone is the same everywhere: it has no order to share. NaN where both are, or where a value is
    no number.
    """
    without = _without(one, other)
    if without is not None:
        return without
    first, second = (_ranks(values.ravel()) for values in (one, other))
    return float(np.corrcoef(first, second)[0, 1])


def _without(one: Values, other: Values) -> float | None:
    """The similarity of maps that cannot be compared; None for those that can."""
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float("nan")
    flat = [not np.ptp(values) for values in (one, other)]
    return float("nan") if all(flat) else 0.0 if any(flat) else None


def _ranks(values: Values) -> Values:
    _distinct, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Values = (np.cumsum(count) - (count - 1) / 2)[place]
    return ranks


def structural_similarity(one: Values, other: Values) -> float:
    """Mean SSIM (Wang et al. 2004) of two (h, w) maps, each moved and scaled to 0..1, under a Gaussian window.

    Of maps that are the same everywhere it tells what `rank_correlation` does.
    """
    without = _without(one, other)
    if without is not None:
        return without
    x, y = _unit(one), _unit(other)
    mean_x, mean_y = _smoothed(x), _smoothed(y)
    spread_x, spread_y = _smoothed(x * x) - mean_x**2, _smoothed(y * y) - mean_y**2
    common = _smoothed(x * y) - mean_x * mean_y
    alike = (2 * mean_x * mean_y + STABLE[0]) * (2 * common + STABLE[1])
    whole = (mean_x**2 + mean_y**2 + STABLE[0]) * (spread_x + spread_y + STABLE[1])
    # where the window would reach beyond the border nothing is known
    edge = min(_radius(), (min(x.shape) - 1) // 2)
    inside = (alike / whole)[edge : x.shape[0] - edge, edge : x.shape[1] - edge]
    return float(inside.mean())


def _unit(values: Values) -> Values:
    scaled: Values = (values - values.min()) / np.ptp(values)
    return scaled


def _radius() -> int:
    return int(REACH * DEVIATION + 0.5)


def _smoothed(values: Values) -> Values:
    """Under the Gaussian, mirrored at the border."""
    radius = _radius()
    kernel = np.exp(-((np.arange(-radius, radius + 1) / DEVIATION) ** 2) / 2)
    kernel /= kernel.sum()
    padded = np.pad(values, radius, mode="symmetric")
    rows = sum(weight * padded[place : place + values.shape[0]] for place, weight in enumerate(kernel))
    columns: Values = np.zeros_like(values)
    for place, weight in enumerate(kernel):
        columns += weight * np.asarray(rows)[:, place : place + values.shape[1]]
    return columns
