"""The one extension point: what a technique declares, computes, concludes and draws.

A technique is a frozen dataclass in ``techniques/<name>.py`` and a template ``templates/techniques/<name>.html.j2``.
Its fields
are its options and part of its keys in the store. It never calls the model: it declares `needs`, and the engine hands
it a
`Probe` with exactly that.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from reportgen.engine.requests import Ascent, Backward, ClassScore, Derivation, Forward, Needs, Rule, Scope
from reportgen.engine.resolution import Layer, Resolution
from reportgen.figures.figure import Figure, Picture
from reportgen.figures.overlays import ALONE, READING, heat_map, map_alone
from reportgen.figures.tiles import coarse
from reportgen.findings import Finding, FindingRule, Limits
from reportgen.language import translator
from reportgen.report.document import Reference
from reportgen.store import Array
from reportgen.text import Message

if TYPE_CHECKING:
    from torch import Tensor

    from reportgen.engine.rules import Followed
    from reportgen.engine.structure import Recording
    from reportgen.subject.truth import Truth


class NotApplicable(Exception):
    """Raised by `Technique.needs`: this model offers nothing to look at; the section says why."""

    def __init__(self, reason: Message) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True)
class Target:
    """One of the classes explained, by its place in every image's list (the first is the predicted class by default).

    Which class that is differs from image to image; in the names of tensors `str(target)` stands for it.
    """

    place: int

    def __str__(self) -> str:
        return f"{{target{self.place}}}"


@dataclass(frozen=True)
class Projection:
    """Single units of one layer, sent back to the input from the strongest position of each. K units, strongest first.

    Attributes:
        channels: their numbers.
        positions: (K, 2) row and column of the position in the layer's maps.
        activations: (K,) what the layer holds there.
        inputs: (K, C, H, W) derivative of the unit with respect to the input under the rule.
    """

    channels: tuple[int, ...]
    positions: Tensor
    activations: Tensor
    inputs: Tensor


@dataclass(frozen=True)
class Ascended:
    """Inputs that an ascent made: one for each of K channels of a layer.

    Attributes:
        images: (K, C, H, W) in [0, 1], before normalisation, red first; grey where the ascent broke down.
        objective: (K, steps) mean of the channel before each step, for the picture as it was moved for that step.
        start: (K,) the same for the seeded noise that it began with, unmoved.
        final: (K,) the same for `images`, unmoved; NaN where the ascent broke down.
        responses: (K, channels of the layer) means over positions of all its channels for `images`, unmoved.
        features: (K, D) means over positions of what the network decides by: the layer before its pooled linear head,
            or the deepest that gives maps.
    """

    images: Tensor
    objective: Tensor
    start: Tensor
    final: Tensor
    responses: Tensor
    features: Tensor


class Probe(Protocol):
    """What one batch of images, one image, or the model offers to one part of a technique. n is the number of images.

    It offers what `needs` declares and nothing else.
    """

    @property
    def needs(self) -> Needs:
        """The requests of the part at hand."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """The classes explained."""

    def scores(self) -> Tensor:
        """(n, classes) class scores, before softmax or sigmoid."""

    def probabilities(self) -> Tensor:
        """(n, classes) in [0, 1]."""

    def entropy(self) -> Tensor:
        """(n,) entropy of the predicted distribution in nats."""

    def activation(self, layer: str) -> Tensor:
        """(n, C, h, w) output of `layer`, read as maps."""

    def gradient(self, target: Target, layer: str, rule: Rule = "gradient") -> Tensor:
        """(n, C, h, w) derivative of the score of `target` with respect to `activation(layer)`; of the input: (n, C,
        H, W).
        """

    def projection(self, request: Backward) -> Projection:
        """The units that `request` asks for, of the one image at hand."""

    def derived_probabilities(self, derivation: Derivation) -> Tensor:
        """(count, classes) in [0, 1]: what the model says of the inputs derived from the one image at hand."""

    def followed(self) -> Followed:
        """How the activations of the forward follow the rules of deconvnet and guided backpropagation."""

    @property
    def head_layer(self) -> str | None:
        """The layer that global average pooling and one linear layer follow, if there is one."""

    def head_weight(self) -> Tensor:
        """(classes, C) weight of the linear layer behind the global average pooling."""

    def class_index(self, target: Target) -> Tensor:
        """(n,) class number of `target` for each image, on the CPU: it indexes tensors of any device."""

    def layer(self, name: str) -> Layer:
        """What is known of a layer."""

    def ascended(self, request: Ascent) -> Ascended:
        """What the ascent that `request` asks for came to."""

    def weight(self, layer: str) -> Tensor:
        """The weight of `layer`, as it is."""

    def looks(self) -> Tensor:
        """(n, 16, 16) uint8: grey levels of the images themselves."""

    def recorded(self) -> Recording:
        """The operations of one forward of noise."""

    def upkeep(self) -> dict[str, Any]:
        """The state of all weights (see `reportgen.engine.upkeep.State`): JSON values."""

    def profiled(self) -> dict[str, Any]:
        """What a profiled pass took (see `reportgen.engine.profiling.measure`): JSON values, and bytes under
        ``trace``.
        """


@dataclass(frozen=True, slots=True)
class Case:
    """One image a technique looked at.

    Attributes:
        name: as it is called everywhere in the report.
        digest: SHA-256 of its file.
        targets: class numbers explained.
        known: those of the targets that the caller asked for as ``predicted`` or ``true``.
        place: among the exhibits, from 0; -1 for an image that is none.
        truth: what is known of it.
    """

    name: str
    digest: str
    targets: tuple[int, ...] = ()
    known: tuple[str, ...] = ()
    place: int = -1
    truth: Truth | None = None


@dataclass(frozen=True)
class Evidence:
    """What the store holds for one technique: the only thing that results, findings and figures see.

    Attributes:
        resolution: facts of the model.
        cases: the images, in order; none for scope ``model``.
        read: tensors of a case (of the model, for None), by name.
        picture: a case as the network saw it, uint8 (H, W, 3) or (H, W).
        colormap: colours of heat maps.
        originals: photographs may be shown; if not, `picture` gives mid grey, whoever asks, and maps are `coarse`.
        lang: language of words that are drawn into pictures.
        limits: thresholds of rules that the user set (see `FindingRule.limit`).
        reference: images of ``--reference``, which `read` knows too, for techniques that look at images alone.
    """

    resolution: Resolution
    cases: tuple[Case, ...]
    read: Callable[[Case | None], Mapping[str, Array]]
    picture: Callable[[Case], Array]
    colormap: str = "inferno"
    originals: bool = True
    lang: str = "en"
    limits: Limits = field(default_factory=dict)
    reference: tuple[Case, ...] = ()

    def words(self, message: Message) -> str:
        """A sentence in the language of the document, for what is drawn into a picture."""
        return message.translated(translator(self.lang))

    @property
    def han(self) -> bool:
        """Whether words in pictures may be Chinese."""
        return self.lang == "zh"

    def overlay(self, case: Case, values: Array, *, low: float, high: float, colormap: str = "") -> Picture:
        """A map (h, w) laid over its image, or alone where photographs are withheld; see `heat_map`, `map_alone`.

        Args:
            colormap: another than that of the document's heat maps.
        """
        picture = self.picture(case)
        if self.originals:
            return heat_map(picture, values, low=low, high=high, colormap=colormap or self.colormap)
        return map_alone(picture.shape, values, low=low, high=high, colormap=colormap or self.colormap)

    @property
    def reading(self) -> Message:
        """How the pictures of `overlay` are to be read, for captions."""
        return READING if self.originals else ALONE

    def visible(self, values: Array) -> Array:
        """Maps (…, h, w) of an image as finely as they may be shown."""
        return values if self.originals else coarse(values)

    def each(self) -> Iterator[tuple[Case, Mapping[str, Array]]]:
        """Cases with their tensors, one at a time."""
        for case in self.cases:
            yield case, self.read(case)


@dataclass(frozen=True)
class Technique(ABC):
    """Base of all techniques.

    Attributes:
        layers: names, patterns or ``default``, ``blocks``, ``last:N``; empty means the technique's own choice.
        channels: ``even:N``, ``top:N``, ``all`` or numbers.
    """

    name: ClassVar[str]
    title: ClassVar[Message]
    summary: ClassVar[str]
    """One line for ``reportgen techniques``."""
    scope: ClassVar[Scope]
    version: ClassVar[int]
    """Raised whenever the stored tensors change their meaning or value."""
    measures_machine: ClassVar[bool] = False
    """What it finds is of this machine and this moment: the machine is part of its keys, and it is left out under
    ``SOURCE_DATE_EPOCH`` unless ``--only`` names it.
    """
    references: ClassVar[tuple[Reference, ...]] = ()
    rules: ClassVar[tuple[FindingRule, ...]] = ()
    """Those of its findings that have a threshold: ``[findings]`` may set another."""
    results_schema: ClassVar[Mapping[str, Any]] = {"type": "object"}
    """JSON Schema of what `results` returns."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Values of its own fields under ``quick``, ``standard`` and ``full``, where they differ from the defaults."""

    layers: tuple[str, ...] = ("default",)
    channels: str = "even:16"

    @classmethod
    def completed(cls, options: Mapping[str, Any], given: frozenset[str]) -> Mapping[str, Any]:
        """`options` and what follows from the fields among them that the user named for this technique (`given`)."""
        return options

    @property
    def template(self) -> str:
        """Path of its partial below the template folders."""
        return f"techniques/{self.name}.html.j2"

    def settled(self, resolution: Resolution) -> Self:
        """Itself with words like ``default`` replaced by the names of layers."""
        return replace(self, layers=resolution.select(self.layers))

    def options(self) -> dict[str, Any]:
        """Its fields as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @abstractmethod
    def needs(self, resolution: Resolution) -> Needs:
        """What the engine must provide. Called on a settled technique. Raises NotApplicable."""

    @abstractmethod
    def compute(self, probe: Probe) -> dict[str, Tensor]:
        """Tensors to store, by name, of the part whose requests `probe.needs` are.

        For images, the first dimension is the batch; `Target` in a name stands for its class.
        """

    @abstractmethod
    def results(self, evidence: Evidence) -> dict[str, Any]:
        """Numbers for ``report.json`` and the tables of the section."""

    def findings(self, results: Mapping[str, Any], evidence: Evidence) -> list[Finding]:
        """What follows from the results."""
        return []

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        """Figures in reading order."""
        yield from ()


def explains_classes(needs: Needs) -> bool:
    """Whether the stored tensors depend on which classes are explained."""
    return any(
        (isinstance(request, Backward) and isinstance(request.origin, ClassScore))
        or (isinstance(request, Forward) and request.inputs is not None)
        for request in needs
    )


def packed(value: Any) -> Tensor:
    """A JSON value as a tensor of bytes, to be stored beside others."""
    import torch

    return torch.frombuffer(bytearray(json.dumps(value, sort_keys=True).encode()), dtype=torch.uint8)


def unpacked(array: Array) -> Any:
    """The value that `packed` put into a tensor."""
    return json.loads(array.tobytes())
