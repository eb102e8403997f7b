"""What lies in a model file before anything is made real: weights, and what the file says of itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reportgen.errors import ModelFileError
from reportgen.subject.checkpoints import (
    LEARNER,
    Entry,
    facts_of,
    framework_of,
    is_state,
    meta_of,
    split,
    tensors_of,
    weights_in,
)
from reportgen.subject.containers import MOST_TENSORS, Container
from reportgen.subject.fastai import words_of_learner
from reportgen.subject.labels import MOST_CLASSES, named_classes
from reportgen.subject.modules import is_module, state_of
from reportgen.subject.sharded import open_weights
from reportgen.subject.stand_ins import MOST_LETTERS, Inert, TensorSpec
from reportgen.text import counted, line

State = Mapping[str, Any]
"""Names to tensors, or to descriptions of tensors."""

_MOST_JSON = 2**16
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
NAMED = ("architecture", "arch", "model_name", "model_arch", "model_type", "backbone", "encoder_name")


@dataclass(frozen=True)
class Contents:
    """What lies in a file, before anything is made real.

    Attributes:
        format: as in `reportgen.subject.model_facts.ModelFacts`.
        container: the opened file.
        state: names to tensors or descriptions.
        module: stand-in of a pickled module, if it is one.
        weights: ``raw`` or ``ema``.
        own: what the file says of itself: architecture, class names, ``pretrained_cfg``.
        place: entry of the checkpoint that holds the weights; empty where they are all there is.
        available: which of ``raw`` and ``ema`` it holds.
        framework: what wrote it, where that shows.
        facts: numbers and words beside the weights: epoch, step, best metric.
    """

    format: str
    container: Container
    state: State
    module: Inert | None
    weights: str
    own: Mapping[str, Any]
    place: str = ""
    available: tuple[str, ...] = ("raw",)
    framework: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

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
        raise ModelFileError(f"{shown!r} holds {counted(len(contents.state), 'tensor')}", "it is no image classifier")
    if any(len(key) > MOST_LETTERS or line(key, MOST_LETTERS) != key for key in contents.state):
        raise ModelFileError(f"{shown!r} is damaged: names of its weights are no words", "get the file again")
    module = contents.module
    contents.container.check((contents.state if module is None else state_of(module, whole=True)).values())
    return contents


def _found(container: Container, shown: str, weights: str | None) -> Contents:
    root = _bare(container.root)
    framework, facts = framework_of(root, container.foreign), facts_of(root)
    if container.kind == "safetensors":
        return _of_entries(split(root), container, shown, weights, "safetensors", own_words(container.metadata))
    if is_module(root):
        return Contents("module", container, state_of(root), root, "raw", words_of_module(root), framework=framework)
    learner = root if isinstance(root, Inert) and root.path == LEARNER else None
    if isinstance(root, Inert) and isinstance(root.state, dict):
        root = root.state
    if not isinstance(root, dict):
        raise ModelFileError(
            f"there are no weights in {shown!r}: it holds a {_kind(root)}", "give a state dict or a checkpoint"
        )
    if is_state(root):
        return _of_entries(split(tensors_of(root)), container, shown, weights, "state-dict", {})
    found = weights_in(root)
    if found:
        own = own_words(root) if learner is None else words_of_learner(learner, container.tensor)
        made = _of_entries(found, container, shown, weights, "checkpoint", own)
        return replace(made, framework=framework, facts=facts)
    keys = ", ".join(str(key) for key in list(root)[:6])
    raise ModelFileError(
        f"there are no weights in {shown!r}: it holds {keys or 'nothing'}", "give a state dict or a checkpoint"
    )


def _of_entries(
    found: Mapping[str, Entry],
    container: Container,
    shown: str,
    weights: str | None,
    kind: str,
    own: Mapping[str, Any],
) -> Contents:
    """The contents with the weights that were asked for, or the moving average where there is one."""
    for which in ("ema", "raw") if weights is None else (weights,):
        if which in found:
            value = _bare(found[which].value)
            inert = value if is_module(value) else None
            state = value if inert is None else state_of(value)
            own = {**words_of_module(inert), **own} if inert is not None else own
            return Contents(kind, container, state, inert, which, own, found[which].place, tuple(sorted(found)))
    raise ModelFileError(
        f"{shown!r} holds no {weights} weights", f"leave out --weights: it holds {', '.join(sorted(found))}"
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


def words_of_module(module: Inert) -> dict[str, Any]:
    """What a pickled module says of itself: timm's configuration; class names and image size of Ultralytics."""
    told = module.state.get("pretrained_cfg") or module.state.get("default_cfg")
    own = own_words(told) if isinstance(told, dict) else {}
    labels = named_classes(module.state.get("names"))
    if labels and labels != tuple(map(str, range(len(labels)))):  # which is what stands there where nobody named them
        own.setdefault("labels", labels)
    if module.path.startswith("ultralytics."):
        arguments = module.state.get("args")
        side = arguments.get("imgsz") if isinstance(arguments, dict) else None
        side = side if type(side) is int else 224
        # its classifiers are fed the middle of the picture, in numbers from 0 to 1
        own["pretrained_cfg"] = {"input_size": (3, side, side), "mean": (0.0,) * 3, "std": (1.0,) * 3, "crop_pct": 1.0}
        own["pretrained_cfg"] |= {"interpolation": "bilinear", "num_classes": len(labels or ())}
    return own


def own_words(root: Mapping[Any, Any]) -> dict[str, Any]:
    """What a checkpoint says of itself, plain values only."""
    own: dict[str, Any] = {}
    told = [root]
    for name in ("args", "hyper_parameters", "hparams", "config"):
        settings = root.get(name)
        if isinstance(settings, Inert):
            settings = settings.state if isinstance(settings.state, dict) else settings.items
        if isinstance(settings, dict):
            told.append(settings)
    for table in told:
        for name in NAMED:
            _note(own, table.get(name))
    for table in told[1:]:
        _note(own, table.get("model"))
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
        labels = named_classes(root.get(name), by_name=name == "class_to_idx")
        if labels:
            own.setdefault("labels", labels)
    meta = meta_of(root)
    dataset = meta.get("dataset_meta")
    for place, name in ((dataset, "classes"), (dataset, "CLASSES"), (meta, "CLASSES")):
        labels = named_classes(place.get(name)) if isinstance(place, dict) else None
        if labels:
            own.setdefault("labels", labels)
    return own


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= MOST_CLASSES and all(_is_plain(one) for one in value)
    return value is None or isinstance(value, bool | int | float | str)


def _note(own: dict[str, Any], architecture: Any) -> None:
    if isinstance(architecture, str) and _ARCHITECTURE.fullmatch(architecture):
        own.setdefault("architecture", architecture)
