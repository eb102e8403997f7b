"""Where a pass of the model spends time and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from reportgen.diagrams import overview
from reportgen.engine.hierarchy import Hierarchy
from reportgen.engine.requests import Needs, Profile, Record, Scope
from reportgen.engine.resolution import Resolution
from reportgen.engine.structure import Recording
from reportgen.figures.chart import INK, SERIES, chart, thinned
from reportgen.figures.figure import Figure, Panel, Picture, Row
from reportgen.figures.graph import draw_graph
from reportgen.report.document import Reference
from reportgen.techniques.technique import Evidence, Probe, Technique, packed, unpacked
from reportgen.text import Message, _

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

MOST_BARS = 20
SMALL = 0.01
"""Modules below this share of a forward are drawn together."""
LARGE = 0.4
"""A module above this share of a forward is drawn as the modules in it."""


@dataclass(frozen=True)
class ModelProfile(Technique):
    """Time and memory of one batch of noise, measured on the audit's device in the audit's batch shape.

    Stored: ``profile``, JSON as bytes, and ``trace`` (n,) uint8, a Chrome trace as gzipped JSON; see
    `reportgen.engine.profiling.measure` for what is in them. ``recording`` as `Architecture` stores it.

    Attributes:
        backward: measure the backward from the class scores to the input too.
    """

    name: ClassVar[str] = "profile"
    title: ClassVar[Message] = _("Profile")
    summary: ClassVar[str] = "where a pass spends time and memory, by operator and by layer"
    scope: ClassVar[Scope] = "model"
    version: ClassVar[int] = 2
    measures_machine: ClassVar[bool] = True
    references: ClassVar[tuple[Reference, ...]] = ()
    results_schema = {
        "type": "object",
        "properties": {
            "batch": {"type": "array", "items": {"type": "integer"}},
            "device": {"type": "string"},
            "machine": {"type": "object"},
            "threads": {"type": "integer"},
            "repeats": {"type": "integer"},
            "forward_ms": {"type": "number", "description": "of one pass of the batch"},
            "forward_backward_ms": {"type": ["number", "null"]},
            "per_image_ms": {
                "type": "object",
                "properties": {"forward": {"type": "number"}, "forward_backward": {"type": ["number", "null"]}},
            },
            "layers": {
                "type": "object",
                "description": "milliseconds of a forward of the batch; a module holds those in it",
                "additionalProperties": {"type": "number"},
            },
            "operators": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "calls": {"type": "integer"},
                        "self_ms": {"type": "number"},
                        "total_ms": {"type": "number"},
                        "device_ms": {"type": ["number", "null"]},
                        "allocated_bytes": {"type": "integer"},
                    },
                },
            },
            "peak_bytes": {"type": ["number", "null"]},
            "recommendations": {"type": "array", "items": {"type": "string"}},
        },
    }

    layers: tuple[str, ...] = ()
    channels: str = ""
    backward: bool = True

    def needs(self, resolution: Resolution) -> Needs:
        recorded = (Record(),) if resolution.tappable else ()
        return (Profile(backward=self.backward), *recorded)

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        import torch

        profiled = probe.profiled()
        trace = torch.frombuffer(bytearray(profiled.pop("trace")), dtype=torch.uint8)
        stored = {"profile": packed(profiled), "trace": trace}
        if any(isinstance(request, Record) for request in probe.needs):
            stored["recording"] = packed(probe.recorded())
        return stored

    def results(self, evidence: Evidence) -> dict[str, Any]:
        found = _stored(evidence)
        images = found["batch"][0]
        both = found.get("forward_backward")
        return {
            **{name: found[name] for name in ("batch", "device", "machine", "threads", "repeats")},
            "layers": dict(found["layers"]),
            "forward_ms": found["forward"],
            "forward_backward_ms": both,
            "per_image_ms": {
                "forward": found["forward"] / images,
                "forward_backward": None if both is None else both / images,
            },
            "operators": [
                {
                    "name": one["name"],
                    "calls": one["calls"],
                    "self_ms": one["self"],
                    "total_ms": one["total"],
                    "device_ms": one["device"],
                    "allocated_bytes": one["memory"],
                }
                for one in _by_cost(found["operators"])
            ],
            "peak_bytes": found["memory"]["peak"] if found["memory"] else None,
            "recommendations": found["recommendations"],
        }

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        found = _stored(evidence)
        if found["layers"]:
            yield self._time(evidence, found)
        if found["memory"]:
            yield self._memory(found)
        arrays = evidence.read(None)
        if found["layers"] and "recording" in arrays:
            yield self._on_the_graph(evidence, dict(found["layers"]), unpacked(arrays["recording"]))

    def _time(self, evidence: Evidence, found: Mapping[str, Any]) -> Figure:
        bars = bars_of(dict(found["layers"]), evidence.words)
        total = sum(value for _name, value in bars)
        name, most = max(bars, key=lambda bar: bar[1])
        share = round(100 * most / total)
        caption = _(
            "Time of a forward by module, in the order of the model: milliseconds for a batch of {n} images, medians "
            "of {repeats} passes with a clock before and after every module, and the share of their sum.",
            n=found["batch"][0],
            repeats=found["repeats"],
        )
        alt = _(
            "bars of {n} modules; {name} takes longest, {share} per cent of the time",
            n=len(bars),
            name=name,
            share=share,
        )
        return self._figure("layers", time_chart(bars, han=evidence.han), caption, alt)

    def _on_the_graph(self, evidence: Evidence, layers: Mapping[str, float], recording: Recording) -> Figure:
        """The overview of the architecture with the time of each box."""
        diagram = overview(Hierarchy(recording, evidence.words)).diagram
        times = {key: sum(layers.get(name, 0.0) for name in names) for key, names in diagram.modules.items()}
        total = sum(times.values()) or 1.0
        picture = draw_graph(diagram.graph, shares={key: time / total for key, time in times.items()}).picture
        caption = _(
            "The same times on the architecture: bar and percentage of a box are its share of the time of all boxes in "
            "a forward. Operations that belong to no module were not timed."
        )
        return self._figure("graph", picture, caption, _("graph of the network with the time of each box"))

    def _memory(self, found: Mapping[str, Any]) -> Figure:
        memory = found["memory"]
        peak = f"{memory['peak'] / 1e6:.1f}"
        caption = _(
            "Memory that one pass of a batch of {n} images holds over time ({device}): what is allocated since the "
            "pass began, the weights not counted. The dashed line is where the backward begins; the highest point is "
            "{peak} MB.",
            n=found["batch"][0],
            device=memory["device"],
            peak=peak,
        )
        if memory["backward"] is None:
            caption = _(
                "Memory that one forward of a batch of {n} images holds over time ({device}): what is allocated since "
                "it began, the weights not counted. The highest point is {peak} MB.",
                n=found["batch"][0],
                device=memory["device"],
                peak=peak,
            )
        alt = _("curve of the memory held, up to {peak} MB", peak=peak)
        return self._figure("memory", memory_chart(memory), caption, alt)

    def _figure(self, what: str, picture: Picture, caption: Message, alt: Message) -> Figure:
        return Figure(
            id=f"{self.name}-{what}",
            technique=self.name,
            rows=(Row((Panel(picture, Message(""), alt, name=what),)),),
            caption=caption,
            columns=1,
            wide=True,
        )


def _stored(evidence: Evidence) -> dict[str, Any]:
    found: dict[str, Any] = unpacked(evidence.read(None)["profile"])
    return found


def _by_cost(operators: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that take longest first: on the device where there is one, else on the CPU."""
    return sorted(operators, key=lambda one: (-(one["device"] or 0.0), -one["self"], one["name"]))


def bars_of(layers: Mapping[str, float], words: Callable[[Message], str] = str) -> list[tuple[str, float]]:
    """The modules worth a bar each, in the order of the model.

    The outermost called modules; one that takes more than `LARGE` of their time is replaced by the modules in it, as
    long as that gives no more than `MOST_BARS` bars above `SMALL`. What is below comes last, under one name.

    Args:
        layers: milliseconds by dotted module name, containers included.
        words: puts a sentence into the language of the document.
    """
    chosen = _outermost(layers, "")
    total = sum(layers[name] for name in chosen) or 1.0
    whole: set[str] = set()
    while open_ones := [name for name in chosen if name not in whole and layers[name] > LARGE * total]:
        name = max(open_ones, key=lambda one: layers[one])
        inside = _outermost(layers, name + ".")
        opened = [part for one in chosen for part in (inside if one == name else [one])]
        if inside and sum(layers[part] > SMALL * total for part in opened) <= MOST_BARS:
            chosen = opened
        else:
            whole.add(name)
    large = [name for name in chosen if layers[name] > SMALL * total][:MOST_BARS]
    rest = [name for name in chosen if name not in large]
    bars = [(name, layers[name]) for name in large]
    if len(rest) == 1:
        return [(name, layers[name]) for name in chosen]
    return [*bars, (words(_("{n} others", n=len(rest))), sum(layers[name] for name in rest))] if rest else bars


def _outermost(layers: Mapping[str, float], prefix: str) -> list[str]:
    """The called modules below a prefix that stand in no other called module below it."""
    below = [name for name in layers if name.startswith(prefix)]
    return [name for name in below if not any(name.startswith(one + ".") for one in below)]


def time_chart(bars: Sequence[tuple[str, float]], *, han: bool = False) -> Picture:
    """Horizontal bars, each with its milliseconds and its share of the sum."""
    total = sum(value for _name, value in bars) or 1.0

    def draw(axes: Axes) -> None:
        places = range(len(bars))
        axes.barh(places, [value for _name, value in bars], height=0.62, color=SERIES[0])
        axes.set_yticks(places, [_shortened(name) for name, _value in bars])
        axes.invert_yaxis()
        for place, (_name, value) in enumerate(bars):
            axes.text(value, place, f"  {value:.3g} ms · {100 * value / total:.0f} %", va="center", fontsize=7)
        axes.margins(x=0.14, y=0.02)
        axes.set_xlim(left=0)
        axes.tick_params(axis="y", length=0)
        axes.spines["bottom"].set_visible(False)
        axes.xaxis.set_visible(False)

    return chart(draw, height_mm=6 + 4.6 * len(bars), han=han)


def memory_chart(memory: Mapping[str, Any]) -> Picture:
    """Megabytes held over milliseconds, as steps."""
    times, held = thinned(np.asarray(memory["times"]), np.asarray(memory["bytes"]) / 1e6, most=250)

    def draw(axes: Axes) -> None:
        axes.fill_between(times, held, step="post", color=SERIES[0], alpha=0.18, linewidth=0)
        axes.step(times, held, where="post", color=SERIES[0], linestyle="-", linewidth=0.9)
        if memory["backward"] is not None:
            axes.axvline(memory["backward"], color=INK, alpha=0.6, linewidth=0.6, linestyle=(0, (3, 2)))
        axes.set_xlim(float(times[0]), float(times[-1]))
        axes.set_ylim(bottom=min(0.0, float(held.min())))
        axes.grid(axis="y")
        axes.set_xlabel("ms")
        axes.set_ylabel("MB")

    return chart(draw, height_mm=46)


def _shortened(name: str, most: int = 44) -> str:
    """A dotted name with its beginning cut off: what tells it from its neighbours stands at the end."""
    return name if len(name) <= most else "…" + name[1 - most :]
