"""The kernels of convolutions, drawn as small images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from reportgen.engine.requests import Needs, Scope, Weights
from reportgen.engine.resolution import Layer, Resolution, choose_channels
from reportgen.figures.figure import Figure, Panel, Row, slug
from reportgen.figures.tiles import kernel_tile
from reportgen.report.document import Reference
from reportgen.store import Array
from reportgen.techniques.technique import Evidence, NotApplicable, Probe, Technique
from reportgen.text import Message, _, verbatim

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = 8
SHOWN = 64


@dataclass(frozen=True)
class Filters(Technique):
    """Weights of convolutions as they are.

    Stored for each layer: ``kernels/<layer>`` (K, c_in, kh, kw), K the number of channels chosen. By default the first
    convolution, the only one whose kernels weigh colours and can be read as pictures, with all its kernels.

    Attributes:
        layers: ``first`` means the first convolution; names and patterns mean convolutions, or the last spatial one
            inside a block.
    """

    name: ClassVar[str] = "filters"
    title: ClassVar[Message] = _("Filters")
    summary: ClassVar[str] = "the kernels of convolutions, drawn as small images"
    scope: ClassVar[Scope] = "model"
    version: ClassVar[int] = 1
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "krizhevsky2012",
            "A. Krizhevsky, I. Sutskever, G. E. Hinton",
            "ImageNet Classification with Deep Convolutional Neural Networks",
            "Advances in Neural Information Processing Systems 25, 1097–1105",
            2012,
        ),
    )
    results_schema = {
        "type": "object",
        "properties": {
            "layers": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "properties": {
                        "shape": {"type": "array", "items": {"type": "integer"}},
                        "kernels": {"type": "integer"},
                        "largest": {"type": "number"},
                        "mean_norm": {"type": "number"},
                    },
                },
            }
        },
    }

    layers: tuple[str, ...] = ("first",)
    channels: str = "all"

    def settled(self, resolution: Resolution) -> Filters:
        """Itself with every word replaced by the name of a convolution."""
        from dataclasses import replace

        spatial = [layer.name for layer in resolution.layers if layer.kernel and max(layer.kernel[2:]) > 1]
        names: list[str] = []
        for word in self.layers:
            if word == "first":
                names += spatial[:1]
                continue
            for name in (word,) if _is_module(word, resolution) else resolution.select((word,)):
                found = resolution.convolution(name, spatial=True)
                names += [found] if found else []
        return replace(self, layers=tuple(dict.fromkeys(names)))

    def needs(self, resolution: Resolution) -> Needs:
        if not self.layers:
            raise NotApplicable(_("the chosen layers hold no convolution with kernels larger than one pixel"))
        for layer in self.layers:
            self._chosen(resolution.layer(layer))
        return (Weights(self.layers),)

    def _chosen(self, layer: Layer) -> tuple[int, ...]:
        wanted = "even:" + self.channels[4:] if self.channels.startswith("top:") else self.channels
        return choose_channels(wanted, layer.kernel[0])

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        computed: dict[str, Tensor] = {}
        for layer in self.layers:
            weight = probe.weight(layer)
            chosen = self.channels if not self.channels.startswith("top:") else "even:" + self.channels[4:]
            computed[f"kernels/{layer}"] = weight[list(choose_channels(chosen, weight.shape[0]))]
        return computed

    def results(self, evidence: Evidence) -> dict[str, Any]:
        arrays = evidence.read(None)
        layers: dict[str, Any] = {}
        for layer in self.layers:
            kernels = arrays[f"kernels/{layer}"]
            norms = np.sqrt((kernels.astype(np.float64) ** 2).sum(axis=(1, 2, 3)))
            layers[layer] = {
                "shape": list(evidence.resolution.layer(layer).kernel),
                "kernels": len(kernels),
                "largest": float(np.abs(kernels).max()),
                "mean_norm": float(norms.mean()),
            }
        return {"layers": layers}

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        arrays = evidence.read(None)
        for layer in self.layers:
            yield self._figure(evidence.resolution.layer(layer), arrays[f"kernels/{layer}"])

    def _figure(self, layer: Layer, kernels: Array) -> Figure:
        chosen = self._chosen(layer)[:SHOWN]
        kernels = kernels[:SHOWN]
        colour = layer.kernel[1] in (1, 3)
        if colour:
            slices, drawn = kernels, _("the three input channels drawn as red, green and blue")
            if layer.kernel[1] == 1:
                drawn = _("one input channel, drawn in grey")
        else:
            strongest = (kernels.astype(np.float64) ** 2).sum(axis=(2, 3)).argmax(axis=1)
            slices = kernels[np.arange(len(kernels)), strongest][:, None]
            drawn = _("of its {n} input channels the one with the largest weights, in grey", n=layer.kernel[1])
        panels = tuple(self._panel(kernel, channel) for kernel, channel in zip(slices, chosen, strict=True))
        caption = _(
            "Kernels of layer {layer}, {kh} × {kw} weights each, {drawn}. {n} of {all} kernels; each is scaled by "
            "its own "
            "largest absolute weight, so that zero is mid grey; the number beneath is the output channel.",
            layer=layer.name,
            kh=layer.kernel[2],
            kw=layer.kernel[3],
            drawn=drawn,
            n=len(panels),
            all=layer.kernel[0],
        )
        return Figure(
            id=f"{self.name}-{slug(layer.name)}",
            technique=self.name,
            rows=tuple(Row(panels[i : i + COLUMNS]) for i in range(0, len(panels), COLUMNS)),
            caption=caption,
            columns=COLUMNS,
            layer=layer.name,
        )

    def _panel(self, kernel: Array, channel: int) -> Panel:
        largest = float(np.abs(kernel).max())
        alt = _("kernel {channel}, largest absolute weight {largest}", channel=channel, largest=f"{largest:.3g}")
        picture = kernel_tile(kernel, low=-largest, high=largest)
        return Panel(picture, verbatim(str(channel)), alt, name=f"channel-{channel}")


def _is_module(word: str, resolution: Resolution) -> bool:
    return any(layer.name == word for layer in resolution.layers)
