"""What a fastai learner tells beside its network: class names, and how images were made ready for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from reportgen.subject.labels import MOST_CLASSES, MOST_LETTERS
from reportgen.subject.stand_ins import Inert, TensorSpec
from reportgen.text import line

_MOST_PARTS = 300_000
_VOCABULARY = "fastai.data.transforms.CategoryMap"
_NORMALIZE = "fastai.data.transforms.Normalize"
_RESIZES = ("fastai.vision.augment.Resize", "fastai.vision.augment.RandomResizedCrop")
_CROPS = {"crop": "center", "squish": "squash", "pad": "border"}


def words_of_learner(learner: Inert, tensor: Callable[[TensorSpec | Tensor], Tensor]) -> dict[str, Any]:
    """Class names and preprocessing as `reportgen.subject.contents.own_words` gives them, as far as they are told.

    Args:
        learner: stand-in of the whole export.
        tensor: makes a tensor real.
    """
    own: dict[str, Any] = {}
    side: tuple[int, int] | None = None
    mode = "center"
    mean: tuple[float, ...] = (0.0,) * 3  # what is not normalised goes in as numbers from 0 to 1
    std: tuple[float, ...] = (1.0,) * 3
    for part in _parts(learner.state.get("dls") if isinstance(learner.state, dict) else None):
        state = part.state if isinstance(part.state, dict) else {}
        if part.path == _VOCABULARY and "labels" not in own:
            own["labels"] = _words(state.get("items"))
        elif part.path == _NORMALIZE:
            mean, std = _numbers(state.get("mean"), tensor) or mean, _numbers(state.get("std"), tensor) or std
        elif part.path in _RESIZES:
            side = _side(state.get("size")) or side
            mode = _CROPS.get(str(state.get("method", "crop")), "center")
    if not own.get("labels"):
        own.pop("labels", None)
    if side is not None:
        cfg = {"input_size": (3, *side), "mean": mean, "std": std, "crop_pct": 1.0, "crop_mode": mode}
        own["pretrained_cfg"] = cfg | {"interpolation": "bilinear", "num_classes": len(own.get("labels", ()))}
    return own


def _parts(root: Any) -> Iterator[Inert]:
    """All stand-ins below one, each once, outer ones first."""
    stack: list[Any] = [root]
    seen: set[int] = set()
    while stack and len(seen) < _MOST_PARTS:
        value = stack.pop()
        if not isinstance(value, Inert | dict | list | tuple) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Inert):
            yield value
            stack += [value.members, value.items, value.args, value.state]
        else:
            stack += reversed(list(value.values()) if isinstance(value, dict) else value)


def _plain(value: Any) -> Any:
    """What a list, a tuple or fastcore's own kinds of them hold."""
    while isinstance(value, Inert):
        inner = value.state.get("items") if isinstance(value.state, dict) else None
        value = inner if inner is not None else value.members or (value.args[0] if len(value.args) == 1 else None)
    return value


def _words(value: Any) -> tuple[str, ...] | None:
    items = _plain(value)
    if not isinstance(items, list | tuple) or not 0 < len(items) <= MOST_CLASSES:
        return None
    return (
        tuple(line(str(item), MOST_LETTERS) for item in items) if all(isinstance(i, str | int) for i in items) else None
    )


def _side(value: Any) -> tuple[int, int] | None:
    size = _plain(value)
    size = (size, size) if type(size) is int else size
    if isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int for side in size):
        return size[0], size[1]
    return None


def _numbers(value: Any, tensor: Callable[[TensorSpec | Tensor], Tensor]) -> tuple[float, ...] | None:
    while isinstance(value, Inert):  # a tensor in a class of fastai's own
        value = next((part for part in value.args if isinstance(part, TensorSpec | Inert | tuple)), None)
        value = value[0] if isinstance(value, tuple) and value else value
    if not isinstance(value, TensorSpec) or value.size not in ((3,), (3, 1, 1), (1, 3, 1, 1)):
        return None
    return tuple(float(number) for number in tensor(value).flatten())
