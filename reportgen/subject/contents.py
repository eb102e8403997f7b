"""What lies in a model file before anything is made real: weights, and what the file says of itself."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from reportgen.errors import ModelFileError
from reportgen.subject.containers import MOST_TENSORS, Container
from reportgen.subject.modules import is_module, state_of
from reportgen.subject.safe_pickle import MOST_LETTERS, Inert, TensorSpec
from reportgen.subject.sharded import open_weights
from reportgen.text import line

State = Mapping[str, Any]
"""Names to tensors, or to descriptions of tensors."""

EMA = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "ema")
RAW = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "model_state",
    "classifier",
)
_MOST_JSON = 2**16
_MOST_LABELS = 100_000
_MOST_LABEL = 200
_ARCHITECTURE = re.compile(r"[\w.:/-]{1,100}", re.ASCII)
_PARALLEL = ("torch.nn.parallel.data_parallel.DataParallel", "torch.nn.parallel.distributed.DistributedDataParallel")
# the weights tell the first; the others could open another file
_NOT_TAKEN = frozenset(
    (
        "num_classes",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "pretrained_strict",
        "checkpoint_path",
        "cache_dir",
    )
)
NAMED = ("architecture", "arch", "model_name", "model_arch", "model_type")


@dataclass(frozen=True)
class Contents:
    """What lies in a file, before anything is made real.

    Attributes:
        format: as in `ModelFacts`.
        container: the opened file.
        state: names to tensors or descriptions.
        module: stand-in of a pickled module, if it is one.
        weights: ``raw`` or ``ema``.
        own: what the file says of itself: architecture, class names, ``pretrained_cfg``.
    """

    format: str
    container: Container
    state: State
    module: Inert | None
    weights: str
    own: Mapping[str, Any]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names to shapes."""
        return {key: shape_of(value) for key, value in self.state.items()}


def shape_of(value: Any) -> tuple[int, ...]:
    return tuple(value.size) if isinstance(value, TensorSpec) else tuple(value.shape)


def read_contents(path: Path, shown: str, weights: str | None = None) -> Contents:
    """What a weights file holds, without running anything in it.

    Args:
        weights: ``raw`` or ``ema``; None takes the moving average where there is one.

    Raises:
        ModelFileError: if it cannot be read, or there are no weights in it.
        UnsafeModelError: if opening it could run code.
    """
    contents = _found(open_weights(path, shown), shown, weights)
    if len(contents.state) > MOST_TENSORS:
        raise ModelFileError(f"{shown!r} holds {len(contents.state)} tensors", "it is no image classifier")
    if any(len(key) > MOST_LETTERS or line(key, MOST_LETTERS) != key for key in contents.state):
        raise ModelFileError(f"{shown!r} is damaged: names of its weights are no words", "get the file again")
    contents.container.check(contents.state.values())
    return contents


def _found(container: Container, shown: str, weights: str | None) -> Contents:
    root = _bare(container.root)
    if container.kind == "safetensors":
        return Contents("safetensors", container, root, None, "raw", own_words(container.metadata))
    if is_module(root):
        return Contents("module", container, state_of(root), root, "raw", {})
    if isinstance(root, Inert) and isinstance(root.state, dict):
        root = root.state
    if not isinstance(root, dict):
        raise ModelFileError(
            f"there are no weights in {shown!r}: it holds a {_kind(root)}", "give a state dict or a checkpoint"
        )
    if is_state(root):
        return Contents("state-dict", container, tensors_of(root), None, "raw", {})
    found = _weights_in(root)
    order = ("ema", "raw") if weights is None else (weights,)
    for which in order:
        if which in found:
            value = _bare(found[which])
            inert = value if is_module(value) else None
            state = state_of(value) if inert is not None else tensors_of(value)
            return Contents("checkpoint", container, state, inert, which, own_words(root))
    if found:
        raise ModelFileError(
            f"{shown!r} holds no {weights} weights", f"leave out --weights: it holds {', '.join(found)}"
        )
    keys = ", ".join(str(key) for key in list(root)[:6])
    raise ModelFileError(
        f"there are no weights in {shown!r}: it holds {keys or 'nothing'}", "give a state dict or a checkpoint"
    )


def _bare(value: Any) -> Any:
    """The module itself where it was saved in the wrapper that spreads it over several devices."""
    if is_module(value) and value.path in _PARALLEL and isinstance(value.state["_modules"], dict):
        inner = value.state["_modules"].get("module")
        return inner if is_module(inner) else value
    return value


def _kind(value: Any) -> str:
    if isinstance(value, Inert):
        return value.path
    return "tensor" if isinstance(value, TensorSpec) else type(value).__name__


def is_state(value: Any) -> bool:
    """A mapping that is mostly tensors under words."""
    if not isinstance(value, dict) or not value:
        return False
    tensors = sum(isinstance(one, TensorSpec | Tensor) and isinstance(key, str) for key, one in value.items())
    return tensors >= 2 and tensors >= 0.5 * len(value)


def tensors_of(value: Mapping[Any, Any]) -> State:
    return OrderedDict((k, v) for k, v in value.items() if isinstance(k, str) and isinstance(v, TensorSpec | Tensor))


def _weights_in(root: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
    """The mappings or modules of weights in a checkpoint: under ``ema`` and ``raw``."""
    found: dict[str, Any] = {}
    for which, names in (("ema", EMA), ("raw", RAW)):
        for name in names:
            value = root.get(name)
            if value is None:
                continue
            if is_module(value) or is_state(value):
                found.setdefault(which, value)
            elif isinstance(value, dict) and depth < 2:
                inner = _weights_in(value, depth + 1)
                if inner:
                    found.setdefault(which, inner.get("raw", inner.get("ema")))
                elif is_state(value.get("module")):
                    found.setdefault(which, value["module"])
    return found


def own_words(root: Mapping[Any, Any]) -> dict[str, Any]:
    """What a checkpoint says of itself, plain values only."""
    own: dict[str, Any] = {}
    arguments = root.get("args")
    told = [root]
    if isinstance(arguments, Inert) and isinstance(arguments.state, dict):
        told.append(arguments.state)
    elif isinstance(arguments, dict):
        told.append(arguments)
    for table in told:
        for name in NAMED:
            _note(own, table.get(name))
    _note(own, told[-1].get("model"))
    cfg = root.get("pretrained_cfg")
    if isinstance(cfg, str):
        try:
            cfg = json.loads(cfg) if len(cfg) <= _MOST_JSON else None
        except (ValueError, RecursionError):
            cfg = None
    if isinstance(cfg, dict):
        own["pretrained_cfg"] = cfg
    arguments = root.get("model_args")  # of timm
    if isinstance(arguments, dict):
        own["model_args"] = {k: v for k, v in arguments.items() if k not in _NOT_TAKEN and _is_plain(v)}
    for name in ("classes", "class_names", "labels", "idx_to_class", "class_to_idx"):
        labels = _labels(name, root.get(name))
        if labels:
            own.setdefault("labels", labels)
    return own


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= _MOST_LABELS and all(_is_plain(one) for one in value)
    return value is None or isinstance(value, bool | int | float | str)


def _note(own: dict[str, Any], architecture: Any) -> None:
    if isinstance(architecture, str) and _ARCHITECTURE.fullmatch(architecture):
        own.setdefault("architecture", architecture)


def _labels(name: str, value: Any) -> tuple[str, ...] | None:
    """Class names in one of the usual shapes, or None."""
    if not isinstance(value, list | tuple | dict) or not 0 < len(value) <= _MOST_LABELS:
        return None
    if not isinstance(value, dict):
        return (
            tuple(line(item, _MOST_LABEL) for item in value) if all(isinstance(item, str) for item in value) else None
        )
    pairs = [(v, k) for k, v in value.items()] if name == "class_to_idx" else list(value.items())
    if all(isinstance(part, str | int) for pair in pairs for part in pair):
        try:
            numbered = {int(k): line(str(v), _MOST_LABEL) for k, v in pairs}
        except ValueError:
            return None
        if sorted(numbered) == list(range(len(pairs))):
            return tuple(numbered[i] for i in range(len(numbered)))
    return None
