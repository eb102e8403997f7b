"""Rules about where evidence for classes lies: in one corner, along the border, outside of the masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from reportgen.findings import Finding, FindingRule, Limits
from reportgen.techniques.regions import surely
from reportgen.text import Message, _

CORNER = FindingRule("population.corner", "model", "warning", _("Evidence for a class lies in one corner"), 0.1)
"""Speaks by how much the share of one corner exceeds both chance and the share of the corner across: photographs are as
likely as their mirror images, and what padding does, it does to both.
"""
BORDER = FindingRule("population.border", "model", "notice", _("Evidence for a class lies along the border"), 0.25)
"""By how much the share of the border exceeds chance."""
OUTSIDE = FindingRule("population.outside_masks", "model", "warning", _("Evidence for a class avoids the masks"), 0.0)
"""By how much less lies inside of the masks than chance would put there."""
RULES: Final = (CORNER, BORDER, OUTSIDE)

DOUBT: Final = 0.025
"""Probability that chance alone makes any class a finding of a rule, at most."""
LEAST_IMAGES: Final = 5
"""A class with fewer different images with evidence says nothing of a habit."""
LEAST_CELLS: Final = 4
"""On a grid with fewer cells a side, a cell in the corner reaches to the middle of the image."""

WORDS: Mapping[str, Message] = {
    "top left": _("top left"),
    "top right": _("top right"),
    "bottom left": _("bottom left"),
    "bottom right": _("bottom right"),
}


def concluded(results: Mapping[str, Any], limits: Limits, figures: tuple[str, ...]) -> Iterator[Finding]:
    """What all rules find in the results of `population`."""
    told = [one for one in results["classes"] if one["images"] - one["empty"] >= LEAST_IMAGES and not one["alike"]]
    cornered = _cornered(told, results, CORNER.limit(limits))
    yield from _corner(cornered, results["chance"]["corner"], CORNER.limit(limits), figures)
    yield from _border([one for one in told if one not in cornered], results["chance"]["border"], limits, figures)
    yield from _outside(told, limits, figures)


def _cornered(told: Sequence[Mapping[str, Any]], results: Mapping[str, Any], limit: float) -> list[Mapping[str, Any]]:
    """Classes whose evidence gathers in one corner and not in the one across; four corners were looked at."""
    if min(results["grid"]) < LEAST_CELLS:
        return []
    doubt = DOUBT / max(1, 4 * len(told))
    chance = results["chance"]["corner"]
    return [
        one
        for one in told
        if surely(one["corner"], chance, limit, doubt) and surely(one["corner"]["ahead"], 0.0, limit, doubt)
    ]


def _corner(
    found: Sequence[Mapping[str, Any]], chance: float, limit: float, figures: tuple[str, ...]
) -> Iterator[Finding]:
    if not found:
        return
    worst = max(found, key=lambda one: one["corner"]["share"])
    corner = worst["corner"]
    detail = _(
        "For {label}, {share} of the evidence lies in the corner {place} on average over {n} images, where chance "
        "would put {chance}, and the corner across holds {across}. Classes concerned: {count}. Look there for a mark, "
        "a logo, a date or a frame that goes with the class; crop or cover it, and train or test again.",
        label=worst["label"],
        share=f"{corner['share']:.0%}",
        n=corner["n"],
        across=f"{corner['share'] - corner['ahead']['share']:.0%}",
        place=WORDS[corner["place"]],
        chance=f"{chance:.0%}",
        count=len(found),
    )
    yield _about(CORNER, detail, found, corner, chance, limit, figures)


def _border(
    told: Sequence[Mapping[str, Any]], chance: float, limits: Limits, figures: tuple[str, ...]
) -> Iterator[Finding]:
    limit = BORDER.limit(limits)
    found = [one for one in told if surely(one["border"], chance, limit, DOUBT / max(1, len(told)))]
    if not found:
        return
    worst = max(found, key=lambda one: one["border"]["share"])
    detail = _(
        "For {label}, {share} of the evidence lies along the border on average over {n} images, where chance would put "
        "{chance}. Classes concerned: {count}. Frames, padding and what surrounds the object are candidates.",
        label=worst["label"],
        share=f"{worst['border']['share']:.0%}",
        n=worst["border"]["n"],
        chance=f"{chance:.0%}",
        count=len(found),
    )
    yield _about(BORDER, detail, found, worst["border"], chance, limit, figures)


def _outside(told: Sequence[Mapping[str, Any]], limits: Limits, figures: tuple[str, ...]) -> Iterator[Finding]:
    limit = OUTSIDE.limit(limits)
    masked = [one for one in told if "inside" in one and one["inside"]["n"] >= LEAST_IMAGES]
    lacking = {one["label"]: _negative(one["inside"]["gain"]) for one in masked}
    found = [one for one in masked if surely(lacking[one["label"]], 0.0, limit, DOUBT / len(masked))]
    if not found:
        return
    worst = max(found, key=lambda one: lacking[one["label"]]["share"])
    inside = worst["inside"]
    detail = _(
        "For {label}, {share} of the evidence lies inside the masks on average over {n} images, and the masks cover "
        "{area} of them: less than chance would put there. Classes concerned: {count}. The network looks at what "
        "surrounds the object.",
        label=worst["label"],
        share=f"{inside['share']:.0%}",
        n=inside["n"],
        area=f"{inside['area']:.0%}",
        count=len(found),
    )
    yield _about(OUTSIDE, detail, found, lacking[worst["label"]], 0.0, limit, figures)


def _negative(told: Mapping[str, Any]) -> dict[str, Any]:
    low, high = told["interval"]
    return {"share": -told["share"], "interval": [-high, -low], "n": told["n"]}


def _about(
    rule: FindingRule,
    detail: Message,
    found: Sequence[Mapping[str, Any]],
    told: Mapping[str, Any],
    chance: float,
    limit: float,
    figures: tuple[str, ...],
) -> Finding:
    """Of a share that was told, by how much it exceeds chance."""
    return rule.found(
        detail,
        subject=", ".join(one["label"] for one in found),
        value=round(told["share"] - chance, 4),
        threshold=limit,
        n=told["n"],
        interval=[end - chance for end in told["interval"]],
        figures=figures,
    )
