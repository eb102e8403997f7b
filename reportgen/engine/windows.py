"""Units of early layers see a small part of the image: passes over that part alone tell what they project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from reportgen.engine.passes import Passes
from reportgen.engine.requests import INPUT, Rule, Units
from reportgen.engine.trace import Trace
from reportgen.errors import PassError

_MARGIN: Final = 3
"""Strides by which a window is larger than the receptive field: where in it the unit stands is known to a stride."""
_LARGEST: Final = 0.5
"""Of the image: larger windows save too little."""
_SAME: Final = 1e-5
"""Of the largest activation: by how much a unit may respond otherwise to its window than to the whole image."""


@dataclass(frozen=True)
class Window:
    """The size of the parts of the input that units of one layer are shown.

    Attributes:
        side: (h, w) in pixels.
        stride: (h, w) of the layer, in pixels; windows begin at multiples of it.
    """

    side: tuple[int, int]
    stride: tuple[int, int]

    def corners(self, positions: Tensor, size: tuple[int, int]) -> Tensor:
        """(K, 2) first rows and columns, in strides, of windows around `positions` (K, 2); none leaves the image."""
        device = positions.device
        side, stride, whole = (torch.tensor(pair, device=device) for pair in (self.side, self.stride, size))
        last = torch.div(whole - side, stride, rounding_mode="floor")
        return (positions + 0.5 - side / stride / 2).round().long().clamp(min=torch.zeros_like(last), max=last)


def window_of(module: Mapping[str, Any], size: tuple[int, int]) -> Window | None:
    """Windows for units of a recorded module, or None where its units see too much of an input of `size`."""
    if not module["field"] or module["whole"] or module["calls"] != 1:
        return None
    sides, strides = [], []
    for length, field, step in zip(size, module["field"], module["stride"], strict=True):
        stride = round(step)
        left = length - field - _MARGIN * stride
        if stride != step or stride < 1 or left < 0:
            return None
        sides.append(length - left // stride * stride)  # whole strides remain, so that the last window ends the image
        strides.append(stride)
    if sides[0] * sides[1] > _LARGEST * size[0] * size[1]:
        return None
    return Window((sides[0], sides[1]), (strides[0], strides[1]))


class Projector:
    """Sends units of one image back to its input: by windows where that saves work, through the whole image otherwise.

    Args:
        passes: on the model.
        image: (1, C, H, W) on the CPU.
        trace: a forward of it in which the layers of all units are tapped and the input is differentiated.
        most: windows of more pixels than so many images are not used.
    """

    def __init__(self, passes: Passes, image: Tensor, trace: Trace, most: int) -> None:
        self._passes, self._image, self._trace, self._most = passes, image, trace, most
        self._seen: dict[Units, tuple[Trace, Tensor, Tensor, Window] | None] = {}

    def project(self, units: Units, rule: Rule) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Channel numbers (K,), positions (K, 2), activations (K,) and derivatives (K, C, H, W) of `units`."""
        channels, positions, activations = self._trace.strongest(units)
        if units not in self._seen:
            self._seen[units] = self._look(units, channels, positions, activations)
        seen = self._seen[units]
        if seen is None:
            return channels, positions, activations, self._trace.project(units.layer, channels, positions, rule)
        trace, corners, places, window = seen
        found = trace.project_each(units.layer, channels, places, rule)
        whole = found.new_zeros((len(found), *self._image.shape[1:]))
        for row, (top, left) in enumerate((corners * torch.tensor(window.stride, device=corners.device)).tolist()):
            whole[row, :, top : top + window.side[0], left : left + window.side[1]] = found[row]
        return channels, positions, activations, whole

    def _look(
        self, units: Units, channels: Tensor, positions: Tensor, activations: Tensor
    ) -> tuple[Trace, Tensor, Tensor, Window] | None:
        """A forward of the windows of all units; None where they are of no use, or do not show the units the same."""
        height, width = self._image.shape[2:]
        layer = self._passes.resolution.layer(units.layer)
        module = next(one for one in self._passes.recorded()["modules"] if one["name"] == units.layer)
        window = None if layer.layout == "tokens" else window_of(module, (height, width))
        if window is None or len(channels) * window.side[0] * window.side[1] > self._most * height * width:
            return None
        corners = window.corners(positions, (height, width))
        starts = (corners * torch.tensor(window.stride, device=corners.device)).tolist()
        parts = [self._image[:, :, y : y + window.side[0], x : x + window.side[1]] for y, x in starts]
        try:
            trace = self._passes.forward(
                torch.cat(parts), len(parts), taps=(units.layer,), scores=False, wrt=(INPUT,), rules=True
            )
        except PassError:  # it takes images of one size alone
            return None
        places = positions - corners
        maps = trace.activation(units.layer)
        rows = torch.arange(len(channels), device=maps.device)
        if bool((places >= torch.tensor(maps.shape[2:], device=places.device)).any()):
            return None
        responses = maps[rows, channels, places[:, 0], places[:, 1]]
        limit = _SAME * float(self._trace.activation(units.layer).abs().max())
        return (trace, corners, places, window) if float((responses - activations).abs().max()) <= limit else None
