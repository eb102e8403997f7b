"""Whether images arrive at the network as those did that it was trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from reportgen.engine.requests import Forward, Needs, Scope, Weights
from reportgen.engine.resolution import Fold, Resolution
from reportgen.figures.chart import chart
from reportgen.figures.figure import Figure, Panel, Row
from reportgen.findings import Finding, FindingRule
from reportgen.report.document import Reference
from reportgen.resampling import jackknife
from reportgen.store import Array
from reportgen.techniques.preprocessing_rules import LEAST_IMAGES, MISMATCH, RULES, SHIFTED, concluded
from reportgen.techniques.technique import Block, Evidence, NotApplicable, Probe, Technique
from reportgen.text import Message, _, verbatim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

FIRST = 3
"""Batch normalisations that are told of; the first decides."""
PLAUSIBLE = (1 / 300, 10.0)
"""Standard deviations that somebody may have divided by: from grey levels up to 255 without any to images that hardly
vary.
"""
LOTS = 32
"""Lots of images that are left out in turn for the interval."""

_INTERVAL = {"type": ["array", "null"], "items": {"type": "number"}}


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
    rules: ClassVar[tuple[FindingRule, ...]] = RULES
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
            "thresholds": {"type": "object", "additionalProperties": {"type": "number"}},
            "layers": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "convolution": {"type": "string"},
                        "channels": {"type": "integer"},
                        "log_ratio": {"type": "number"},
                        "log_ratio_interval": _INTERVAL,
                        "signed": {"type": "number"},
                        "shift": {"type": "number"},
                        "shift_interval": _INTERVAL,
                        "untouched": {"type": "boolean"},
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
        compared = _compared(evidence)
        for name, one in compared.items():
            layers[name] = {
                "convolution": one.convolution,
                "channels": len(one.ratio),
                "log_ratio": one.log_ratio,
                "log_ratio_interval": one.interval(_log_ratio),
                "signed": _median(one.ratio),
                "shift": one.shift,
                "shift_interval": one.interval(_shift),
                "untouched": one.untouched,
            }
        images = next(iter(compared.values())).images
        first = next(iter(layers.values()))
        return {
            "images": images,
            "implied_std": _implied(first, evidence.resolution),
            "thresholds": {
                "log_ratio": MISMATCH.limit(evidence.limits),
                "shift": SHIFTED.limit(evidence.limits),
            },
            "layers": layers,
        }

    def findings(self, results: Mapping[str, Any], evidence: Evidence) -> list[Finding]:
        found = list(concluded(results, evidence.resolution.pipeline, evidence.limits, (self._id,)))
        return found if found and evidence.varied(LEAST_IMAGES) else []

    # figures
    # ------------------------------------------------------------------------------------------------------------

    @property
    def _id(self) -> str:
        return f"{self.name}-variance"

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        compared, limit = _compared(evidence), MISMATCH.limit(evidence.limits)

        def draw(axes: Axes) -> None:
            for name, one in compared.items():
                axes.plot(np.linspace(0, 1, len(one.ratio)), np.sort(one.ratio), label=name)
            for level in (-limit, 0, limit):
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
                n=next(iter(compared.values())).images,
                layers=", ".join(compared),
                limit=f"{limit:g}",
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


@dataclass(frozen=True)
class _Compared:
    """One normalisation, here and as training stored it.

    Attributes:
        convolution: that comes before it.
        sums: (lots, 3, C) over the images of each lot: means, their squares, variances within the images.
        counts: (lots,) how many images each lot holds.
        stored: (2, C) mean and variance.
    """

    convolution: str
    sums: Array
    counts: Array
    stored: Array

    @property
    def images(self) -> int:
        """Different ones."""
        return int(self.counts.sum())

    @property
    def untouched(self) -> bool:
        """Whether nothing was stored: mean 0 and variance 1 in every channel, as a normalisation is made."""
        return bool((self.stored[0] == 0).all() and (self.stored[1] == 1).all())

    def differences(self, left_out: int | None = None) -> tuple[Array, Array]:
        """(C,) the logarithm of variance here over variance stored, and (C,) the difference of the means in stored
        standard deviations; channels that training found constant left out.
        """
        kept = np.arange(len(self.counts)) != left_out
        mean, square, within = self.sums[kept].sum(axis=0) / self.counts[kept].sum()
        expected = self.stored[1]
        known = expected > 1e-6 * np.median(expected)
        variance = np.maximum(within + square - np.square(mean), 1e-12 * expected.max())
        ratio = np.log(variance[known] / expected[known])
        return ratio, (mean - self.stored[0])[known] / np.sqrt(expected[known])

    @property
    def ratio(self) -> Array:
        """(C,) logarithms of the ratios of variances."""
        return self.differences()[0]

    @property
    def log_ratio(self) -> float:
        """Median of their absolute values."""
        return _log_ratio(self.differences())

    @property
    def shift(self) -> float:
        """Median of the absolute differences of means."""
        return _shift(self.differences())

    def interval(self, of: Callable[[tuple[Array, Array]], float]) -> list[float] | None:
        """95 % of `log_ratio` or `shift`, by leaving out each lot in turn; None for fewer than two images."""
        lots = range(len(self.counts)) if len(self.counts) > 1 else ()
        found = jackknife(of(self.differences()), [of(self.differences(lot)) for lot in lots])
        return None if found is None else list(found)


def _compared(evidence: Evidence) -> dict[str, _Compared]:
    """What is compared, by the normalisation; each file once."""
    pairs = _normalised(evidence.resolution)
    sums: dict[str, Array] = {}
    counts = np.zeros(LOTS)
    for block in map(Block.different, evidence.blocks()):
        lots = (int(counts.sum()) + np.arange(len(block.cases))) % LOTS
        np.add.at(counts, lots, 1)
        for layer in pairs:
            mean, variance = (block.arrays[f"{name}/{layer}"].astype(np.float64) for name in ("mean", "variance"))
            held = sums.setdefault(layer, np.zeros((LOTS, 3, mean.shape[1])))
            np.add.at(held, lots, np.stack((mean, np.square(mean), variance), axis=1))
    stored, filled = evidence.read(None), counts > 0
    return {
        name: _Compared(
            layer,
            sums[layer][filled],
            counts[filled],
            np.stack([stored[f"{what}/{name}"].astype(np.float64) for what in ("mean", "variance")]),
        )
        for layer, name in pairs.items()
    }


def _log_ratio(differences: tuple[Array, Array]) -> float:
    return _median(np.abs(differences[0]))


def _shift(differences: tuple[Array, Array]) -> float:
    return _median(np.abs(differences[1]))


def _median(values: Array) -> float:
    return float(np.median(values)) if len(values) else 0.0


def _implied(first: Mapping[str, Any], resolution: Resolution) -> float | None:
    """The standard deviation of the pipeline that would fit, where it is one number that somebody may have used."""
    pipeline = resolution.pipeline
    if not pipeline["std"] or pipeline["transform"]:
        return None
    std = math.exp(first["signed"] / 2) * float(np.mean(pipeline["std"]))
    return std if PLAUSIBLE[0] <= std <= PLAUSIBLE[1] else None
