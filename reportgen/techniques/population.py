"""Where the network finds evidence for a class, over all images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from reportgen.engine.requests import Backward, Forward, Needs, Scope
from reportgen.engine.resolution import Resolution
from reportgen.figures.figure import Colorbar, Figure, Panel, Picture, Row
from reportgen.figures.overlays import map_alone
from reportgen.findings import Finding, FindingRule
from reportgen.report.document import Reference
from reportgen.store import Array
from reportgen.techniques.literature import SELVARAJU2017, ZHOU2016
from reportgen.techniques.population_rules import BORDER, CORNER, RULES, concluded
from reportgen.techniques.regions import PLACES, Share, corner_cells, frame
from reportgen.techniques.technique import Block, Case, Evidence, NoMaps, Probe, Technique
from reportgen.text import Message, _, verbatim

if TYPE_CHECKING:
    from torch import Tensor

ALIKE = 1e-5
"""Share of the strongest map within which sums of maps are the same: images of a class that show one and the same."""


@dataclass(frozen=True)
class Population(Technique):
    """Class activation maps of the predicted class, summed up over all images of a class.

    Stored for each image, h × w the size of the layer's maps: ``map`` (h, w), the positive part of Σ_k W_ck A_k for the
    predicted class c where one linear layer weighs the means of the maps (Zhou et al. 2016), elsewhere Grad-CAM of the
    last layer (Selvaraju et al. 2017), which is the same there but for a factor; ``index`` () that class,
    ``probability`` () its probability.

    Each map is divided by its sum, so that images count alike, and averaged over the images of a class. The share of a
    region is the part of this mean within it; chance is the region's share of the area.

    Attributes:
        layers: the last of these; empty: the one before the pooled linear head, or the last that gives maps.
        classes: how many are shown, those with the most images first.
        examples: images shown for each, the most confident.
    """

    name: ClassVar[str] = "population"
    title: ClassVar[Message] = _("Evidence over all images")
    summary: ClassVar[str] = "mean class activation map of every class, its share at border and corners, inside masks"
    scope: ClassVar[Scope] = "scan"
    version: ClassVar[int] = 1
    rules: ClassVar[tuple[FindingRule, ...]] = RULES
    references: ClassVar[tuple[Reference, ...]] = (
        ZHOU2016,
        SELVARAJU2017,
        Reference(
            "geirhos2020",
            "R. Geirhos, J.-H. Jacobsen, C. Michaelis, R. Zemel, W. Brendel, M. Bethge, F. A. Wichmann",
            "Shortcut Learning in Deep Neural Networks",
            "Nature Machine Intelligence 2, 665–673",
            2020,
            doi="10.1038/s42256-020-00257-z",
        ),
    )
    results_schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "images": {"type": "integer"},
            "layer": {"type": "string"},
            "method": {"enum": ["cam", "grad_cam"]},
            "grid": {"type": "array", "items": {"type": "integer"}},
            "chance": {"type": "object", "additionalProperties": {"type": "number"}},
            "thresholds": {"type": "object", "additionalProperties": {"type": "number"}},
            "masked": {"type": "integer"},
            "classes": {"type": "array", "items": {"type": "object"}},
        },
        "required": ["images", "layer", "grid", "classes"],
    }

    layers: tuple[str, ...] = ()
    channels: str = ""
    classes: Annotated[int, Field(ge=1)] = 8
    examples: Annotated[int, Field(ge=0, le=5)] = 2

    def settled(self, resolution: Resolution) -> Population:
        """Itself with the one layer that is looked at."""
        usual = (resolution.head.layer,) if resolution.head else resolution.defaults[-1:]
        return replace(self, layers=resolution.select(self.layers)[-1:] if self.layers else usual)

    def needs(self, resolution: Resolution) -> Needs:
        if not self.layers:
            raise NoMaps(resolution)
        forward = Forward(taps=self.layers)
        # of the graph no more is kept than lies behind that layer
        return (forward,) if self._pooled(resolution) else (forward, Backward(wrt=self.layers))

    def _pooled(self, resolution: Resolution) -> bool:
        return resolution.head is not None and resolution.head.layer == self.layers[0]

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        import torch

        (layer,) = self.layers
        maps = probe.activation(layer).float()
        index = probe.scores().argmax(dim=1)
        if probe.targets:
            weight = probe.gradient(probe.targets[0], layer).float().mean(dim=(2, 3))
        else:
            weight = probe.head_weight().float()[index]
        probability = probe.probabilities().gather(1, index[:, None])[:, 0]
        found = torch.einsum("nc,nchw->nhw", weight, maps).clamp(min=0)
        return {"map": found, "index": index, "probability": probability}

    # results and findings
    # ------------------------------------------------------------------------------------------------------------

    def results(self, evidence: Evidence) -> dict[str, Any]:
        found = self._classes(evidence)
        grid = evidence.resolution.layer(self.layers[0]).resolution
        shown = set(list(found)[: self.classes])
        return {
            "images": sum(one.images for one in found.values()),
            "layer": self.layers[0],
            "method": "cam" if self._pooled(evidence.resolution) else "grad_cam",
            "grid": list(grid),
            "chance": {
                "border": float(frame(grid[0], grid[1]).mean()),
                "corner": float(corner_cells(grid[0], grid[1])[0].mean()),
            },
            "thresholds": {"corner": CORNER.limit(evidence.limits), "border": BORDER.limit(evidence.limits)},
            "masked": sum(one.inside.n for one in found.values()),
            "classes": [
                {"index": index, "label": evidence.resolution.label(index), **one.told(with_map=index in shown)}
                for index, one in found.items()
            ],
        }

    def _classes(self, evidence: Evidence) -> dict[int, _Class]:
        """What was found of each predicted class, those with the most images first."""
        found: dict[int, _Class] = {}
        for block in map(Block.different, evidence.blocks()):
            for place, index in enumerate(block.arrays["index"].tolist()):
                one = found.setdefault(index, _Class(self.examples))
                one.add(block, place, evidence.mask(block.cases[place]) if evidence.masks else None)
        return dict(sorted(found.items(), key=lambda item: (-item[1].images, item[0])))

    def findings(self, results: Mapping[str, Any], evidence: Evidence) -> list[Finding]:
        return list(concluded(results, evidence.limits, (self._id,)))

    # figures
    # ------------------------------------------------------------------------------------------------------------

    @property
    def _id(self) -> str:
        return f"{self.name}-classes"

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        every = self._classes(evidence)
        found = dict(list(every.items())[: self.classes])
        means = {index: one.mean * one.mean.size for index, one in found.items()}
        highest = max((float(mean.max()) for mean in means.values()), default=0.0)
        shape = tuple(evidence.resolution.pipeline["size"])
        overlays = _overlays(evidence, found)
        # no wider than what there is: narrow rows stand side by side on paper
        columns = 1 + max((len(one.best) for one in found.values()), default=0)
        rows = []
        for index, one in found.items():
            picture = map_alone(shape, means[index], low=0.0, high=highest, colormap=evidence.colormap)
            label = evidence.resolution.label(index)
            alt = _("mean map of {label} over {n} images", label=label, n=one.images)
            panels: list[Panel | None] = [Panel(picture, _("mean of {n}", n=one.images), alt, name=f"class-{index}")]
            panels += [overlays[index, rank] for rank in range(len(one.best))]
            panels += [None] * (columns - len(panels))
            rows.append(Row(tuple(panels), verbatim(label)))
        yield Figure(
            id=self._id,
            technique=self.name,
            rows=tuple(rows),
            caption=_(
                "Where layer {layer} holds evidence for the predicted class: mean class activation map over all images "
                "of a class, 1 where evidence is spread evenly, on one scale; beside it the most confident images, "
                "each map from 0 to its own maximum. {n} images in all, {shown} of {classes} predicted classes. "
                "{reading}",
                layer=self.layers[0],
                n=sum(one.images for one in every.values()),
                shown=len(found),
                classes=len(every),
                reading=evidence.reading,
            ),
            columns=columns,
            colorbar=Colorbar(evidence.colormap, verbatim("0"), _("{high} times even", high=f"{highest:.2g}")),
        )


@dataclass
class _Class:
    """What was found of one predicted class, image by image.

    Attributes:
        images: predicted as it.
        empty: those among them whose map holds no evidence.
        corners: share of each corner; ahead: by how much it exceeds that of the corner across, left to right.
        border, inside, covered, gained: share of the border and of the mask, area of the mask, and the difference.
        weakest, strongest: sums of maps, before they are divided by them.
        best: the most confident images with a map: probability, image, map.
    """

    examples: int
    images: int = 0
    empty: int = 0
    total: Array = field(default_factory=lambda: np.array(0.0))
    corners: tuple[Share, ...] = field(default_factory=lambda: tuple(Share() for _corner in range(4)))
    ahead: tuple[Share, ...] = field(default_factory=lambda: tuple(Share() for _corner in range(4)))
    border: Share = field(default_factory=Share)
    inside: Share = field(default_factory=Share)
    covered: Share = field(default_factory=Share)
    gained: Share = field(default_factory=Share)
    weakest: float = np.inf
    strongest: float = 0.0
    best: list[tuple[float, Case, Array]] = field(default_factory=list)

    def add(self, block: Block, place: int, mask: Array | None) -> None:
        """Count one image."""
        self.images += 1
        values = block.arrays["map"][place].astype(np.float64)
        whole = float(values.sum())
        if not (np.isfinite(whole) and whole > 0):
            self.empty += 1
            return
        unit = values / whole
        self.weakest, self.strongest = min(self.weakest, whole), max(self.strongest, whole)
        self.total = self.total + unit
        held = [float(unit[cells].sum()) for cells in corner_cells(*unit.shape)]
        for number, value in enumerate(held):
            self.corners[number].add(value)
            self.ahead[number].add(value - held[number ^ 1])
        self.border.add(float(unit[frame(*unit.shape)].sum()))
        if mask is not None:
            cells = np.asarray(Image.fromarray(mask).resize(unit.shape[::-1], Image.Resampling.BOX), np.float64)
            inside, covered = float((unit * cells).sum()), float(cells.mean())
            for share, value in ((self.inside, inside), (self.covered, covered), (self.gained, inside - covered)):
                share.add(value)
        self.best.append((float(block.arrays["probability"][place]), block.cases[place], values))
        self.best.sort(key=lambda item: (-item[0], item[1].digest, item[1].name))
        del self.best[self.examples :]

    @property
    def mean(self) -> Array:
        """(h, w) mean of the maps, each with the sum 1."""
        counted = self.images - self.empty
        return self.total / counted if counted else np.zeros((1, 1))

    def told(self, *, with_map: bool) -> dict[str, Any]:
        """For ``report.json``."""
        told: dict[str, Any] = {"images": self.images, "empty": self.empty}
        if self.images > self.empty:
            most = max(range(4), key=lambda place: self.corners[place].mean)
            told["corner"] = {**self.corners[most].told(), "place": PLACES[most], "ahead": self.ahead[most].told()}
            told["border"] = self.border.told()
            told["alike"] = self.strongest - self.weakest <= ALIKE * self.strongest
        if self.inside.n:
            told["inside"] = {**self.inside.told(), "area": self.covered.mean, "gain": self.gained.told()}
        if with_map:
            told["map"] = [[round(float(value), 5) for value in row] for row in self.mean]
            told["examples"] = [case.name for _probability, case, _map in self.best]
        return told


def _overlays(evidence: Evidence, found: Mapping[int, _Class]) -> dict[tuple[int, int], Panel]:
    """The examples of every class, by class and rank."""
    wanted: dict[Case, list[tuple[int, int, Array, float]]] = {}
    for index, one in found.items():
        for rank, (probability, case, values) in enumerate(one.best):
            wanted.setdefault(case, []).append((index, rank, values, probability))
    drawn: dict[tuple[int, int], Panel] = {}
    for case, pixels in evidence.pictures(tuple(wanted)):
        for index, rank, values, probability in wanted[case]:
            picture: Picture = evidence.laid(pixels, values, low=0.0, high=float(values.max()))
            alt = _("map of {label} for {image}", label=evidence.resolution.label(index), image=case.name)
            label = _("{image}, {probability}", image=case.name, probability=f"{probability:.2f}")
            drawn[index, rank] = Panel(picture, label, alt, name=f"class-{index}-{rank + 1}")
    return drawn
