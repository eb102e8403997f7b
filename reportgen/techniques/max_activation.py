"""What a channel responds to most: inputs made by gradient ascent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args

import numpy as np
from pydantic import Field

from reportgen.engine.requests import Ascent, AscentMethod, Needs, Scope
from reportgen.engine.resolution import Layer, Resolution, choose_channels
from reportgen.figures.chart import SERIES, charts
from reportgen.figures.figure import Figure, Panel, Row, slug
from reportgen.figures.tiles import synthetic
from reportgen.findings import Finding, FindingRule
from reportgen.report.document import Reference
from reportgen.store import Array
from reportgen.techniques.max_activation_rules import RULES, concluded
from reportgen.techniques.technique import Evidence, NoMaps, Probe, Technique
from reportgen.text import Message, _, signed, verbatim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing
    from torch import Tensor

METHODS: tuple[AscentMethod, ...] = get_args(AscentMethod)
COLUMNS = 8
MOST_CHARTS = 3
"""Charts beside each other."""
ROW_MM = 42
TITLES: Mapping[str, Message] = {"plain": _("plain"), "robust": _("robust")}
WAYS: Mapping[str, Message] = {
    "plain": _("plain: pixels, steps along the normalised gradient, nothing else"),
    "robust": _(
        "robust: Fourier coefficients with decorrelated colours, Adam, each picture moved, scaled and turned at random "
        "before each step"
    ),
}


@dataclass(frozen=True)
class MaxActivation(Technique):
    """Activation maximisation, from seeded noise (Erhan et al. 2009; Olah et al. 2017).

    Objective: the mean over all positions of one channel of a layer. The target is the last convolution inside each
    chosen layer, before its normalisation and activation (a rectified unit may start dead); where there is none, the
    layer itself. Stored, K the number of channels: ``<method>/<layer>`` (K,C,H,W) in [0,1] before normalisation, red
    first; ``objective/<method>/<layer>`` (K,steps) before each step, of the picture as it was moved for it;
    ``start/<method>/<layer>`` and ``final/<method>/<layer>`` (K,) the same for the noise and for the result, unmoved,
    NaN where the ascent broke down; ``responses/<method>/<layer>`` (K, channels of the layer) and
    ``features/<method>/<layer>`` (K,D) how the result excites all channels of the layer and of the deepest one;
    ``channels/<layer>`` (K,).

    Attributes:
        methods: of ``plain`` and ``robust``.
        steps: of gradient ascent.
        size: shorter side of the pictures in pixels, at most the model's own; 0 for the model's own. A network that
            takes no other size than its own is ascended at that.
        seed: of noise and moves; that of the job unless it is given.
    """

    name: ClassVar[str] = "max_activation"
    title: ClassVar[Message] = _("Activation maximisation")
    summary: ClassVar[str] = "inputs that excite a channel most, by plain and by robust gradient ascent"
    scope: ClassVar[Scope] = "model"
    version: ClassVar[int] = 1
    rules: ClassVar[tuple[FindingRule, ...]] = RULES
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "erhan2009",
            "D. Erhan, Y. Bengio, A. Courville, P. Vincent",
            "Visualizing Higher-Layer Features of a Deep Network",
            "Technical report 1341, Université de Montréal",
            2009,
        ),
        Reference(
            "olah2017",
            "C. Olah, A. Mordvintsev, L. Schubert",
            "Feature Visualization",
            "Distill 2 (11)",
            2017,
            "10.23915/distill.00007",
        ),
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"layers": ("last:1",), "channels": "even:4", "steps": 64, "size": 112},
        "standard": {"layers": ("spread:3",), "channels": "even:16", "steps": 128, "size": 160},
        "full": {"layers": ("default",), "channels": "even:32", "steps": 512, "size": 0},
    }
    results_schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "layers": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "channels": {"type": "array", "items": {"type": "integer"}},
                        "size": {"type": "array", "items": {"type": "integer"}},
                        "inert": {"type": "array", "items": {"type": "integer"}},
                        "methods": {
                            "type": "object",
                            "additionalProperties": {
                                "type": "object",
                                "additionalProperties": False,
                                "properties": {
                                    "start": {"type": "array", "items": {"type": ["number", "null"]}},
                                    "final": {"type": "array", "items": {"type": ["number", "null"]}},
                                    "never_rose": {"type": "array", "items": {"type": "integer"}},
                                    "broke_down": {"type": "array", "items": {"type": "integer"}},
                                    "strongest_own": {"type": "integer"},
                                    "distance": {"type": ["number", "null"]},
                                },
                            },
                        },
                    },
                },
            }
        },
    }

    layers: tuple[str, ...] = ("spread:3",)
    channels: str = "even:16"
    methods: Annotated[tuple[AscentMethod, ...], Field(min_length=1)] = METHODS
    steps: Annotated[int, Field(ge=1)] = 128
    size: Annotated[int, Field(ge=0)] = 160
    seed: Annotated[int, Field(ge=0)] = 0

    def settled(self, resolution: Resolution) -> MaxActivation:
        """Itself with every layer replaced by its target, and the size by that which it means for this model."""
        targets = [resolution.convolution(name) or name for name in resolution.select(self.layers)]
        shorter = min(resolution.pipeline["size"])
        size = min(self.size, shorter) if self.size else shorter
        return replace(self, layers=tuple(dict.fromkeys(targets)), size=size)

    def needs(self, resolution: Resolution) -> Needs:
        if not self.layers:
            raise NoMaps(resolution)
        return tuple(
            Ascent(layer, self._chosen(resolution.layer(layer)), method, self.steps, self.size, self.seed)
            for layer in self.layers
            for method in self.methods
        )

    def _chosen(self, layer: Layer) -> tuple[int, ...]:
        # which channels are the top ones depends on an image, and here there is none
        wanted = "even:" + self.channels[4:] if self.channels.startswith("top:") else self.channels
        return choose_channels(wanted, layer.shape[0])

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        import torch

        computed: dict[str, Tensor] = {}
        for request in probe.needs:
            assert isinstance(request, Ascent)
            found = probe.ascended(request)
            name = f"{request.method}/{request.layer}"
            computed[name] = found.images
            computed[f"objective/{name}"] = found.objective
            computed[f"start/{name}"] = found.start
            computed[f"final/{name}"] = found.final
            computed[f"responses/{name}"] = found.responses
            computed[f"features/{name}"] = found.features
            computed[f"channels/{request.layer}"] = torch.tensor(request.channels)
        return computed

    # results and findings
    # ------------------------------------------------------------------------------------------------------------

    def results(self, evidence: Evidence) -> dict[str, Any]:
        arrays = evidence.read(None)
        layers: dict[str, Any] = {}
        for name in self.layers:
            first = arrays[f"{self.methods[0]}/{name}"]
            layers[name] = {
                "channels": arrays[f"channels/{name}"].tolist(),
                "size": list(first.shape[2:]),
                "inert": _inert(arrays, self.methods, name),
                "methods": {method: _measured(arrays, method, name) for method in self.methods},
            }
        return {"layers": layers}

    def findings(self, results: Mapping[str, Any], evidence: Evidence) -> list[Finding]:
        return list(concluded(results["layers"], evidence.limits, self._id))

    # figures
    # ------------------------------------------------------------------------------------------------------------

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        arrays = evidence.read(None)
        results = self.results(evidence)["layers"]
        yield self._curves(evidence, arrays)
        for name in self.layers:
            yield self._plate(evidence.resolution, name, results[name], arrays)

    def _id(self, layer: str) -> str:
        return f"{self.name}-{slug(layer)}"

    def _plate(self, resolution: Resolution, name: str, told: Mapping[str, Any], arrays: Mapping[str, Array]) -> Figure:
        """The same channels by each method, one above the other."""
        layer, count = resolution.layer(name), len(told["channels"])
        rows = [
            Row(
                tuple(self._panel(method, place, told, arrays[f"{method}/{name}"][place]) for place in places),
                TITLES[method],
            )
            for places in (range(start, min(start + COLUMNS, count)) for start in range(0, count, COLUMNS))
            for method in self.methods
        ]
        struck = any(one["never_rose"] or one["broke_down"] for one in told["methods"].values())
        caption = _(
            "Inputs that excite channels of layer {layer} most, made from noise by {steps} steps of gradient ascent at "
            "{width} × {height} pixels{own}. {ways}. {n} of {all} channels; beneath each picture its channel and the "
            "objective it reached, the mean of the channel over all positions{where}. {colours}{struck}{guessed}",
            layer=name,
            steps=self.steps,
            width=told["size"][1],
            height=told["size"][0],
            own=_size_words(resolution, told["size"], self.size),
            ways=_joined([WAYS[method] for method in self.methods]),
            n=count,
            all=layer.shape[0],
            where=_(" before normalisation and activation") if layer.kernel else verbatim(""),
            colours=_colour_words(resolution.pipeline["channels"]),
            struck=_(" Struck through: the objective never rose above that of the noise, or the ascent broke down.")
            if struck
            else verbatim(""),
            guessed=_(
                " The preprocessing is the user's own and does not tell its mean and deviation; the usual ones stand "
                "for them."
            )
            if resolution.pipeline["transform"]
            else verbatim(""),
        )
        return Figure(
            id=self._id(name), technique=self.name, rows=tuple(rows), caption=caption, columns=COLUMNS, layer=name
        )

    def _panel(self, method: str, place: int, told: Mapping[str, Any], picture: Array) -> Panel:
        channel, one = told["channels"][place], told["methods"][method]
        failed = channel in one["never_rose"] or channel in one["broke_down"]
        words = {"channel": channel, "method": TITLES[method]}
        if channel in one["broke_down"]:
            label = _("{channel} · broke down", channel=channel)
            alt = _("channel {channel}, {method} ascent: it broke down", **words)
        elif failed:
            label = _("{channel} · never rose", channel=channel)
            alt = _("channel {channel}, {method} ascent: the objective never rose", **words)
        else:
            reached = signed(one["final"][place], ".3g")
            label = _("{channel} · {reached}", channel=channel, reached=reached)
            alt = _("channel {channel}, {method} ascent, objective {reached}", reached=reached, **words)
        return Panel(synthetic(picture, struck=failed), label, alt, name=f"{method}-channel-{channel}")

    def _curves(self, evidence: Evidence, arrays: Mapping[str, Array]) -> Figure:
        """How the objective rose: the mean and the range over the channels of each layer."""
        rows = -(-len(self.layers) // MOST_CHARTS)
        picture = charts(
            lambda drawing: self._draw(drawing, evidence, arrays), height_mm=ROW_MM * rows, han=evidence.han
        )
        alt = _("curves of the objective over the steps for {n} layers", n=len(self.layers))
        return Figure(
            id=f"{self.name}-objective",
            technique=self.name,
            rows=(Row((Panel(picture, verbatim(""), alt),)),),
            caption=_(
                "Objective during the ascent for {layers}: the mean over the channels (line) and their range (band), "
                "each measured before a step. That of robust ascent is measured on pictures moved at random, and is "
                "therefore lower than what is reached in the end.",
                layers=", ".join(self.layers),
            ),
            columns=1,
            wide=True,
        )

    def _draw(self, drawing: Drawing, evidence: Evidence, arrays: Mapping[str, Array]) -> None:
        columns = min(len(self.layers), MOST_CHARTS)
        rows = -(-len(self.layers) // columns)
        for place, layer in enumerate(self.layers):
            axes: Axes = drawing.add_subplot(rows, columns, place + 1)
            axes.set_title(layer)
            for colour, method in zip(SERIES, self.methods, strict=False):
                objective = arrays[f"objective/{method}/{layer}"].astype(np.float64)
                steps = np.arange(objective.shape[1])
                known = np.isfinite(objective).any(axis=0)
                curves = np.where(np.isfinite(objective), objective, np.nan)[:, known]
                low, high = np.nanmin(curves, axis=0), np.nanmax(curves, axis=0)
                axes.fill_between(steps[known], low, high, color=colour, alpha=0.18, linewidth=0)
                axes.plot(steps[known], np.nanmean(curves, axis=0), label=evidence.words(TITLES[method]))
            axes.set_xlabel(evidence.words(_("step")))
            if place % columns == 0:
                axes.set_ylabel(evidence.words(_("objective")))
            if place == 0:
                drawing.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)


def _measured(arrays: Mapping[str, Array], method: str, layer: str) -> dict[str, Any]:
    """What one method came to at one layer."""
    channels = arrays[f"channels/{layer}"]
    start, final = (arrays[f"{what}/{method}/{layer}"].astype(np.float64) for what in ("start", "final"))
    responses, features = (arrays[f"{what}/{method}/{layer}"].astype(np.float64) for what in ("responses", "features"))
    sound = np.isfinite(final)
    rose = sound & (final > start)
    # whose picture, of all, excites a channel most
    own = responses[:, channels]
    strongest = [place for place in np.flatnonzero(rose) if own[rose, place].max() == own[place, place]]
    return {
        "start": _numbers(start),
        "final": _numbers(final),
        "never_rose": channels[sound & ~rose].tolist(),
        "broke_down": channels[~sound].tolist(),
        "strongest_own": len(strongest),
        "distance": _distance(features[rose]),
    }


def _distance(features: Array) -> float | None:
    """Mean cosine distance between two rows; None for fewer than two."""
    if len(features) < 2:
        return None
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    n = len(unit)
    return float(1 - ((unit @ unit.T).sum() - (unit**2).sum()) / (n * (n - 1)))


def _numbers(values: Array) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _inert(arrays: Mapping[str, Array], methods: Sequence[str], layer: str) -> list[int]:
    """Channels that respond to the noise and to the pictures made for all channels alike, to rounding."""
    channels = arrays[f"channels/{layer}"]
    starts = [arrays[f"start/{method}/{layer}"][None] for method in methods]
    ends = [arrays[f"responses/{method}/{layer}"][:, channels] for method in methods]
    seen = np.concatenate((*starts, *ends)).astype(np.float64)
    return channels[np.ptp(seen, axis=0) <= 1e-6 * np.abs(seen).max(axis=0)].tolist()  # type: ignore[no-any-return]


def _size_words(resolution: Resolution, size: list[int], wanted: int) -> Message:
    height, width = resolution.pipeline["size"]
    if tuple(size) != (height, width):
        return _(" (the model's own are {width} × {height})", width=width, height=height)
    if wanted < min(height, width):
        return _(" (the model takes no other size than its own)")
    return _(", the model's own size")


def _colour_words(channels: int) -> Message:
    if channels == 3:
        return _("Colours are those of the input, neither stretched nor centred.")
    if channels == 1:
        return _("Grey values are those of the input, neither stretched nor centred.")
    return _("Grey values are the mean of the {n} input channels, neither stretched nor centred.", n=channels)


def _joined(parts: list[Message]) -> Message:
    return parts[0] if len(parts) == 1 else _("{first}; {second}", first=parts[0], second=parts[1])
