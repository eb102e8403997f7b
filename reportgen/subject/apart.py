"""A known body under a prefix and one linear layer beside it: transfer learning as it is usually written, and the
classifiers of MMPretrain.

| written as | body | head |
|---|---|---|
| ``self.backbone = resnet18()`` with ``fc = nn.Identity()``, and ``self.head = nn.Linear`` | ``backbone.`` | ``head`` |
| the same in Lightning, behind a dropout | ``model.backbone.`` | ``model.head.1`` |
| ``self.features = nn.Sequential(*list(resnet18().children())[:-1])`` | ``features.`` | ``fc`` |
| a body of timm created with ``num_classes=0`` | ``encoder.`` | ``classifier`` |
| MMPretrain, MMClassification | ``backbone.`` | ``head.fc`` |

Put together they are the architecture with that head: the layer's keys get the names of the architecture's own
classifier. The file does not tell what stands between the two. It is taken for what the architecture does there, and
whoever joins them tells so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from reportgen.errors import ArchitectureError
from reportgen.subject.architectures import construct, meta
from reportgen.subject.body_and_head import RESNET_CHILDREN
from reportgen.subject.recognition import Known, Shapes, counts, prefixes, stripped

# what preprocessing, counters of moving averages and losses leave among the weights: no layers of the network
_NO_LAYER = re.compile(r"(^|\.)(data_preprocessor\.\w+|n_averaged|steps?|num_updates|initted)$")
_LOSS = re.compile(r"(^|\.)(criterion|loss|loss_\w+|\w+_loss)\.(\w+\.)*((pos|class|cls)_)?weight$")
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
"""Heads of GoogLeNet and Inception that only training reads; they keep the classes of the network they came with."""
_MOST_NAMES = 4


@dataclass(frozen=True)
class Joint:
    """Where a body and its head lie in a file.

    Attributes:
        prefix: before the keys of the body.
        linear: name of the linear layer beside it.
        place: name that the architecture's own classifier has.
    """

    prefix: str
    linear: str
    place: str

    def of(self, entries: Mapping[str, Any]) -> dict[str, Any]:
        """The entries under the keys of the architecture: the body's, then those of the layer. All others are left
        out.
        """
        own = {f"{self.place}.{part}": entries.get(f"{self.linear}.{part}") for part in ("weight", "bias")}
        return _body(entries, self.prefix) | {key: value for key, value in own.items() if value is not None}

    def others(self, entries: Mapping[str, Any]) -> list[str]:
        """The keys that are of neither."""
        body = {self.prefix + key for key in _body(entries, self.prefix)}
        return [key for key in entries if key not in body and not key.startswith(f"{self.linear}.")]


def joined(shapes: Shapes, prefix: str, known: Known) -> Joint | None:
    """How the layer beside a body takes the place of the architecture's own classifier, or of its whole head where
    nothing of that is left; None where it does not.

    Args:
        shapes: keys and shapes of the whole file.
        prefix: under which the body lies.
        known: the body's architecture.
    """
    linear = linear_beside(shapes, prefix)
    if not linear or len(known.heads) != 1:
        return None
    (head,), (outputs, inputs) = known.heads, shapes[f"{linear}.weight"]
    inside = _body(shapes, prefix)
    module = _built(known.name, outputs, inside)
    layers = _linear_layers(module, head) if module is not None else []
    if module is None or not layers or layers[-1][1].out_features != outputs:
        return None
    place = layers[-1][0]
    wanted = {key for key in module.state_dict() if key.startswith(f"{head}.") and counts(key)}
    there = {key for key in inside if key.startswith(f"{head}.") and counts(key)}
    if there == wanted - {f"{place}.weight", f"{place}.bias"} and layers[-1][1].in_features == inputs:
        return Joint(prefix, linear, place)
    if not there and layers[0][1].in_features == inputs and _begins_with_it(module.get_submodule(head)):
        return Joint(prefix, linear, head)
    return None


def named(entries: Mapping[str, Any], shapes: Shapes) -> Mapping[str, Any]:
    """The entries of a residual network whose children were put in a row beside a linear layer under the children's
    names; others as they are.

    Args:
        shapes: of the entries.
    """
    for prefix in prefixes(shapes):
        children = {key.partition(".")[0] for key in stripped(shapes, prefix)}
        if prefix and children == set(RESNET_CHILDREN) and linear_beside(shapes, prefix):
            renamed = {f"{prefix}{number}.": f"{prefix}{name}." for number, name in RESNET_CHILDREN.items()}
            length = len(prefix) + 2
            return {renamed.get(key[:length], key[:length]) + key[length:]: value for key, value in entries.items()}
    return entries


def linear_beside(shapes: Shapes, prefix: str) -> str:
    """Name of the linear layer that is everything outside a prefix; empty where there is none, or more."""
    outside = _layers({key: shape for key, shape in shapes.items() if not key.startswith(prefix)})
    name = next(iter(outside), "")
    shape, bias = shapes.get(f"{name}.weight", ()), shapes.get(f"{name}.bias")
    alone = len(outside) == 1 and set(outside[name]) <= {"weight", "bias"}
    return name if alone and len(shape) == 2 and bias in (None, shape[:1]) else ""


def refusal_of_head(shapes: Shapes, prefix: str, known: Known, shown: str) -> ArchitectureError | None:
    """What to tell of a body whose head is another than the architecture's and was not joined to it; None where there
    is nothing but the body.

    Args:
        shown: the file's name for messages.
        shapes: keys and shapes of the whole file.
        prefix: under which the body lies.
        known: the body's architecture.
    """
    module = _built(known.name, None, stripped(shapes, prefix))
    if module is None:
        return None
    own = {prefix + key for key in module.state_dict()}
    names = list(_layers({key: shape for key, shape in shapes.items() if key not in own}))
    if not names:
        return None
    told = f"a head of its own ({', '.join(names[:_MOST_NAMES])}{', …' if len(names) > _MOST_NAMES else ''})"
    shape = shapes.get(f"{linear_beside(shapes, prefix)}.weight")
    wanted = [layer.in_features for head in known.heads for _name, layer in _linear_layers(module, head)]
    if shape and wanted and shape[1] not in wanted:
        told += f", for {shape[1]} features and not {wanted[-1]}"
    under = f" under {prefix!r}" if prefix else ""
    return ArchitectureError(
        f"{shown!r} has the body of {known.name}{under} and {told}",
        "what stands between them is not in the file: name the whole network with --arch package.module:callable",
    )


def _built(name: str, classes: int | None, keys: Mapping[str, Any]) -> nn.Module | None:
    """The module without memory for its weights, or with where its constructor computes with tensors; None where its
    library is not there.
    """
    for build in (meta, construct):
        try:
            return build(name, classes=classes, channels=None, keys=keys)
        except ArchitectureError:
            continue
    return None


def _body(entries: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key: value for key, value in stripped(entries, prefix).items() if not key.startswith(_AUXILIARY)}


def _layers(shapes: Shapes) -> dict[str, list[str]]:
    """Names of the layers that have weights to the names of these; what is no layer of the network is left out."""
    found: dict[str, list[str]] = {}
    for key, shape in shapes.items():
        if counts(key) and not _NO_LAYER.search(key) and not (len(shape) < 2 and _LOSS.search(key)):
            name, _dot, part = key.rpartition(".")
            found.setdefault(name or key, []).append(part)
    return found


def _linear_layers(module: nn.Module, head: str) -> list[tuple[str, nn.Linear]]:
    """Those in the head of a network, by name and in order."""
    parts = module.get_submodule(head).named_modules(prefix=head)
    return [(name, part) for name, part in parts if isinstance(part, nn.Linear)]


def _begins_with_it(head: nn.Module) -> bool:
    """Whether nothing with weights stands before the first linear layer of a head."""
    weighty = [part for part in head.modules() if [*part.parameters(recurse=False)]]
    return isinstance(weighty[0], nn.Linear)
