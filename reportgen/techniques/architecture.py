"""The network as the operations of one forward show it: graphs, and a table of its layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from reportgen.diagrams import drawn, insides, overview
from reportgen.engine.hierarchy import Hierarchy
from reportgen.engine.requests import Needs, Record, Scope
from reportgen.engine.resolution import Resolution
from reportgen.engine.structure import ModuleRecord, Recording
from reportgen.figures.figure import Figure, Panel, Picture, Row, slug
from reportgen.figures.graph import Graph, draw_graph
from reportgen.report.document import Reference
from reportgen.techniques.technique import Evidence, NotApplicable, Probe, Technique, packed, unpacked
from reportgen.text import Message, _, verbatim

if TYPE_CHECKING:
    from torch import Tensor

HALF = 222
"""Points: drawings that are no wider stand two in a row on paper."""
MOST_ROWS = 60
"""Rows of the layer table in the document; ``report.json`` holds all modules."""
MOST_INSIDES = 8


@dataclass(frozen=True)
class Architecture(Technique):
    """Modules, operations and who consumes whose result, from one forward of noise.

    Stored: ``recording``, JSON as bytes in the form of `reportgen.engine.structure.Recording`. Multiply-accumulates are
    those of matrix products: convolutions, linear layers, attention.
    """

    name: ClassVar[str] = "architecture"
    title: ClassVar[Message] = _("Architecture")
    summary: ClassVar[str] = "the network as graphs, and its layers: shapes, parameters, operations, receptive fields"
    scope: ClassVar[Scope] = "model"
    version: ClassVar[int] = 1
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "araujo2019",
            "A. Araujo, W. Norris, J. Sim",
            "Computing Receptive Fields of Convolutional Neural Networks",
            "Distill",
            2019,
            "10.23915/distill.00021",
        ),
    )
    results_schema = {
        "type": "object",
        "properties": {
            "parameters": {"type": "integer"},
            "macs": {"type": "integer", "description": "multiply-accumulates of one forward of one image"},
            "modules": {"type": "array", "items": {"type": "object"}},
            "table": {"type": "array", "items": {"type": "string"}, "description": "modules that the document lists"},
        },
        "required": ["parameters", "macs", "modules"],
    }

    layers: tuple[str, ...] = ()
    channels: str = ""

    def needs(self, resolution: Resolution) -> Needs:
        if not resolution.tappable:
            raise NotApplicable(_("a scripted model cannot be recorded"))
        return (Record(),)

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        return {"recording": packed(probe.recorded())}

    def results(self, evidence: Evidence) -> dict[str, Any]:
        recording = _recording(evidence)
        keys = ("name", "type", "output", "parameters", "macs", "field", "stride", "whole", "calls")
        return {
            "parameters": recording["parameters"],
            "macs": recording["macs"],
            "modules": [{key: module[key] for key in keys} for module in recording["modules"]],  # type: ignore[literal-required]
            "table": listed(recording["modules"]),
        }

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        recording = _recording(evidence)
        hierarchy = Hierarchy(recording, evidence.words)
        seen = overview(hierarchy)
        picture = drawn(seen.diagram, recording["macs"]).picture
        yield self._figure(
            "overview",
            picture,
            _(
                "The network from input to output as one forward of noise ran it. A box is a module with its type and "
                "the shape of its output (channels × height × width); a pile stands for so many alike in a row; round "
                "boxes are operations that belong to no module. The blue bar and the percentage are the share of all "
                "multiply-accumulates."
            ),
            _("graph of the network with {n} boxes", n=seen.diagram.graph.size),
        )
        for inside in insides(hierarchy, seen)[:MOST_INSIDES]:
            others = _(" Built alike: {names}.", names=_short(inside.alike)) if inside.alike else verbatim("")
            yield self._figure(
                slug(inside.name),
                _half_or_whole(Graph((inside.node,), ())),
                _("Inside {name} ({type}).{others}", name=inside.name, type=inside.type, others=others),
                _("graph of what is inside {name}, with {n} boxes", name=inside.name, n=inside.diagram.graph.size),
            )

    def _figure(self, what: str, picture: Picture, caption: Message, alt: Message) -> Figure:
        return Figure(
            id=f"{self.name}-{what}",
            technique=self.name,
            rows=(Row((Panel(picture, verbatim(""), alt, name=what),)),),
            caption=caption,
            columns=1,
            wide=True,
            beside=picture.width <= HALF,
        )


def _half_or_whole(graph: Graph) -> Picture:
    """Drawn half as wide as the text, if that takes no reducing."""
    half = draw_graph(graph, width=HALF)
    return half.picture if half.scale >= 1 else draw_graph(graph).picture


def _recording(evidence: Evidence) -> Recording:
    recording: Recording = unpacked(evidence.read(None)["recording"])
    return recording


def listed(modules: Sequence[ModuleRecord]) -> list[str]:
    """Names of the modules for a table of at most `MOST_ROWS` rows: as deep as there is room, in the order of the
    model.
    """
    called = [module for module in modules if module["depth"] > 0 and module["calls"]]
    deepest = 1
    while sum(module["depth"] <= deepest + 1 for module in called) <= MOST_ROWS and deepest < 20:
        deepest += 1
    return [module["name"] for module in called if module["depth"] <= deepest][:MOST_ROWS]


def _short(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
