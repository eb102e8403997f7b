"""Weights of a network that fastai took apart: the body of a known architecture under ``0.``, a head of its own under
``1.``.

What `learn.save` writes has no classes, only keys: the children of the original are numbered in it. Numbers become
names again here, the architecture is recognised by its body, and the head is built from the shapes of its weights.
"""

from __future__ import annotations

import re
from dataclasses import replace

import torch
from torch import Tensor, nn

from reportgen.subject.architectures import construct, meta, published
from reportgen.subject.preprocessing import USUAL_SIZE
from reportgen.subject.recognition import Match, Shapes, recognise
from reportgen.subject.twins import AdaptiveConcatPool2d

RESNET_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Names of a residual network's children that have weights, by their numbers in a row."""
_BODY, _HEAD = re.compile(r"0\.(\d+|model)\."), re.compile(r"1\.\d+\.")
_HEADS = {"fc.weight": (1000, 1), "classifier.weight": (1000, 1), "head.fc.weight": (1000, 1)}
"""What recognition wants to see of a head; fastai has cut it off."""


def is_body_and_head(shapes: Shapes) -> bool:
    """Whether all keys lie under ``0.`` and ``1.`` and are numbered further, and the last are those of a head: no
    weight has more than two dimensions.
    """
    body = [key for key in shapes if _BODY.match(key)]
    head = [key for key in shapes if _HEAD.match(key)]
    return bool(body) and bool(head) and len(body) + len(head) == len(shapes) and all(len(shapes[k]) < 3 for k in head)


def recognised_body(shapes: Shapes, shown: str) -> Match:
    """The architecture whose body lies under ``0.``.

    Raises:
        ArchitectureError: if none fits, or several do that compute different functions.
    """
    match = recognise({**{_renamed(key): shape for key, shape in _below(shapes, "0.").items()}, **_HEADS}, shown)
    if not _is_of_timm(shapes) or match.name.startswith("timm:"):
        return match
    names = (match.name, *match.candidates)
    bare = match.name.partition(":")[2]
    own = sorted((name for name in names if name.startswith("timm:")), key=lambda name: name != f"timm:{bare}")
    return replace(match, name=own[0], candidates=tuple(n for n in names if n != own[0])) if own else match


def _is_of_timm(shapes: Shapes) -> bool:
    return any(key.startswith("0.model.") for key in shapes)


def _below(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    return {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}


def _renamed(key: str) -> str:
    """``4.0.conv1.weight`` is ``layer1.0.conv1.weight`` of a residual network, ``0.3.weight`` is ``features.3.weight``
    of those whose body is one child, and ``model.`` stands before the names of timm.
    """
    first, _dot, rest = key.partition(".")
    if first == "model":
        return rest
    if first == "0" and "." in rest:
        return f"features.{rest}"
    return f"{RESNET_CHILDREN.get(first, first)}.{rest}"


def built(name: str, shapes: Shapes) -> nn.Module:
    """The network with all keys of the file, its weights still to be filled in.

    Args:
        name: qualified name of the body's architecture.
    """
    body = _body(construct(name, classes=None, channels=None), shapes)
    return nn.Sequential(body, _head(_below(shapes, "1."), _channels(name, shapes)))


def _body(whole: nn.Module, shapes: Shapes) -> nn.Module:
    if _is_of_timm(shapes):
        return _Features(whole)
    if any(key.startswith("0.0.") and key.count(".") > 2 for key in shapes):
        return nn.Sequential(whole.get_submodule("features"))
    return nn.Sequential(*[part for child, part in whole.named_children() if child not in ("avgpool", "fc")])


def _channels(name: str, shapes: Shapes) -> int | None:
    """Of the body's output; None where it cannot be asked."""
    known = published(name)
    size = known.input_size if known else (3, USUAL_SIZE, USUAL_SIZE)
    body = _body(meta(name, classes=None, channels=None), shapes).eval()
    try:
        return int(body(torch.empty(1, *size, device="meta")).shape[1])
    except Exception:  # of a body that looks at values, which are not there
        return None


class _Features(nn.Module):
    """The body of one of timm's networks."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        reset = model.get_submodule("").reset_classifier  # every network of timm has it
        reset(0, "")  # type: ignore[operator]
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.model.forward_features(x)  # type: ignore[operator]
        return maps


class _Pooled(AdaptiveConcatPool2d):
    def __init__(self) -> None:
        super().__init__()
        self.ap = nn.AdaptiveAvgPool2d(1)
        self.mp = nn.AdaptiveMaxPool2d(1)


def _head(shapes: Shapes, channels: int | None) -> nn.Sequential:
    """Pooling by maximum and mean, or by the mean alone where the head takes no more than these channels, then batch
    normalisations and linear layers at their numbers; a rectifier stands behind every linear layer but the last.
    """
    numbers = sorted({int(key.partition(".")[0]) for key in shapes if key.partition(".")[0].isdigit()})
    linear = [number for number in numbers if len(shapes.get(f"{number}.weight", ())) == 2]
    taken = shapes.get(f"{min(numbers, default=0)}.weight", ())[-1:]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1) if taken == (channels,) else _Pooled(), nn.Flatten())
    for number in range(2, max(numbers, default=1) + 1):
        shape = shapes.get(f"{number}.weight", ())
        part: nn.Module = nn.Identity()
        if number in linear:
            part = nn.Linear(shape[1], shape[0], bias=f"{number}.bias" in shapes)
        elif f"{number}.running_mean" in shapes:
            part = nn.BatchNorm1d(shapes[f"{number}.running_mean"][0])
        elif number - 1 in linear and number - 1 != linear[-1]:
            part = nn.ReLU()
        head.append(part)
    return head
