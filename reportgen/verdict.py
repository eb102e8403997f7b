"""The sentence on the cover: what was measured, on what, and what stands against the model. It claims no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reportgen.findings import Finding
from reportgen.text import Message, _


def verdict(facts: Mapping[str, Any], findings: Sequence[Finding]) -> Message:
    """One sentence that states its base.

    Args:
        facts: those of ``report.json``.
        findings: all of them, the waived ones marked.
    """
    images = facts["images"]
    base = _("{exhibits} of {used} images examined in detail", exhibits=len(images["exhibits"]), used=images["used"])
    said = _("{said}; {base}; {warned}", said=_about_accuracy(facts["metrics"]), base=base, warned=_warned(findings))
    failed = sum(one["status"] == "failed" for one in facts["techniques"].values())
    if failed:
        said = _("{said}; {n} sections could not be made", said=said, n=failed)
    return _("{said}.", said=said)


def _about_accuracy(metrics: Mapping[str, Any]) -> Message:
    accuracy = metrics.get("accuracy")
    if exact := metrics.get("exact_match"):
        return _about_decisions(exact, metrics.get("macro_f1"))
    if not accuracy:
        return _("No true classes given, so nothing is said about accuracy")
    low, high = (f"{100 * end:.1f}" for end in accuracy["interval"])
    return _(
        "{right} of {n} labelled images are named correctly (95 % interval of the accuracy: {low} to {high} %)",
        right=round(accuracy["value"] * accuracy["n"]),
        n=accuracy["n"],
        low=low,
        high=high,
    )


def _about_decisions(exact: Mapping[str, Any], macro: Mapping[str, Any] | None) -> Message:
    low, high = (f"{100 * end:.1f}" for end in exact["interval"])
    said = _(
        "All classes are decided correctly for {right} of {n} labelled images (95 % interval of this share: {low} to "
        "{high} %)",
        right=round(exact["value"] * exact["n"]),
        n=exact["n"],
        low=low,
        high=high,
    )
    mean = None if macro is None else f"{100 * macro['value']:.1f}"
    return said if mean is None else _("{said}, and F1 is {mean} % on average over classes", said=said, mean=mean)


def _warned(findings: Sequence[Finding]) -> Message:
    counted = [one for one in findings if one.counts]
    critical = sum(one.severity == "critical" for one in counted)
    waived = sum(one.waived is not None for one in findings)
    if len(counted) > 1:
        said = _("{n} warnings about the model or the images", n=len(counted))
    elif counted:
        said = _("one warning about the model or the images")
    else:
        said = _("no warning about the model or the images from the checks that were made")
    if critical:
        said = _("{said}, {n} of them critical", said=said, n=critical)
    if waived:
        said = _("{said}, {n} findings waived", said=said, n=waived)
    return said
