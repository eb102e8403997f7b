"""Parts of a map, and how much of it lies in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import sqrt
from typing import Any

import numpy as np

from reportgen.store import Array

PLACES = ("top left", "top right", "bottom left", "bottom right")
"""The corners."""


@cache
def corner_cells(height: int, width: int) -> tuple[Array, ...]:
    """Four (h, w) masks, one a corner in the order of `PLACES`: a quarter of each side, one cell at least."""
    down, across = max(1, round(height / 4)), max(1, round(width / 4))
    found = []
    for rows in (slice(None, down), slice(-down, None)):
        for columns in (slice(None, across), slice(-across, None)):
            cells = np.zeros((height, width), bool)
            cells[rows, columns] = True
            found.append(cells)
    return tuple(found)


@cache
def frame(height: int, width: int) -> Array:
    """(h, w) mask of the border: an eighth of each side, one cell at least."""
    down, across = max(1, round(height / 8)), max(1, round(width / 8))
    cells = np.ones((height, width), bool)
    cells[down : height - down, across : width - across] = False
    return cells


@dataclass
class Share:
    """Mean of a number over images, with its interval."""

    n: int = 0
    total: float = 0.0
    square: float = 0.0

    def add(self, value: float) -> None:
        """Count one image."""
        self.n += 1
        self.total += value
        self.square += value * value

    @property
    def mean(self) -> float:
        """0 where nothing was counted."""
        return self.total / self.n if self.n else 0.0

    def told(self) -> dict[str, Any]:
        """Mean and its interval, 95 % by Student's t, which one image does not have."""
        if self.n < 2:
            return {"share": self.mean, "interval": None, "n": self.n}
        variance = max(self.square - self.n * self.mean**2, 0.0) / (self.n - 1)
        half = _student(self.n, 0.025) * sqrt(variance / self.n)
        return {"share": self.mean, "interval": [self.mean - half, self.mean + half], "n": self.n}


@cache
def _student(n: int, doubt: float) -> float:
    """What a mean of n exceeds with a probability of `doubt` by chance, in standard errors."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 1 - doubt))


def surely(told: Mapping[str, Any], chance: float, margin: float, doubt: float) -> bool:
    """Whether a share that was told exceeds chance by `margin`, and chance itself but for a probability of `doubt`."""
    if told["interval"] is None or told["share"] - chance < margin:
        return False
    error = (told["share"] - told["interval"][0]) / _student(told["n"], 0.025)
    return bool(told["share"] - _student(told["n"], doubt) * error > chance)
