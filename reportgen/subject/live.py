"""What a module in memory says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from reportgen.subject.architectures import Published, published
from reportgen.subject.model_facts import ModelFacts
from reportgen.subject.modules import channels_of
from reportgen.subject.transformers_models import labels_of


def live_facts(module: nn.Module) -> ModelFacts:
    """What can be said of a live module: its class, the channels that its first layer with weights takes, what it
    expects by timm's word, and the names of classes that models of transformers carry.
    """
    cls = type(module)
    expected = _expected(module)
    outputs = getattr(module, "num_classes", None)
    labels = labels_of({"id2label": getattr(getattr(module, "config", None), "id2label", None)})
    return ModelFacts(
        file=cls.__name__,
        sha256="",
        size=0,
        format="live-module",
        container="memory",
        safe=True,
        architecture=f"{cls.__module__}.{cls.__qualname__}",
        how="given",
        candidates=(),
        weights="raw",
        prefix="",
        stray=(),
        num_classes=None,
        channels_in=channels_of(module),
        published=expected,
        labels=labels,
        head_published=expected is not None and outputs == expected.classes,
        labels_from="module" if labels else None,
    )


def _expected(module: nn.Module) -> Published | None:
    """What the weights expect that timm made the module for. Who trained it further may have done otherwise: it is
    assumed, not stated.
    """
    cfg = getattr(module, "pretrained_cfg", None)
    if not isinstance(cfg, Mapping) or not cfg:
        return None
    found = published("", cfg)
    return found and replace(found, stated=False, source=str(cfg.get("architecture") or "timm"))


def size_of(module: nn.Module) -> tuple[int, int] | None:
    """(H, W) of the only input that a module says it takes: torchvision's transformers by their ``image_size``, timm's
    networks by the ``img_size`` of their patch embedding. None where it says nothing.
    """
    patches = getattr(module, "patch_embed", None)
    stated: Any = getattr(module, "image_size", None) or getattr(patches, "img_size", None)
    sides = (stated, stated) if isinstance(stated, int) else stated
    if (
        isinstance(sides, tuple | list)
        and len(sides) == 2
        and all(isinstance(side, int) and side > 0 for side in sides)
    ):
        return int(sides[0]), int(sides[1])
    return None
