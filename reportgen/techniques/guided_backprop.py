"""What of the image a class or a unit answers to, by guided backpropagation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from reportgen.engine.requests import Rule
from reportgen.findings import FindingRule
from reportgen.report.document import Reference
from reportgen.techniques.input_space import Projecting, escaping
from reportgen.techniques.literature import SIXT2020
from reportgen.text import Message, _


@dataclass(frozen=True)
class GuidedBackprop(Projecting):
    """Guided backpropagation (Springenberg et al. 2015).

    As the gradient, but for rectifiers: what comes back passes where it is positive and the rectifier was open,
    g → g·1[x>0]·1[g>0]. Stored as `Projecting` says.
    """

    name: ClassVar[str] = "guided_backprop"
    title: ClassVar[Message] = _("Guided backpropagation")
    summary: ClassVar[str] = "what of the image a class or a unit answers to, forward and backward signal both positive"
    version: ClassVar[int] = 1
    rules: ClassVar[tuple[FindingRule, ...]] = (escaping(name, title),)
    rule: ClassVar[Rule] = "guided"
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "springenberg2015",
            "J. T. Springenberg, A. Dosovitskiy, T. Brox, M. Riedmiller",
            "Striving for Simplicity: The All Convolutional Net",
            "International Conference on Learning Representations (ICLR), workshop track, arXiv:1412.6806",
            2015,
        ),
        SIXT2020,
    )
