"""What was resolved about a subject before its first pass: facts that, once stored, let a warm run do without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import TypeAdapter

from reportgen.errors import LayerError

Layout = Literal["channels-first", "channels-last", "tokens", "none"]


@dataclass(frozen=True)
class Layer:
    """One module of the model, as one forward of one input showed it.

    Attributes:
        name: dotted name.
        type: class name.
        order: in which position its call ended; -1 if it was never called.
        output: shape of its output without the batch, empty where that is no tensor.
        layout: how the output is read as maps.
        shape: (channels, h, w) of the output read as maps, empty where it cannot be.
        prefix: tokens set aside before the maps (class token, registers).
        parameters: parameters of the module and all it holds.
        kernel: shape (c_out, c_in, kh, kw) of its own weight, empty where it is no two-dimensional convolution.
        leaf: it holds no other module.
        calls: how often one forward calls it; taps hold its last call.
        explains: a class score depends on its maps (it does not on the patch tokens of a transformer's last block).
    """

    name: str
    type: str
    order: int
    output: tuple[int, ...]
    layout: Layout
    shape: tuple[int, ...]
    prefix: int
    parameters: int
    kernel: tuple[int, ...]
    leaf: bool
    calls: int
    explains: bool = True

    @property
    def depth(self) -> int:
        """How many modules stand around it, itself counted."""
        return self.name.count(".") + 1

    @property
    def resolution(self) -> tuple[int, ...]:
        """(h, w) of its maps."""
        return self.shape[1:]


@dataclass(frozen=True)
class PooledHead:
    """Global average pooling and one linear layer follow `layer`: class activation mapping (Zhou et al. 2016) applies.

    Attributes:
        layer: whose maps are pooled.
        linear: the module that weighs the means.
        scale: by which its output is multiplied: 1, or what calibration made of it (the inverse of a temperature).
    """

    layer: str
    linear: str
    scale: float = 1.0


@dataclass(frozen=True)
class Attention:
    """All tokens of a transformer attend to all others, block after block: attention rollout applies.

    Attributes:
        calls: how often attention is computed.
        tokens: how many there are.
        prefix: those of them before the patches (class token, distillation token, registers).
        grid: (h, w) of the patches.
        read: numbers of the tokens, after the last block, that the class scores depend on.
        pooled: the last call is that of a query of its own, which gathers the tokens.
    """

    calls: int
    tokens: int
    prefix: int
    grid: tuple[int, int]
    read: tuple[int, ...]
    pooled: bool = False


@dataclass(frozen=True)
class Fold:
    """A convolution whose output goes into one batch normalisation and nowhere else.

    Attributes:
        weight, bias: dotted names of the convolution's own; the bias empty where it has none.
        mean, variance, scale, shift: of the normalisation's; the last two empty where it has none.
        epsilon: added to the variance.
        between: modules that return what lies between the two.
    """

    weight: str
    bias: str
    mean: str
    variance: str
    scale: str
    shift: str
    epsilon: float
    between: tuple[str, ...]


@dataclass(frozen=True)
class Resolution:
    """Everything about model and passes that is settled before images are looked at.

    Attributes:
        model: facts of the file (see `reportgen.subject.model_facts.ModelFacts`), as JSON.
        pipeline: the preprocessing (see `reportgen.subject.preprocessing.Pipeline`), as JSON.
        labels: class names, or empty where none are known.
        classes: number of classes; a single logit makes two.
        outputs: width of the model's output; 1 for a single logit.
        output_kind: what the model returns; never ``auto``.
        parameters: of the whole model.
        layers: modules in the order in which they are registered.
        defaults: names of the default layers, shallow to deep.
        blocks: names of all blocks.
        head: where class activation mapping applies, else None.
        numerics: device kind, precision, batch shape and library versions: part of every key.
        seconds: what one forward of one image took when the layers were looked for: for estimates only.
        tappable: forward hooks work on this model.
        folds: batch normalisations that convolutions can take over.
        random: it draws random numbers when it answers.
        attention: where attention rollout applies, else None.
        attends: attention of some kind was seen.
    """

    model: Mapping[str, Any]
    pipeline: Mapping[str, Any]
    labels: tuple[str, ...]
    classes: int
    outputs: int
    output_kind: str
    parameters: int
    layers: tuple[Layer, ...]
    defaults: tuple[str, ...]
    blocks: tuple[str, ...]
    head: PooledHead | None
    numerics: Mapping[str, Any]
    seconds: float = 0.0
    tappable: bool = True
    folds: tuple[Fold, ...] = ()
    random: bool = False
    attention: Attention | None = None
    attends: bool = False

    @property
    def independent(self) -> bool:
        """Whether class probabilities are independent of one another (sigmoid), not a distribution (softmax)."""
        return self.output_kind in ("sigmoid", "multilabel") or self.outputs == 1

    @property
    def several(self) -> bool:
        """Whether an image may show several classes, or none."""
        return self.independent and self.outputs > 1

    def layer(self, name: str) -> Layer:
        """The layer of that name. Raises LayerError."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise LayerError(f"the model has no layer {name!r}", "reportgen inspect MODEL lists its layers")

    def select(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the layers that `wanted` means, shallow to deep.

        `wanted` holds names, patterns with ``*``, ``default``, ``blocks``, and of the default layers ``last:N`` and
        ``spread:N`` (evenly, the deepest among them).

        Raises:
            LayerError: if a name means no layer whose output can be read as maps.
        """
        chosen: set[str] = set()
        for word in wanted:
            if word == "default":
                chosen.update(self.defaults)
            elif word == "blocks":
                chosen.update((*self.blocks, *self.defaults))
            elif word.startswith("last:") and word[5:].isdigit():
                chosen.update(self.defaults[max(len(self.defaults) - int(word[5:]), 0) :])
            elif word.startswith("spread:") and word[7:].isdigit():
                n, count = len(self.defaults), int(word[7:])
                chosen.update(self.defaults[-(-(place + 1) * n // count) - 1] for place in range(count) if n)
            else:
                chosen.update(self._named(word))
        return tuple(layer.name for layer in sorted(self.layers, key=lambda one: one.order) if layer.name in chosen)

    def _named(self, word: str) -> list[str]:
        found = [layer for layer in self.layers if layer.name == word or fnmatchcase(layer.name, word)]
        if not found:
            self.layer(word)
        mapped = [layer.name for layer in found if layer.shape]
        if not mapped:
            raise LayerError(
                f"the output of layer {word!r} cannot be read as maps", "choose a layer before the pooling"
            )
        return mapped

    def convolution(self, name: str, *, spatial: bool = False) -> str | None:
        """The last convolution inside layer `name` (itself included), or that a normalisation or activation follows.

        Args:
            spatial: of those inside only such with kernels larger than one pixel.

        Returns:
            Its name, or None where there is none.
        """
        inside = [one for one in self.layers if one.kernel and (one.name == name or one.name.startswith(name + "."))]
        if spatial:
            return next((one.name for one in reversed(inside) if max(one.kernel[2:]) > 1), None)
        called = [one for one in inside if one.shape]
        # squeeze-and-excitation convolves single positions beside the branch that it scales
        last = [one for one in called if max(one.resolution) > 1] or called
        return last[-1].name if last else self._followed(self.layer(name))

    def _followed(self, layer: Layer) -> str | None:
        """The convolution before `layer` of the same shape, if there are but normalisations and activations between."""
        before = [one for one in self.layers if one.kernel and 0 <= one.order < layer.order]
        nearest = max(before, key=lambda one: one.order, default=None)
        if nearest is None or nearest.shape != layer.shape:
            return None
        # a normalisation has a scale and a shift for each channel, and nothing that weighs channels has so little
        few = 2 * layer.shape[0]
        between = (one for one in self.layers if nearest.order < one.order <= layer.order)
        weighing = (one for one in between if one.parameters > few and not nearest.name.startswith(one.name + "."))
        return None if any(weighing) else nearest.name

    def label(self, index: int) -> str:
        """Name of a class; its number where it has no name."""
        return self.labels[index] if index < len(self.labels) else f"class {index}"

    def to_json(self) -> dict[str, Any]:
        """For the store."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Resolution:
        """From the store. Raises pydantic.ValidationError if it is of another shape."""
        return TypeAdapter(cls).validate_python(value)


def choose_channels(wanted: str, count: int) -> tuple[int, ...]:
    """Channel numbers that ``even:N``, ``all`` or ``0,10,20`` means, of `count` channels.

    ``even:16`` of 256 is 0, 16, …, 240. ``top:N`` depends on the image and is not decided here.

    Raises:
        LayerError: if a number is no channel, or the words are none of these.
    """
    kind, _, number = wanted.partition(":")
    if wanted == "all":
        return tuple(range(count))
    if kind == "even" and number.isdigit() and int(number) > 0:
        n = min(int(number), count)
        return tuple(i * count // n for i in range(n))
    try:
        channels = tuple(int(part) for part in wanted.split(","))
    except ValueError:
        raise LayerError(
            f"channels {wanted!r} are not of a known form", "use even:16, top:16, all or 0,10,20"
        ) from None
    for channel in channels:
        if not 0 <= channel < count:
            raise LayerError(f"there is no channel {channel} among {count}", f"channels are 0 to {count - 1}")
    return channels
