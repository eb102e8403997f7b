"""How much the class probability falls when a part of the image is covered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from reportgen.engine.requests import Forward, Needs, Scope
from reportgen.engine.requests import Occlusion as Occluded
from reportgen.engine.resolution import Resolution
from reportgen.figures.figure import Colorbar, Figure, Panel, Row, slug
from reportgen.report.document import Reference
from reportgen.store import Array
from reportgen.techniques.input_space import COLUMNS, columns_of
from reportgen.techniques.literature import ZEILER2014
from reportgen.techniques.technique import Case, Evidence, Probe, Technique
from reportgen.text import Message, _

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Occlusion(Technique):
    """Fall of the class probability while a grey square covers one place after another (Zeiler and Fergus 2014).

    It needs the model's answers alone, so it serves models that cannot be looked into. Stored for each image: ``<c>``
    (h,w), the probability of class c without the square less that with the square centred on the cell, in [-1, 1];
    ``probability/<c>`` () without the square.

    Attributes:
        grid: cells along the shorter side of the input; each costs a forward.
        side: of the square, as a share of the shorter side.
    """

    name: ClassVar[str] = "occlusion"
    title: ClassVar[Message] = _("Occlusion")
    summary: ClassVar[str] = "how much the class probability falls when a part of the image is covered"
    scope: ClassVar[Scope] = "exhibit"
    version: ClassVar[int] = 1
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {"grid": 7, "side": 0.2}, "full": {"grid": 21}}
    references: ClassVar[tuple[Reference, ...]] = (ZEILER2014,)
    results_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "images": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "properties": {
                        "class": {"type": "integer"},
                        "probability": {"type": "number"},
                        "largest_fall": {"type": "number"},
                        "largest_rise": {"type": "number"},
                    },
                },
            },
            "forwards_an_image": {"type": "integer"},
        },
    }

    layers: tuple[str, ...] = ()
    channels: str = ""
    grid: int = 14
    side: float = 1 / 7

    def __post_init__(self) -> None:
        if self.grid < 1 or not 0 < self.side <= 1:
            raise ValueError("grid is 1 or more, side above 0 and at most 1")

    def needs(self, resolution: Resolution) -> Needs:
        return (Forward(inputs=self._squares(resolution)),)

    def _squares(self, resolution: Resolution) -> Occluded:
        height, width = resolution.pipeline["size"]
        shorter = min(height, width)
        grid = min(self.grid, shorter)
        return Occluded(
            rows=max(1, round(grid * height / shorter)),
            columns=max(1, round(grid * width / shorter)),
            side=max(1, round(self.side * shorter)),
        )

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        (request,) = probe.needs
        assert isinstance(request, Forward)
        squares = request.inputs
        assert squares is not None
        probabilities = probe.derived_probabilities(squares)
        computed: dict[str, Tensor] = {}
        for target in probe.targets:
            of_class = probabilities[:, probe.class_index(target)[0]]
            computed[f"probability/{target}"] = of_class[:1]
            computed[f"{target}"] = (of_class[0] - of_class[1:]).reshape(1, squares.rows, squares.columns)
        return computed

    def results(self, evidence: Evidence) -> dict[str, Any]:
        images = {}
        for case, arrays in evidence.each():
            target = case.targets[0]
            fall = arrays[str(target)]
            images[case.name] = {
                "class": target,
                "probability": float(arrays[f"probability/{target}"]),
                "largest_fall": float(fall.max()),
                "largest_rise": float(max(-fall.min(), 0.0)),
            }
        return {"images": images, "forwards_an_image": self._squares(evidence.resolution).count}

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        cases = evidence.cases
        for start in range(0, len(cases), 2 * COLUMNS):
            shown = cases[start : start + 2 * COLUMNS]
            columns = columns_of(len(shown))
            rows = (
                Row(tuple(self._panel(evidence, case, case.targets[0]) for case in shown[i : i + columns]))
                for i in range(0, len(shown), columns)
            )
            yield Figure(
                id=f"{self.name}-overview{f'-{start // (2 * COLUMNS) + 1}' if start else ''}",
                technique=self.name,
                rows=tuple(rows),
                caption=_(
                    "Occlusion of exhibits: the fall of the probability of the first explained class while a grey "
                    "square covers the place. {scale} {reading}",
                    scale=self._scale(evidence.resolution),
                    reading=evidence.reading,
                ),
                columns=columns,
                colorbar=self._colorbar(evidence),
            )
        for case in cases:
            yield self._of_classes(evidence, case)

    def _of_classes(self, evidence: Evidence, case: Case) -> Figure:
        labels = ", ".join(evidence.resolution.label(target) for target in case.targets)
        return Figure(
            id=f"{self.name}-{slug(case.name)}",
            technique=self.name,
            rows=(Row(tuple(self._panel(evidence, case, target) for target in case.targets)),),
            caption=_(
                "Occlusion of {image}: fall of the probability of {labels} while a square of {side} × {side} pixels "
                "covers the place, from zero to the largest fall of each map, which stands beneath it.",
                image=case.name,
                labels=labels,
                side=self._squares(evidence.resolution).side,
            ),
            columns=len(case.targets),
            exhibit=case.name,
            colorbar=self._colorbar(evidence),
            beside=len(case.targets) <= 2,
        )

    def _scale(self, resolution: Resolution) -> Message:
        squares = self._squares(resolution)
        return _(
            "The square has {side} × {side} pixels, on {rows} × {columns} places; each map is scaled from zero to its "
            "own largest fall, which stands beneath it with the probability of the image as it is; where the "
            "probability rises nothing is drawn.",
            side=squares.side,
            rows=squares.rows,
            columns=squares.columns,
        )

    def _colorbar(self, evidence: Evidence) -> Colorbar:
        return Colorbar(evidence.colormap, _("no fall"), _("largest fall of the map"))

    def _panel(self, evidence: Evidence, case: Case, target: int) -> Panel:
        arrays: Mapping[str, Array] = evidence.read(case)
        fall, probability = arrays[str(target)], float(arrays[f"probability/{target}"])
        high = max(float(fall.max()), 0.0)
        label = evidence.resolution.label(target)
        return Panel(
            evidence.overlay(case, fall, low=0.0, high=high),
            _("{label}: −{high} of {probability}", label=label, high=f"{high:.2f}", probability=f"{probability:.2f}"),
            _(
                "occlusion of {image} for {label}: the probability {probability} falls by at most {high}",
                image=case.name,
                label=label,
                probability=f"{probability:.2f}",
                high=f"{high:.2f}",
            ),
            name=f"{slug(case.name)}-{target}",
        )
