"""Intervals by drawing the images again, or by leaving some of them out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reportgen.metrics import student

DRAWS: Final = 4000
FEWEST: Final = 5
"""The draws of fewer values reach no further than these do: their interval would hold the mean three times in four."""


def interval_of_mean(values: NDArray[np.floating], *, seed: int = 0) -> tuple[float, float] | None:
    """95 % percentile interval of the mean of (n,) values, by the bootstrap (Efron 1979); None for fewer than
    `FEWEST`. Of six normal values it holds the mean nine times in ten, of twenty and more as often as it says.
    """
    known = np.asarray(values, dtype=np.float64)
    if len(known) < FEWEST:
        return None
    drawn = np.random.default_rng(seed).integers(0, len(known), (DRAWS, len(known)))
    low, high = np.percentile(known[drawn].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def jackknife(value: float, left_out: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of a statistic about its `value`, by Student's t and the jackknife (Tukey 1958).

    Args:
        left_out: what it comes to with each of the lots of images left out; None is returned for fewer than two.
    """
    lots = len(left_out)
    if lots < 2:
        return None
    error = float(np.std(np.asarray(left_out, dtype=np.float64))) * np.sqrt(lots - 1)
    half = student(lots - 1) * float(error)
    return value - half, value + half
