"""Whether a map depends on what the model has learnt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from reportgen.engine.requests import Needs, Randomised, Variant
from reportgen.engine.resolution import Resolution
from reportgen.figures.chart import SERIES, charts
from reportgen.figures.figure import Figure, Panel, Row
from reportgen.figures.tiles import grey_tile
from reportgen.findings import Finding, FindingRule
from reportgen.report.document import Reference
from reportgen.similarity import rank_correlation, structural_similarity
from reportgen.store import Array
from reportgen.techniques.cam_formulas import GRADIENT_METHODS
from reportgen.techniques.class_activation import TITLES, ClassActivation
from reportgen.techniques.deconvnet import Deconvnet
from reportgen.techniques.gradient import Gradient
from reportgen.techniques.guided_backprop import GuidedBackprop
from reportgen.techniques.input_space import limit_of
from reportgen.techniques.literature import SIXT2020
from reportgen.techniques.measurement import MEAN_SCHEMA, Measurement, after, afters, mean
from reportgen.techniques.technique import Evidence, NotApplicable, Probe, Technique
from reportgen.text import Message, _, listed, signed, verbatim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing
    from torch import Tensor

INPUT_SPACE: Mapping[str, Technique] = {
    "gradient": Gradient(),
    "guided_backprop": GuidedBackprop(layers=(), exhibits=0),
    "deconvnet": Deconvnet(layers=(), exhibits=0),
}
KNOWN = ("guided_backprop", "deconvnet")
"""Methods that are known to depend little on deep layers (Sixt et al. 2020)."""
LITTLE = FindingRule(
    "sanity.changes_little", "method", "notice", _("Some maps hardly depend on the weights that decide"), 0.5
)
"""Speaks of maps whose rank correlation with themselves at the first level surely lies above this."""
SIDE = 56
"""Cells along the longer side of the maps that are kept to be drawn."""


@dataclass(frozen=True)
class Sanity(Measurement):
    """Cascading randomisation of weights from the output down (Adebayo et al. 2018).

    Stored for each image: ``rank/<method>`` and ``ssim/<method>`` (levels,), the similarity of the map of the predicted
    class with itself after the weights of a level and of all before it were drawn anew, at the first level the mean
    over `draws`; NaN where it is undefined.
    ``map/<method>`` (levels + 1, h, w) float16 are the maps, reduced to be drawn: first that of the model as it is; of
    derivatives the largest magnitude over the channels. A level is what runs behind a default layer, from the deepest
    up; the last is the whole model. Derivatives are compared with their signs, as the mean over the channels.

    Attributes:
        methods: of ``gradient``, ``guided_backprop``, ``deconvnet`` and the class activation maps.
        draws: how often the weights of the first level are drawn: with few classes one draw may happen to give the map
            again, or its negative.
        seed: of the weights.
    """

    name: ClassVar[str] = "sanity"
    title: ClassVar[Message] = _("Sanity of maps")
    summary: ClassVar[str] = "whether maps change when the weights are drawn anew, layer by layer"
    version: ClassVar[int] = 1
    rules: ClassVar[tuple[FindingRule, ...]] = (LITTLE,)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"full": {"images": 0}}
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "adebayo2018",
            "J. Adebayo, J. Gilmer, M. Muelly, I. Goodfellow, M. Hardt, B. Kim",
            "Sanity Checks for Saliency Maps",
            "Advances in Neural Information Processing Systems (NeurIPS) 31, 9505–9515",
            2018,
        ),
        SIXT2020,
        Reference(
            "wang2004",
            "Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli",
            "Image Quality Assessment: From Error Visibility to Structural Similarity",
            "IEEE Transactions on Image Processing 13 (4), 600–612",
            2004,
            "10.1109/TIP.2003.819861",
        ),
    )
    results_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "n": {"type": "integer"},
            "levels": {"type": "array", "items": {"type": "string"}},
            "threshold": {"type": "number"},
            "methods": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "properties": {
                        "title": {"type": "string"},
                        "rank_correlation": {"type": "array", "items": {"oneOf": [MEAN_SCHEMA, {"type": "null"}]}},
                        "ssim": {"type": "array", "items": {"oneOf": [MEAN_SCHEMA, {"type": "null"}]}},
                        "changes_little": {"type": ["boolean", "null"]},
                    },
                },
            },
        },
    }

    layers: tuple[str, ...] = ("last:1",)
    images: int = 8
    methods: tuple[str, ...] = (*INPUT_SPACE, "grad_cam")
    draws: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        known = (*INPUT_SPACE, *GRADIENT_METHODS)
        for method in self.methods:
            if method not in known:
                raise ValueError(f"{method!r} is no method; there are {', '.join(known)}")
        if self.images < 0 or self.draws < 1:
            raise ValueError("images are 0 or more, draws 1 or more")

    def needs(self, resolution: Resolution) -> Needs:
        made = []
        for technique in self._techniques():
            try:
                made.append(after(technique, resolution))
            except NotApplicable:
                continue
        levels = levels_of(resolution)
        if not made or not levels:
            raise NotApplicable(_("this model offers no map that could be compared with itself"))
        again = (Randomised(levels[0], self.seed + draw) for draw in range(1, self.draws))
        changes = (Randomised(levels[0], self.seed), *again, *(Randomised(above, self.seed) for above in levels[1:]))
        return (*made, *(Variant(tuple(made), change) for change in changes))

    def _techniques(self) -> Iterator[Technique]:
        yield from (technique for name, technique in INPUT_SPACE.items() if name in self.methods)
        cams = tuple(method for method in self.methods if method in GRADIENT_METHODS)
        if cams and self.layers:
            yield ClassActivation(layers=self.layers[-1:], methods=cams)

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        import torch

        own = self._maps(probe, probe.needs)
        size = tuple(probe.inputs().shape[2:])
        computed: dict[str, list[Tensor]] = {f"map/{name}": [_reduced(maps)] for name, maps in own.items()}
        for variant in (need for need in probe.needs if isinstance(need, Variant)):
            for name, maps in self._maps(probe.variant(variant), variant.requests).items():
                computed[f"map/{name}"].append(_reduced(maps))
                rank, ssim = _similarities(own[name], maps, size)
                computed.setdefault(f"rank/{name}", []).append(rank)
                computed.setdefault(f"ssim/{name}", []).append(ssim)
        return {name: torch.stack(self._by_level(name, parts), dim=1) for name, parts in computed.items()}

    def _by_level(self, name: str, parts: list[Tensor]) -> list[Tensor]:
        """The draws of the first level as one: of similarities their mean, of maps the first."""
        import torch

        if name.startswith("map/"):
            return [*parts[:2], *parts[1 + self.draws :]]
        return [torch.stack(parts[: self.draws]).nanmean(dim=0), *parts[self.draws :]]

    def _maps(self, probe: Probe, needs: Needs) -> dict[str, Tensor]:
        """(n, C, H, W) or (n, h, w) by method."""
        (target,) = probe.targets
        found: dict[str, Tensor] = {}
        for request in afters(needs):
            for name, maps in probe.after(request).items():
                if name == f"class/{target}":
                    found[request.technique.name] = maps.detach()
                elif name.endswith(f"/{target}"):
                    found[name.partition("/")[0]] = maps.detach()
        return {method: found[method] for method in self.methods if method in found}

    def results(self, evidence: Evidence) -> dict[str, Any]:
        levels = [above or "" for above in levels_of(evidence.resolution)]
        limit = LITTLE.limit(evidence.limits)
        told: dict[str, Any] = {}
        for method in self._shown(evidence):
            ranks, ssims = (
                np.array([arrays[f"{what}/{method}"] for _case, arrays in evidence.each()]) for what in ("rank", "ssim")
            )
            first = _mean(ranks[:, 0])
            told[method] = {
                "title": str(title_of(method)),
                "rank_correlation": [_mean(column) for column in ranks.T],
                "ssim": [_mean(column) for column in ssims.T],
                "changes_little": _little(first, limit),
            }
        return {"n": len(evidence.cases), "levels": levels, "threshold": limit, "methods": told}

    def _shown(self, evidence: Evidence) -> list[str]:
        arrays = evidence.read(evidence.cases[0])
        return [method for method in self.methods if f"rank/{method}" in arrays]

    def findings(self, results: Mapping[str, Any], evidence: Evidence) -> list[Finding]:
        little = {name: one for name, one in results["methods"].items() if one["changes_little"]}
        if not little:
            return []
        first = {name: one["rank_correlation"][0] for name, one in little.items()}
        worst = max(first, key=lambda name: first[name]["value"])
        known = [title_of(name) for name in little if name in KNOWN]
        detail = _(
            "With the weights behind the deepest layer drawn anew the answer means nothing, and yet maps of "
            "{methods} keep their order: mean rank correlation up to {value} on {n} images. They show what of "
            "the image the network could see, not why it answered as it did. {known}",
            methods=listed([title_of(name) for name in little]),
            value=signed(first[worst]["value"], ".2f"),
            n=first[worst]["n"],
            known=_("Of {names} this is known (Sixt et al. 2020): it is no fault of the model.", names=listed(known))
            if known
            else verbatim(""),
        )
        figures = (f"{self.name}-curves", f"{self.name}-maps")
        return [LITTLE.found(detail, subject=worst, threshold=results["threshold"], figures=figures, **first[worst])]

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        if not evidence.cases:
            return
        results = self.results(evidence)
        picture = charts(lambda drawing: _draw(drawing, evidence, results), height_mm=58, han=evidence.han)
        yield Figure(
            id=f"{self.name}-curves",
            technique=self.name,
            rows=(Row((Panel(picture, verbatim(""), _("similarity of maps over the cascade of random weights")),)),),
            caption=_(
                "Similarity of maps with themselves after the weights were drawn anew from the output up to what is "
                "named: means over {n} images, with 95 % intervals by the bootstrap over images. 1 is the same map, 0 "
                "no likeness. A map that stays above the dotted line at the first step changes little.",
                n=results["n"],
            ),
            columns=1,
            wide=True,
        )
        yield self._pictures(evidence, results)

    def _pictures(self, evidence: Evidence, results: Mapping[str, Any]) -> Figure:
        """The maps of one image: one row a method, one column a level."""
        case = evidence.cases[0]
        arrays = evidence.read(case)
        headings = (_("as it is"), *(_level(level) for level in results["levels"]))
        rows = []
        for method in results["methods"]:
            panels = []
            for place, values in enumerate(evidence.visible(np.nan_to_num(arrays[f"map/{method}"].astype(np.float32)))):
                tile = grey_tile(values, low=0.0, high=limit_of(values))
                alt = _("{method}, weights drawn anew: {level}", method=title_of(method), level=headings[place])
                panels.append(Panel(tile, verbatim(""), alt, name=f"{method}-{place}"))
            rows.append(Row(tuple(panels), title_of(method)))
        return Figure(
            id=f"{self.name}-maps",
            technique=self.name,
            rows=tuple(rows),
            caption=_(
                "Maps of {image} for {label}, first of the model as it is, then with the weights drawn anew from the "
                "output up to the layer that heads the column, that one left out. Each from zero (black) to its own "
                "99.5th percentile (white); of derivatives the largest magnitude over the channels.",
                image=case.name,
                label=evidence.resolution.label(case.targets[0]),
            ),
            columns=len(headings),
            headings=headings,
        )


def levels_of(resolution: Resolution) -> list[str | None]:
    """The layers behind which weights are drawn anew, deepest first, then None for all; each reaches more weights."""
    levels: list[str | None] = []
    reached = 0
    if not resolution.defaults:
        return [None]
    for above in (*reversed(resolution.defaults), None):
        limit = resolution.layer(above).order if above else -1
        count = sum(one.parameters for one in resolution.layers if one.leaf and one.order > limit)
        if count > reached:
            levels.append(above)
            reached = count
    return levels


def title_of(method: str) -> Message:
    """A method as a reader is told it."""
    return INPUT_SPACE[method].title if method in INPUT_SPACE else verbatim(TITLES[method])


def _level(name: str) -> Message:
    return verbatim(name) if name else _("all")


def _reduced(maps: Tensor) -> Tensor:
    """(n, h, w) float16 of at most `SIDE` cells a side, each scaled by its largest magnitude."""
    import torch
    from torch.nn import functional

    strength = maps.abs().amax(dim=1) if maps.dim() == 4 else maps
    height, width = strength.shape[1:]
    share = min(1.0, SIDE / max(height, width))
    small = functional.adaptive_avg_pool2d(strength, (max(1, round(share * height)), max(1, round(share * width))))
    largest = small.abs().amax(dim=(1, 2), keepdim=True)
    return torch.where(largest > 0, small / largest, 0.0).half()


def _similarities(one: Tensor, other: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(n,) rank correlations and (n,) SSIM; coarser maps are enlarged to the input for the latter, as when drawn."""
    import torch
    from torch.nn import functional

    def plain(maps: Tensor) -> Tensor:
        return maps.mean(dim=1) if maps.dim() == 4 else maps

    def large(maps: Tensor) -> Tensor:
        whole = plain(maps)[:, None]
        return functional.interpolate(whole, size=size, mode="bilinear", align_corners=False)[:, 0]

    found = []
    for how, of in ((rank_correlation, plain), (structural_similarity, large)):
        pairs = zip(*(of(maps.double()).cpu().numpy() for maps in (one, other)), strict=True)
        found.append(torch.tensor([how(a, b) for a, b in pairs]))
    return found[0], found[1]


def _mean(values: Array) -> dict[str, Any] | None:
    known = values[np.isfinite(values)]
    return mean(known) if len(known) else None


def _little(first: Mapping[str, Any] | None, limit: float) -> bool | None:
    """Whether a map changes little by its rank correlation at the first level; None where that is not decided."""
    if first is None or first["interval"] is None or first["interval"][0] <= limit < first["value"]:
        return None
    return bool(first["value"] > limit)


def _draw(drawing: Drawing, evidence: Evidence, results: Mapping[str, Any]) -> None:
    levels: Sequence[str] = results["levels"]
    for place, (what, title) in enumerate((("rank_correlation", _("rank correlation")), ("ssim", _("SSIM")))):
        axes: Axes = drawing.add_subplot(1, 2, place + 1)
        axes.set_title(evidence.words(title))
        for number, (name, one) in enumerate(results["methods"].items()):
            known = [(x, value) for x, value in enumerate(one[what]) if value is not None]
            xs, means = [x for x, _value in known], [value["value"] for _x, value in known]
            bands = [value["interval"] or (value["value"], value["value"]) for _x, value in known]
            colour = SERIES[number % len(SERIES)]
            axes.fill_between(xs, [b[0] for b in bands], [b[1] for b in bands], color=colour, alpha=0.15, linewidth=0)
            axes.plot(xs, means, marker="o", label=evidence.words(title_of(name)))
        axes.set_xticks(range(len(levels)), [evidence.words(_level(level)) for level in levels])
        axes.axhline(0, linewidth=0.5, color=SERIES[2], linestyle="-")
        axes.set_ylim(top=1.05)
        if what == "rank_correlation":
            axes.axhline(results["threshold"], linewidth=0.7, color=SERIES[2], linestyle=":")
            # four lines and their bands leave no corner free
            drawing.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        axes.set_xlabel(evidence.words(_("drawn anew behind")))
