"""Weights and a built module brought together: width of the head, input channels, and what does not fit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from reportgen.errors import ArchitectureError, ModelFileError
from reportgen.subject.contents import State, shape_of
from reportgen.subject.recognition import Shapes, counts, prefixes

REMEDY = "give the right --arch, with --arch-arg where it was built with arguments"


def classes_of(shapes: Shapes, heads: Sequence[str]) -> int | None:
    """Outputs of the last weight in the head, the auxiliary heads left aside."""
    main = [head for head in heads if not head.lower().startswith("aux") and "dist" not in head]
    found = None
    for key, shape in shapes.items():
        if key.startswith(tuple(f"{head}." for head in main)) and key.endswith("weight") and len(shape) in (2, 4):
            found = shape[0]
    return found


def fitting_prefix(module: nn.Module, shapes: Shapes) -> str:
    """The prefix under which the file has most keys of a module; the shortest of several."""
    expected = [key for key in module.state_dict() if counts(key)]
    found = {prefix: sum(prefix + key in shapes for key in expected) for prefix in prefixes(shapes)}
    return max(sorted(found, key=len), key=found.__getitem__)


def stem_channels(module: nn.Module, stem: str, shapes: Shapes) -> int | None:
    """Input channels that the weights were made for, where they are not the architecture's three.

    A stem may fold pixels into channels before its convolution, so it is the ratio that tells.
    """
    usual, found = module.state_dict().get(stem), shapes.get(stem, ())
    if usual is None or len(found) != 4 or found[1] == usual.shape[1]:
        return None
    return max(1, round(3 * found[1] / int(usual.shape[1])))


def refit_head(module: nn.Module, heads: Sequence[str], shapes: Shapes) -> None:
    """Give the module the file's head where that is one linear layer in other wrapping (a bare layer, a sequence with
    dropout).
    """
    for head in heads:
        _rebias(module, head, shapes)
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    for head in heads:
        own = {key: shape for key, shape in shapes.items() if key.startswith(f"{head}.") and counts(key)}
        if not own or all(expected.get(key) == shape for key, shape in own.items()) or not hasattr(module, head):
            continue
        weights = [key for key, shape in own.items() if key.endswith(".weight") and len(shape) == 2]
        others = set(own) - {weights[0], weights[0].removesuffix("weight") + "bias"} if len(weights) == 1 else {"more"}
        linears = [part for part in getattr(module, head).modules() if isinstance(part, nn.Linear)]
        fitting = {linears[0].in_features, linears[-1].in_features} if linears else set()
        if others or own[weights[0]][1] not in fitting:
            continue  # loading then says what does not fit
        outputs, inputs = own[weights[0]]
        bias = weights[0].removesuffix("weight") + "bias" in own
        setattr(module, head, _head_at(weights[0].removesuffix(".weight"), nn.Linear(inputs, outputs, bias=bias)))


def _rebias(module: nn.Module, head: str, shapes: Shapes) -> None:
    """Exchange the classifier for one with a bias, or without, where only that is otherwise in the file."""
    linears = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    name, linear = next(reversed([found for found in linears if f"{found[0]}.".startswith(f"{head}.")]), ("", None))
    if linear is None or shapes.get(f"{name}.weight") != tuple(linear.weight.shape):
        return
    if (f"{name}.bias" in shapes) != (linear.bias is not None):
        parent, _dot, last = name.rpartition(".")
        device = linear.weight.device
        bare = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is None, device=device)
        setattr(module.get_submodule(parent), last, bare)


def _head_at(place: str, linear: nn.Linear) -> nn.Module:
    """The linear layer at its dotted place below the head; maps that reach it are averaged first, as heads do."""
    made: nn.Module = linear
    for part in reversed(place.split(".")[1:]):
        wrapped = nn.Sequential()
        wrapped.add_module(part, made)
        made = wrapped
    made.register_forward_pre_hook(_averaged)
    return made


def _averaged(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (args[0].mean(dim=(2, 3)),) if args[0].dim() == 4 else args


@dataclass(frozen=True)
class Misfit:
    """What of some weights does not fit a module.

    Attributes:
        missing: keys that the weights lack.
        reshaped: (shape in the file, shape in the module) of keys whose shapes differ.
        stray: keys that the module does not have.
    """

    missing: tuple[str, ...]
    reshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    stray: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.reshaped)

    def is_head(self, heads: Sequence[str]) -> bool:
        """Whether it is weights of the head, and nothing else, that are missing."""
        return bool(self.missing) and not self.reshaped and all(key.partition(".")[0] in heads for key in self.missing)

    def words(self) -> str:
        """How many keys, and the first of each kind."""
        told = []
        if self.missing:
            told.append(f"{len(self.missing)} are missing ({_first(self.missing)})")
        if self.reshaped:
            key, (there, wanted) = next(iter(self.reshaped.items()))
            told.append(f"{len(self.reshaped)} are of another shape ({key}: {there}, not {wanted})")
        if self.stray:
            told.append(f"{len(self.stray)} are unknown to it ({_first(self.stray)})")
        return "; ".join(told)

    def check(self, shown: str, name: str, remedy: str) -> None:
        """Raises ArchitectureError if weights are missing or of another shape, naming the first of each."""
        if self:
            raise ArchitectureError(f"the weights in {shown!r} do not fit {name}: {self.words()}", remedy)


def _first(keys: Sequence[str], count: int = 2) -> str:
    return ", ".join(keys[:count]) + (", …" if len(keys) > count else "")


def misfit_of(module: nn.Module, found: Shapes) -> Misfit:
    """How shapes by key differ from those of a module; counters of batches do not count."""
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    return Misfit(
        tuple(key for key in expected if key not in found and counts(key)),
        {key: (found[key], expected[key]) for key in expected if key in found and expected[key] != found[key]},
        tuple(key for key in found if key not in expected),
    )


def fill(
    module: nn.Module,
    state: State,
    shown: str,
    name: str,
    tensor: Callable[[Any], Tensor],
    remedy: Callable[[], str] = lambda: REMEDY,
) -> list[str]:
    """Put the weights into the module. Returns the keys that it does not have.

    Args:
        shown: the file's name for messages.
        name: the architecture's.
        tensor: makes a tensor real.
        remedy: what to advise where they do not fit.

    Raises:
        ArchitectureError: if weights are missing or of another shape, naming the first of each.
        ModelFileError: if they are no real numbers.
    """
    expected = module.state_dict()
    shapes = {key: shape_of(value) for key, value in state.items()}
    misfit = misfit_of(module, shapes)
    if misfit:
        misfit.check(shown, name, remedy())
    real = {key: tensor(value) for key, value in state.items() if key in expected}
    for key, value in real.items():
        if expected[key].is_floating_point() and not value.is_floating_point():  # casting would drop scale or phase
            kind = str(value.dtype).removeprefix("torch.")
            raise ModelFileError(
                f"{shown!r} holds {key} as {kind}, where the network computes with real numbers",
                "save the weights as float32",
            )
    real |= {key: value for key, value in expected.items() if key not in real}
    complete = OrderedDict((key, value.to(expected[key].dtype)) for key, value in real.items())
    # the version marks of the classes at hand: keys and shapes fit these, whatever the file's own marks were
    complete._metadata = expected._metadata  # type: ignore[attr-defined]
    module.load_state_dict(complete, strict=True)
    return list(misfit.stray)
