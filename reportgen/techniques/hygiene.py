"""Whether the weights are in order: numbers, statistics that training has touched, parameters that are used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from reportgen.engine.requests import Needs, Scope, Upkeep
from reportgen.engine.resolution import Resolution
from reportgen.findings import Finding, FindingRule
from reportgen.techniques.technique import Evidence, Probe, Technique, packed, unpacked
from reportgen.text import Message, _

if TYPE_CHECKING:
    from torch import Tensor

BROKEN = FindingRule("hygiene.not_finite", "model", "critical", _("Weights hold what is no number"), 1)
UNTOUCHED = FindingRule(
    "hygiene.untouched_statistics", "model", "warning", _("Normalisations are as before training"), 0.5
)
UNREAD = FindingRule("hygiene.unread_parameters", "model", "notice", _("Parameters are never used"), 0.01)
SOFTMAX = FindingRule("hygiene.softmax_inside", "model", "info", _("The model ends with a softmax of its own"))

TWICE = FindingRule("hygiene.softmax_twice", "model", "warning", _("Scores are probabilities already"))


@dataclass(frozen=True)
class Hygiene(Technique):
    """The state of the weights and of running statistics, and which parameters one forward of noise reads.

    Stored: ``state``, JSON in bytes.
    """

    name: ClassVar[str] = "hygiene"
    title: ClassVar[Message] = _("Hygiene of the weights")
    summary: ClassVar[str] = "weights that are no numbers, statistics as before training, parameters never used"
    scope: ClassVar[Scope] = "model"
    version: ClassVar[int] = 2
    rules: ClassVar[tuple[FindingRule, ...]] = (BROKEN, UNTOUCHED, UNREAD, SOFTMAX, TWICE)
    results_schema = {
        "type": "object",
        "properties": {
            "broken": {"type": "array", "items": {"type": "object", "required": ["name", "count", "of"]}},
            "normalisations": {"type": "integer"},
            "untouched": {"type": "array", "items": {"type": "string"}},
            "unread": {"type": "array", "items": {"type": "object", "required": ["name", "parameters"]}},
            "parameters": {"type": "integer"},
            "softmax_inside": {"type": "boolean"},
            "scores_are_probabilities": {"type": "boolean"},
        },
        "required": ["broken", "normalisations", "untouched", "unread", "parameters", "softmax_inside"],
    }

    layers: tuple[str, ...] = ()
    channels: str = ""

    def needs(self, resolution: Resolution) -> Needs:
        return (Upkeep(),)

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        return {"state": packed(probe.upkeep())}

    def results(self, evidence: Evidence) -> dict[str, Any]:
        state = unpacked(evidence.read(None)["state"])
        return {
            **state,
            "normalisations": len(state["normalisations"]),
            "softmax_inside": evidence.resolution.output_kind == "softmax",
        }

    def findings(self, results: Mapping[str, Any], evidence: Evidence) -> list[Finding]:
        return list(self._found(results, evidence))

    def _found(self, results: Mapping[str, Any], evidence: Evidence) -> Iterator[Finding]:
        limits = evidence.limits
        broken, untouched, unread = results["broken"], results["untouched"], results["unread"]
        if broken and len(broken) >= BROKEN.limit(limits):
            yield BROKEN.found(
                _(
                    "{n} weights or statistics hold infinite values or such that are no numbers: {names}. Training "
                    "broke down, or the file is damaged. Take an earlier checkpoint.",
                    n=len(broken),
                    names=_named([f"{one['name']} ({one['count']} / {one['of']})" for one in broken]),
                ),
                subject=broken[0]["name"],
                value=len(broken),
                threshold=BROKEN.limit(limits),
            )
        share = len(untouched) / max(results["normalisations"], 1)
        if untouched and share >= UNTOUCHED.limit(limits):
            yield UNTOUCHED.found(
                _(
                    "{n} of {all} normalisations have a running mean of 0 and a variance of 1 in every channel, as "
                    "when they were made: {names}. The model was not trained, or its statistics were not stored. "
                    "Nothing below says anything about a trained network then.",
                    n=len(untouched),
                    all=results["normalisations"],
                    names=_named(untouched),
                ),
                subject=untouched[0],
                value=share,
                threshold=UNTOUCHED.limit(limits),
                n=results["normalisations"],
            )
        idle = sum(one["parameters"] for one in unread) / max(results["parameters"], 1)
        if unread and idle >= UNREAD.limit(limits):
            yield UNREAD.found(
                _(
                    "{share} of all parameters are not read when an image is classified: {names}. Auxiliary heads that "
                    "serve training alone are of this kind; for others, check that the model is wired as meant.",
                    share=f"{100 * idle:.1f} %",
                    names=_named([one["name"] for one in unread]),
                ),
                subject=unread[0]["name"],
                value=idle,
                threshold=UNREAD.limit(limits),
                n=results["parameters"],
            )
        if results["scores_are_probabilities"]:
            yield TWICE.found(
                _(
                    "What was taken for scores adds up to 1: a softmax was applied already, and is applied once more "
                    "here or in the model. The second one presses all probabilities towards one another. Take one "
                    "softmax out of the model, or give --output-kind softmax."
                )
            )
        elif results["softmax_inside"]:
            yield SOFTMAX.found(
                _(
                    "It returns probabilities; everything here explains the scores before the softmax. If it was "
                    "trained with a loss that applies a softmax itself, such as cross-entropy in PyTorch, it was "
                    "applied twice: take it out of the model, and train again."
                )
            )


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
