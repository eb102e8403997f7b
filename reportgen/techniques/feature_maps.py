"""What each layer makes of an image, channel by channel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from reportgen.engine.requests import Forward, Needs, Scope
from reportgen.engine.resolution import Resolution, choose_channels
from reportgen.figures.figure import Figure, Panel, Row, slug
from reportgen.figures.tiles import COARSE, grey_tile
from reportgen.report.document import Reference
from reportgen.store import Array
from reportgen.techniques.literature import ZEILER2014
from reportgen.techniques.technique import Case, Evidence, NoMaps, Probe, Technique
from reportgen.text import Message, _, signed, verbatim

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = 8


@dataclass(frozen=True)
class FeatureMaps(Technique):
    """Activations of chosen channels, shown directly.

    Stored for each image and layer, K the number of channels shown: ``maps/<layer>`` (K,h,w) raw activations and
    ``channels/<layer>`` (K,) their numbers. ``top:N`` takes the channels with the largest mean activation in that
    image.
    """

    name: ClassVar[str] = "feature_maps"
    title: ClassVar[Message] = _("Feature maps")
    summary: ClassVar[str] = "what each layer makes of an image, channel by channel"
    scope: ClassVar[Scope] = "exhibit"
    version: ClassVar[int] = 1
    references: ClassVar[tuple[Reference, ...]] = (ZEILER2014,)
    results_schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "layers": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "properties": {
                        "shape": {"type": "array", "items": {"type": "integer"}},
                        "shown": {"type": "integer"},
                        "minimum": {"type": "number"},
                        "maximum": {"type": "number"},
                        "zero_maps": {"type": "integer"},
                    },
                },
            }
        },
    }

    def needs(self, resolution: Resolution) -> Needs:
        if not self.layers:
            raise NoMaps(resolution)
        if not self.channels.startswith("top:"):
            for layer in self.layers:
                choose_channels(self.channels, resolution.layer(layer).shape[0])
        return (Forward(taps=self.layers, scores=False),)

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        import torch

        computed: dict[str, Tensor] = {}
        for layer in self.layers:
            maps = probe.activation(layer)
            n, count = maps.shape[:2]
            kind, _colon, number = self.channels.partition(":")
            if kind == "top":
                channels = maps.mean(dim=(2, 3)).topk(min(int(number), count), dim=1).indices
            else:
                channels = torch.tensor(choose_channels(self.channels, count), device=maps.device).expand(n, -1)
            computed[f"channels/{layer}"] = channels
            computed[f"maps/{layer}"] = maps.gather(1, channels[:, :, None, None].expand(-1, -1, *maps.shape[2:]))
        return computed

    def results(self, evidence: Evidence) -> dict[str, Any]:
        layers: dict[str, dict[str, Any]] = {}
        for _case, arrays in evidence.each():
            for layer in self.layers:
                maps = arrays[f"maps/{layer}"]
                told = layers.setdefault(
                    layer,
                    {
                        "shape": list(evidence.resolution.layer(layer).shape),
                        "shown": len(maps),
                        "minimum": float("inf"),
                        "maximum": float("-inf"),
                        "zero_maps": 0,
                    },
                )
                told["minimum"] = min(told["minimum"], float(maps.min()))
                told["maximum"] = max(told["maximum"], float(maps.max()))
                told["zero_maps"] += int((~maps.any(axis=(1, 2))).sum())
        return {"layers": layers}

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        for case, arrays in evidence.each():
            for layer in self.layers:
                yield self._figure(evidence, case, layer, arrays)

    def _figure(self, evidence: Evidence, case: Case, layer: str, arrays: Mapping[str, Array]) -> Figure:
        maps, channels = arrays[f"maps/{layer}"], arrays[f"channels/{layer}"]
        height, width = maps.shape[1:]
        shown = evidence.visible(maps)
        panels = tuple(self._panel(values, int(channel)) for values, channel in zip(shown, channels, strict=True))
        choice = (
            _("The {n} channels with the largest mean", n=len(channels))
            if self.channels.startswith("top:")
            else _("{n} channels spread over the layer", n=len(channels))
        )
        caption = _(
            "Feature maps of layer {layer} for {image}, {height} × {width} values each. {choice}, numbered "
            "beneath; each map "
            "is scaled from its own minimum (black) to its own maximum (white); an empty one is marked 0.{coarse}",
            layer=layer,
            image=case.name,
            choice=choice,
            height=height,
            width=width,
            coarse=verbatim("")
            if evidence.originals
            else _(
                " Photographs are withheld, and of the maps means over at most {cells} × {cells} cells are shown.",
                cells=COARSE,
            ),
        )
        rows = tuple(Row(panels[i : i + COLUMNS]) for i in range(0, len(panels), COLUMNS))
        return Figure(
            id=f"{self.name}-{slug(layer)}-{slug(case.name)}",
            technique=self.name,
            rows=rows,
            caption=caption,
            columns=COLUMNS,
            exhibit=case.name,
            layer=layer,
        )

    def _panel(self, values: Array, channel: int) -> Panel:
        low, high = float(np.min(values)), float(np.max(values))
        empty = low == high == 0
        label = _("{channel} · 0", channel=channel) if empty else verbatim(str(channel))
        alt = (
            _("channel {channel}: no activation", channel=channel)
            if empty
            else _(
                "channel {channel}, activation from {low} to {high}",
                channel=channel,
                low=signed(low, ".3g"),
                high=signed(high, ".3g"),
            )
        )
        return Panel(grey_tile(values, low=low, high=high), label, alt, name=f"channel-{channel}")
