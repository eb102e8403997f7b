"""What gradients, deconvolutional networks and guided backpropagation share: pictures in the space of the input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from reportgen.engine.requests import INPUT, Backward, Forward, Needs, Rule, Scope, Units
from reportgen.engine.resolution import Resolution, choose_channels
from reportgen.figures.figure import Figure, Panel, Picture, Row, slug
from reportgen.figures.tiles import COARSE, grey_tile, photograph, signed_tile
from reportgen.findings import Finding, FindingRule
from reportgen.store import Array
from reportgen.techniques.technique import Case, Evidence, NotApplicable, Probe, Technique
from reportgen.text import Message, _, verbatim

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = 4
MOST_IN_A_ROW = 6
PERCENTILE = 99.5
"""Of the magnitudes of a picture: what lies above has the full colour, so that a few outliers do not grey the rest."""
UNIT_SIDE = 96
"""Pixels of the longer side of a unit's picture: they are printed small, and noise does not compress."""
SEEN = 0.02
"""Pictures of units are cropped to where their magnitude exceeds this share of its maximum."""
LEAST = 24
"""Pixels that a cropped picture has at least."""

EMPTY = _(
    "Empty is the projection of a unit that does not respond, or whose rectifier is at its upper limit (6 in ReLU6): "
    "neither changes with the input. "
)
COARSELY = _(
    "Photographs are withheld, and with them the outlines that this picture would show: each cell, at most {cells} × "
    "{cells}, is the mean of the magnitude, black is zero, white the largest mean.",
    cells=COARSE,
)
SIGNED = _(
    "Mid grey is zero, brighter positive, darker negative, in the colours of the input, up to the 99.5th percentile "
    "of the magnitudes."
)
SIGNED_GREY = _(
    "Mid grey is zero, brighter positive, darker negative, up to the 99.5th percentile of the magnitudes. Drawn is the "
    "mean over the channels of the input."
)
UNITS = _(
    "{title} of single units for {image}: one row a layer, for each unit the part of the image and beside it the "
    "projection of the unit from its strongest position, both cropped to where the projection exceeds 2 % of its "
    "maximum. Beneath stand the channel and its activation. {empty}{reading}"
)
UNITS_ALONE = _(
    "{title} of single units for {image}: one row a layer, for each unit its projection from its strongest position, "
    "cropped to where it exceeds 2 % of its maximum. Beneath stand the channel and its activation. {empty}{reading}"
)


@dataclass(frozen=True)
class InputSpace(Technique):
    """Derivative of a class score with respect to the input, under one rule for rectifiers.

    Stored for each image: ``class/<c>`` (C,H,W), from the score before softmax or sigmoid.
    """

    scope: ClassVar[Scope] = "exhibit"
    rule: ClassVar[Rule]
    results_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "maps": {"type": "integer"},
            "zero_maps": {"type": "integer"},
            "largest": {"type": "object", "additionalProperties": {"type": "number"}},
        },
        "required": ["maps", "zero_maps"],
    }

    layers: tuple[str, ...] = ()
    channels: str = ""

    def needs(self, resolution: Resolution) -> Needs:
        return (Forward(), Backward(wrt=(INPUT,), rule=self.rule))

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        return {f"class/{target}": probe.gradient(target, INPUT, self.rule) for target in probe.targets}

    def results(self, evidence: Evidence) -> dict[str, Any]:
        maps = zero = 0
        largest: dict[str, float] = {}
        for case, arrays in evidence.each():
            magnitudes = [float(np.abs(arrays[f"class/{target}"]).max()) for target in case.targets]
            maps += len(magnitudes)
            zero += sum(magnitude == 0 for magnitude in magnitudes)
            largest[case.name] = max(magnitudes)
        return {"maps": maps, "zero_maps": zero, "largest": largest}

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        yield from self._overview(evidence)
        for case, arrays in evidence.each():
            yield self._of_classes(evidence, case, arrays)

    def _drawn(self, evidence: Evidence, values: Array, limit: float, size: int = 224) -> Picture:
        """One picture in the space of the input, its longer side at least `size` pixels."""
        return signed_tile(_in_colours(values, evidence.resolution), limit=limit, size=size)

    def _reading(self, resolution: Resolution) -> Message:
        """How the pictures are to be read, for captions."""
        return SIGNED if int(resolution.pipeline["channels"]) in (1, 3) else SIGNED_GREY

    def _picture(self, evidence: Evidence, values: Array, limit: float, size: int = 224) -> Picture:
        """One picture as finely as it may be shown: these projections trace the outlines of a photograph."""
        if evidence.originals:
            return self._drawn(evidence, values, limit, size)
        return grey_tile(evidence.visible(magnitude(values)), low=0.0, high=limit)

    def _limit(self, evidence: Evidence, *pictures: Array) -> float:
        """The magnitude that is drawn in full colour, common to `pictures` (C,H,W)."""
        if evidence.originals:
            return max(limit_of(values) for values in pictures)
        return max(float(evidence.visible(magnitude(values)).max()) for values in pictures)

    def _told(self, evidence: Evidence) -> Message:
        return self._reading(evidence.resolution) if evidence.originals else COARSELY

    def _overview(self, evidence: Evidence) -> Iterator[Figure]:
        """The exhibits, and beneath each its picture for the first explained class."""
        cases = evidence.cases
        for start in range(0, len(cases), 2 * COLUMNS):
            rows: list[Row] = []
            shown = cases[start : start + 2 * COLUMNS]
            columns = columns_of(len(shown))
            for first in range(0, len(shown), columns):
                rows += self._rows(evidence, shown[first : first + columns])
            yield Figure(
                id=f"{self.name}-overview{f'-{start // (2 * COLUMNS) + 1}' if start else ''}",
                technique=self.name,
                rows=tuple(rows),
                caption=_(
                    "{title} of exhibits for the first explained class of each, beneath the image as the network "
                    "saw it. {reading}",
                    title=self.title,
                    reading=self._reading(evidence.resolution),
                )
                if evidence.originals
                else _(
                    "{title} of exhibits for the first explained class of each. {reading}",
                    title=self.title,
                    reading=COARSELY,
                ),
                columns=columns,
            )

    def _rows(self, evidence: Evidence, cases: tuple[Case, ...]) -> tuple[Row, ...]:
        inputs, pictures = [], []
        for case in cases:
            label = evidence.resolution.label(case.targets[0])
            if not evidence.originals:
                words = _("{image}: {label}", image=case.name, label=label)
                pictures.append(self._panel(evidence, case, case.targets[0], evidence.read(case), words))
                continue
            inputs.append(
                Panel(
                    photograph(evidence.picture(case), longest=224),
                    verbatim(case.name),
                    _("the image {image} as the network saw it", image=case.name),
                    name=f"{slug(case.name)}-input",
                )
            )
            pictures.append(self._panel(evidence, case, case.targets[0], evidence.read(case), verbatim(label)))
        return (Row(tuple(inputs)), Row(tuple(pictures))) if inputs else (Row(tuple(pictures)),)

    def _of_classes(self, evidence: Evidence, case: Case, arrays: Mapping[str, Array]) -> Figure:
        """One image, one panel an explained class, on one scale."""
        labels = ", ".join(evidence.resolution.label(target) for target in case.targets)
        limit = self._limit(evidence, *(arrays[f"class/{target}"] for target in case.targets))
        panels = tuple(
            self._panel(evidence, case, target, arrays, verbatim(evidence.resolution.label(target)), limit)
            for target in case.targets
        )
        return Figure(
            id=f"{self.name}-{slug(case.name)}",
            technique=self.name,
            rows=(Row(panels),),
            caption=_(
                "{title} of {image} for {labels}. {reading}",
                title=self.title,
                image=case.name,
                labels=labels,
                reading=self._told(evidence),
            ),
            columns=len(panels),
            exhibit=case.name,
            beside=len(panels) <= 2,
        )

    def _panel(
        self,
        evidence: Evidence,
        case: Case,
        target: int,
        arrays: Mapping[str, Array],
        label: Message,
        limit: float | None = None,
    ) -> Panel:
        values = arrays[f"class/{target}"]
        alt = _(
            "{title} of {image} for {label}, largest magnitude {largest}",
            title=self.title,
            image=case.name,
            label=evidence.resolution.label(target),
            largest=f"{float(np.abs(values).max()):.2g}",
        )
        picture = self._picture(evidence, values, self._limit(evidence, values) if limit is None else limit)
        return Panel(picture, label, alt, name=f"{slug(case.name)}-{target}")


def escaping(name: str, title: Message) -> FindingRule:
    """The rule about activations that do not follow the rule of a technique."""
    words = _("Some activations do not follow the rule of {title}", title=title)
    return FindingRule(f"{name}.escaped", "method", "warning", words, 1)


@dataclass(frozen=True)
class Projecting(InputSpace):
    """The same under a rule that is not the gradient's, and besides for single units.

    Stored besides ``class/<c>``: for each layer ``unit/<layer>/<channel>`` (C,H,W), the derivative of the channel's
    strongest position alone, ``position/<layer>/<channel>`` (2,) row and column of it in the layer's maps, and
    ``activation/<layer>/<channel>`` () what the layer holds there: the papers project that value instead of 1, which
    gives the same picture times this number. ``activations`` (3,) counts the calls of rectifiers, of other activations,
    which follow an extension of the rule, and of those that could not be caught.

    Attributes:
        units: of the chosen channels those with the strongest response in the image are projected, so many a layer; 0
            means all of the chosen.
        exhibits: on how many exhibits.
    """

    layers: tuple[str, ...] = ("default",)
    channels: str = "even:16"
    units: int = 4
    exhibits: int = 2

    results_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            **InputSpace.results_schema["properties"],
            "rectifiers": {"type": "integer"},
            "extended": {"type": "integer"},
            "escaped": {"type": "integer"},
            "units": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": {"type": "array", "items": {"type": "integer"}},
                },
            },
        },
        "required": ["maps", "zero_maps", "rectifiers", "extended", "escaped"],
    }

    def __post_init__(self) -> None:
        if self.units < 0 or self.exhibits < 0:
            raise ValueError("units and exhibits are counts: 0 or more")

    @classmethod
    def completed(cls, options: Mapping[str, Any], given: frozenset[str]) -> Mapping[str, Any]:
        """Channels named for this technique alone are all projected."""
        return {**options, "units": 0} if "channels" in given and "units" not in given else options

    def needs(self, resolution: Resolution) -> Needs:
        if not resolution.tappable:
            raise NotApplicable(_("the activations of a scripted model cannot be given another backward rule"))
        units = (
            Backward((INPUT,), self._units(layer, resolution.layer(layer).shape[0]), self.rule) for layer in self.layers
        )
        return (*super().needs(resolution), *(units if self.exhibits else ()))

    def _units(self, layer: str, count: int) -> Units:
        kind, _colon, number = self.channels.partition(":")
        if kind == "top" and number.isdigit():
            most = min(int(number), count)
            return Units(layer, tuple(range(count)), min(most, self.units or most), self.exhibits)
        channels = choose_channels(self.channels, count)
        return Units(layer, channels, min(self.units or len(channels), len(channels)), self.exhibits)

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        computed: dict[str, Tensor] = {}
        for request in probe.needs:
            if not isinstance(request, Backward):
                continue
            if not isinstance(request.origin, Units):
                computed |= super().compute(probe)
                computed["activations"] = _counts(probe, computed)
                continue
            layer, projection = request.origin.layer, probe.projection(request)
            for place, channel in enumerate(projection.channels):
                computed[f"unit/{layer}/{channel}"] = projection.inputs[place][None]
                computed[f"position/{layer}/{channel}"] = projection.positions[place][None]
                computed[f"activation/{layer}/{channel}"] = projection.activations[place][None]
        return computed

    def results(self, evidence: Evidence) -> dict[str, Any]:
        counts = np.zeros(3, int)
        units: dict[str, dict[str, list[int]]] = {}
        for case, arrays in evidence.each():
            counts = np.maximum(counts, arrays["activations"])
            for layer in self.layers:
                shown = channels_of(arrays, layer)
                if shown:
                    units.setdefault(case.name, {})[layer] = shown
        rectifiers, extended, escaped = (int(count) for count in counts)
        told = {"rectifiers": rectifiers, "extended": extended, "escaped": escaped, "units": units}
        return {**super().results(evidence), **told}

    def findings(self, results: Mapping[str, Any], evidence: Evidence) -> list[Finding]:
        (rule,) = self.rules
        limit = rule.limit(evidence.limits)
        if not results["escaped"] or results["escaped"] < limit:
            return []
        every = results["rectifiers"] + results["extended"] + results["escaped"]
        detail = _(
            "{escaped} of {all} calls of activations run in scripted code, where their derivative cannot be "
            "exchanged: they keep their own, and the pictures lie between {title} and the gradient.",
            escaped=results["escaped"],
            all=every,
            title=self.title,
        )
        return [rule.found(detail, subject=self.name, value=results["escaped"], threshold=limit, n=every)]

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        yield from super().figures(evidence)
        for case, arrays in evidence.each():
            shown = {layer: channels_of(arrays, layer) for layer in self.layers}
            for start in range(0, max((len(channels) for channels in shown.values()), default=0), COLUMNS):
                yield self._of_units(evidence, case, arrays, shown, start)

    def _of_units(
        self,
        evidence: Evidence,
        case: Case,
        arrays: Mapping[str, Array],
        shown: Mapping[str, list[int]],
        start: int,
    ) -> Figure:
        """One row a layer; for each unit the part of the image it sees, and its projection."""
        rows = []
        columns = 2 * COLUMNS if evidence.originals else COLUMNS
        drawn = [(layer, channel) for layer in shown for channel in shown[layer][start : start + COLUMNS]]
        empty = not all(arrays[f"unit/{layer}/{channel}"].any() for layer, channel in drawn)
        for layer, channels in shown.items():
            panels: list[Panel | None] = []
            for channel in channels[start : start + COLUMNS]:
                panels += self._unit(evidence, case, arrays, layer, channel)
            if panels:
                rows.append(Row((*panels, *[None] * (columns - len(panels))), verbatim(layer)))
        return Figure(
            id=f"{self.name}-units-{slug(case.name)}{f'-{start // COLUMNS + 1}' if start else ''}",
            technique=self.name,
            rows=tuple(rows),
            caption=(UNITS if evidence.originals else UNITS_ALONE).filled(
                title=self.title,
                image=case.name,
                empty=EMPTY if empty else verbatim(""),
                reading=self._told(evidence),
            ),
            columns=columns,
            exhibit=case.name,
        )

    def _unit(
        self, evidence: Evidence, case: Case, arrays: Mapping[str, Array], layer: str, channel: int
    ) -> list[Panel]:
        values = arrays[f"unit/{layer}/{channel}"]
        row, column = (int(place) for place in arrays[f"position/{layer}/{channel}"])
        activation = f"{float(arrays[f'activation/{layer}/{channel}']):.2g}"
        top, bottom, left, right = window(values)
        crop = values[:, top:bottom, left:right]
        empty = not values.any()
        told = {"channel": channel, "layer": layer, "row": row, "column": column, "activation": activation}
        label = _("{channel} · empty", channel=channel) if empty else verbatim(f"{channel} · {activation}")
        projection = Panel(
            self._picture(evidence, crop, self._limit(evidence, crop), size=UNIT_SIDE),
            label,
            _("projection of channel {channel} of {layer} at {row}, {column}, activation {activation}", **told),
            name=f"{slug(layer)}-{channel}",
            layer=layer,
        )
        if not evidence.originals:
            return [projection]
        patch = Panel(
            photograph(np.ascontiguousarray(evidence.picture(case)[top:bottom, left:right])),
            verbatim(""),
            _("the part of the image that channel {channel} of {layer} sees at {row}, {column}", **told),
            name=f"{slug(layer)}-{channel}-patch",
            layer=layer,
        )
        return [patch, projection]


def columns_of(count: int) -> int:
    """How many of so many pictures stand in a row: all where they fit, otherwise `COLUMNS`."""
    return count if count <= MOST_IN_A_ROW else COLUMNS


def _counts(probe: Probe, computed: Mapping[str, Tensor]) -> Tensor:
    """(n, 3): how activations follow the rule, the same for every image of a batch."""
    import torch

    how = probe.followed()
    n = len(next(iter(computed.values())))
    return torch.tensor([how.rectifiers, how.extended, how.escaped]).expand(n, -1)


def channels_of(arrays: Mapping[str, Array], layer: str) -> list[int]:
    """The channels of a layer whose units were projected, strongest first."""
    prefix = f"activation/{layer}/"
    found = {int(name[len(prefix) :]): float(array) for name, array in arrays.items() if name.startswith(prefix)}
    return sorted(found, key=lambda channel: (-found[channel], channel))


def limit_of(values: Array) -> float:
    """The magnitude that is drawn in full colour."""
    magnitudes = np.abs(values[np.isfinite(values)])
    if not magnitudes.size:
        return 0.0
    limit = float(np.percentile(magnitudes, PERCENTILE))
    return limit if limit > 0 else float(magnitudes.max())


def window(values: Array) -> tuple[int, int, int, int]:
    """Rows from, to and columns from, to of the square that holds what is seen of a picture (C,H,W)."""
    height, width = values.shape[1:]
    strength = np.nan_to_num(np.abs(values).max(axis=0))
    seen = strength > SEEN * strength.max()
    if not seen.any():
        return 0, height, 0, width
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    side = max(int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1, LEAST)
    top, bottom = _centred(int(rows[0]), int(rows[-1]) + 1, side, height)
    left, right = _centred(int(columns[0]), int(columns[-1]) + 1, side, width)
    return top, bottom, left, right


def _centred(start: int, end: int, side: int, length: int) -> tuple[int, int]:
    """A stretch of `side` around `start` to `end` within `length`."""
    side = min(side, length)
    begin = min(max((start + end - side) // 2, 0), length - side)
    return begin, begin + side


def _in_colours(values: Array, resolution: Resolution) -> Array:
    """(3,h,w) red, green, blue, or (1,h,w): the mean where the channels are no colours."""
    if values.shape[0] == 3:
        return values[::-1] if resolution.pipeline.get("bgr") else values
    return values if values.shape[0] == 1 else values.mean(axis=0, keepdims=True)


def magnitude(values: Array) -> Array:
    """(h,w): the largest magnitude over the channels of (C,h,w), 0 where it is not a number."""
    largest: Array = np.nan_to_num(np.abs(values).max(axis=0))
    return largest
