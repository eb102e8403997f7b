"""Whether images arrive at the network as those did that it was trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from reportgen.engine.requests import Forward, Needs, Scope, Weights
from reportgen.engine.resolution import Fold, Resolution
from reportgen.figures.chart import chart
from reportgen.figures.figure import Figure, Panel, Row
from reportgen.findings import Finding
from reportgen.report.document import Reference
from reportgen.store import Array
from reportgen.techniques.technique import Evidence, NotApplicable, Probe, Technique
from reportgen.text import Message, _, verbatim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

FIRST = 3
"""Batch normalisations that are told of; the first decides."""
LOG_RATIO = 0.8
"""Median absolute logarithm of the ratio of variances from which on the check speaks: a standard deviation that is off
by a factor of about 1.5.
"""
SHIFT = 0.75
"""The same of means, in stored standard deviations."""
LEAST_IMAGES = 5
"""On fewer images the check does not speak: one dark photograph would decide."""


@dataclass(frozen=True)
class Preprocessing(Technique):
    """Statistics at the inputs of the first batch normalisations against those that training stored.

    Stored for each image and convolution before such a normalisation: ``mean/<layer>`` and ``variance/<layer>`` (C,)
    over positions; for the model ``mean/<normalisation>`` and ``variance/<normalisation>`` (C,), the running
    statistics (Ioffe and Szegedy 2015).

    Attributes:
        layers: empty: the first `FIRST` convolutions whose output is normalised.
    """

    name: ClassVar[str] = "preprocessing"
    title: ClassVar[Message] = _("Preprocessing check")
    summary: ClassVar[str] = "whether images arrive as those did that the network was trained on"
    scope: ClassVar[Scope] = "scan"
    version: ClassVar[int] = 1
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "ioffe2015",
            "S. Ioffe, C. Szegedy",
            "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
            "International Conference on Machine Learning, 448–456",
            2015,
        ),
    )
    results_schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "images": {"type": "integer"},
            "implied_std": {"type": ["number", "null"]},
            "layers": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "convolution": {"type": "string"},
                        "channels": {"type": "integer"},
                        "log_ratio": {"type": "number"},
                        "signed": {"type": "number"},
                        "shift": {"type": "number"},
                    },
                },
            },
        },
        "required": ["images", "layers"],
    }

    layers: tuple[str, ...] = ()
    channels: str = ""

    def needs(self, resolution: Resolution) -> Needs:
        found = _normalised(resolution)
        if not found:
            raise NotApplicable(_("no convolution of this model is followed by a batch normalisation of its own"))
        return (Forward(taps=tuple(found), scores=False), Weights(tuple(found.values())))

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        computed: dict[str, Tensor] = {}
        for request in probe.needs:
            if isinstance(request, Weights):
                for name in request.layers:
                    computed[f"mean/{name}"], computed[f"variance/{name}"] = probe.running(name)
            elif isinstance(request, Forward):
                for layer in request.taps:
                    maps = probe.activation(layer).float().flatten(2)
                    computed[f"mean/{layer}"] = maps.mean(dim=2)
                    computed[f"variance/{layer}"] = maps.var(dim=2, correction=0)
        return computed

    # results and findings
    # ------------------------------------------------------------------------------------------------------------

    def results(self, evidence: Evidence) -> dict[str, Any]:
        layers: dict[str, Any] = {}
        for name, (convolution, ratio, shift) in _compared(evidence).items():
            layers[name] = {
                "convolution": convolution,
                "channels": len(ratio),
                "log_ratio": _median(np.abs(ratio)),
                "signed": _median(ratio),
                "shift": _median(np.abs(shift)),
            }
        first = next(iter(layers.values()))
        pipeline = evidence.resolution.pipeline
        known = pipeline["std"] and not pipeline["transform"]
        std = math.exp(first["signed"] / 2) * float(np.mean(pipeline["std"])) if known else None
        return {"images": len(evidence.cases), "implied_std": std, "layers": layers}

    def findings(self, results: Mapping[str, Any], evidence: Evidence) -> list[Finding]:
        name, first = next(iter(results["layers"].items()))
        scaled, shifted = first["log_ratio"] >= LOG_RATIO, first["shift"] >= SHIFT
        if results["images"] < LEAST_IMAGES or not (scaled or shifted):
            return []
        return [_mismatch(name, first, results, evidence, scaled=scaled, figures=(self._id,))]

    # figures
    # ------------------------------------------------------------------------------------------------------------

    @property
    def _id(self) -> str:
        return f"{self.name}-variance"

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        compared = _compared(evidence)

        def draw(axes: Axes) -> None:
            for name, (_convolution, ratio, _shift) in compared.items():
                axes.plot(np.linspace(0, 1, len(ratio)), np.sort(ratio), label=name)
            for level in (-LOG_RATIO, 0, LOG_RATIO):
                axes.axhline(level, color="#76839080", linewidth=0.6)
            axes.set_xlabel(evidence.words(_("share of the channels")))
            axes.set_ylabel(evidence.words(_("log variance ratio")))
            axes.legend(loc="best")

        picture = chart(draw, han=evidence.han)
        alt = _("curves of the logarithm of the variance ratio of the channels, for {n} layers", n=len(compared))
        yield Figure(
            id=self._id,
            technique=self.name,
            rows=(Row((Panel(picture, verbatim(""), alt),)),),
            caption=_(
                "Logarithm of the variance on these {n} images over the one stored in training, for the channels at "
                "the input of {layers}, in rising order. Curves near 0 mean that images arrive as in training; the "
                "outer lines are at ± {limit}.",
                n=len(evidence.cases),
                layers=", ".join(compared),
                limit=LOG_RATIO,
            ),
            columns=1,
            wide=True,
        )


def _normalised(resolution: Resolution) -> dict[str, str]:
    """The first convolutions whose output is normalised, and the module that does it."""
    called = {layer.name for layer in resolution.layers if layer.shape and layer.calls == 1}
    found: dict[str, str] = {}
    for fold in resolution.folds:
        convolution, normalisation = (name.rpartition(".")[0] for name in (fold.weight, fold.mean))
        if convolution in called and _usual(fold):
            found[convolution] = normalisation
    return dict(list(found.items())[:FIRST])


def _usual(fold: Fold) -> bool:
    """Whether statistics and weight are called as torch calls them, so that they are found by these names."""
    names = (fold.weight, fold.mean, fold.variance)
    return tuple(name.rpartition(".")[2] for name in names) == ("weight", "running_mean", "running_var")


def _compared(evidence: Evidence) -> dict[str, tuple[str, Array, Array]]:
    """For each normalisation its convolution, (C,) the logarithm of variance here over variance stored, and (C,) the
    difference of the means in stored standard deviations; channels that training found constant left out.
    """
    pairs = _normalised(evidence.resolution)
    sums = {layer: [0.0, 0.0, 0.0] for layer in pairs}
    for block in evidence.blocks():
        for layer, held in sums.items():
            mean, variance = (block.arrays[f"{name}/{layer}"].astype(np.float64) for name in ("mean", "variance"))
            for place, added in enumerate((mean, np.square(mean), variance)):
                held[place] = held[place] + added.sum(axis=0)
    stored, n = evidence.read(None), len(evidence.cases)
    compared: dict[str, tuple[str, Array, Array]] = {}
    for layer, name in pairs.items():
        mean, square, within = (np.asarray(total) / n for total in sums[layer])
        expected = stored[f"variance/{name}"].astype(np.float64)
        kept = expected > 1e-6 * np.median(expected)
        variance = np.maximum(within + square - np.square(mean), 1e-12 * expected.max())
        ratio = np.log(variance[kept] / expected[kept])
        shift = (mean - stored[f"mean/{name}"])[kept] / np.sqrt(expected[kept])
        compared[name] = (layer, ratio, shift)
    return compared


def _median(values: Array) -> float:
    return float(np.median(values)) if len(values) else 0.0


def _mismatch(
    name: str,
    first: Mapping[str, Any],
    results: Mapping[str, Any],
    evidence: Evidence,
    *,
    scaled: bool,
    figures: tuple[str, ...],
) -> Finding:
    told = results["implied_std"]
    used = ", ".join(f"{value:.3g}" for value in evidence.resolution.pipeline["std"])
    advice = (
        _(
            "A standard deviation of about {told} would fit in place of {used}. Ask how the network was trained, and "
            "give --mean and --std.",
            told=f"{told:.2g}",
            used=used,
        )
        if scaled and told is not None
        else _("Ask how the network was trained, and give --mean, --std, or the right --transform.")
    )
    return Finding(
        rule="preprocessing.mismatch",
        about="model",
        severity="warning",
        subject=name,
        title=_("Images do not arrive as in training"),
        detail=_(
            "At the input of {name} the variances of the channels differ from those that training stored: the median "
            "absolute logarithm of their ratio is {ratio} (from {limit} on is told), and means lie {shift} stored "
            "standard deviations away. Either the preprocessing is wrong, or these images are of another kind than "
            "those of training. {advice}",
            name=name,
            ratio=f"{first['log_ratio']:.2f}",
            limit=LOG_RATIO,
            shift=f"{first['shift']:.2f}",
            advice=advice,
        ),
        value=round(first["log_ratio"] if scaled else first["shift"], 4),
        threshold=LOG_RATIO if scaled else SHIFT,
        n=results["images"],
        figures=figures,
    )
