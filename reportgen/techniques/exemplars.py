"""The images, and the places in them, that excite each channel most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from reportgen.engine.requests import Beside, Forward, Needs, Record, Scope
from reportgen.engine.resolution import Layer, Resolution, choose_channels
from reportgen.figures.figure import Figure, Panel, Picture, Row, slug
from reportgen.figures.patches import Place, patch, where
from reportgen.figures.tiles import synthetic
from reportgen.report.document import Reference
from reportgen.store import Array
from reportgen.techniques.technique import Block, Case, Evidence, NoMaps, Probe, Technique
from reportgen.text import Message, _, signed, verbatim

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = 8
ROWS = 8
ASCENT = "max_activation"
METHODS = ("robust", "plain")
"""Which synthetic image is set beside the photographs: the first that was made."""


class Example(NamedTuple):
    """One image among those that excite a channel most, what it excites it to, and where (row, column)."""

    case: Case
    activation: float
    position: tuple[int, int]


@dataclass(frozen=True)
class Exemplars(Technique):
    """For every channel the images with the largest maximum over positions, each cut to what that position sees.

    Stored for each image and layer, K the channels shown: ``maximum/<layer>`` (K,) and ``position/<layer>`` (K,) the
    number of the position counted row by row, of equals the first; about the model ``field/<layer>`` (6,): receptive
    field, distance of neighbouring positions and centre of the first one, (h, w) each, in input pixels (Araujo, Norris
    and Sim 2019); zeros where windows do not define it.

    Attributes:
        layers: as for max_activation the last convolution inside each, so that pictures are of the same channels.
        patches: images a channel.
    """

    name: ClassVar[str] = "exemplars"
    title: ClassVar[Message] = _("Exemplars")
    summary: ClassVar[str] = "the images, and places in them, that excite each channel most"
    scope: ClassVar[Scope] = "scan"
    version: ClassVar[int] = 1
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "zhou2015",
            "B. Zhou, A. Khosla, A. Lapedriza, A. Oliva, A. Torralba",
            "Object Detectors Emerge in Deep Scene CNNs",
            "International Conference on Learning Representations",
            2015,
        ),
        Reference(
            "araujo2019",
            "A. Araujo, W. Norris, J. Sim",
            "Computing Receptive Fields of Convolutional Neural Networks",
            "Distill 4(11)",
            2019,
            doi="10.23915/distill.00021",
        ),
    )
    results_schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "images": {"type": "integer"},
            "layers": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "field": {"type": ["array", "null"], "items": {"type": "number"}},
                        "channels": {
                            "type": "object",
                            "additionalProperties": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "properties": {
                                        "image": {"type": "string"},
                                        "activation": {"type": "number"},
                                        "position": {"type": "array", "items": {"type": "integer"}},
                                        "box": {"type": "array", "items": {"type": "integer"}},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
        "required": ["images", "layers"],
    }

    layers: tuple[str, ...] = ("default",)
    channels: str = "even:16"
    patches: Annotated[int, Field(ge=1, le=COLUMNS - 1)] = 3

    def settled(self, resolution: Resolution) -> Exemplars:
        """Itself with every layer replaced by its target."""
        targets = [resolution.convolution(name) or name for name in resolution.select(self.layers)]
        return replace(self, layers=tuple(dict.fromkeys(targets)))

    def needs(self, resolution: Resolution) -> Needs:
        if not self.layers:
            raise NoMaps(resolution)
        for name in self.layers:
            self._chosen(resolution.layer(name))
        return (Forward(taps=self.layers, scores=False), Record(), Beside(ASCENT))

    def _chosen(self, layer: Layer) -> tuple[int, ...]:
        # which channels are the top ones depends on an image, and here there are all
        wanted = "even:" + self.channels[4:] if self.channels.startswith("top:") else self.channels
        return choose_channels(wanted, layer.shape[0])

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        import torch

        computed: dict[str, Tensor] = {}
        for request in probe.needs:
            if isinstance(request, Record):
                modules = {module["name"]: module for module in probe.recorded()["modules"]}
                for layer in self.layers:
                    told = modules[layer]
                    parts = (told["field"], told["stride"], told["start"])
                    known = [float(side) for part in parts if part for side in part]
                    computed[f"field/{layer}"] = torch.tensor(known if len(known) == 6 else [0.0] * 6)
            elif isinstance(request, Forward):
                for layer in self.layers:
                    chosen = list(self._chosen(probe.layer(layer)))
                    maps = probe.activation(layer)[:, chosen].float().flatten(2)
                    highest = maps.amax(dim=2)
                    number = torch.arange(maps.shape[2], device=maps.device)
                    # of equal positions the first, on every device
                    first = torch.where(maps == highest[:, :, None], number, maps.shape[2] - 1).amin(dim=2)
                    computed[f"maximum/{layer}"] = highest
                    computed[f"position/{layer}"] = first.int()
        return computed

    def results(self, evidence: Evidence) -> dict[str, Any]:
        strongest, fields = self._strongest(evidence), evidence.read(None)
        layers: dict[str, Any] = {}
        for name in self.layers:
            layer, field = evidence.resolution.layer(name), fields[f"field/{name}"]
            size = evidence.resolution.pipeline["size"]
            layers[name] = {
                "field": field[:2].tolist() if field.any() else None,
                "channels": {
                    str(channel): [
                        {
                            "image": one.case.name,
                            "activation": one.activation,
                            "position": list(one.position),
                            "box": list(place_of(one.position, layer, field, size).box),
                        }
                        for one in strongest[name][channel]
                    ]
                    for channel in self._chosen(layer)
                },
            }
        return {"images": len(evidence.cases), "layers": layers}

    def _strongest(self, evidence: Evidence) -> dict[str, dict[int, list[Example]]]:
        """The examples of every channel, strongest first, each from another image; of equals the one with the smaller
        digest.
        """
        kept = {name: _Strongest(self.patches) for name in self.layers}
        for block in map(Block.different, evidence.blocks()):
            for name, one in kept.items():
                one.add(block, name)
        found: dict[str, dict[int, list[Example]]] = {}
        for name, one in kept.items():
            layer = evidence.resolution.layer(name)
            found[name] = {
                channel: one.examples(place, layer.shape[2]) for place, channel in enumerate(self._chosen(layer))
            }
        return found

    # figures
    # ------------------------------------------------------------------------------------------------------------

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        strongest, fields = self._strongest(evidence), evidence.read(None)
        pictures = self._pictures(evidence, strongest, fields)
        made = evidence.beside(ASCENT)
        for name in self.layers:
            own, field = _synthetic(made, name), fields[f"field/{name}"]
            yield from self._plates(evidence, name, strongest[name], pictures, own, field)

    def _pictures(
        self,
        evidence: Evidence,
        strongest: Mapping[str, Mapping[int, Sequence[Example]]],
        fields: Mapping[str, Array],
    ) -> dict[tuple[str, int, int], Picture]:
        """The patch of every example by layer, channel and rank; every image is decoded once."""
        wanted: dict[Case, list[tuple[tuple[str, int, int], Place]]] = {}
        for name, channels in strongest.items():
            layer, field = evidence.resolution.layer(name), fields[f"field/{name}"]
            for channel, examples in channels.items():
                for rank, one in enumerate(examples):
                    place = place_of(one.position, layer, field, evidence.resolution.pipeline["size"])
                    wanted.setdefault(one.case, []).append(((name, channel, rank), place))
        drawn: dict[tuple[str, int, int], Picture] = {}
        for case, pixels in evidence.pictures(tuple(wanted)):
            for key, place in wanted[case]:
                drawn[key] = patch(pixels, place) if evidence.originals else where(pixels.shape, place)
        return drawn

    def _plates(
        self,
        evidence: Evidence,
        name: str,
        strongest: Mapping[int, Sequence[Example]],
        pictures: Mapping[tuple[str, int, int], Picture],
        made: Mapping[int, Picture],
        field: Array,
    ) -> Iterator[Figure]:
        """The channels of one layer, as many beside one another as there is room for."""
        width = self.patches + bool(made)
        across = max(1, COLUMNS // width)
        groups = [
            ([_made(channel, made.get(channel))] if made else [])
            + [_panel(channel, rank, one, pictures[name, channel, rank]) for rank, one in enumerate(examples)]
            + [None] * (self.patches - len(examples))
            for channel, examples in strongest.items()
        ]
        rows = [
            Row(
                tuple(panel for group in groups[start : start + across] for panel in group),
                verbatim(", ".join(map(str, list(strongest)[start : start + across]))),
            )
            for start in range(0, len(groups), across)
        ]
        caption = _caption(evidence, name, self.patches, field, bool(made), len(groups))
        for start in range(0, len(rows), ROWS):
            yield Figure(
                id=f"{self.name}-{slug(name)}{f'-{start // ROWS + 1}' if start else ''}",
                technique=self.name,
                rows=tuple(rows[start : start + ROWS]),
                caption=caption,
                columns=across * width,
                layer=name,
            )


@dataclass
class _Strongest:
    """The strongest images of every channel of a layer so far; blocks come by digest."""

    count: int
    values: Array | None = None
    positions: Array | None = None
    cases: Array | None = None

    def add(self, block: Block, layer: str) -> None:
        """Look at the images of a block."""
        values = block.arrays[f"maximum/{layer}"].astype(np.float64)
        values[~np.isfinite(values) | (values == 0)] = -np.inf  # a rectified channel at 0 is not excited
        positions = block.arrays[f"position/{layer}"]
        cases = np.empty(values.shape, object)
        cases.T[:] = list(block.cases)
        if self.values is not None and self.positions is not None and self.cases is not None:
            values = np.concatenate((self.values, values))
            positions, cases = np.concatenate((self.positions, positions)), np.concatenate((self.cases, cases))
        order = np.argsort(-values, axis=0, kind="stable")[: self.count]
        self.values, self.positions, self.cases = (
            np.take_along_axis(held, order, axis=0) for held in (values, positions, cases)
        )

    def examples(self, place: int, width: int) -> list[Example]:
        """Those of one channel, by its place among the channels; `width` is that of the layer's maps."""
        if self.values is None or self.positions is None or self.cases is None:
            return []
        found = zip(self.cases[:, place], self.values[:, place], self.positions[:, place], strict=True)
        return [
            Example(case, float(value), divmod(int(position), width))
            for case, value, position in found
            if np.isfinite(value)
        ]


def place_of(position: tuple[int, int], layer: Layer, field: Array, size: Sequence[int]) -> Place:
    """What a position of a layer sees of an input of `size` (H, W): all of it where windows do not tell, or see more.

    Args:
        field: (6,) as stored.
    """
    boxes: list[tuple[int, int]] = []
    cells: list[tuple[int, int]] = []
    for axis in (0, 1):
        length, count = int(size[axis]), layer.shape[1 + axis]
        step = float(field[2 + axis]) or length / count
        centre = float(field[4 + axis]) + position[axis] * step if field.any() else (position[axis] + 0.5) * step
        seen = int(field[axis]) or length
        begin = int(np.floor(centre - seen / 2))
        boxes.append((0, length) if seen >= length else (begin, begin + seen))
        begin = min(max(int(np.floor(centre - step / 2)), 0), length - 1)
        cells.append((begin, min(max(int(np.ceil(centre + step / 2)), begin + 1), length)))
    (top, bottom), (left, right) = boxes
    (high, low), (near, far) = cells
    return Place((top, left, bottom, right), (high, near, low, far))


def _synthetic(made: Mapping[str, Array], layer: str) -> dict[int, Picture]:
    """What an ascent made for channels of a layer; struck through where it did not rise."""
    method = next((method for method in METHODS if f"{method}/{layer}" in made), None)
    if method is None:
        return {}
    name = f"{method}/{layer}"
    rose = made[f"final/{name}"] > made[f"start/{name}"]
    return {
        int(channel): synthetic(picture, struck=not bool(risen))
        for channel, picture, risen in zip(made[f"channels/{layer}"], made[name], rose, strict=True)
    }


def _made(channel: int, picture: Picture | None) -> Panel | None:
    if picture is None:
        return None
    alt = _("input made to excite channel {channel}", channel=channel)
    return Panel(picture, _("made"), alt, name=f"channel-{channel}-made")


def _panel(channel: int, rank: int, one: Example, picture: Picture) -> Panel:
    reached = signed(one.activation, ".3g")
    alt = _(
        "part of {image} that excites channel {channel} to {reached}",
        image=one.case.name,
        channel=channel,
        reached=reached,
    )
    return Panel(picture, verbatim(reached), alt, name=f"channel-{channel}-{rank + 1}")


def _caption(evidence: Evidence, name: str, patches: int, field: Array, made: bool, count: int) -> Message:
    seen = (
        _(
            "Each is cut to the receptive field of the position, {width} × {height} pixels, grey beyond the image.",
            width=int(field[1]),
            height=int(field[0]),
        )
        if field.any()
        else _("The whole image is shown, since every position may depend on all of it.")
    )
    return _(
        "What excites channels of layer {layer} most among {n} images: for each of {count} of {all} channels the "
        "images with the largest activation, at most {patches}, strongest first, their activation beneath them, the "
        "numbers of the channels before the row. {seen} A frame marks the place of the position in it.{made}{coarse}",
        layer=name,
        n=len(evidence.cases),
        count=count,
        all=evidence.resolution.layer(name).shape[0],
        patches=patches,
        seen=seen,
        made=_(" Before them stands the input that an ascent made for the channel.") if made else verbatim(""),
        coarse=verbatim("")
        if evidence.originals
        else _(" Photographs are withheld: grey stands for the image, and only the places are shown."),
    )
