"""What measurements on the sample share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from reportgen.engine.requests import After, Needs, Scope
from reportgen.engine.resolution import Resolution
from reportgen.resampling import interval_of_mean
from reportgen.store import Array
from reportgen.techniques.technique import Case, Technique

MEAN_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "value": {"type": "number"},
        "interval": {"type": ["array", "null"], "items": {"type": "number"}},
        "n": {"type": "integer"},
    },
    "required": ["value", "interval", "n"],
}
"""Of what `mean` tells."""


@dataclass(frozen=True)
class Measurement(Technique):
    """Measured on the sample instead of shown of exhibits.

    Attributes:
        images: on how many images of the sample, the first of its draw; 0 means all.
    """

    scope: ClassVar[Scope] = "sample"

    channels: str = ""
    images: int = 0

    def of_sample(self, cases: Sequence[Case]) -> tuple[Case, ...]:
        return tuple(cases[: self.images or None])


def after(technique: Technique, resolution: Resolution) -> After:
    """What `technique` makes of the same images. Raises NotApplicable where it does not apply."""
    settled = technique.settled(resolution)
    return After(settled, settled.needs(resolution))


def afters(needs: Needs) -> tuple[After, ...]:
    """Those among requests."""
    return tuple(need for need in needs if isinstance(need, After))


def mean(values: Array) -> dict[str, Any]:
    """The mean of (n,) values, one an image, with its base and interval."""
    return {"value": float(np.mean(values)), "interval": interval_of_mean(values), "n": len(values)}
