"""Facts of a module that is handed over in memory."""

from __future__ import annotations

from torch import nn

from reportgen.subject.model_file import ModelFacts
from reportgen.subject.modules import channels_of


def live_facts(module: nn.Module) -> ModelFacts:
    """What can be said of a live module: its class, and the channels that its first layer with weights takes."""
    cls = type(module)
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
        published=None,
        labels=None,
        head_published=False,
    )
