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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from reportgen.engine.requests import (
    After,
    Ascent,
    Backward,
    ClassScore,
    Derivation,
    Fading,
    Forward,
    Needs,
    Rule,
    Scope,
    Variant,
)
from reportgen.engine.resolution import Layer, Resolution
from reportgen.figures.figure import Figure, Picture
from reportgen.figures.overlays import ALONE, READING, heat_map, map_alone
from reportgen.figures.tiles import coarse
from reportgen.findings import Finding, FindingRule, Limits
from reportgen.language import translator
from reportgen.report.document import Reference
from reportgen.store import Array
from reportgen.text import Message, _

if TYPE_CHECKING:
    from torch import Tensor

    from reportgen.engine.rules import Followed
    from reportgen.engine.structure import Recording
    from reportgen.subject.truth import Truth

MOST_LOOKED_AT = 16
"""Images that are compared with one another, pixel by pixel, before a rule speaks of all of them."""


class NotApplicable(Exception):
    """Raised by `Technique.needs`: this model offers nothing to look at; the section says why."""

    def __init__(self, reason: Message) -> None:
        super().__init__(str(reason))
        self.reason = reason


class NoMaps(NotApplicable):
    """No layer of the model can be looked at as maps."""

    def __init__(self, resolution: Resolution) -> None:
        scripted = _("the layers of a scripted model cannot be looked at")
        super().__init__(_("no layer of this model gives spatial maps") if resolution.tappable else scripted)


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

    @property
    def independent(self) -> bool:
        """Whether the probabilities of classes are independent of one another."""

    def entropy(self) -> Tensor:
        """(n,) entropy of the predicted distribution in nats."""

    def activation(self, layer: str) -> Tensor:
        """(n, C, h, w) output of `layer`, read as maps."""

    def gradient(self, target: Target, layer: str, rule: Rule = "gradient") -> Tensor:
        """(n, C, h, w) derivative of the score of `target` with respect to `activation(layer)`; of the input: (n, C,
        H, W).
        """

    def rollout(self) -> Tensor:
        """(n, h, w) attention of all blocks multiplied up, for the tokens that the scores read."""

    def projection(self, request: Backward) -> Projection:
        """The units that `request` asks for, of the one image at hand."""

    def derived_probabilities(self, derivation: Derivation) -> Tensor:
        """(count, classes) in [0, 1]: what the model says of the inputs derived from the one image at hand."""

    def inputs(self) -> Tensor:
        """(n, C, H, W) the images as the network sees them; of the sample alone."""

    def after(self, request: After) -> Mapping[str, Tensor]:
        """What the other technique made of the same images, by name, with a `Target` standing for its class."""

    def variant(self, variant: Variant) -> Probe:
        """The same images under a change of the model or of themselves; it offers what `variant.requests` declares.

        It holds until the next change is asked for.
        """

    def faded_probabilities(self, fading: Fading, maps: Sequence[Tensor]) -> Tensor:
        """(n, m, steps + 1, classes) in [0, 1] while pixels go or come in the order of m maps (n, h, w): first none,
        last all of them; of masks (n, m, 1, classes).
        """

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

    def running(self, layer: str) -> tuple[Tensor, Tensor]:
        """(C,) mean and (C,) variance that a batch normalisation stored."""

    def looks(self) -> Tensor:
        """(n, 16, 16) uint8: grey levels of the images themselves."""

    def sizes(self) -> Tensor:
        """(n, 2) int32: height and width of the images themselves, upright, in pixels."""

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
        known: what each of the targets is: ``predicted``, ``true``, or the word that asked for it. Where an image may
            show several, ``named`` is one that is wrongly named, ``missed`` a true one beside a first that is right.
        place: among the exhibits, or in the sample, from 0; -1 for an image of neither.
        truth: what is known of it.
    """

    name: str
    digest: str
    targets: tuple[int, ...] = ()
    known: tuple[str, ...] = ()
    place: int = -1
    truth: Truth | None = None


@dataclass(frozen=True)
class Block:
    """Some images of a scan at once.

    Attributes:
        cases: the images; two may be the same file under two names.
        arrays: their tensors by name, stacked: the first dimension is that of `cases`.
    """

    cases: tuple[Case, ...]
    arrays: Mapping[str, Array]

    def different(self) -> Block:
        """The same with every file once, under the first of its names: a copy is no further witness."""
        first = {case.digest: place for place, case in reversed(list(enumerate(self.cases)))}
        if len(first) == len(self.cases):
            return self
        places = sorted(first.values())
        return Block(
            tuple(self.cases[place] for place in places), {name: array[places] for name, array in self.arrays.items()}
        )


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
        scan: gives the images of a scan, see `blocks`; None for other scopes.
        pictures: those of any images of a scan, as `picture` gives them, one at a time, in whatever order.
        beside: tensors about the model that another technique stored, by its name, if it was declared; empty where it
            does not run or does not apply.
        mask: the segmentation mask of an image as the network saw it, (H, W) in [0, 1]; None where none was given.
        masks: how many of the images have one.
        limits: thresholds of rules that the user set (see `FindingRule.limit`).
        distinct: how many of some images of a scan differ from one another as the network saw them.
        reference: images of ``--reference``, which `read` knows too, for techniques that look at images alone.
    """

    resolution: Resolution
    cases: tuple[Case, ...]
    read: Callable[[Case | None], Mapping[str, Array]]
    picture: Callable[[Case], Array]
    colormap: str = "inferno"
    originals: bool = True
    lang: str = "en"
    scan: Callable[[], Iterator[Block]] | None = None
    pictures: Callable[[Sequence[Case]], Iterator[tuple[Case, Array]]] = lambda _cases: iter(())
    beside: Callable[[str], Mapping[str, Array]] = lambda _technique: {}
    mask: Callable[[Case], Array | None] = lambda _case: None
    masks: int = 0
    limits: Limits = field(default_factory=dict)
    distinct: Callable[[Sequence[Case]], int] = len
    reference: tuple[Case, ...] = ()

    def varied(self, fewest: int) -> bool:
        """Whether so many images of a scan differ as the network saw them; of many, `MOST_LOOKED_AT` are looked at."""
        once = list({case.digest: case for case in self.cases}.values())
        return self.distinct(once[:: -(-len(once) // MOST_LOOKED_AT)] if once else ()) >= fewest

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
        return self.laid(self.picture(case), values, low=low, high=high, colormap=colormap)

    def laid(self, pixels: Array, values: Array, *, low: float, high: float, colormap: str = "") -> Picture:
        """The same over a picture that is at hand."""
        if self.originals:
            return heat_map(pixels, values, low=low, high=high, colormap=colormap or self.colormap)
        return map_alone(pixels.shape, values, low=low, high=high, colormap=colormap or self.colormap)

    @property
    def reading(self) -> Message:
        """How the pictures of `overlay` are to be read, for captions."""
        return READING if self.originals else ALONE

    def visible(self, values: Array) -> Array:
        """Maps (…, h, w) of an image as finely as they may be shown."""
        return values if self.originals else coarse(values)

    def each(self) -> Iterator[tuple[Case, Mapping[str, Array]]]:
        """Cases with their tensors, one at a time: in order, but for a scan's, which come as in `blocks`."""
        if self.scan is None:
            for case in self.cases:
                yield case, self.read(case)
        for block in self.blocks():
            for place, case in enumerate(block.cases):
                yield case, {name: array[place] for name, array in block.arrays.items()}

    def blocks(self) -> Iterator[Block]:
        """The images of a scan, some at a time, of which one lot is in memory, by digest: in an order that depends on
        nothing but the images.
        """
        if self.scan is not None:
            yield from self.scan()


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
    essential: ClassVar[bool] = False
    """Without it there is nothing to report, so that its failure is that of the audit."""
    references: ClassVar[tuple[Reference, ...]] = ()
    rules: ClassVar[tuple[FindingRule, ...]] = ()
    """Those by which it speaks; of those with a threshold ``[findings]`` may set another."""
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

    def of_sample(self, cases: Sequence[Case]) -> tuple[Case, ...]:
        """Which images of the sample it is measured on: all of them."""
        return tuple(cases)

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
        or isinstance(request, Fading)
        or (isinstance(request, After) and explains_classes(request.needs))
        or (isinstance(request, Variant) and explains_classes(request.requests))
        for request in needs
    )


def packed(value: Any) -> Tensor:
    """A JSON value as a tensor of bytes, to be stored beside others."""
    import torch

    return torch.frombuffer(bytearray(json.dumps(value, sort_keys=True).encode()), dtype=torch.uint8)


def unpacked(array: Array) -> Any:
    """The value that `packed` put into a tensor."""
    return json.loads(array.tobytes())
