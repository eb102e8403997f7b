"""Batch normalisations folded into the convolutions before them: in inference a normalisation is a scale and a shift.

With the scale s = γ / √(σ² + ε), a convolution of weight W and bias b and its normalisation together are one
convolution of weight s·W and bias s·(b − μ) + β. Both are caught as torch functions while the model runs, so that it
does not matter in which modules they stand, and the model is never touched.

Two ways, since rounding is not always harmless: a rectifier whose input is nearly 0 may open or close by it, and in
random networks that moves maps by up to some hundredths of their largest value, about as far as float32 lies from
float64. ``whole`` folds forward and backward: for scores, and for pictures that are sought. ``backward`` leaves every
bit of the forward, so that rectifiers and pools decide as they do in the plain model, and folds what comes back,
which is linear in the weights: for maps, which are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from reportgen.engine.nested import tensors_in
from reportgen.engine.resolution import Fold
from reportgen.engine.stem import StemConvolution, stem_of

Way = Literal["whole", "backward"]

_LOOKING: Final = frozenset({"__get__", "dim", "size", "stride", "numel", "is_contiguous", "is_floating_point"})
"""Functions that look at a tensor and read no value of it."""


@dataclass
class _Result:
    """What one call of a convolution returned.

    Attributes:
        call: names of its weight and bias.
        uses: functions that read it.
        fold: with the batch normalisation among them.
        between: modules that returned it.
    """

    call: tuple[str, str]
    uses: int = 0
    fold: Fold | None = None
    between: dict[str, None] = field(default_factory=dict)


class Successions(TorchFunctionMode):
    """While active, notes which convolutions feed a batch normalisation and nothing else.

    Args:
        module: in evaluation mode.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        named = (*module.named_parameters(), *module.named_buffers())
        self._names = {id(tensor): name for name, tensor in named}
        self._results: list[_Result] = []
        self._alive: MutableMapping[Tensor, _Result] = WeakIdKeyDictionary()
        self._strangers: set[str] = set()
        self._watching = True

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if self._watching and name not in _LOOKING:
            self._use(func, args, named)
        made = func(*args, **named)
        if name == "conv2d":
            self._convolved(_bound(_CONVOLUTION, args, named), made)
        return made

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """What hooks do is no part of the model."""
        before, self._watching = self._watching, False
        try:
            yield
        finally:
            self._watching = before

    def returned(self, module: str, tensor: Tensor) -> None:
        """A module returned a tensor: it may lie between a convolution and its normalisation."""
        if (result := self._alive.get(tensor)) is not None:
            result.between[module] = None

    def folds(self) -> tuple[Fold, ...]:
        """The convolutions found, each once; only such as every call treats alike."""
        calls: dict[str, list[_Result]] = {}
        for result in self._results:
            calls.setdefault(result.call[0], []).append(result)
        found = [fold for results in calls.values() if (fold := _fold(results)) is not None]
        users = Counter(fold.mean for fold in found)
        return tuple(fold for fold in found if users[fold.mean] == 1 and fold.mean not in self._strangers)

    def _use(self, func: Callable[..., Any], args: Sequence[Any], named: Mapping[str, Any]) -> None:
        used = [result for tensor in tensors_in((args, named)) if (result := self._alive.get(tensor)) is not None]
        for result in used:
            result.uses += 1
        if func is functional.batch_norm:
            given = _bound(_NORMALISATION, args, named)
            names = [self._name(given[key]) for key in ("running_mean", "running_var", "weight", "bias")]
            mean, variance, scale, shift = names
            fed = len(used) == 1 and given["input"] in self._alive and not given["training"]
            if fed and mean and variance and scale is not None and shift is not None:
                used[0].fold = Fold(*used[0].call, mean, variance, scale, shift, float(given["eps"]), ())
            elif mean:
                self._strangers.add(mean)

    def _convolved(self, given: Mapping[str, Any], made: Tensor) -> None:
        weight, bias = self._name(given["weight"]), self._name(given["bias"])
        if weight and bias is not None and isinstance(made, Tensor):
            result = _Result((weight, bias))
            self._results.append(result)
            self._alive[made] = result

    def _name(self, tensor: Tensor | None) -> str | None:
        """Of a parameter or buffer; empty for none, None for a tensor that belongs to nobody."""
        return "" if tensor is None else self._names.get(id(tensor))


def _fold(results: Sequence[_Result]) -> Fold | None:
    """What all calls of one convolution have in common, if that can be folded."""
    fold = results[0].fold
    if fold is None or any(one.uses != 1 or one.fold != fold for one in results):
        return None
    return replace(fold, between=tuple(dict.fromkeys(module for one in results for module in one.between)))


_CONVOLUTION: Final = {
    "input": None,
    "weight": None,
    "bias": None,
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "groups": 1,
}
_NORMALISATION: Final = {
    "input": None,
    "running_mean": None,
    "running_var": None,
    "weight": None,
    "bias": None,
    "training": False,
    "momentum": 0.1,
    "eps": 1e-5,
}


def _bound(signature: Mapping[str, Any], args: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name, those not given as the signature has them."""
    return {
        **signature,
        **dict(zip(signature, args, strict=False)),
        **{k: v for k, v in named.items() if k in signature},
    }


class _Normalised(torch.autograd.Function):
    """A batch normalisation in the forward; in the backward its scale, or nothing where a convolution has that.

    In place, where that gives the same bits: nothing but the normalisation reads what a folded convolution returned.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, function: Callable[..., Tensor], given: Mapping[str, Any], scale: Tensor | None, in_place: bool
    ) -> Tensor:
        if not in_place:
            return function(x, **given)
        statistics = {key: given[key] for key in ("weight", "bias", "running_mean", "running_var", "momentum", "eps")}
        unused = x.new_empty(0), x.new_empty(0)
        torch.ops.aten.native_batch_norm.out(
            x, **statistics, training=False, out=x, save_mean=unused[0], save_invstd=unused[1]
        )
        return x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.scale = inputs[3]
        if inputs[4]:
            ctx.mark_dirty(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        found = gradients[0] if ctx.scale is None else gradients[0] * ctx.scale
        return found, None, None, None, None


class Folding:
    """The folded weights of a model, made when they are first wanted.

    Args:
        module: in evaluation mode; it is read and never changed.
        folds: what may be folded, as `Successions` found.
    """

    def __init__(self, module: nn.Module, folds: Sequence[Fold]) -> None:
        self._module = module
        self._folds = folds
        self._made: dict[tuple[Way, str], tuple[Tensor, Tensor]] = {}

    def folded(self, way: Way, taps: Collection[str] = ()) -> Folded:
        """What to run the model under.

        Args:
            way: see the module.
            taps: modules whose outputs are read: what one of them returns is not folded away.
        """
        chosen = [fold for fold in self._folds if not set(fold.between) & set(taps)]
        weights = {id(_tensor(self._module, fold.weight)): self._weights(fold, way) for fold in chosen}
        return Folded(way, weights, {id(_tensor(self._module, fold.mean)) for fold in chosen})

    def _weights(self, fold: Fold, way: Way) -> tuple[Tensor, Tensor]:
        if (way, fold.weight) not in self._made:
            weight, bias = _folded_weights(self._module, fold)
            if way == "whole":  # ascents hand in pictures in this layout
                weight = weight.contiguous(memory_format=torch.channels_last)
            self._made[way, fold.weight] = weight, bias
        return self._made[way, fold.weight]


def _folded_weights(module: nn.Module, fold: Fold) -> tuple[Tensor, Tensor]:
    """s·W and s·(b − μ) + β; all but the first product, which is of many, in float64."""
    own = _tensor(module, fold.weight)
    names = (fold.bias, fold.mean, fold.variance, fold.scale, fold.shift)
    bias, mean, variance, scale, shift = (_tensor(module, name).detach().double() if name else None for name in names)
    assert mean is not None
    assert variance is not None
    factor = (variance + fold.epsilon).rsqrt() * (1 if scale is None else scale)
    moved = factor * ((0 if bias is None else bias) - mean) + (0 if shift is None else shift)
    return own.detach() * factor[:, None, None, None].to(own.dtype), moved.to(own.dtype)


def _tensor(module: nn.Module, name: str) -> Tensor:
    owner, _dot, last = name.rpartition(".")
    tensor = getattr(module.get_submodule(owner), last)
    assert isinstance(tensor, Tensor)
    return tensor


class Folded(TorchFunctionMode):
    """While active, convolutions do the work of their normalisations, too, and go back by a way of ours.

    Args:
        way: see the module.
        weights: folded weight and bias by the identity of the plain weight.
        means: identities of the running means of the normalisations that have nothing left to do.
    """

    def __init__(self, way: Way, weights: Mapping[int, tuple[Tensor, Tensor]], means: Collection[int]) -> None:
        super().__init__()
        self._way = way
        self._weights = weights
        self._means = means

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if getattr(func, "__name__", "") == "conv2d" and named.keys() <= _CONVOLUTION.keys():
            return self._convolve(func, _bound(_CONVOLUTION, args, named))
        if func is functional.batch_norm:
            return self._normalise(func, _bound(_NORMALISATION, args, named))
        return func(*args, **named)

    def _convolve(self, func: Callable[..., Tensor], given: dict[str, Any]) -> Tensor:
        x, plain = given.pop("input"), given["weight"]
        weight, bias = self._weights.get(id(plain), (plain, given["bias"]))
        if self._way == "whole":
            given.update(weight=weight, bias=bias)
        stem = stem_of(x, given)
        if stem is not None:
            convolved: Tensor = StemConvolution.apply(x, lambda x: func(x, **given), weight, stem)
            return convolved
        if given["weight"] is weight:
            return func(x, **given)

        def kept(tensor: Tensor) -> Tensor:
            return weight if tensor.data_ptr() == plain.data_ptr() and tensor.shape == plain.shape else tensor

        # what the backward reads as the weight is the folded one
        with saved_tensors_hooks(kept, lambda tensor: tensor):
            return func(x, **given)

    def _normalise(self, func: Callable[..., Tensor], given: dict[str, Any]) -> Tensor:
        x, mean = given.pop("input"), given["running_mean"]
        folded = id(mean) in self._means
        if folded and self._way == "whole":
            assert isinstance(x, Tensor)
            return x
        alone = self._way == "backward" and x.requires_grad and not given["training"] and mean is not None
        if not folded and not (alone and x.dtype == mean.dtype):
            return func(x, **given)
        in_place = folded and x.device.type == "cpu" and x.dtype == torch.float32 and not x.is_leaf and not x._is_view()
        normalised: Tensor = _Normalised.apply(x, func, given, None if folded else _scale(given, x.dim()), in_place)
        return normalised


def _scale(given: Mapping[str, Any], dims: int) -> Tensor:
    """(C, 1, …) by which a batch normalisation multiplies its input."""
    spread: Tensor = given["running_var"] + given["eps"]
    scale: Tensor = spread.rsqrt() if given["weight"] is None else spread.rsqrt() * given["weight"]
    return scale.reshape(-1, *(1,) * (dims - 2))
