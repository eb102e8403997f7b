"""Rules about channels that carry nothing, or nothing of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from reportgen.findings import Finding, FindingRule, Limits, Severity
from reportgen.text import Message, _

DEAD = FindingRule("channel_health.dead", "model", "notice", _("Channels that give the same value everywhere"), 0.01)
"""Speaks of the share of a layer's channels."""
DUPLICATES = FindingRule("channel_health.duplicates", "model", "notice", _("Channels that repeat others"), 0.01)
RULES: Final = (DEAD, DUPLICATES)

MANY: Final = 0.1
"""Share from which on it is a warning."""
LEAST_IMAGES: Final = 5
"""On fewer images nothing is said: on one, half of what is rectified is silent."""
FEW_IMAGES: Final = 30
"""On fewer images what is silent may only not have met what it waits for: the finding informs."""


def concluded(results: Mapping[str, Any], alike: float, limits: Limits, figures: tuple[str, ...]) -> Iterator[Finding]:
    """What both rules find in the results of `channel_health`; `alike` is the correlation of repeated channels."""
    counts = {name: len(one["maximum"]) for name, one in results["statistics"].items()}
    dead = {name: len(one["dead"]) for name, one in results["layers"].items()}
    repeated = {name: len({b for _a, b in one["duplicates"]}) for name, one in results["layers"].items()}
    images, compared = results["images"], results["compared"]
    detail = _(
        "Dead on all {n} images: {told}. What comes after these channels learns nothing about an image from them. A "
        "channel that answers to fewer than about {share} of such images can be silent here by chance. {remedy}",
        n=images,
        told=_told(dead, counts),
        share=f"{min(1.0, 3 / max(images, 1)):.2g}",
        remedy=_("Remedy: prune them, or look for a learning rate that was too high.")
        if images >= FEW_IMAGES
        else _("Look at more images before anything is done about it."),
    )
    yield from _about(DEAD, detail, dead, counts, images, limits, figures)
    detail = _(
        "Channels that correlate by more than {alike} with an earlier one of their layer, over {n} images: {told}. "
        "{remedy}",
        alike=alike,
        n=compared,
        told=_told(repeated, counts),
        remedy=_("Remedy: a narrower layer may do as well; copies are also what some ways of widening a network leave.")
        if compared >= FEW_IMAGES
        else _("Look at more images before anything is done about it."),
    )
    yield from _about(DUPLICATES, detail, repeated, counts, compared, limits, figures)


def _about(
    rule: FindingRule,
    detail: Message,
    found: Mapping[str, int],
    counts: Mapping[str, int],
    images: int,
    limits: Limits,
    figures: tuple[str, ...],
) -> Iterator[Finding]:
    """By the layer with the largest share of such channels; every layer that has any is named."""
    limit = rule.limit(limits)
    share = max(found[name] / counts[name] for name in found)
    if not any(found.values()) or share < limit or images < LEAST_IMAGES:
        return
    yield rule.found(
        detail,
        subject=", ".join(name for name, count in found.items() if count),
        value=round(share, 4),
        threshold=limit,
        n=images,
        figures=figures,
        severity=_severity(share, images),
    )


def _severity(share: float, images: int) -> Severity:
    if images < FEW_IMAGES:
        return "info"
    return "warning" if share >= MANY else "notice"


def _told(found: Mapping[str, int], counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}/{counts[name]}" for name, count in found.items() if count)
