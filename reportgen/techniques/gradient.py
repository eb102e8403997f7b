"""Which pixels the class score is most sensitive to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from reportgen.engine.requests import Rule
from reportgen.engine.resolution import Resolution
from reportgen.figures.figure import Picture
from reportgen.figures.tiles import grey_tile
from reportgen.report.document import Reference
from reportgen.store import Array
from reportgen.techniques.input_space import InputSpace, magnitude
from reportgen.techniques.technique import Evidence
from reportgen.text import Message, _


@dataclass(frozen=True)
class Gradient(InputSpace):
    """The derivative of the class score with respect to the input (Simonyan et al. 2014).

    It costs no pass of its own: the backward is the one that class activation maps need. Stored as `InputSpace` says.
    """

    name: ClassVar[str] = "gradient"
    title: ClassVar[Message] = _("Gradient")
    summary: ClassVar[str] = "which pixels the class score is most sensitive to"
    version: ClassVar[int] = 1
    rule: ClassVar[Rule] = "gradient"
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "simonyan2014",
            "K. Simonyan, A. Vedaldi, A. Zisserman",
            "Deep Inside Convolutional Networks: Visualising Image Classification Models and Saliency Maps",
            "International Conference on Learning Representations (ICLR), workshop track, arXiv:1312.6034",
            2014,
        ),
    )

    def _drawn(self, evidence: Evidence, values: Array, limit: float, size: int = 224) -> Picture:
        return grey_tile(magnitude(values), low=0.0, high=limit)

    def _reading(self, resolution: Resolution) -> Message:
        if int(resolution.pipeline["channels"]) == 1:
            return _("The magnitude, in grey: black is zero, white the 99.5th percentile of the magnitudes.")
        return _(
            "The largest magnitude over the channels of the input, in grey: black is zero, white the 99.5th percentile "
            "of the magnitudes."
        )
