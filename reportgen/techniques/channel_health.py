"""What the channels of a layer do over all images: how often they fire, and which are dead, always on, or alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from reportgen.engine.requests import Forward, Needs, Scope
from reportgen.engine.resolution import Resolution
from reportgen.figures.chart import charts
from reportgen.figures.figure import Figure, Panel, Row
from reportgen.findings import Finding, FindingRule
from reportgen.report.document import Reference
from reportgen.store import Array
from reportgen.techniques.channel_health_rules import LEAST_IMAGES, RULES, concluded
from reportgen.techniques.technique import Block, Evidence, NoMaps, Probe, Technique
from reportgen.text import Message, _, verbatim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing
    from torch import Tensor

CONSTANT = 1e-3
"""A channel is dead if its values lie within this share of the median range of the channels of its layer."""
ALIKE = 0.99
"""Correlation above which two channels are near-duplicates."""
LEAST_SPREAD = 3
"""A channel is compared with others if what it does is spread over at least so many images."""
MOST_COMPARED = 1000
"""Images over which channels are compared."""
MOST_PAIRS = 1000
SKETCH = 3
"""Random directions onto which the map of each channel is projected."""
ROWS = 1024
"""Rows that are multiplied at once: a product of few costs as much as its result is large."""
MOST_CHARTS = 3
ROW_MM = 44

_LAYER = {
    "type": "object",
    "additionalProperties": False,
    "required": ["dead", "always_on", "duplicates"],
    "properties": {
        "dead": {"type": "array", "items": {"type": "integer"}},
        "always_on": {"type": "array", "items": {"type": "integer"}},
        "duplicates": {
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        },
    },
}


@dataclass(frozen=True)
class ChannelHealth(Technique):
    """Statistics of every channel over all positions of all images.

    Stored for each image and layer of C channels: ``maximum/<layer>`` and ``mean/<layer>`` (C,) over positions;
    ``fires/<layer>`` (C,) the share of positions above zero; ``sketch/<layer>`` (C, 3) the map less its mean,
    projected onto three fixed random directions, so that products of two sketches are on average the covariance of two
    maps (Johnson and Lindenstrauss 1984; Achlioptas 2003).

    A channel is dead if it gives the same value everywhere, always on if it is above zero at every position of every
    image. Two that are not dead are near-duplicates if they correlate by more than `ALIKE` over positions and images.
    """

    name: ClassVar[str] = "channel_health"
    title: ClassVar[Message] = _("Channel health")
    summary: ClassVar[str] = "which channels are dead, always on, or near-duplicates, over all images"
    scope: ClassVar[Scope] = "scan"
    version: ClassVar[int] = 1
    rules: ClassVar[tuple[FindingRule, ...]] = RULES
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "achlioptas2003",
            "D. Achlioptas",
            "Database-Friendly Random Projections: Johnson-Lindenstrauss with Binary Coins",
            "Journal of Computer and System Sciences 66(4), 671–687",
            2003,
            doi="10.1016/S0022-0000(03)00025-4",
        ),
    )
    results_schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "images": {"type": "integer"},
            "compared": {"type": "integer"},
            "layers": {"type": "object", "additionalProperties": _LAYER},
            "statistics": {"type": "object", "additionalProperties": {"type": "object"}},
        },
        "required": ["images", "layers"],
    }

    channels: str = ""

    def needs(self, resolution: Resolution) -> Needs:
        if not self.layers:
            raise NoMaps(resolution)
        return (Forward(taps=self.layers, scores=False),)

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        import torch

        computed: dict[str, Tensor] = {}
        for layer in self.layers:
            maps = probe.activation(layer).float().flatten(2)
            mean = maps.mean(dim=2)
            computed[f"maximum/{layer}"] = maps.amax(dim=2)
            computed[f"mean/{layer}"] = mean
            computed[f"fires/{layer}"] = (maps > 0).float().mean(dim=2)
            onto = torch.from_numpy(directions(maps.shape[2])).to(maps.device)
            computed[f"sketch/{layer}"] = (maps - mean[:, :, None]) @ onto
        return computed

    # results and findings
    # ------------------------------------------------------------------------------------------------------------

    def results(self, evidence: Evidence) -> dict[str, Any]:
        sums = {layer: _Sums() for layer in self.layers}
        compared = {layer: _Products() for layer in self.layers}
        for block in map(Block.different, evidence.blocks()):
            for layer in self.layers:
                sums[layer].add(block, layer)
                compared[layer].add(block, layer)
        images = sums[self.layers[0]].images
        return {
            "images": images,
            "compared": min(images, MOST_COMPARED),
            "layers": {layer: _verdict(sums[layer], compared[layer]) for layer in self.layers},
            "statistics": {layer: sums[layer].told() for layer in self.layers},
        }

    def findings(self, results: Mapping[str, Any], evidence: Evidence) -> list[Finding]:
        found = list(concluded(results, ALIKE, evidence.limits, (self._id,)))
        return found if found and evidence.varied(LEAST_IMAGES) else []

    # figures
    # ------------------------------------------------------------------------------------------------------------

    @property
    def _id(self) -> str:
        return f"{self.name}-firing"

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        sums = {layer: _Sums() for layer in self.layers}
        for block in map(Block.different, evidence.blocks()):
            for layer in self.layers:
                sums[layer].add(block, layer)
        rows = -(-len(self.layers) // MOST_CHARTS)
        picture = charts(lambda drawing: _draw(drawing, evidence, sums), height_mm=ROW_MM * rows, han=evidence.han)
        alt = _("curves of how often the channels fire, for {n} layers", n=len(self.layers))
        yield Figure(
            id=self._id,
            technique=self.name,
            rows=(Row((Panel(picture, verbatim(""), alt),)),),
            caption=_(
                "How often channels of {layers} fire over {n} images: the share of all positions (line) and of images "
                "(dashes) at which each is above zero, the busiest channel first. Where the line is at 0, a channel "
                "never fires; where it is at 1, it always does.",
                layers=", ".join(self.layers),
                n=sums[self.layers[0]].images,
            ),
            columns=1,
            wide=True,
        )


@cache
def directions(positions: int) -> Array:
    """(positions, SKETCH) float32: random directions, scaled so that the product of two projections is on average the
    mean of the product over positions. The same on every machine.
    """
    drawn = np.random.RandomState(0).standard_normal((positions, SKETCH))  # the one generator that never changes
    return np.asarray(drawn / np.sqrt(positions * SKETCH), np.float32)


@dataclass
class _Sums:
    """Statistics of the channels of one layer, block by block."""

    images: int = 0
    maximum: Array = field(default_factory=lambda: np.array(-np.inf))
    lowest: Array = field(default_factory=lambda: np.array(np.inf))
    mean: Array = field(default_factory=lambda: np.array(0.0))
    fires: Array = field(default_factory=lambda: np.array(0.0))
    rarest: Array = field(default_factory=lambda: np.array(np.inf))
    awake: Array = field(default_factory=lambda: np.array(0))

    def add(self, block: Block, layer: str) -> None:
        """Count the images of a block."""
        maximum, mean, fires = (block.arrays[f"{name}/{layer}"] for name in ("maximum", "mean", "fires"))
        self.images += len(block.cases)
        self.maximum = np.maximum(self.maximum, maximum.max(axis=0))
        self.lowest = np.minimum(self.lowest, mean.min(axis=0))
        self.mean = self.mean + mean.sum(axis=0, dtype=np.float64)
        self.fires = self.fires + fires.sum(axis=0, dtype=np.float64)
        self.rarest = np.minimum(self.rarest, fires.min(axis=0))
        self.awake = self.awake + (fires > 0).sum(axis=0)

    @property
    def dead(self) -> Array:
        """(C,) whether a channel gives the same value at all positions of all images, to rounding."""
        # the maximum is the mean where nothing varies, and both are told for every image
        reach = self.maximum - self.lowest
        varying = reach[reach > 0]
        typical = float(np.median(varying)) if len(varying) else 0.0
        return np.asarray(reach <= CONSTANT * typical + 1e-5 * np.abs(self.maximum))

    def told(self) -> dict[str, Any]:
        """Per channel, for ``report.json``."""
        return {
            "fires": _short(self.fires / self.images),
            "images": _short(self.awake / self.images),
            "mean": _short(self.mean / self.images),
            "maximum": _short(self.maximum),
        }


@dataclass
class _Products:
    """Products of the channels of one layer with one another, over the first images."""

    images: int = 0
    products: Array = field(default_factory=lambda: np.array(0.0))
    waiting: list[Array] = field(default_factory=list)
    shift: Array | None = None
    total: Array = field(default_factory=lambda: np.array(0.0))
    energy: Array = field(default_factory=lambda: np.array(0.0))
    squared: Array = field(default_factory=lambda: np.array(0.0))

    def add(self, block: Block, layer: str) -> None:
        """Count the images of a block, as many as there is room for."""
        room = MOST_COMPARED - self.images
        sketch, mean = (block.arrays[f"{name}/{layer}"][:room] for name in ("sketch", "mean"))
        if not len(mean):
            return
        if self.shift is None:
            self.shift = mean.mean(axis=0)  # means far from zero would drown what varies
        moved = mean - self.shift
        self.waiting += [*np.moveaxis(sketch, 2, 0), moved]
        if sum(map(len, self.waiting)) >= ROWS:
            self._multiply()
        self.total = self.total + moved.sum(axis=0, dtype=np.float64)
        energy = (np.square(sketch.astype(np.float64))).sum(axis=2) + np.square(mean.astype(np.float64))
        self.energy = self.energy + energy.sum(axis=0)
        self.squared = self.squared + np.square(energy).sum(axis=0)
        self.images += len(mean)

    def _multiply(self) -> None:
        rows = np.concatenate(self.waiting)
        self.products = self.products + (rows.T @ rows).astype(np.float64)
        self.waiting = []

    def pairs(self, dead: Array) -> list[list[int]]:
        """Pairs a < b of channels that are not `dead` and correlate by more than `ALIKE`."""
        if not self.images:
            return []
        if self.waiting:
            self._multiply()
        covariance = self.products - np.outer(self.total, self.total) / self.images
        scale = np.sqrt(np.clip(np.diag(covariance), 0, None))
        # the number of images that a channel's energy is spread over, were it spread evenly
        spread = np.square(self.energy) / np.maximum(self.squared, np.finfo(np.float64).tiny)
        kept = np.flatnonzero(~dead & (scale > 0) & (spread >= LEAST_SPREAD * (1 - 1e-9)))
        correlation = covariance[np.ix_(kept, kept)] / np.outer(scale[kept], scale[kept])
        first, second = np.nonzero(np.triu(correlation > ALIKE, 1))
        return [[int(kept[a]), int(kept[b])] for a, b in zip(first[:MOST_PAIRS], second[:MOST_PAIRS], strict=True)]


def _verdict(sums: _Sums, compared: _Products) -> dict[str, Any]:
    dead = sums.dead
    always = ~dead & (sums.rarest >= 1)
    return {
        "dead": np.flatnonzero(dead).tolist(),
        "always_on": np.flatnonzero(always).tolist(),
        "duplicates": compared.pairs(dead),
    }


def _short(values: Array) -> list[float | None]:
    """Six digits of each: the file is to stay small."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist()]


def _draw(drawing: Drawing, evidence: Evidence, sums: Mapping[str, _Sums]) -> None:
    columns = min(len(sums), MOST_CHARTS)
    rows = -(-len(sums) // columns)
    for place, (layer, one) in enumerate(sums.items()):
        axes: Axes = drawing.add_subplot(rows, columns, place + 1)
        axes.set_title(layer)
        number = np.arange(1, len(one.fires) + 1)
        for share, words in ((one.fires, _("positions")), (one.awake, _("images"))):
            axes.plot(number, np.sort(share / one.images)[::-1], label=evidence.words(words))
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel(evidence.words(_("channels")))
        if place % columns == 0:
            axes.set_ylabel(evidence.words(_("share above zero")))
        if place == 0:
            axes.legend(loc="best")
