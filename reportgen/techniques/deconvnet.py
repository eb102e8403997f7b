"""What of the image a class or a unit answers to, by a deconvolutional network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from reportgen.engine.requests import Rule
from reportgen.findings import FindingRule
from reportgen.report.document import Reference
from reportgen.techniques.input_space import Projecting, escaping
from reportgen.techniques.literature import SIXT2020, ZEILER2014
from reportgen.text import Message, _


@dataclass(frozen=True)
class Deconvnet(Projecting):
    """Projection down a deconvolutional network (Zeiler and Fergus 2014).

    The backward pass is that of the network, max-pooling by the recorded switches and convolutions with the transposed
    kernels, but for rectifiers: they rectify what comes back, g → ReLU(g). Stored as `Projecting` says.
    """

    name: ClassVar[str] = "deconvnet"
    title: ClassVar[Message] = _("Deconvolutional network")
    summary: ClassVar[str] = "what of the image a class or a unit answers to, by unpooling and transposed kernels"
    version: ClassVar[int] = 1
    rules: ClassVar[tuple[FindingRule, ...]] = (escaping(name, title),)
    rule: ClassVar[Rule] = "deconvnet"
    references: ClassVar[tuple[Reference, ...]] = (
        ZEILER2014,
        SIXT2020,
    )
