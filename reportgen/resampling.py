"""Intervals of means by drawing the images again."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

DRAWS: Final = 4000


def interval_of_mean(values: NDArray[np.floating], *, seed: int = 0) -> tuple[float, float] | None:
    """95 % percentile interval of the mean of (n,) values, by the bootstrap (Efron 1979); None for fewer than two."""
    known = np.asarray(values, dtype=np.float64)
    if len(known) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(0, len(known), (DRAWS, len(known)))
    low, high = np.percentile(known[drawn].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)
