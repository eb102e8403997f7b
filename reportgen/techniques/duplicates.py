"""Images that stand in the set more than once, or in another set too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from reportgen.engine.requests import Look, Needs, Scope
from reportgen.engine.resolution import Resolution
from reportgen.findings import Finding, FindingRule
from reportgen.likeness import ALIKE, by_digest, counterparts, features, groups
from reportgen.store import Array
from reportgen.techniques.technique import Case, Evidence, Probe, Technique
from reportgen.text import Message, _

if TYPE_CHECKING:
    from torch import Tensor

LOOK: Final = "look"
"""The tensor that is stored of each image."""
MOST_LISTED: Final = 100
"""Groups, and pairs, that are named."""

EXACT = FindingRule("duplicates.exact", "data", "notice", _("Some images are there more than once"), 1)
NEAR = FindingRule("duplicates.near", "data", "notice", _("Some images look the same as others"), 1)
CONTRADICTING = FindingRule(
    "duplicates.contradicting", "data", "warning", _("The same image is said to show different classes"), 1
)
LEAKED = FindingRule("duplicates.leaked", "data", "warning", _("Images stand in the reference set too"), 1)


@dataclass(frozen=True)
class Duplicates(Technique):
    """Copies among the images, byte by byte and by what they look like, and against a reference set.

    Stored for each image: ``look`` (16,16) uint8, grey levels of the whole upright image. How looks are compared stands
    in `reportgen.likeness`.

    Attributes:
        similarity: correlation from which on two images are taken for one.
    """

    name: ClassVar[str] = "duplicates"
    title: ClassVar[Message] = _("Duplicates")
    summary: ClassVar[str] = "images that are there twice, exactly or nearly, and in the set of --reference"
    scope: ClassVar[Scope] = "scan"
    version: ClassVar[int] = 1
    rules: ClassVar[tuple[FindingRule, ...]] = (EXACT, NEAR, CONTRADICTING, LEAKED)
    results_schema = {
        "type": "object",
        "properties": {
            "images": {"type": "integer"},
            "compared": {"type": "integer"},
            "exact": {"type": "object", "required": ["images", "groups"]},
            "near": {"type": "object", "required": ["images", "groups"]},
            "contradicting": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
            "reference": {"type": ["object", "null"]},
        },
        "required": ["images", "compared", "exact", "near"],
    }

    layers: tuple[str, ...] = ()
    channels: str = ""
    similarity: float = ALIKE

    def __post_init__(self) -> None:
        if not 0.5 <= self.similarity <= 1:
            raise ValueError("similarity goes from 0.5 to 1")

    def needs(self, resolution: Resolution) -> Needs:
        return (Look(),)

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        return {LOOK: probe.looks()}

    def results(self, evidence: Evidence) -> dict[str, Any]:
        cases = evidence.cases
        exact = by_digest([case.digest for case in cases])
        # of several that are the same file one is compared: each copy is told once, as what it is
        different = list({case.digest: case for case in reversed(cases)}.values())[::-1]
        looks = _looks(different, evidence)
        near = groups(looks, self.similarity) if len(looks) else []
        told = [tuple(different[place] for place in group) for group in near]
        return {
            "images": len(cases),
            "compared": int(features(looks)[1].sum()) if len(looks) else 0,
            "exact": _listed([[cases[place].name for place in group] for group in exact]),
            "near": _listed([[case.name for case in group] for group in told]),
            "contradicting": [
                [cases[place].name for place in group]
                for group in exact
                if len({truth.label for place in group if (truth := cases[place].truth) is not None}) > 1
            ][:MOST_LISTED],
            "reference": self._leaked(different, looks, evidence) if evidence.reference else None,
        }

    def _leaked(self, different: Sequence[Case], looks: Array, evidence: Evidence) -> dict[str, Any]:
        theirs = {case.digest: case for case in reversed(evidence.reference)}
        exact = [(one.name, theirs[one.digest].name) for one in different if one.digest in theirs]
        others = list(theirs.values())
        near = [
            (different[mine].name, others[their].name)
            for mine, their in counterparts(looks, _looks(others, evidence), self.similarity)
            if different[mine].digest not in theirs
        ]
        return {
            "images": len(evidence.reference),
            "exact": len(exact),
            "near": len(near),
            "pairs": [list(pair) for pair in (exact + near)[:MOST_LISTED]],
        }

    def findings(self, results: Mapping[str, Any], evidence: Evidence) -> list[Finding]:
        return list(self._found(results, evidence))

    def _found(self, results: Mapping[str, Any], evidence: Evidence) -> Iterator[Finding]:
        n, limits = results["images"], evidence.limits
        exact, near, reference = results["exact"], results["near"], results["reference"]
        if exact["images"] and exact["images"] >= EXACT.limit(limits):
            detail = _(
                "Images that are byte by byte the same as another: {copies} of {n}, such as {names}. Each counts in "
                "the accuracy, though intervals take copies for one witness. Take them out.",
                copies=exact["images"],
                n=n,
                names=_named(exact["groups"][0]),
            )
            yield _about(EXACT, detail, exact["groups"][0][0], exact["images"], n, limits)
        if near["images"] and near["images"] >= NEAR.limit(limits):
            detail = _(
                "Images that look like another one at 16 × 16 pixels, but for brightness and colour: {copies} of {n}, "
                "such as {names}. If they are frames of a film or copies in another size, they are no independent "
                "cases: give --truth a column group, or keep one of each.",
                copies=near["images"],
                n=n,
                names=_named(near["groups"][0]),
            )
            yield _about(NEAR, detail, near["groups"][0][0], near["images"], n, limits)
        contradicting = results["contradicting"]
        if contradicting and len(contradicting) >= CONTRADICTING.limit(limits):
            detail = _(
                "Images that stand there under several classes: {groups}, such as {names}. At least one of the labels "
                "is wrong each time, and no model can be right about both.",
                groups=len(contradicting),
                names=_named(contradicting[0]),
            )
            yield _about(CONTRADICTING, detail, contradicting[0][0], len(contradicting), n, limits)
        leaked = reference["exact"] + reference["near"] if reference else 0
        if leaked and leaked >= LEAKED.limit(limits):
            detail = _(
                "Images that are also in the reference set of {all}: {leaked} of {n}; {exact} byte by byte, {near} by "
                "what they look like, such as {names}. If the model learned from that set, it has seen them, and "
                "numbers about them say nothing about new images. Take them out.",
                leaked=leaked,
                n=n,
                all=reference["images"],
                exact=reference["exact"],
                near=reference["near"],
                names=_named(reference["pairs"][0]),
            )
            yield _about(LEAKED, detail, reference["pairs"][0][0], leaked, n, limits)


def _about(
    rule: FindingRule, detail: Message, subject: str, value: int, n: int, limits: Mapping[str, float]
) -> Finding:
    return rule.found(detail, subject=subject, value=value, threshold=rule.limit(limits), n=n)


def _looks(cases: Sequence[Case], evidence: Evidence) -> Array:
    return np.stack([evidence.read(case)[LOOK] for case in cases]) if cases else np.zeros((0, 16, 16), np.uint8)


def _listed(found: Sequence[Sequence[str]]) -> dict[str, Any]:
    """How many images are copies (all of a group but one), and the groups by name."""
    return {
        "images": sum(len(group) - 1 for group in found),
        "groups": [list(group) for group in found[:MOST_LISTED]],
    }


def _named(names: Sequence[str]) -> str:
    return " = ".join(names[:3]) + (" …" if len(names) > 3 else "")
