"""Where the network finds evidence for a class, over all images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from reportgen.engine.requests import Backward, Forward, Needs, Scope
from reportgen.engine.resolution import Resolution
from reportgen.figures.figure import Colorbar, Figure, Panel, Picture, Row
from reportgen.figures.overlays import map_alone
from reportgen.findings import Finding
from reportgen.report.document import Reference
from reportgen.store import Array
from reportgen.techniques.literature import SELVARAJU2017, ZHOU2016
from reportgen.techniques.regions import PLACES, Share, corner_cells, frame, surely
from reportgen.techniques.technique import Block, Case, Evidence, NoMaps, Probe, Technique
from reportgen.text import Message, _, verbatim

if TYPE_CHECKING:
    from torch import Tensor

CORNER = 0.1
"""By how much the share of one corner must exceed both chance and the share of the corner across: photographs are as
likely as their mirror images, and what padding does, it does to both.
"""
BORDER = 0.25
"""By how much the share of the border must exceed chance."""
DOUBT = 0.025
"""Probability that chance alone makes any corner of any class a finding, at most."""
LEAST_IMAGES = 5
"""A class with fewer images with evidence says nothing of a habit."""


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
            "masked": {"type": "integer"},
            "classes": {"type": "array", "items": {"type": "object"}},
        },
        "required": ["images", "layer", "grid", "classes"],
    }

    layers: tuple[str, ...] = ()
    channels: str = ""
    classes: Annotated[int, Field(ge=1)] = 8
    examples: Annotated[int, Field(ge=0, le=5)] = 3

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
            "images": len(evidence.cases),
            "layer": self.layers[0],
            "method": "cam" if self._pooled(evidence.resolution) else "grad_cam",
            "grid": list(grid),
            "chance": {
                "border": float(frame(grid[0], grid[1]).mean()),
                "corner": float(corner_cells(grid[0], grid[1])[0].mean()),
            },
            "masked": sum(one.inside.n for one in found.values()),
            "classes": [
                {"index": index, "label": evidence.resolution.label(index), **one.told(with_map=index in shown)}
                for index, one in found.items()
            ],
        }

    def _classes(self, evidence: Evidence) -> dict[int, _Class]:
        """What was found of each predicted class, those with the most images first."""
        found: dict[int, _Class] = {}
        for block in evidence.blocks():
            for place, index in enumerate(block.arrays["index"].tolist()):
                one = found.setdefault(index, _Class(self.examples))
                one.add(block, place, evidence.mask(block.cases[place]) if evidence.masks else None)
        return dict(sorted(found.items(), key=lambda item: (-item[1].images, item[0])))

    def findings(self, results: Mapping[str, Any], evidence: Evidence) -> list[Finding]:
        told = [one for one in results["classes"] if one["images"] - one["empty"] >= LEAST_IMAGES]
        chance = results["chance"]
        z = NormalDist().inv_cdf(1 - DOUBT / max(1, 4 * len(told)))
        cornered = [one for one in told if _one_corner(one["corner"], chance["corner"], z)]
        bordered = [
            one for one in told if one not in cornered and surely(one["border"], chance["border"] + BORDER, BORDER, z)
        ]
        outside = [one for one in told if "inside" in one and _outside(one["inside"])]
        figures = (self._id,)
        return [
            *_corner(cornered, chance["corner"], figures),
            *_border(bordered, chance["border"], figures),
            *_outside_masks(outside, figures),
        ]

    # figures
    # ------------------------------------------------------------------------------------------------------------

    @property
    def _id(self) -> str:
        return f"{self.name}-classes"

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        found = dict(list(self._classes(evidence).items())[: self.classes])
        means = {index: one.mean * one.mean.size for index, one in found.items()}
        highest = max((float(mean.max()) for mean in means.values()), default=0.0)
        shape = tuple(evidence.resolution.pipeline["size"])
        overlays = _overlays(evidence, found)
        rows = []
        for index, one in found.items():
            picture = map_alone(shape, means[index], low=0.0, high=highest, colormap=evidence.colormap)
            label = evidence.resolution.label(index)
            alt = _("mean map of {label} over {n} images", label=label, n=one.images)
            panels: list[Panel | None] = [Panel(picture, _("mean of {n}", n=one.images), alt, name=f"class-{index}")]
            panels += [overlays[index, rank] for rank in range(len(one.best))]
            panels += [None] * (1 + self.examples - len(panels))
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
                n=len(evidence.cases),
                shown=len(found),
                classes=len(self._classes(evidence)),
                reading=evidence.reading,
            ),
            columns=1 + self.examples,
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


def _one_corner(corner: Mapping[str, Any], chance: float, z: float) -> bool:
    """Whether evidence gathers in this corner and not in the one across."""
    return surely(corner, chance + CORNER, CORNER, z) and surely(corner["ahead"], CORNER, CORNER, z)


def _outside(inside: Mapping[str, Any]) -> bool:
    """Whether less of the maps lies inside of the masks than would of an even one, beyond the interval."""
    gain = inside["gain"]
    return bool(gain["n"] >= LEAST_IMAGES and gain["interval"][1] < 0)


def _corner(found: list[Mapping[str, Any]], chance: float, figures: tuple[str, ...]) -> Iterator[Finding]:
    if not found:
        return
    worst = max(found, key=lambda one: one["corner"]["share"])
    yield Finding(
        rule="population.corner",
        about="model",
        severity="warning",
        subject=", ".join(one["label"] for one in found),
        title=_("Evidence for a class lies in one corner"),
        detail=_(
            "For {label}, {share} of the evidence lies in the corner {place} on average, where chance would put "
            "{chance}, and the corner across holds {across}. Classes concerned: {count}. Look there for a mark, a "
            "logo, a date or a frame that goes with the class; crop or cover it, and train or test again.",
            label=worst["label"],
            share=f"{worst['corner']['share']:.0%}",
            across=f"{worst['corner']['share'] - worst['corner']['ahead']['share']:.0%}",
            place=WORDS[worst["corner"]["place"]],
            chance=f"{chance:.0%}",
            count=len(found),
        ),
        value=round(worst["corner"]["share"], 4),
        threshold=round(chance + CORNER, 4),
        n=worst["corner"]["n"],
        interval=tuple(worst["corner"]["interval"]),
        figures=figures,
    )


def _border(found: list[Mapping[str, Any]], chance: float, figures: tuple[str, ...]) -> Iterator[Finding]:
    if not found:
        return
    worst = max(found, key=lambda one: one["border"]["share"])
    yield Finding(
        rule="population.border",
        about="model",
        severity="notice",
        subject=", ".join(one["label"] for one in found),
        title=_("Evidence for a class lies along the border"),
        detail=_(
            "For {label}, {share} of the evidence lies along the border on average, where chance would put {chance}. "
            "Classes concerned: {count}. Frames, padding and what surrounds the object are candidates.",
            label=worst["label"],
            share=f"{worst['border']['share']:.0%}",
            chance=f"{chance:.0%}",
            count=len(found),
        ),
        value=round(worst["border"]["share"], 4),
        threshold=round(chance + BORDER, 4),
        n=worst["border"]["n"],
        interval=tuple(worst["border"]["interval"]),
        figures=figures,
    )


def _outside_masks(found: list[Mapping[str, Any]], figures: tuple[str, ...]) -> Iterator[Finding]:
    if not found:
        return
    worst = min(found, key=lambda one: one["inside"]["gain"]["share"])
    inside = worst["inside"]
    yield Finding(
        rule="population.outside_masks",
        about="model",
        severity="warning",
        subject=", ".join(one["label"] for one in found),
        title=_("Evidence for a class avoids the masks"),
        detail=_(
            "For {label}, {share} of the evidence lies inside the masks on average, which cover {area} of the images: "
            "less than chance would put there. Classes concerned: {count}. The network looks at what surrounds the "
            "object.",
            label=worst["label"],
            share=f"{inside['share']:.0%}",
            area=f"{inside['area']:.0%}",
            count=len(found),
        ),
        value=round(inside["gain"]["share"], 4),
        threshold=0,
        n=inside["n"],
        interval=tuple(inside["gain"]["interval"]),
        figures=figures,
    )


WORDS: Mapping[str, Message] = {
    "top left": _("top left"),
    "top right": _("top right"),
    "bottom left": _("bottom left"),
    "bottom right": _("bottom right"),
}
