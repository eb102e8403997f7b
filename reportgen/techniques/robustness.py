"""Whether answers and maps survive changes of the image that a viewer would hardly mind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from reportgen.engine.requests import Forward, Needs, Perturbed, Variant
from reportgen.engine.resolution import Resolution
from reportgen.figures.chart import SERIES, charts
from reportgen.figures.figure import Figure, Panel, Row
from reportgen.findings import Finding, FindingRule
from reportgen.metrics import share, wilson
from reportgen.report.document import Reference
from reportgen.similarity import rank_correlation
from reportgen.techniques.class_activation import ClassActivation
from reportgen.techniques.measurement import MEAN_SCHEMA, Measurement, after, afters, mean
from reportgen.techniques.technique import Evidence, NotApplicable, Probe
from reportgen.text import Message, _, verbatim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing
    from torch import Tensor

TITLES: Mapping[str, Message] = {
    "darker": _("darker"),
    "brighter": _("brighter"),
    "blur": _("blurred"),
    "noise": _("noise added"),
    "jpeg": _("JPEG"),
    "shift": _("shifted"),
}
FLIPS = FindingRule("robustness.flips", "model", "warning", _("Answers flip under mild changes of the image"), 0.1)
"""Speaks where more than this share of answers surely flips under a mild change."""
LEAST_IMAGES = 20
"""On fewer nothing is said of the model: a handful of images is no sample of what it meets."""
ONE_OF_SIX = 2.638257273476751
"""Quantile of the normal for 95 % over the worst of six changes (Bonferroni)."""
_SHARE = {**MEAN_SCHEMA, "properties": {**MEAN_SCHEMA["properties"], "count": {"type": "integer"}}}


@dataclass(frozen=True)
class Robustness(Measurement):
    """Answers and Grad-CAM maps under mild changes of the image, after Hendrycks and Dietterich (2019).

    Stored for each image: ``predicted`` () and ``predicted/<change>`` () class numbers, ``probability`` () and
    ``probability/<change>`` () of the class predicted for the image as it is, and ``stability/<change>`` () the rank
    correlation of the maps of that class before and after; for a shift over what both show, the shift undone; NaN where
    it is undefined. Changes are ``darker``, ``brighter``, ``blur``, ``noise``, ``jpeg``, ``shift``; they act on values
    from 0 to 1 before normalisation.

    Attributes:
        brightness: added to, and taken from, all values.
        blur: standard deviation as a share of the shorter side.
        noise: standard deviation.
        jpeg: quality, from 1 to 95.
        shift: to the right and down, as a share of the shorter side.
    """

    name: ClassVar[str] = "robustness"
    title: ClassVar[Message] = _("Robustness")
    summary: ClassVar[str] = "whether answers and maps survive mild changes: brightness, blur, noise, JPEG, shift"
    version: ClassVar[int] = 1
    rules: ClassVar[tuple[FindingRule, ...]] = (FLIPS,)
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "hendrycks2019",
            "D. Hendrycks, T. Dietterich",
            "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
            "International Conference on Learning Representations (ICLR), arXiv:1903.12261",
            2019,
        ),
    )
    results_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "n": {"type": "integer"},
            "threshold": {"type": "number"},
            "accuracy": {"oneOf": [_SHARE, {"type": "null"}]},
            "changes": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "properties": {
                        "title": {"type": "string"},
                        "amount": {"type": "number"},
                        "pixels": {"type": ["number", "null"]},
                        "flips": _SHARE,
                        "accuracy": {"oneOf": [_SHARE, {"type": "null"}]},
                        "confidence": MEAN_SCHEMA,
                        "stability": {"oneOf": [MEAN_SCHEMA, {"type": "null"}]},
                    },
                },
            },
        },
    }

    layers: tuple[str, ...] = ("last:1",)
    brightness: float = 0.1
    blur: float = 0.005
    noise: float = 0.04
    jpeg: int = 75
    shift: float = 0.02

    def __post_init__(self) -> None:
        if min(self.brightness, self.blur, self.noise, self.shift) <= 0 or not 1 <= self.jpeg <= 95:
            raise ValueError("amounts are above 0, the quality of JPEG is 1 to 95")

    def changes(self) -> dict[str, Perturbed]:
        """By name."""
        return {
            "darker": Perturbed("brightness", -self.brightness),
            "brighter": Perturbed("brightness", self.brightness),
            "blur": Perturbed("blur", self.blur),
            "noise": Perturbed("noise", self.noise),
            "jpeg": Perturbed("jpeg", self.jpeg),
            "shift": Perturbed("shift", self.shift),
        }

    def needs(self, resolution: Resolution) -> Needs:
        same: Needs = (Forward(),)
        if self.layers:
            with suppress(NotApplicable):
                same = (*same, after(ClassActivation(layers=self.layers[-1:], methods=("grad_cam",)), resolution))
        return (*same, *(Variant(same, change) for change in self.changes().values()))

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        import torch

        (target,) = probe.targets
        index = probe.class_index(target)
        places = torch.arange(len(index))
        own = probe.probabilities()
        before = _maps(probe, probe.needs)
        computed = {"predicted": own.argmax(dim=1), "probability": own[places, index]}
        size = tuple(probe.inputs().shape[2:])
        for name, change in self.changes().items():
            variant = next(need for need in probe.needs if isinstance(need, Variant) and need.change == change)
            other = probe.variant(variant)
            probabilities = other.probabilities()
            computed[f"predicted/{name}"] = probabilities.argmax(dim=1)
            computed[f"probability/{name}"] = probabilities[places, index]
            after_it = _maps(other, variant.requests)
            if before is not None and after_it is not None:
                computed[f"stability/{name}"] = _stability(before, after_it, change, size)
        return computed

    def results(self, evidence: Evidence) -> dict[str, Any]:
        rows = [(case.truth.single if case.truth else None, arrays) for case, arrays in evidence.each()]
        told = {}
        size = evidence.resolution.pipeline["size"]
        for name, change in self.changes().items():
            flips = sum(int(arrays[f"predicted/{name}"]) != int(arrays["predicted"]) for _truth, arrays in rows)
            fall = np.array(
                [float(arrays[f"probability/{name}"]) - float(arrays["probability"]) for _t, arrays in rows]
            )
            stability = np.array([float(arrays.get(f"stability/{name}", np.nan)) for _truth, arrays in rows])
            known = stability[np.isfinite(stability)]
            told[name] = {
                "title": str(TITLES[name]),
                "amount": change.amount,
                "pixels": change.pixels(*size),
                "flips": {**share(flips, len(rows)), "count": flips},
                "accuracy": _accuracy([(int(arrays[f"predicted/{name}"]), t) for t, arrays in rows]),
                "confidence": mean(fall),
                "stability": mean(known) if len(known) else None,
            }
        return {
            "n": len(rows),
            "threshold": FLIPS.limit(evidence.limits),
            "accuracy": _accuracy([(int(arrays["predicted"]), t) for t, arrays in rows]),
            "changes": told,
        }

    def findings(self, results: Mapping[str, Any], evidence: Evidence) -> list[Finding]:
        worst = max(results["changes"], key=lambda name: results["changes"][name]["flips"]["value"])
        flips = results["changes"][worst]["flips"]
        low, high = wilson(flips["count"], flips["n"], ONE_OF_SIX)
        limit = FLIPS.limit(evidence.limits)
        if low <= limit or flips["n"] < LEAST_IMAGES:
            return []
        detail = _(
            "{count} of {n} images get another class when they are {change} ({amount}); more than {threshold} "
            "flip beyond doubt ({low} to {high}, the worst of {all} changes). Train with such changes, or make "
            "sure that images in use do not differ so.",
            count=flips["count"],
            n=flips["n"],
            change=TITLES[worst],
            amount=f"{results['changes'][worst]['amount']:g}",
            threshold=f"{limit:.0%}",
            low=f"{low:.0%}",
            high=f"{high:.0%}",
            all=len(results["changes"]),
        )
        told = {"value": flips["value"], "threshold": limit, "n": flips["n"], "interval": (low, high)}
        return [FLIPS.found(detail, subject=worst, figures=(f"{self.name}-changes",), **told)]

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        if not evidence.cases:
            return
        results = self.results(evidence)
        picture = charts(lambda drawing: _draw(drawing, evidence, results), height_mm=50, han=evidence.han)
        yield Figure(
            id=f"{self.name}-changes",
            technique=self.name,
            rows=(Row((Panel(picture, verbatim(""), _("flipped answers and stability of maps by change")),)),),
            caption=_(
                "Left: share of {n} images whose predicted class is another after a mild change, with 95 % intervals "
                "(Wilson); the dotted line is the threshold of the finding. Right: mean rank correlation of the "
                "Grad-CAM maps of the first class before and after, with 95 % intervals by the bootstrap over images.",
                n=results["n"],
            ),
            columns=1,
            wide=True,
        )


def _maps(probe: Probe, needs: Needs) -> Tensor | None:
    """(n, h, w) Grad-CAM; None where the model has no such map."""
    (target,) = probe.targets
    for request in afters(needs):
        return next(maps for name, maps in probe.after(request).items() if name.endswith(f"/{target}"))
    return None


def _stability(before: Tensor, after_it: Tensor, change: Perturbed, size: tuple[int, ...]) -> Tensor:
    """(n,) rank correlations of maps (n, h, w); of a shift where both show the same part of the image."""
    import torch
    from torch.nn import functional

    one, other = before.double(), after_it.double()
    if change.kind == "shift":
        pixels = int(change.pixels(size[0], size[1]) or 0)
        large = (
            functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
            for maps in (one, other)
        )
        one, other = large
        one, other = one[:, : size[0] - pixels, : size[1] - pixels], other[:, pixels:, pixels:]
    pairs = zip(one.cpu().numpy(), other.cpu().numpy(), strict=True)
    return torch.tensor([rank_correlation(a, b) for a, b in pairs])


def _draw(drawing: Drawing, evidence: Evidence, results: Mapping[str, Any]) -> None:
    names = list(results["changes"])
    places = range(len(names))
    first: Axes | None = None
    for number, (what, title) in enumerate((("flips", _("flipped answers")), ("stability", _("stability of maps")))):
        axes: Axes = drawing.add_subplot(1, 2, number + 1, sharey=first)
        axes.set_title(evidence.words(title))
        axes.margins(x=0.05)
        for place, name in enumerate(names):
            one = results["changes"][name][what]
            if one is None:
                continue
            low, high = one["interval"] or (one["value"], one["value"])
            axes.plot([low, high], [place, place], color=SERIES[0], linestyle="-")
            axes.plot([one["value"]], [place], color=SERIES[0], marker="o", linestyle="none")
        if first is None:
            first = axes
            axes.set_yticks(places, [evidence.words(TITLES[name]) for name in names])
            axes.axvline(results["threshold"], linewidth=0.7, color=SERIES[2], linestyle=":")
            axes.set_xlim(left=0)
            axes.set_xlabel(evidence.words(_("share of images")))
        else:
            axes.tick_params(labelleft=False)
            axes.set_xlim(right=1.02)
            axes.set_xlabel(evidence.words(_("rank correlation")))
    assert first is not None
    first.set_ylim(len(names) - 0.5, -0.5)


def _accuracy(pairs: Sequence[tuple[int, int | None]]) -> dict[str, Any] | None:
    """Share of (predicted, true) pairs that agree, of those whose true class is known; None without any."""
    known = [predicted == true for predicted, true in pairs if true is not None]
    return share(sum(known), len(known)) if known else None
