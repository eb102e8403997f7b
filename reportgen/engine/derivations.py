"""Inputs made from given ones, a batch at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reportgen.engine.requests import Derivation, Occlusion

GREY = 0.5
"""Value of the square that occludes, in 0..1 before normalisation."""


def derived(image: Tensor, derivation: Derivation, start: int, size: int, pipeline: Mapping[str, Any]) -> Tensor:
    """Derived inputs number `start` and following; the image itself in the rows beyond the last.

    Args:
        image: (1, C, H, W), normalised.
        derivation: how they are made; number 0 is the image itself.
        size: how many rows are returned.
        pipeline: the preprocessing; its ``mean`` and ``std`` say what grey is. Where it has none, grey is 0.

    Returns:
        (size, C, H, W).
    """
    batch = image.expand(size, -1, -1, -1).clone()
    grey = _grey(image, pipeline)
    for row in range(size):
        number = start + row
        if 0 < number < derivation.count:
            top, bottom, left, right = square(derivation, number - 1, image.shape[2], image.shape[3])
            batch[row, :, top:bottom, left:right] = grey
    return batch


def square(occlusion: Occlusion, cell: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Rows from, to and columns from, to that are covered for a cell, counted row by row.

    The centre of the square is that of the cell, which reaches over the rectangle from (i·H/rows, j·W/columns).
    """
    row, column = divmod(cell, occlusion.columns)
    top = round((row + 0.5) * height / occlusion.rows - occlusion.side / 2)
    left = round((column + 0.5) * width / occlusion.columns - occlusion.side / 2)
    return max(top, 0), min(top + occlusion.side, height), max(left, 0), min(left + occlusion.side, width)


def _grey(image: Tensor, pipeline: Mapping[str, Any]) -> Tensor:
    """(C, 1, 1) normalised grey."""
    channels = image.shape[1]
    mean, std = pipeline.get("mean") or (), pipeline.get("std") or ()
    if pipeline.get("transform") or len(mean) != channels or len(std) != channels:
        return image.new_zeros((channels, 1, 1))
    return ((GREY - image.new_tensor(mean)) / image.new_tensor(std))[:, None, None]
