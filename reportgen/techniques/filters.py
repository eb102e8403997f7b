"""The kernels of convolutions, drawn as small images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
ROWS = 8
SHOWN = 64
NEAR_ZERO = 0.01
"""A kernel is near zero if its norm is at most this share of the largest of its layer."""
ALIKE = 0.99
"""Cosine above which two kernels are near-identical."""
MOST_PAIRS = 100
BLOCK = 1024


@dataclass(frozen=True)
class Filters(Technique):
    """Weights of convolutions as they are.

    Stored for each layer of c_out kernels: ``kernels/<layer>`` (K, c_in, kh, kw) of the K chosen, ``channels/<layer>``
    (K,) their numbers; and about all of them ``norms/<layer>`` (c_out,) Euclidean norms and ``alike/<layer>`` (n, 2)
    pairs of kernels whose cosine, of weights as they are, exceeds `ALIKE`, near-zero ones left out.

    Attributes:
        layers: ``first`` means the first convolution, the only one whose kernels weigh colours and can be read as
            pictures; names and patterns mean convolutions, or the last spatial one inside a block.
        channels: ``auto`` shows all kernels of a first convolution, eight of a deeper one, and 32 of one that looks at
            channels singly.
    """

    name: ClassVar[str] = "filters"
    title: ClassVar[Message] = _("Filters")
    summary: ClassVar[str] = "the kernels of convolutions, drawn as small images"
    scope: ClassVar[Scope] = "model"
    version: ClassVar[int] = 2
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
                        "shown": {"type": "integer"},
                        "norm": {
                            "type": "object",
                            "properties": {name: {"type": "number"} for name in ("smallest", "median", "largest")},
                        },
                        "near_zero": {"type": "array", "items": {"type": "integer"}},
                        "near_identical": {"type": "integer"},
                        "pairs": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
                    },
                },
            }
        },
    }

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"layers": ("first",)},
        "full": {"layers": ("first", "blocks")},
    }

    layers: tuple[str, ...] = ("first", "default")
    channels: str = "auto"

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
        wanted = self.channels
        if wanted == "auto":
            wanted = "all" if _weighs_colours(layer) else f"even:{SHOWN // 2 if layer.kernel[1] == 1 else ROWS}"
        # which kernels are strongest does not depend on an image
        return choose_channels(wanted.replace("top:", "even:"), layer.kernel[0])

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        import torch

        computed: dict[str, Tensor] = {}
        for request in probe.needs:
            assert isinstance(request, Weights)
            for layer in request.layers:
                weight = probe.weight(layer)
                chosen = torch.tensor(self._chosen(probe.layer(layer)), device=weight.device)
                norms = weight.flatten(1).float().norm(dim=1)
                computed[f"kernels/{layer}"] = weight[chosen]
                computed[f"channels/{layer}"] = chosen
                computed[f"norms/{layer}"] = norms
                computed[f"alike/{layer}"] = _alike(weight.flatten(1).float(), norms)
        return computed

    def results(self, evidence: Evidence) -> dict[str, Any]:
        arrays = evidence.read(None)
        layers: dict[str, Any] = {}
        for layer in self.layers:
            norms, alike = arrays[f"norms/{layer}"], arrays[f"alike/{layer}"]
            layers[layer] = {
                "shape": list(evidence.resolution.layer(layer).kernel),
                "kernels": len(norms),
                "shown": min(len(arrays[f"channels/{layer}"]), SHOWN),
                "norm": {
                    "smallest": float(norms.min()),
                    "median": float(np.median(norms)),
                    "largest": float(norms.max()),
                },
                "near_zero": [int(i) for i in np.flatnonzero(norms <= NEAR_ZERO * norms.max())],
                "near_identical": len(alike),
                "pairs": alike[:MOST_PAIRS].tolist(),
            }
        return {"layers": layers}

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        arrays = evidence.read(None)
        for name in self.layers:
            layer = evidence.resolution.layer(name)
            kernels, channels = arrays[f"kernels/{name}"], arrays[f"channels/{name}"]
            if _weighs_colours(layer) or layer.kernel[1] == 1:
                yield self._plate(layer, kernels[:SHOWN], channels[:SHOWN])
            else:
                for start in range(0, min(len(kernels), SHOWN), ROWS):
                    part = slice(start, start + ROWS)
                    yield self._slices(layer, kernels[part], channels[part], start)

    def _plate(self, layer: Layer, kernels: Array, channels: Array) -> Figure:
        """One tile a kernel."""
        drawn = _("the three input channels drawn as red, green and blue")
        if layer.kernel[1] == 1:
            drawn = _("one input channel, drawn in grey")
        panels = tuple(self._panel(kernel, int(channel)) for kernel, channel in zip(kernels, channels, strict=True))
        return Figure(
            id=f"{self.name}-{slug(layer.name)}",
            technique=self.name,
            rows=tuple(Row(panels[i : i + COLUMNS]) for i in range(0, len(panels), COLUMNS)),
            caption=_(
                "Kernels of layer {layer}, {kh} × {kw} weights each, {drawn}. {n} of {all} kernels; each is scaled by "
                "its own largest absolute weight, so that zero is mid grey; the number beneath is the output channel.",
                layer=layer.name,
                kh=layer.kernel[2],
                kw=layer.kernel[3],
                drawn=drawn,
                n=len(panels),
                all=layer.kernel[0],
            ),
            columns=COLUMNS,
            layer=layer.name,
        )

    def _slices(self, layer: Layer, kernels: Array, channels: Array, start: int) -> Figure:
        """One row a kernel: its strongest slices, on one scale."""
        rows = []
        for kernel, channel in zip(kernels, channels, strict=True):
            strength = np.square(kernel.astype(np.float64)).sum(axis=(1, 2))
            order = np.argsort(-strength, kind="stable")[:COLUMNS]
            largest = float(np.abs(kernel).max())
            panels = tuple(self._panel(kernel[i][None], int(i), largest) for i in order)
            rows.append(Row(panels, _("channel {channel}", channel=int(channel))))
        return Figure(
            id=f"{self.name}-{slug(layer.name)}{f'-{start // ROWS + 1}' if start else ''}",
            technique=self.name,
            rows=tuple(rows),
            caption=_(
                "Slices of kernels of layer {layer}, {kh} × {kw} weights each: one row an output channel ({n} of "
                "{all}), in it the {shown} of {inputs} input channels with the largest weights, the strongest first; "
                "their number stands beneath. Each row is scaled by the largest absolute weight of its kernel, so that "
                "zero is mid grey.",
                layer=layer.name,
                kh=layer.kernel[2],
                kw=layer.kernel[3],
                n=len(rows),
                all=layer.kernel[0],
                shown=min(COLUMNS, layer.kernel[1]),
                inputs=layer.kernel[1],
            ),
            columns=COLUMNS,
            layer=layer.name,
        )

    def _panel(self, kernel: Array, channel: int, largest: float | None = None) -> Panel:
        own = float(np.abs(kernel).max())
        alt = _("kernel {channel}, largest absolute weight {largest}", channel=channel, largest=f"{own:.3g}")
        limit = own if largest is None else largest
        picture = kernel_tile(kernel, low=-limit, high=limit)
        return Panel(picture, verbatim(str(channel)), alt, name=f"channel-{channel}")


def _weighs_colours(layer: Layer) -> bool:
    return layer.kernel[1] == 3


def _alike(kernels: Tensor, norms: Tensor) -> Tensor:
    """(n, 2) pairs a < b of rows (c_out, weights) that point the same way; rows near zero have no direction."""
    import torch

    kept = (norms > NEAR_ZERO * norms.max()).nonzero().flatten()
    unit = kernels[kept] / norms[kept, None]
    pairs = []
    for start in range(0, len(unit), BLOCK):  # many kernels at once would need a matrix of all pairs
        cosine = unit[start : start + BLOCK] @ unit.T
        a, b = (cosine > ALIKE).nonzero(as_tuple=True)
        a = a + start
        pairs.append(torch.stack((kept[a[a < b]], kept[b[a < b]]), dim=1))
    return torch.cat(pairs) if pairs else torch.zeros((0, 2), dtype=torch.int64)


def _is_module(word: str, resolution: Resolution) -> bool:
    return any(layer.name == word for layer in resolution.layers)
