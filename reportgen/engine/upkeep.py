"""The state of all weights, and which of them one forward reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from reportgen.engine.device import is_out_of_memory
from reportgen.engine.nested import tensors_in
from reportgen.errors import OutOfMemory, PassError


class Broken(TypedDict):
    """A weight or statistic with values that are no numbers: `count` of `of`."""

    name: str
    count: int
    of: int


class Unread(TypedDict):
    """A module, or one parameter, none of whose parameters the forward reads."""

    name: str
    parameters: int


class State(TypedDict):
    """What was found.

    Attributes:
        broken: in the order of registration.
        normalisations: names of the modules that keep running statistics and that the forward reads.
        untouched: those of them whose statistics are as they were made: mean 0 and variance 1 in every channel.
        unread: the outermost modules, in the order of registration.
        parameters: of the whole model, shared ones once.
    """

    broken: list[Broken]
    normalisations: list[str]
    untouched: list[str]
    unread: list[Unread]
    parameters: int


def state_of(module: nn.Module, sample: Tensor) -> State:
    """Look at all weights, and run one forward to see which are read.

    Args:
        module: in evaluation mode; left as it is.
        sample: (n, C, H, W).

    Raises:
        PassError: if the forward fails.
        OutOfMemory: if it did not fit.
    """
    reads = _Reads()
    try:
        with torch.inference_mode(False), torch.no_grad(), reads:
            module(sample.clone())
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory from None
        words = (str(error).strip().splitlines() or [""])[0][:200]
        raise PassError(f"the model failed in its forward: {type(error).__name__}: {words}") from error
    kept = list(_normalisations(module, reads.memory))
    return State(
        broken=list(_broken(module)),
        normalisations=[name for name, _mean, _variance in kept],
        untouched=[name for name, mean, variance in kept if _fresh(mean, variance)],
        unread=list(_unread("", module, reads.memory)),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
    )


class _Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the memory of every tensor that an operation is given: views of a weight share the weight's."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.memory: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        for tensor in tensors_in((args, kwargs or {})):
            self.memory.add(_place(tensor))
        return func(*args, **(kwargs or {}))


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _broken(module: nn.Module) -> Iterator[Broken]:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point():
            count = int((~torch.isfinite(tensor)).sum())
            if count:
                yield Broken(name=name, count=count, of=tensor.numel())


def _normalisations(module: nn.Module, memory: set[int]) -> Iterator[tuple[str, Tensor, Tensor]]:
    for name, part in module.named_modules():
        mean, variance = getattr(part, "running_mean", None), getattr(part, "running_var", None)
        if isinstance(mean, Tensor) and isinstance(variance, Tensor) and _place(mean) in memory:
            yield name, mean, variance


def _fresh(mean: Tensor, variance: Tensor) -> bool:
    return bool((mean == 0).all()) and bool((variance == 1).all())


def _unread(name: str, module: nn.Module, memory: set[int]) -> Iterator[Unread]:
    own = list(module.named_parameters())
    if not own:
        return
    if name and not any(_place(parameter) in memory for _name, parameter in own):
        yield Unread(name=name, parameters=sum(parameter.numel() for _name, parameter in own))
        return
    prefix = f"{name}." if name else ""
    for child, parameter in module.named_parameters(recurse=False):
        if _place(parameter) not in memory:
            yield Unread(name=prefix + child, parameters=parameter.numel())
    for child, part in module.named_children():
        yield from _unread(prefix + child, part, memory)
