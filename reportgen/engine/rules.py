"""Backward rules of rectifiers: where a gradient does its own, deconvnet and guided backpropagation do something else.

With g the incoming gradient and x the rectifier's input: ``gradient`` g·1[x>0] (Simonyan et al. 2014), ``deconvnet``
ReLU(g) (Zeiler and Fergus 2014), ``guided`` g·1[x>0]·1[g>0] (Springenberg et al. 2015). Rectifiers are caught as torch
functions during the forward, so that it does not matter how they are called: module, function, method, in place, one
module used twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from reportgen.engine.requests import Rule


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


class _Rectify(torch.autograd.Function):
    """min(max(x, 0), cap), whose backward asks for the rule when it runs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cap: float | None, current: CurrentRule) -> Tensor:
        y = x.clamp(min=0, max=cap)
        ctx.save_for_backward((x > 0) if cap is None else (x > 0) & (x < cap))
        ctx.current = current
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        (passing,) = ctx.saved_tensors
        rule: Rule = ctx.current.name
        if rule == "deconvnet":
            return gradient.clamp(min=0), None, None
        if rule == "guided":
            return gradient.clamp(min=0) * passing, None, None
        return gradient * passing, None, None


class Rectifiers(TorchFunctionMode):
    """While active, every rectifier follows `current` in later backwards.

    Attributes:
        caught: how many calls were rectifiers.
    """

    def __init__(self, current: CurrentRule) -> None:
        super().__init__()
        self.current = current
        self.caught = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        found = rectified(getattr(func, "__name__", ""), args, named)
        if found is None:
            return func(*args, **named)
        x, cap, in_place = found
        self.caught += 1
        # the result of an operation in place stands where its input stood: whoever holds that tensor sees it changed
        source = x.clone() if in_place else x
        y: Tensor = _Rectify.apply(source, cap, self.current)
        return x.copy_(y) if in_place else y


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
    if plain in ("maximum", "max") and len(given) > 1 and isinstance(given[1], Tensor):
        other = given[1]
        return (x, None, False) if other.numel() == 1 and not other.requires_grad and float(other) == 0 else None
    return None
