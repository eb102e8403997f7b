"""How outputs of layers read as maps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from reportgen.engine.resolution import Layer, Layout

MOST_PREFIX = 8
"""A class token, a distillation token and registers: more tokens than this in excess of a grid are no prefix."""


def as_maps(output: Tensor, layer: Layer) -> Tensor:
    """A layer's output as (n, C, h, w): channels moved to the front, prefix tokens set aside and tokens put into
    their grid.
    """
    if layer.layout == "channels-first":
        return output
    if layer.layout == "channels-last":
        return output.permute(0, 3, 1, 2)
    channels, height, width = layer.shape
    return output[:, layer.prefix :].transpose(1, 2).reshape(len(output), channels, height, width)


def read_layout(kind: str, output: Sequence[int], size: tuple[int, int]) -> tuple[Layout, tuple[int, ...], int]:
    """How an output without its batch dimension reads as maps: layout, (C, h, w), prefix tokens.

    Args:
        kind: class name of the module; some leave no doubt.
        output: its shape.
        size: (H, W) of the model's input.
    """
    if len(output) == 3:
        first, second, third = output
        on_last = kind in ("Linear", "LayerNorm")  # both work on the last dimension; LayerNorm2d does not
        if _is_grid(second, third, size) and not on_last:
            return "channels-first", (first, second, third), 0
        if _is_grid(first, second, size):
            return "channels-last", (third, first, second), 0
    if len(output) == 2:
        for prefix in range(MOST_PREFIX + 1):
            grid = _grid(output[0] - prefix, size)
            if grid:
                return "tokens", (output[1], *grid), prefix
    return "none", (), 0


def _is_grid(height: int, width: int, size: tuple[int, int]) -> bool:
    """Whether height × width can be what is left of the input after equal strides, give or take two for padding."""
    fits = abs(width * size[0] - height * size[1]) <= 2 * max(size)
    return fits and height <= size[0] + 8 and width <= size[1] + 8


def _grid(tokens: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """(h, w) with h·w = `tokens` that equal patches of the input give."""
    for stride in range(1, max(size) // 2 + 1):
        for height, width in (
            (size[0] // stride, size[1] // stride),
            (-(-size[0] // stride), -(-size[1] // stride)),
        ):
            if height * width == tokens and height > 1 and width > 1:
                return height, width
    return None
