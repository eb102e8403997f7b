"""Which regions of an image speak for a class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from reportgen.engine.requests import Backward, Forward, Needs, Scope
from reportgen.engine.resolution import Resolution
from reportgen.figures.figure import Colorbar, Figure, Panel, Row, slug
from reportgen.figures.tiles import photograph
from reportgen.findings import Finding, FindingRule
from reportgen.report.document import Reference
from reportgen.store import Array
from reportgen.techniques.cam_formulas import GRADIENT_METHODS, maps_by_gradient, precise, weighted
from reportgen.techniques.contrast import contrast
from reportgen.techniques.literature import SELVARAJU2017, ZHOU2016
from reportgen.techniques.technique import Case, Evidence, NoMaps, NotApplicable, Probe, Technique
from reportgen.text import Message, _, verbatim

if TYPE_CHECKING:
    from torch import Tensor


NO_ATTENTION = _("attention rollout needs attention among patches; in this model none is seen")
WINDOWS = _(
    "attention rollout needs blocks in which all tokens attend to all others; here attention keeps to windows, or "
    "tokens are merged or others on the way, so that the weights of blocks cannot be multiplied"
)


MOST_COLUMNS = 5
MOST_ROWS = 6
"""What fits a page."""

ROLLOUT = "rollout"
METHODS = ("cam", *GRADIENT_METHODS, ROLLOUT)
TITLES: Mapping[str, str] = {
    "cam": "CAM",
    "grad_cam": "Grad-CAM",
    "grad_cam_pp": "Grad-CAM++",
    "layer_cam": "LayerCAM",
    "hires_cam": "HiResCAM",
    "xgrad_cam": "XGrad-CAM",
    ROLLOUT: "Attention rollout",
}

ZERO = FindingRule(
    "class_activation.zero_map", "method", "notice", _("Some class activation maps are zero everywhere"), 1
)


@dataclass(frozen=True)
class ClassActivation(Technique):
    """Class activation maps by six methods, and attention rollout.

    A is the output of a layer read as maps, S_c the score of class c before softmax or sigmoid, G = ∂S_c/∂A. Stored for
    each image: ``<method>/<layer>/<c>`` (h,w), not normalised; all are zero or greater except ``cam``, which is signed.
    ``cam`` is Σ_k W_ck A_k (Zhou et al. 2016) and exists only where global average pooling and one linear layer follow
    the layer; there the Grad-CAM of that layer equals ReLU(CAM) / (h·w), which `results` checks.

    ``rollout`` (h,w), without layer and class, is Σ_i R_ij / n over the n tokens i that the scores read, for the
    patches j, R = Ã_L ··· Ã_1, Ã = (W + I) / 2, W the attention of a block as a mean over heads (Abnar and Zuidema
    2020). It exists where every block lets all tokens attend to all others.

    Attributes:
        methods: of ``cam``, ``grad_cam``, ``grad_cam_pp``, ``layer_cam``, ``hires_cam``, ``xgrad_cam``, ``rollout``.
    """

    name: ClassVar[str] = "class_activation"
    title: ClassVar[Message] = _("Class activation maps")
    summary: ClassVar[str] = (
        "which regions speak for a class, by CAM, Grad-CAM, Grad-CAM++, LayerCAM, HiResCAM, XGrad-CAM; where attention "
        "comes from, by rollout"
    )
    scope: ClassVar[Scope] = "exhibit"
    rules: ClassVar[tuple[FindingRule, ...]] = (ZERO,)
    version: ClassVar[int] = 1
    references: ClassVar[tuple[Reference, ...]] = (
        ZHOU2016,
        SELVARAJU2017,
        Reference(
            "chattopadhay2018",
            "A. Chattopadhay, A. Sarkar, P. Howlader, V. N. Balasubramanian",
            "Grad-CAM++: Generalized Gradient-Based Visual Explanations for Deep Convolutional Networks",
            "IEEE Winter Conference on Applications of Computer Vision (WACV), 839–847",
            2018,
            "10.1109/WACV.2018.00097",
        ),
        Reference(
            "jiang2021",
            "P.-T. Jiang, C.-B. Zhang, Q. Hou, M.-M. Cheng, Y. Wei",
            "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization",
            "IEEE Transactions on Image Processing 30, 5875–5888",
            2021,
            "10.1109/TIP.2021.3089943",
        ),
        Reference(
            "draelos2020",
            "R. L. Draelos, L. Carin",
            "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks",
            "arXiv:2011.08891",
            2020,
        ),
        Reference(
            "fu2020",
            "R. Fu, Q. Hu, X. Dong, Y. Guo, Y. Gao, B. Li",
            "Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs",
            "British Machine Vision Conference (BMVC)",
            2020,
        ),
        Reference(
            "abnar2020",
            "S. Abnar, W. Zuidema",
            "Quantifying Attention Flow in Transformers",
            "Annual Meeting of the Association for Computational Linguistics (ACL), 4190–4197",
            2020,
            "10.18653/v1/2020.acl-main.385",
        ),
    )
    results_schema = {
        "type": "object",
        "properties": {
            "methods": {"type": "array", "items": {"enum": list(METHODS)}},
            "identity": {
                "type": ["object", "null"],
                "properties": {
                    "layer": {"type": "string"},
                    "largest_difference": {"type": "number"},
                    "n": {"type": "integer"},
                    "scale": {"type": "number"},
                },
            },
            "cam_omitted": {"type": ["string", "null"]},
            "rollout": {
                "type": ["object", "null"],
                "properties": {
                    "blocks": {"type": "integer"},
                    "tokens": {"type": "integer"},
                    "prefix": {"type": "integer"},
                    "read": {"type": "integer"},
                },
            },
            "rollout_omitted": {"type": ["string", "null"]},
            "maps": {"type": "integer"},
            "zero_maps": {"type": "integer"},
            "zero": {
                "type": "object",
                "additionalProperties": {"type": "array", "items": {"type": "string"}},
            },
        },
    }

    channels: str = ""
    methods: tuple[str, ...] = METHODS

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                raise ValueError(f"{method!r} is no method; there are {', '.join(METHODS)}")

    def needs(self, resolution: Resolution) -> Needs:
        if not self.layers:
            raise NoMaps(resolution)
        rolls, pairs = self._rolls(resolution), self._pairs(resolution)
        if not rolls and not pairs and self.methods == (ROLLOUT,):
            raise NotApplicable(WINDOWS if resolution.attends else NO_ATTENTION)
        if not rolls and not pairs:
            raise NotApplicable(
                _("CAM needs global average pooling and one linear layer behind a chosen layer; this model has none")
            )
        if not pairs:
            return (Forward(attention=True),)
        return (Forward(taps=self.layers, attention=rolls), Backward(wrt=self.layers))

    def _pairs(self, resolution: Resolution) -> list[tuple[str, str]]:
        """(method, layer) of every map of a class, in reading order."""
        head = resolution.head.layer if resolution.head else None
        methods = [method for method in self.methods if method != ROLLOUT]
        return [(m, layer) for m in methods for layer in self.layers if m != "cam" or layer == head]

    def _rolls(self, resolution: Resolution) -> bool:
        return ROLLOUT in self.methods and resolution.attention is not None

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        computed: dict[str, Tensor] = {}
        if any(isinstance(need, Forward) and need.attention for need in probe.needs):
            computed[ROLLOUT] = probe.rollout()
        if not any(isinstance(need, Backward) for need in probe.needs):
            return computed
        for layer in self.layers:
            activation = probe.activation(layer)
            methods = [name for name in self.methods if name in GRADIENT_METHODS]
            for target in probe.targets:
                for name, maps in maps_by_gradient(activation, probe.gradient(target, layer), methods).items():
                    computed[f"{name}/{layer}/{target}"] = maps
                if "cam" in self.methods and layer == probe.head_layer:
                    own = precise(activation)
                    weight = probe.head_weight()[probe.class_index(target)]
                    computed[f"cam/{layer}/{target}"] = weighted(own, weight.to(own.dtype)).float()
        return computed

    def results(self, evidence: Evidence) -> dict[str, Any]:
        pairs = self._pairs(evidence.resolution)
        maps = 0
        zero: dict[str, list[str]] = {f"{m}/{layer}": [] for m, layer in pairs}
        differences: list[float] = []
        for case, arrays in evidence.each():
            for target in case.targets:
                for method, layer in pairs:
                    maps += 1
                    if not (arrays[f"{method}/{layer}/{target}"] > 0).any():
                        zero[f"{method}/{layer}"].append(case.name)
                differences += self._difference(evidence.resolution, arrays, target)
        head = evidence.resolution.head
        identity = (
            {
                "layer": head.layer,
                "largest_difference": max(differences),
                "n": len(differences),
                "scale": head.scale,
            }
            if head and differences
            else None
        )
        omitted = None
        if "cam" in self.methods and not any(method == "cam" for method, _layer in pairs):
            omitted = (
                f"layer {head.layer}, which global average pooling and one linear layer follow, was not chosen"
                if head
                else "no layer is followed by global average pooling and one linear layer alone"
            )
        return {
            "methods": [
                m
                for m in self.methods
                if any(m == one for one, _layer in pairs) or (m == ROLLOUT and self._rolls(evidence.resolution))
            ],
            "identity": identity,
            "cam_omitted": omitted,
            **self._rolled_out(evidence.resolution),
            "maps": maps,
            "zero_maps": sum(len(names) for names in zero.values()),
            "zero": {pair: names for pair, names in zero.items() if names},
        }

    def _rolled_out(self, resolution: Resolution) -> dict[str, Any]:
        """What attention rollout went over, and why it is left out where it is."""
        known = resolution.attention if ROLLOUT in self.methods else None
        about = known and {
            "blocks": known.calls - known.pooled,
            "tokens": known.tokens,
            "prefix": known.prefix,
            "read": 1 if known.pooled else len(known.read),
        }
        left_out = ROLLOUT in self.methods and known is None
        return {
            "rollout": about,
            "rollout_omitted": str(WINDOWS if resolution.attends else NO_ATTENTION) if left_out else None,
        }

    def _difference(self, resolution: Resolution, arrays: Mapping[str, Array], target: int) -> list[float]:
        """Largest difference of Grad-CAM and ReLU(CAM)/Z, relative to the largest value; nothing where not both
        exist.
        """
        layer = resolution.head.layer if resolution.head else ""
        cam, grad = arrays.get(f"cam/{layer}/{target}"), arrays.get(f"grad_cam/{layer}/{target}")
        if cam is None or grad is None:
            return []
        expected = np.maximum(cam.astype(np.float64), 0) / cam.size
        scale = max(float(expected.max()), float(np.abs(cam).max()) / cam.size)
        return [float(np.abs(expected - grad).max()) / scale if scale > 0 else 0.0]

    def findings(self, results: Mapping[str, Any], evidence: Evidence) -> list[Finding]:
        limit = ZERO.limit(evidence.limits)
        if not results["zero_maps"] or results["zero_maps"] < limit:
            return []
        worst = max(results["zero"].items(), key=lambda item: (len(item[1]), item[0]))
        method, _slash, layer = worst[0].partition("/")
        detail = _(
            "{zero} of {maps} maps hold no positive value; most often those of {method} at {layer}, {images} of them. "
            "Such a map says that nothing at that layer speaks for the class by that formula, and is drawn empty.",
            zero=results["zero_maps"],
            maps=results["maps"],
            method=TITLES[method],
            layer=layer,
            images=len(worst[1]),
        )
        told = {"value": results["zero_maps"], "threshold": limit, "n": results["maps"]}
        return [ZERO.found(detail, subject=worst[0], **told)]

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        if pairs := self._pairs(evidence.resolution):
            yield from self._overview(evidence)
        for case, arrays in evidence.each():
            for target in case.targets if pairs else ():
                for start in range(0, len(self.layers), MOST_COLUMNS):
                    yield self._figure(evidence, case, target, arrays, self.layers[start : start + MOST_COLUMNS])
            if self._rolls(evidence.resolution):
                yield self._rollout(evidence, case, arrays[ROLLOUT])
            if pairs:
                method, layers = self._foremost(evidence.resolution)
                if contrasted := contrast(self.name, method, TITLES[method], evidence, case, arrays, layers):
                    yield contrasted

    def _rollout(self, evidence: Evidence, case: Case, values: Array) -> Figure:
        """The one map of attention that an image has."""
        known, high = evidence.resolution.attention, float(values.max())
        assert known is not None
        alt = _("attention rollout of {image}, maximum {high}", image=case.name, high=f"{high:.2g}")
        overlay = evidence.overlay(case, values, low=0.0, high=high)
        return Figure(
            id=f"{self.name}-{ROLLOUT}-{slug(case.name)}",
            technique=self.name,
            rows=(Row((Panel(overlay, verbatim(f"{high:.2g}"), alt, ROLLOUT),)),),
            caption=_(
                "Attention rollout of {image} over all {blocks} blocks, {height}×{width} patches. It has no class. The "
                "map is scaled from zero to its own maximum, which stands beneath it. {reading}",
                image=case.name,
                blocks=known.calls - known.pooled,
                height=known.grid[0],
                width=known.grid[1],
                reading=evidence.reading,
            ),
            columns=1,
            exhibit=case.name,
            colorbar=Colorbar(evidence.colormap, _("zero"), _("maximum of the map")),
        )

    def _overview(self, evidence: Evidence) -> Iterator[Figure]:
        """One method of all images at the deepest layers, one row an image."""
        method, layers = self._foremost(evidence.resolution)
        layers = layers[-MOST_COLUMNS:]
        cases = evidence.cases
        for start in range(0, len(cases), MOST_ROWS):
            part = f"-{start // MOST_ROWS + 1}" if start else ""
            yield Figure(
                id=f"{self.name}-overview{part}",
                technique=self.name,
                rows=tuple(self._row(evidence, case, method, layers) for case in cases[start : start + MOST_ROWS]),
                caption=_(
                    "{method} of the first explained class of exhibits, one column a layer, shallow to deep. Each map "
                    "is scaled from zero to its own maximum. {reading}",
                    method=TITLES[method],
                    reading=evidence.reading,
                ),
                columns=len(layers) + evidence.originals,
                headings=(
                    *((_("input"),) if evidence.originals else ()),
                    *(self._heading(evidence.resolution, layer) for layer in layers),
                ),
                colorbar=Colorbar(evidence.colormap, _("zero"), _("maximum of the map")),
            )

    def _foremost(self, resolution: Resolution) -> tuple[str, list[str]]:
        """The method that stands for all where one is shown, and its layers."""
        method = "grad_cam" if "grad_cam" in self.methods else self._pairs(resolution)[0][0]
        return method, [layer for m, layer in self._pairs(resolution) if m == method]

    def _row(self, evidence: Evidence, case: Case, method: str, layers: Sequence[str]) -> Row:
        """The image, then one map a layer."""
        target, arrays = case.targets[0], evidence.read(case)
        words = _("{image}: {label}", image=case.name, label=evidence.resolution.label(target))
        maps = tuple(self._panel(evidence, case, target, method, layer, arrays, verbatim("")) for layer in layers)
        if not evidence.originals:
            return Row(maps, words)
        original = Panel(
            photograph(evidence.picture(case), longest=224),
            words,
            _("the image {image} as the network saw it", image=case.name),
            name=f"{slug(case.name)}-input",
        )
        return Row((original, *maps))

    def _figure(
        self, evidence: Evidence, case: Case, target: int, arrays: Mapping[str, Array], layers: Sequence[str]
    ) -> Figure:
        """All methods at some layers: one row a method, one column a layer."""
        rows = []
        for method in self.methods:
            has = [layer for m, layer in self._pairs(evidence.resolution) if m == method and layer in layers]
            # CAM exists for one layer only: the other columns of its row stay empty
            panels = tuple(
                self._panel(evidence, case, target, method, layer, arrays) if layer in has else None for layer in layers
            )
            if has:
                rows.append(Row(panels, verbatim(TITLES[method])))
        part = "" if layers[0] == self.layers[0] else f"-{slug(layers[0])}"
        return Figure(
            id=f"{self.name}-{slug(case.name)}-{target}{part}",
            technique=self.name,
            rows=tuple(rows),
            caption=_(
                "Class activation maps of {image} for {label}: one row a method, one column a layer, shallow "
                "to deep. Each map is scaled from zero to its own maximum, which stands beneath it; negative values of "
                "CAM are not drawn. {reading}",
                image=case.name,
                label=evidence.resolution.label(target),
                reading=evidence.reading,
            ),
            columns=len(layers),
            headings=tuple(self._heading(evidence.resolution, layer) for layer in layers),
            exhibit=case.name,
            colorbar=Colorbar(evidence.colormap, _("zero"), _("maximum of the map")),
        )

    def _heading(self, resolution: Resolution, layer: str) -> Message:
        height, width = resolution.layer(layer).resolution
        return _("{layer} · {height}×{width}", layer=layer, height=height, width=width)

    def _panel(
        self,
        evidence: Evidence,
        case: Case,
        target: int,
        method: str,
        layer: str,
        arrays: Mapping[str, Array],
        label: Message | None = None,
    ) -> Panel:
        values = arrays[f"{method}/{layer}/{target}"]
        high = float(values.max())
        shown = verbatim(f"{high:.2g}") if high > 0 else _("no positive value")
        overlay = evidence.overlay(case, values, low=0.0, high=max(high, 0.0))
        alt = _(
            "{method} at {layer} for {label}, maximum {high}",
            method=TITLES[method],
            layer=layer,
            label=evidence.resolution.label(target),
            high=shown,
        )
        return Panel(overlay, shown if label is None else label, alt, f"{method}-{slug(layer)}-{target}", layer)
