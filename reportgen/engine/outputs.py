"""What a model returns, read as class scores S: before softmax or sigmoid, one column a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

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


def as_matrix(output: object) -> Tensor:
    """The (n, outputs) tensor in what a model returned: a tensor, or the first fitting part of a tuple, dict or
    dataclass.

    Raises:
        PassError: if there is none.
    """
    found = _find(output)
    if found is None:
        raise PassError(
            f"the model returns {type(output).__name__}, in which there are no class scores", "it may be no classifier"
        )
    if found.dim() > 2 and all(side == 1 for side in found.shape[2:]):
        found = found.flatten(1)
    if found.dim() == 1:
        found = found[:, None]
    if found.dim() != 2:
        shape = " × ".join(str(side) for side in found.shape[1:])
        raise PassError(f"the model returns {shape} values an image, not one score a class", "it may be no classifier")
    return found


def _find(output: object) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "out", "scores", "output"):
        part = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(part, Tensor):
            return part
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else ()
    return next((part for part in parts if isinstance(part, Tensor) and part.dim() >= 1), None)


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
