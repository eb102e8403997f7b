"""Backward rules of rectifiers: where a gradient does its own, deconvnet and guided backpropagation do something else.

With g the incoming gradient and x the rectifier's input: ``gradient`` g·1[x>0] (Simonyan et al. 2014), ``deconvnet``
ReLU(g) (Zeiler and Fergus 2014), ``guided`` g·1[x>0]·1[g>0] (Springenberg et al. 2015). Rectifiers are caught as torch
functions during the forward, so that it does not matter how they are called: module, function, method, in place, one
module used twice.

The papers define the rules for rectifiers. Activations of other shape (SiLU, GELU, Hardswish, …) get an extension that
is ours: both rules let through the positive part of the activation's own derivative, ReLU(g·f'(x)). Sigmoid and tanh,
which serve as gates, keep their derivative. What cannot be caught (scripted code) is found in the graph and told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from reportgen.engine.requests import Rule

EXTENDED = (
    "silu",
    "gelu",
    "hardswish",
    "mish",
    "elu",
    "selu",
    "celu",
    "leaky_relu",
    "prelu",
    "rrelu",
    "softplus",
)
"""Activations that are no rectifiers and get the extension."""


@dataclass
class CurrentRule:
    """Which rule the rectifiers of one forward follow in the backward that runs; one forward serves all three."""

    name: Rule = "gradient"

    @contextmanager
    def set(self, name: Rule) -> Any:
        """Follow `name` inside, the gradient outside."""
        self.name = name
        try:
            yield
        finally:
            self.name = "gradient"


@dataclass(frozen=True)
class Followed:
    """How the activations of one forward follow the rules.

    Attributes:
        rectifiers: calls of rectifiers: the rules as published.
        extended: calls of other activations: the extension.
        escaped: calls that could not be caught: under every rule they keep their own derivative.
    """

    rectifiers: int
    extended: int
    escaped: int


class _Rectify(torch.autograd.Function):
    """min(max(x, 0), cap), whose backward asks for the rule when it runs. In place where `in_place`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cap: float | None, current: CurrentRule, in_place: bool) -> Tensor:
        y = x.clamp_(min=0, max=cap) if in_place else x.clamp(min=0, max=cap)
        if in_place:
            ctx.mark_dirty(y)
        ctx.cap, ctx.current = cap, current
        ctx.save_for_backward(y)  # as a rectifier of torch does: what passed is where it is neither 0 nor the cap
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,), (y,), cap = gradients, ctx.saved_tensors, ctx.cap
        rule: Rule = ctx.current.name
        if rule == "deconvnet":
            return gradient.clamp(min=0), None, None, None
        if cap is None:
            passed = torch.ops.aten.threshold_backward(gradient, y, 0)
        else:
            passed = torch.ops.aten.hardtanh_backward(gradient, y, 0, cap)
        return passed.clamp_(min=0) if rule == "guided" else passed, None, None, None


class _PositivePart(torch.autograd.Function):
    """x itself, standing before another activation: what comes back from that passes with its positive part only."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, current: CurrentRule, copied: bool) -> Tensor:
        return x.clone() if copied else x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, CurrentRule, bool], output: Tensor) -> None:
        ctx.current = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        return gradient if ctx.current.name == "gradient" else gradient.clamp(min=0), None, None


class Rectifiers(TorchFunctionMode):
    """While active, every activation follows `current` in later backwards.

    Attributes:
        rectifiers: how many calls were rectifiers.
        extended: how many calls were other activations.
    """

    def __init__(self, current: CurrentRule) -> None:
        super().__init__()
        self.current = current
        self.rectifiers = 0
        self.extended = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name.rstrip("_") in EXTENDED:
            return self._extend(func, name, args, named)
        found = rectified(name, args, named)
        if found is None:
            return func(*args, **named)
        x, cap, in_place = found
        self.rectifiers += 1
        # the result of an operation in place stands where its input stood: whoever holds that tensor sees it changed
        if in_place and (x.is_leaf or x._is_view()):  # autograd lets neither be changed by such a function
            return x.copy_(_Rectify.apply(x.clone(), cap, self.current, False))
        y: Tensor = _Rectify.apply(x, cap, self.current, in_place)
        return y

    def _extend(self, func: Callable[..., Any], name: str, args: Sequence[Any], named: dict[str, Any]) -> Any:
        x = args[0] if args else named.pop("input", None)
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return func(*args, **named)
        self.extended += 1
        in_place = name.endswith("_") or bool(named.get("inplace"))
        # a view must not be changed in place, a copy may
        y = func(_PositivePart.apply(x.clone() if in_place else x, self.current, in_place), *args[1:], **named)
        return x.copy_(y) if in_place else y


def followed(mode: Rectifiers, ends: Iterable[Tensor]) -> Followed:
    """How the activations of a finished forward follow the rules: what `mode` caught, and what the graph behind `ends`
    shows to have escaped it.
    """
    waiting = [end.grad_fn for end in ends if end.grad_fn is not None]
    seen = set(waiting)
    escaped = 0
    while waiting:
        node = waiting.pop()
        before = [part for part, _index in node.next_functions if part is not None]
        escaped += _escaped(node, before)
        fresh = [part for part in before if part not in seen]
        seen.update(fresh)
        waiting += fresh
    return Followed(mode.rectifiers, mode.extended, escaped)


def _escaped(node: Any, before: Sequence[Any]) -> bool:
    """Whether a node of the graph is an activation that kept its own derivative."""
    name = str(node.name()).removesuffix("Backward0").removesuffix("Backward1").removesuffix("Backward")
    if "DifferentiableGraph" in name:  # scripted code that was fused: what is in it cannot be told
        return True
    if name in ("Hardtanh", "Clamp", "ClampMin"):
        return bool(getattr(node, "_saved_min_val", getattr(node, "_saved_min", None)) == 0)
    words = {word.replace("_", "") for word in EXTENDED}
    if name.lower().removesuffix("kernel") in words:
        return all("PositivePart" not in str(part.name()) for part in before)
    return name == "Relu"


def rectified(name: str, args: Sequence[Any], named: Mapping[str, Any]) -> tuple[Tensor, float | None, bool] | None:
    """(input, cap or None, in place) of a call if it rectifies: max(x, 0), possibly capped; else None."""
    given = list(args) + [named[key] for key in ("input", "min", "max", "min_val", "max_val", "other") if key in named]
    x = given[0] if given else None
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return None
    in_place = bool(named.get("inplace")) or (name.endswith("_") and name != "__")
    plain = name.rstrip("_")
    if plain in ("relu", "relu6"):
        inplace = in_place or (len(args) > 1 and args[1] is True)
        return x, (6.0 if plain == "relu6" else None), inplace
    if plain == "hardtanh":
        low = named.get("min_val", args[1] if len(args) > 1 else -1.0)
        high = named.get("max_val", args[2] if len(args) > 2 else 1.0)
        return (x, float(high), in_place or (len(args) > 3 and args[3] is True)) if low == 0 else None
    if plain in ("clamp", "clip", "clamp_min"):
        low = named.get("min", args[1] if len(args) > 1 else None)
        high = named.get("max", args[2] if len(args) > 2 else None)
        capped = None if high is None else float(high) if isinstance(high, int | float) else -1.0
        return (x, capped, in_place) if isinstance(low, int | float) and low == 0 and capped != -1.0 else None
    if plain == "threshold":
        limit, below = (
            named.get(key, args[k] if len(args) > k else None) for k, key in ((1, "threshold"), (2, "value"))
        )
        in_place = in_place or (len(args) > 3 and args[3] is True)
        return (x, None, in_place) if limit == 0 and below == 0 else None
    if plain in ("maximum", "max") and len(given) > 1 and isinstance(given[1], Tensor):
        one, zero = (x, given[1]) if _is_zero(given[1]) else (given[1], x)
        return (one, None, False) if _is_zero(zero) and (one + zero).shape == one.shape else None
    return None


def _is_zero(value: Tensor) -> bool:
    """A constant that is 0 everywhere."""
    return not value.requires_grad and not bool(value.any())
