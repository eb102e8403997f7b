"""Numbers about predictions, with their n and interval."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any


def wilson(successes: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Score interval of a proportion, 95 % by default (Wilson 1927). Both ends in [0, 1]."""
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def share(count: int, n: int) -> dict[str, Any]:
    """`count` of `n`, n above 0, with its interval."""
    return {"value": count / n, "n": n, "interval": list(wilson(count, n))}


def accuracy(pairs: Sequence[tuple[int, int]]) -> dict[str, Any] | None:
    """Share of (predicted, true) pairs that agree, as ``report.json`` tells it; None without pairs."""
    if not pairs:
        return None
    right = sum(predicted == true for predicted, true in pairs)
    return share(right, len(pairs))
