"""What a model returns, read as class scores S: before softmax or sigmoid, one column a class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from reportgen.engine.nested import SCORES, tensors_in
from reportgen.errors import PassError

_KINDS = {"softmax": "softmax", "log_softmax": "log-softmax", "sigmoid": "sigmoid", "logsigmoid": "sigmoid"}


class FinalNonlinearity(TorchFunctionMode):
    """While active, remembers the input of the last softmax, log-softmax or sigmoid, however it was called."""

    def __init__(self) -> None:
        super().__init__()
        self._last: tuple[str, Tensor, Tensor] | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        kind = _KINDS.get(name.rstrip("_"))
        before = args[0] if kind and args and isinstance(args[0], Tensor) else None
        if before is not None and name.endswith("_"):
            before = before.clone()
        result = func(*args, **(kwargs or {}))
        if kind and before is not None and isinstance(result, Tensor):
            self._last = (kind, before, result)
        return result

    def behind(self, output: Tensor) -> tuple[str, Tensor] | None:
        """Kind and input of the nonlinearity that made `output`, or None if none did."""
        if self._last is None:
            return None
        kind, before, result = self._last
        same = result is output or (result.numel() == output.numel() and result.data_ptr() == output.data_ptr())
        return (kind, before.reshape(output.shape)) if same else None


def as_matrix(output: object, rows: int) -> Tensor:
    """The (rows, outputs) tensor in what a model returned: a tensor, or the first fitting part of nested tuples,
    mappings, dataclasses or objects, those first that are called as class scores usually are.

    Args:
        output: of the model.
        rows: images that it was given.

    Raises:
        PassError: if there is none.
    """
    candidates = [tensor for tensor in (*_named(output), *tensors_in(output)) if tensor.is_floating_point()]
    for tensor in candidates:
        read = _matrix(tensor)
        if read is not None and len(read) == rows:
            return read
    if not candidates:
        what = f"the model returns {type(output).__name__}, in which there are no class scores"
    elif candidates[0].dim() and len(candidates[0]) != rows:
        what = f"the model returns {len(candidates[0])} rows for {rows} images"
    else:
        shape = " × ".join(str(side) for side in candidates[0].shape[1:]) or "one"
        what = f"the model returns {shape} values an image, not one score a class"
    raise PassError(what, "give a classifier, or a module around this one that returns one score a class (--arch)")


def _matrix(tensor: Tensor) -> Tensor | None:
    """(n, outputs) of (n,), (n, outputs) or (n, outputs, 1, …); None of any other shape."""
    if tensor.dim() == 1:
        return tensor[:, None]
    if tensor.dim() > 2 and all(side == 1 for side in tensor.shape[2:]):
        return tensor.flatten(1)
    return tensor if tensor.dim() == 2 else None


def _named(output: object) -> Iterator[Tensor]:
    for name in SCORES:
        part = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(part, Tensor):
            yield part


def detect_kind(output: Tensor, nonlinearity: FinalNonlinearity) -> str:
    """What an (n, outputs) tensor holds: ``logits``, ``softmax``, ``log-softmax`` or ``sigmoid``."""
    behind = nonlinearity.behind(output)
    if behind is not None:
        return behind[0]
    return "softmax" if are_probabilities(output) else "logits"


def are_probabilities(values: Tensor) -> bool:
    """Whether each row of an (n, outputs) tensor is a distribution: none below 0, and together 1."""
    return values.shape[1] > 1 and bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() < 1e-4).all())


def scores_of(output: Tensor, kind: str, nonlinearity: FinalNonlinearity | None) -> Tensor:
    """Class scores S (n, classes) of an (n, outputs) tensor of `kind`; a single logit s becomes the columns −s and s.

    Where the nonlinearity cannot be seen (scripted code), S is recovered from its result: log p, or log p/(1−p).
    """
    behind = nonlinearity.behind(output) if nonlinearity is not None else None
    if behind is not None:
        scores = behind[1]
    elif kind == "softmax":
        scores = output.clamp_min(torch.finfo(output.dtype).tiny).log()
    elif kind == "sigmoid":
        scores = torch.logit(output, eps=1e-7)
    else:
        scores = output
    return torch.cat((-scores, scores), dim=1) if scores.shape[1] == 1 else scores


def probabilities_of(scores: Tensor, sigmoid: bool) -> Tensor:
    """(…, classes) in [0, 1]."""
    return scores.sigmoid() if sigmoid else scores.softmax(dim=-1)


def entropy_of(scores: Tensor, sigmoid: bool) -> Tensor:
    """(n,) entropy in nats; mean binary entropy where classes are independent."""
    if sigmoid:
        p = scores.sigmoid()
        return -(p * functional.logsigmoid(scores) + (1 - p) * functional.logsigmoid(-scores)).mean(dim=1)
    return -(scores.softmax(dim=1) * scores.log_softmax(dim=1)).sum(dim=1)
