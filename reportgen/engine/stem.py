"""The way back through a network's first convolution, whose input has few channels: the colours of a picture.

On a processor oneDNN works on eight or sixteen channels at once, so that the gradient by three colours costs as much as
that by sixteen. A transposed convolution of stride s is a convolution that returns s² times as many channels, each a
grid of its own of every s-th pixel (Shi et al. 2016, arXiv:1609.07009): that keeps oneDNN busy, and takes half as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

_FEW: Final = 4
_STRIDES: Final = (2, 3, 4)
"""Without a stride there is nothing to deal out; patches that do not overlap are one multiplication of matrices."""


@dataclass(frozen=True)
class Stem:
    """How a first convolution lies over its input.

    Attributes:
        size: (H, W) of the input.
        stride, padding: of rows and of columns.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]


def stem_of(x: Tensor, given: Mapping[str, Any]) -> Stem | None:
    """Of a call of a convolution with these arguments; None where torch's own backward is as good.

    Args:
        x: its input.
        given: ``weight``, ``stride``, ``padding``, ``dilation``, ``groups``.
    """
    differentiated = x.requires_grad and torch.is_grad_enabled() and x.dim() == 4 and x.shape[1] <= _FEW
    if not differentiated or given["groups"] != 1 or isinstance(given["padding"], str):
        return None
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return None
    stride, padding, dilation = (_pair(given[name]) for name in ("stride", "padding", "dilation"))
    if dilation != (1, 1) or not {*stride} <= {*_STRIDES} or len(given["weight"]) <= _FEW:
        return None
    return Stem((x.shape[2], x.shape[3]), stride, padding)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    return int(pair[0]), int(pair[-1])


class StemConvolution(torch.autograd.Function):
    """What a first convolution returns; its gradient by the input is computed as the module says.

    Args:
        x: (B, C, H, W).
        call: the convolution as a function of `x`.
        weight: (C', C, h, w), with which the gradient is computed.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, call: Callable[[Tensor], Tensor], weight: Tensor, stem: Stem) -> Tensor:
        return call(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _x, _call, ctx.weight, ctx.stem = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        found: Tensor = _InputGradient.apply(gradients[0], ctx.weight, ctx.stem)
        return found, None, None, None


class _InputGradient(torch.autograd.Function):
    """(B, C, H, W) gradient by the input, of that by the output; of several at once as of so many more images."""

    @staticmethod
    def forward(gradient: Tensor, weight: Tensor, stem: Stem) -> Tensor:
        return _input_gradient(gradient, weight, stem)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing: it is not differentiated again."""

    @staticmethod
    def vmap(
        info: Any, dims: tuple[int | None, ...], gradient: Tensor, weight: Tensor, stem: Stem
    ) -> tuple[Tensor, int]:
        assert dims[0] is not None
        several = gradient.movedim(dims[0], 0)
        found = _input_gradient(several.flatten(0, 1), weight, stem)
        return found.reshape(*several.shape[:2], *found.shape[1:]), 0


def _input_gradient(gradient: Tensor, weight: Tensor, stem: Stem) -> Tensor:
    """A convolution of the gradient whose channels are dealt out as pixels."""
    (height, width), (down, across), (above, before) = stem.size, stem.stride, stem.padding
    rows = _reach(weight.shape[2], down, above)
    columns = _reach(weight.shape[3], across, before)
    taps = weight.new_zeros((down, across, *weight.shape[1::-1], len(rows), len(columns)))
    for row, y in enumerate(rows):
        for column, x in enumerate(columns):
            part = weight[:, :, max(down * y + above, 0) : down * (y + 1) + above]
            part = part[:, :, :, max(across * x + before, 0) : across * (x + 1) + before]
            top, left = max(-down * y - above, 0), max(-across * x - before, 0)
            place = taps[top : top + part.shape[2], left : left + part.shape[3], :, :, row, column]
            place.copy_(part.permute(2, 3, 1, 0))
    kernel = taps.permute(2, 0, 1, 3, 4, 5).flatten(0, 2).contiguous(memory_format=torch.channels_last)
    wanted = -(-height // down), -(-width // across)
    sides = [
        (reach[0], count - length - reach[-1])
        for reach, count, length in zip((rows, columns), wanted, gradient.shape[2:], strict=True)
    ]
    padded = functional.pad(gradient.contiguous(memory_format=torch.channels_last), (*sides[1], *sides[0]))
    grids = functional.conv2d(padded, kernel).reshape(len(gradient), -1, down, across, *wanted)
    return grids.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)[:, :, :height, :width]


def _reach(length: int, stride: int, padding: int) -> range:
    """By how many outputs a grid of pixels lies behind those that saw it, most first."""
    return range((length - 1 - padding) // stride, -((stride - 1 + padding) // stride) - 1, -1)
