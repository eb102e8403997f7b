"""Receptive fields along one forward (Araujo, Norris and Sim 2019, doi 10.23915/distill.00021).

A window of k positions, d apart, over maps whose positions lie s input pixels apart sees (k-1)·d·s pixels more than one
of these positions; with its own stride the positions of its result lie that many times farther apart. Where paths meet
the longest counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any

from torch import Tensor

_PADDINGS = ("constant_pad_nd", "reflection_pad2d", "replication_pad2d")


@dataclass(frozen=True)
class Reach:
    """How much of the input one position of a tensor depends on.

    Attributes:
        size: receptive field (h, w) in input pixels, or None where windows do not define it.
        step: (h, w) input pixels between neighbouring positions; None with `size`.
        whole: something that sees all positions has a part in it.
        channels: numbers at one position.
        positions: how many positions there are.
        start: (y, x) in input pixels of the centre of what the first position sees, outside the image or not: a pixel
            reaches from its number to the next, so that the centre of the first pixel lies at a half. Goes with `size`.
    """

    size: tuple[int, int] | None
    step: tuple[float, float] | None
    whole: bool
    channels: int
    positions: int
    start: tuple[float, float] = (0.5, 0.5)

    def beyond(self, *, whole: bool, channels: int, positions: int) -> Reach:
        """What windows no longer define."""
        return Reach(None, None, self.whole or whole, channels, positions)


@dataclass(frozen=True)
class Window:
    """Of a convolution or pooling, (h, w) each."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    transposed: bool = False
    groups: int = 0
    padding: tuple[int, int] = (0, 0)


def window_of(kind: str, args: Sequence[Any], named: Mapping[str, Any]) -> Window | None:
    """The window of a two-dimensional ATen convolution or pooling; None for everything else."""
    if not args or not isinstance(args[0], Tensor) or args[0].dim() != 4:
        return None
    if kind == "convolution":
        _x, weight, _bias, stride, padding, dilation, transposed, _output_padding, groups = args
        kernel = (int(weight.shape[2]), int(weight.shape[3]))
        return Window(kernel, _pair(stride), _pair(dilation), bool(transposed), int(groups), _pair(padding))
    if kind in ("max_pool2d_with_indices", "max_pool2d", "avg_pool2d"):
        kernel = _pair(args[1])
        stride = named.get("stride", args[2] if len(args) > 2 else ())
        dilation = args[4] if kind != "avg_pool2d" and len(args) > 4 else 1
        padding = _pair(args[3]) if len(args) > 3 else (0, 0)
        return Window(kernel, _pair(stride) if stride else kernel, _pair(dilation), padding=padding)
    if kind in ("_adaptive_avg_pool2d", "adaptive_max_pool2d"):
        inside, outside = args[0].shape[2:], _pair(args[1])
        # where the sizes do not divide, windows overlap by one
        sides = [ceil(i / o) + (1 if i % o and o > 1 else 0) for i, o in zip(inside, outside, strict=True)]
        steps = [max(1, i // o) for i, o in zip(inside, outside, strict=True)]
        return Window((sides[0], sides[1]), (steps[0], steps[1]))
    return None


def _pair(value: Any) -> tuple[int, int]:
    parts = [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]
    return (parts[0], parts[-1])


def reach_of(
    kind: str, args: Sequence[Any], window: Window | None, seen: Sequence[tuple[Tensor, Reach]], result: Tensor
) -> Reach:
    """How far the result of an operation sees.

    Args:
        kind: its name in ATen.
        args: what it was called with.
        window: from `window_of`.
        seen: its input tensors that depend on the image, and how far they see.
        result: its result, with a batch of one.
    """
    numel = result.numel()
    reaches = [_restricted(tensor, reach) for tensor, reach in seen]
    joined = _joined(reaches)
    if window is not None:
        channels = int(result.shape[1])
        moved = _windowed(joined, window)
        covers = not window.transposed and all(
            side <= k for side, k in zip(args[0].shape[2:], window.kernel, strict=True)
        )
        if "pool" in kind and covers and numel == channels:
            return joined.beyond(whole=True, channels=channels, positions=1)
        return replace(moved, channels=channels, positions=numel // channels)
    if kind in ("mm", "addmm", "bmm", "baddbmm", "addmv", "mv"):
        return _product(joined, seen, result)
    if kind.startswith("_scaled_dot_product"):
        tokens = int(args[0].shape[-2])
        channels = numel // max(1, joined.positions)
        return joined.beyond(whole=tokens >= joined.positions, channels=channels, positions=joined.positions)
    if kind in ("native_layer_norm", "_fused_rms_norm"):
        return joined if prod(args[1]) == joined.channels else replace(joined, whole=True)
    if kind == "native_group_norm" or kind.startswith("_fft"):
        return replace(joined, whole=True)
    if kind == "cat":
        return _concatenated(joined, reaches, int(args[1]) if len(args) > 1 else 0, result)
    if kind in _PADDINGS and result.dim() == 4 and len(args[1]) >= 4 and joined.step is not None:
        start = (joined.start[0] - args[1][2] * joined.step[0], joined.start[1] - args[1][0] * joined.step[1])
        return _rest(replace(joined, start=start), numel)
    return _rest(joined, numel)


def _joined(reaches: Sequence[Reach]) -> Reach:
    """The longest of several paths; one that windows do not define (a gate) adds no more than that it sees all."""
    defined = [one for one in reaches if one.size is not None and one.step is not None]
    whole = any(one.whole for one in reaches)
    widest = max(reaches, key=lambda one: one.positions * one.channels)
    if not defined or (not all(one.size for one in reaches) and widest.size is None):
        return replace(widest, size=None, step=None, whole=whole)
    if any(one.size is None and one.positions == widest.positions for one in reaches):
        return replace(widest, size=None, step=None, whole=whole)  # no gate: a branch that is as fine as the others
    sizes = [one.size for one in defined if one.size]
    size = (max(h for h, _w in sizes), max(w for _h, w in sizes))
    start = max(defined, key=lambda one: one.size or (0, 0)).start
    return replace(widest, size=size, step=max(one.step for one in defined if one.step), whole=whole, start=start)


def _restricted(tensor: Tensor, reach: Reach) -> Reach:
    """The reach of a part: channels may be taken out, positions not, since nobody knows which."""
    numel = tensor.numel()
    if numel == reach.channels * reach.positions:
        return reach
    sides = tensor.shape
    if tensor.dim() == 4 and reach.positions in (sides[2] * sides[3], sides[1] * sides[2]):
        return replace(reach, channels=numel // reach.positions)
    if tensor.dim() == 4 and sides[1] == reach.channels:
        return Reach(None, None, reach.whole, reach.channels, numel // reach.channels)
    return Reach(None, None, reach.whole, numel, 1) if numel else reach


def _windowed(reach: Reach, window: Window) -> Reach:
    if reach.size is None or reach.step is None:
        return reach
    step = reach.step
    if window.transposed:
        step = (step[0] / window.stride[0], step[1] / window.stride[1])
    grown = [
        size + (k - 1) * d * s for size, k, d, s in zip(reach.size, window.kernel, window.dilation, step, strict=True)
    ]
    inset = [((k - 1) * d / 2 - p) for k, d, p in zip(window.kernel, window.dilation, window.padding, strict=True)]
    sign = -1 if window.transposed else 1
    start = (reach.start[0] + sign * inset[0] * step[0], reach.start[1] + sign * inset[1] * step[1])
    if not window.transposed:
        step = (step[0] * window.stride[0], step[1] * window.stride[1])
    return replace(reach, size=(ceil(grown[0]), ceil(grown[1])), step=step, start=start)


def _product(joined: Reach, seen: Sequence[tuple[Tensor, Reach]], result: Tensor) -> Reach:
    """A matrix product: with weights it acts on every position alone, if it has as many rows; else it mixes them."""
    rows, columns = int(result.shape[-2]) if result.dim() > 1 else 1, int(result.shape[-1])
    numel = result.numel()
    if len(seen) == 1 and joined.positions > 1 and numel // columns == joined.positions:
        return replace(joined, channels=columns)
    if len(seen) == 1:
        return joined.beyond(whole=True, channels=numel, positions=1)
    # two factors that both depend on the image: attention written out
    whole = max(rows, columns) >= joined.positions
    return joined.beyond(whole=whole, channels=max(1, numel // max(1, joined.positions)), positions=joined.positions)


def _concatenated(joined: Reach, reaches: Sequence[Reach], dim: int, result: Tensor) -> Reach:
    numel, dim = result.numel(), dim % result.dim()
    channels = joined.channels
    along_channels = dim == 1 if result.dim() == 4 and result.shape[1] != channels else dim == result.dim() - 1
    if result.dim() == 4 and dim == 1 and result.shape[2] * result.shape[3] == joined.positions:
        along_channels = True
    if along_channels and len({one.positions for one in reaches}) == 1 and numel % joined.positions == 0:
        return replace(joined, channels=numel // joined.positions)
    if numel % channels == 0:
        return replace(joined, positions=numel // channels)
    return joined.beyond(whole=False, channels=numel, positions=1)


def _rest(joined: Reach, numel: int) -> Reach:
    """Everything else: position by position where nothing was lost, over all positions where one is left."""
    if numel == joined.channels * joined.positions:
        return joined
    if numel == joined.positions:
        return replace(joined, channels=1)
    if numel == joined.channels or numel == 1:
        return joined.beyond(whole=True, channels=numel, positions=1)
    if numel % joined.channels == 0 and numel > joined.channels * joined.positions:  # padded, or spread over a gate
        return replace(joined, positions=numel // joined.channels)
    return joined.beyond(whole=False, channels=numel, positions=1)
