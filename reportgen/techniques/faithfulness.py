"""Whether the places that a map marks are those that the answer depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from reportgen.engine.requests import After, Fading, Forward, Needs
from reportgen.engine.resolution import Resolution
from reportgen.figures.chart import SERIES, charts
from reportgen.figures.figure import Figure, Panel, Row
from reportgen.findings import Finding, FindingRule
from reportgen.report.document import Reference
from reportgen.store import Array
from reportgen.techniques.cam_formulas import GRADIENT_METHODS
from reportgen.techniques.class_activation import TITLES, ClassActivation
from reportgen.techniques.measurement import MEAN_SCHEMA, Measurement, after, afters, mean
from reportgen.techniques.technique import Evidence, NoMaps, Probe
from reportgen.text import Message, _, listed, signed, verbatim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing
    from torch import Tensor

NO_BETTER = FindingRule(
    "faithfulness.no_better_than_baseline",
    "method",
    "notice",
    _("Some maps are not shown to be better than a map that knows nothing of the model"),
    0.0,
)
"""Speaks of maps that are not beyond doubt ahead by so much."""
BASELINES: Mapping[str, Message] = {"random": _("random values"), "edges": _("edges"), "centre": _("centre")}
"""Maps that know nothing of the model, by what stands for them in names."""
SPREAD = 1 / 4
"""Standard deviation of the Gaussian in the centre, as a share of each side."""


@dataclass(frozen=True)
class Faithfulness(Measurement):
    """Deletion and insertion (Petsiuk et al. 2018), average drop and increase in confidence (Chattopadhay et al. 2018).

    Stored for each image: ``deletion/<map>`` and ``insertion/<map>`` (steps + 1,), the probability of the predicted
    class while the pixels highest in the map go or come, ``masked/<map>`` () that of the image times the map, and
    ``probability`` (). ``<map>`` is ``<method>/<layer>`` or a baseline: ``random``, ``edges``, ``centre``. Deletion
    puts the image's mean colour in the place of pixels, insertion begins with a blur, and the mask lies on the mean
    colour. Baselines have the grid of the deepest layer, so that they differ from maps in the place alone.

    Attributes:
        methods: of class activation maps.
        steps: in how many parts the pixels go or come.
    """

    name: ClassVar[str] = "faithfulness"
    title: ClassVar[Message] = _("Faithfulness of maps")
    summary: ClassVar[str] = "whether the answer depends on the places that maps mark, compared with naive maps"
    version: ClassVar[int] = 1
    rules: ClassVar[tuple[FindingRule, ...]] = (NO_BETTER,)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"full": {"images": 0}}
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "petsiuk2018",
            "V. Petsiuk, A. Das, K. Saenko",
            "RISE: Randomized Input Sampling for Explanation of Black-box Models",
            "British Machine Vision Conference (BMVC)",
            2018,
        ),
        *(one for one in ClassActivation.references if one.key == "chattopadhay2018"),
    )
    results_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "n": {"type": "integer"},
            "steps": {"type": "integer"},
            "maps": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "properties": {
                        "title": {"type": "string"},
                        "baseline": {"type": "boolean"},
                        **dict.fromkeys(("insertion", "deletion", "score", "drop", "increase"), MEAN_SCHEMA),
                        "against": {"type": "object", "additionalProperties": MEAN_SCHEMA},
                    },
                },
            },
            "best_baseline": {"type": "string"},
        },
    }

    layers: tuple[str, ...] = ("last:1",)
    images: int = 8
    methods: tuple[str, ...] = ("grad_cam", "grad_cam_pp", "layer_cam")
    steps: int = 10

    def __post_init__(self) -> None:
        if self.steps < 2 or self.images < 0:
            raise ValueError("steps are 2 or more, images 0 or more")
        for method in self.methods:
            if method not in GRADIENT_METHODS:
                raise ValueError(f"{method!r} is no method; there are {', '.join(GRADIENT_METHODS)}")

    def needs(self, resolution: Resolution) -> Needs:
        if not self.layers:
            raise NoMaps(resolution)
        count = len(self.methods) * len(self.layers) + len(BASELINES)
        return (
            Forward(),
            after(ClassActivation(layers=self.layers, methods=self.methods), resolution),
            Fading("deletion", self.steps, count),
            Fading("insertion", self.steps, count),
            Fading("masking", 1, count),
        )

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        (target,) = probe.targets
        maps = {**_mapped(probe, afters(probe.needs)[0]), **_baselines(probe, self.layers[-1])}
        index = probe.class_index(target)
        computed = {"probability": probe.probabilities()[range(len(index)), index]}
        for fading in (need for need in probe.needs if isinstance(need, Fading)):
            found = probe.faded_probabilities(fading, list(maps.values()))
            of_class = found[range(len(index)), :, :, index]
            for place, name in enumerate(maps):
                if fading.kind == "masking":
                    computed[f"masked/{name}"] = of_class[:, place, 0]
                else:
                    computed[f"{fading.kind}/{name}"] = of_class[:, place]
        return computed

    def results(self, evidence: Evidence) -> dict[str, Any]:
        measured = _measured(evidence, self._names())
        scores = {name: one["insertion"] - one["deletion"] for name, one in measured.items()}
        told = {
            name: {
                "title": str(self._title(name)),
                "baseline": name in BASELINES,
                **{what: mean(values) for what, values in one.items()},
                "score": mean(scores[name]),
                "against": {}
                if name in BASELINES
                else {other: mean(scores[name] - scores[other]) for other in BASELINES},
            }
            for name, one in measured.items()
        }
        best = max(BASELINES, key=lambda name: float(scores[name].mean()))
        return {"n": len(evidence.cases), "steps": self.steps, "maps": told, "best_baseline": best}

    def _names(self) -> list[str]:
        return [*(f"{method}/{layer}" for layer in self.layers for method in self.methods), *BASELINES]

    def findings(self, results: Mapping[str, Any], evidence: Evidence) -> list[Finding]:
        best = results["best_baseline"]
        against = {name: one["against"][best] for name, one in results["maps"].items() if not one["baseline"]}
        limit = NO_BETTER.limit(evidence.limits)
        # a handful of images has no interval
        failing = [name for name, one in against.items() if one["interval"] and one["interval"][0] <= limit]
        if not failing:
            return []
        worst = min(failing, key=lambda name: against[name]["value"])
        detail = _(
            "On {n} images, insertion less deletion of {maps} does not exceed that of the baseline “{baseline}” beyond "
            "doubt; least of all for {worst}, by {value} ({low} to {high}). Do not argue with these maps alone, or "
            "measure them on more images (--sample, faithfulness.images).",
            n=results["n"],
            maps=listed([self._title(name) for name in failing]),
            baseline=BASELINES[best],
            worst=self._title(worst),
            value=signed(against[worst]["value"], ".3f"),
            low=signed(against[worst]["interval"][0], ".3f"),
            high=signed(against[worst]["interval"][1], ".3f"),
        )
        told = {"value": against[worst]["value"], "interval": against[worst]["interval"], "n": results["n"]}
        return [NO_BETTER.found(detail, subject=worst, threshold=limit, figures=(f"{self.name}-curves",), **told)]

    def _title(self, name: str) -> Message:
        if name in BASELINES:
            return BASELINES[name]
        method, _slash, layer = name.partition("/")
        title = verbatim(TITLES[method])
        return title if len(self.layers) == 1 else _("{method} at {layer}", method=title, layer=layer)

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        if not evidence.cases:
            return
        results = self.results(evidence)
        picture = charts(lambda drawing: self._draw(drawing, evidence, results), height_mm=62, han=evidence.han)
        yield Figure(
            id=f"{self.name}-curves",
            technique=self.name,
            rows=(Row((Panel(picture, verbatim(""), _("curves of deletion and insertion, and scores of each map")),)),),
            caption=_(
                "Mean probability of the predicted class over {n} images while the pixels highest in a map give way to "
                "the mean colour of the image (deletion: lower is better) or come back from a blur (insertion: higher "
                "is better), and insertion less deletion with 95 % intervals by the bootstrap over images. Maps at "
                "{layers}; baselines in grey.",
                n=results["n"],
                layers=", ".join(self.layers),
            ),
            columns=1,
            wide=True,
        )

    def _draw(self, drawing: Drawing, evidence: Evidence, results: Mapping[str, Any]) -> None:
        names = self._names()
        grid = drawing.add_gridspec(1, 3, width_ratios=(1, 1, 1.05))
        first: Axes | None = None
        for place, (what, title) in enumerate((("deletion", _("deletion")), ("insertion", _("insertion")))):
            axes: Axes = drawing.add_subplot(grid[place], sharey=first)
            first = first or axes
            axes.set_title(evidence.words(title))
            axes.set_xlabel(evidence.words(_("share of pixels")))
            for number, name in enumerate(names):
                curve = np.mean([arrays[f"{what}/{name}"] for _case, arrays in evidence.each()], axis=0)
                axes.plot(np.linspace(0, 1, len(curve)), curve, **_look(number, name, len(names)))
        assert first is not None
        first.set_ylim(bottom=0)  # after both: a limit that is set no longer follows what is drawn
        first.set_ylabel(evidence.words(_("probability")))
        axes = drawing.add_subplot(grid[2])
        axes.set_title(evidence.words(_("insertion less deletion")))
        for number, name in enumerate(names):
            score = results["maps"][name]["score"]
            low, high = score["interval"] or (score["value"], score["value"])
            look = _look(number, name, len(names))
            axes.plot([low, high], [number, number], **look)
            axes.plot([score["value"]], [number], marker="o", linestyle="none", color=look["color"])
        axes.margins(x=0.05)
        axes.set_yticks(range(len(names)), [evidence.words(self._title(name)) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.axvline(0, linewidth=0.5, color=SERIES[2], linestyle="-")


def _look(number: int, name: str, count: int) -> dict[str, Any]:
    """Maps in colours, baselines in grey; told apart by their dashes in grey print."""
    dashes = ("-", (0, (4, 1.6)), (0, (1, 1.2)), (0, (4, 1, 1, 1)))
    if name in BASELINES:
        return {"color": SERIES[2], "linestyle": dashes[list(BASELINES).index(name)], "linewidth": 0.9}
    colours = (SERIES[0], SERIES[1], SERIES[3])
    return {"color": colours[number % 3], "linestyle": dashes[number // 3 % 4]}


def _mapped(probe: Probe, request: After) -> dict[str, Tensor]:
    """(n,h,w) by ``<method>/<layer>``, layer by layer."""
    technique = request.technique
    assert isinstance(technique, ClassActivation)
    (target,) = probe.targets
    made = probe.after(request)
    return {f"{m}/{layer}": made[f"{m}/{layer}/{target}"] for layer in technique.layers for m in technique.methods}


def _baselines(probe: Probe, layer: str) -> dict[str, Tensor]:
    """(n,h,w) by name, on the grid of a layer."""
    images = probe.inputs()
    height, width = probe.layer(layer).resolution
    return {
        "random": _random(images, height, width),
        "edges": edges(images, height, width),
        "centre": centre(height, width).to(images).expand(len(images), -1, -1),
    }


def _random(images: Tensor, height: int, width: int) -> Tensor:
    """Uniform values; those of an image depend on its pixels alone."""
    import torch

    drawn = []
    for image in images:
        digest = hashlib.sha256(image.cpu().numpy().tobytes()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        drawn.append(torch.rand((height, width), generator=generator))
    return torch.stack(drawn).to(images)


def edges(images: Tensor, height: int, width: int) -> Tensor:
    """(n,h,w) magnitude of the Sobel gradient of the mean of the channels, averaged in each cell."""
    import torch
    from torch.nn import functional

    slope = images.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    grey = functional.pad(images.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    both = functional.conv2d(grey, torch.stack((slope, slope.T))[:, None])
    return functional.adaptive_avg_pool2d(both.square().sum(dim=1).sqrt(), (height, width))


def centre(height: int, width: int) -> Tensor:
    """(h,w) Gaussian in the middle, 1 at its height."""
    import torch

    rows = (torch.arange(height) + 0.5) / height - 0.5
    columns = (torch.arange(width) + 0.5) / width - 0.5
    return torch.exp(-(rows[:, None].square() + columns.square()) / (2 * SPREAD**2))


def _measured(evidence: Evidence, names: Sequence[str]) -> dict[str, dict[str, Array]]:
    """(n,) values of each measure by map: areas under curves, falls and rises of the probability."""
    found: dict[str, dict[str, list[float]]] = {
        name: {"insertion": [], "deletion": [], "drop": [], "increase": []} for name in names
    }
    for _case, arrays in evidence.each():
        whole = float(arrays["probability"])
        for name, one in found.items():
            for what in ("insertion", "deletion"):
                curve = arrays[f"{what}/{name}"].astype(np.float64)
                one[what].append(area(curve))
            masked = float(arrays[f"masked/{name}"])
            one["drop"].append(max(0.0, whole - masked) / whole if whole > 0 else 0.0)
            one["increase"].append(float(masked > whole))
    return {name: {what: np.array(values) for what, values in one.items()} for name, one in found.items()}


def area(curve: Array) -> float:
    """Under (steps + 1,) equally spaced values over 0..1, by the trapezoidal rule."""
    return float(curve.sum() - (curve[0] + curve[-1]) / 2) / (len(curve) - 1)
