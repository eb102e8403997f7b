"""What the model says of every image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from reportgen.engine.requests import Forward, Needs, Scope
from reportgen.engine.resolution import Resolution
from reportgen.techniques.technique import Evidence, Probe, Technique
from reportgen.text import Message, _

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Predictions(Technique):
    """Scores and probabilities of the strongest classes of every image.

    Stored for each image, K the number of classes kept, strongest first:
    ``logits`` (K,) scores S before softmax or sigmoid, ``index`` (K,) class numbers, ``probability`` (K,) in [0, 1],
    ``entropy`` () of the whole distribution in nats (mean binary entropy where classes are independent).

    Attributes:
        top: how many classes are kept.
    """

    name: ClassVar[str] = "predictions"
    title: ClassVar[Message] = _("Predictions")
    summary: ClassVar[str] = "scores and probabilities of the strongest classes of every image"
    scope: ClassVar[Scope] = "scan"
    version: ClassVar[int] = 1
    essential: ClassVar[bool] = True
    results_schema = {
        "type": "object",
        "properties": {"images": {"type": "integer"}, "mean_top_probability": {"type": ["number", "null"]}},
        "required": ["images"],
    }

    layers: tuple[str, ...] = ()
    channels: str = ""
    top: int = 20

    def needs(self, resolution: Resolution) -> Needs:
        return (Forward(),)

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        scores, probabilities = probe.scores(), probe.probabilities()
        kept = min(self.top, scores.shape[1])
        # by score, not by probability: softmax saturates, scores do not
        logits, index = scores.topk(kept, dim=1)
        return {
            "logits": logits,
            "index": index,
            "probability": probabilities.gather(1, index),
            "entropy": probe.entropy(),
        }

    def results(self, evidence: Evidence) -> dict[str, Any]:
        certain = [float(arrays["probability"][0]) for _case, arrays in evidence.each()]
        return {"images": len(certain), "mean_top_probability": sum(certain) / len(certain) if certain else None}
