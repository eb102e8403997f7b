"""Rules about images that do not arrive as those did that the network was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from reportgen.findings import Finding, FindingRule, Limits
from reportgen.text import Message, _, signed

MISMATCH = FindingRule("preprocessing.mismatch", "model", "warning", _("Images do not arrive as in training"), 0.8)
"""Speaks of the median absolute logarithm of the ratio of variances: of a standard deviation that is off by a factor of
about 1.5.
"""
SHIFTED = FindingRule("preprocessing.shifted", "model", "warning", _("Means are not those of training"), 0.75)
"""Speaks of the median absolute distance of means, in stored standard deviations, where the other does not."""
RULES: Final = (MISMATCH, SHIFTED)

SURE: Final = 0.5
"""Share of the threshold that the interval must exceed: few images may differ from the many of training."""
ALIKE: Final = 0.75
"""A factor is advised where it fits all channels: where the median is nearly that of the absolute values."""
LEAST_IMAGES: Final = 5
"""On fewer different images nothing is said: one dark photograph would decide."""


def concluded(
    results: Mapping[str, Any], pipeline: Mapping[str, Any], limits: Limits, figures: tuple[str, ...]
) -> Iterator[Finding]:
    """What either rule finds in the results of `preprocessing`: the first normalisation decides.

    Args:
        pipeline: how images were prepared.
    """
    name, first = next(iter(results["layers"].items()))
    if results["images"] < LEAST_IMAGES or first["untouched"]:
        return
    for rule, what in ((MISMATCH, "log_ratio"), (SHIFTED, "shift")):
        value, interval, limit = first[what], first[f"{what}_interval"], rule.limit(limits)
        if value >= limit and interval[0] > SURE * limit:
            yield rule.found(
                _detail(rule, name, first, results, pipeline),
                subject=name,
                value=round(value, 4),
                threshold=limit,
                n=results["images"],
                interval=interval,
                figures=figures,
            )
            return


def _detail(
    rule: FindingRule, name: str, first: Mapping[str, Any], results: Mapping[str, Any], pipeline: Mapping[str, Any]
) -> Message:
    std = results["implied_std"]
    if rule is SHIFTED:
        return _(
            "At the input of {name} the means of the channels lie {shift} stored standard deviations away from those "
            "that training stored (median over channels, {n} images, 95 % interval {low} to {high}). Either the "
            "preprocessing is wrong, or these images are of another kind than those of training. Ask how "
            "the network was trained, and give --mean, --std, or the right --transform.",
            name=name,
            shift=signed(first["shift"], ".2f"),
            n=results["images"],
            low=signed(first["shift_interval"][0], ".2f"),
            high=signed(first["shift_interval"][1], ".2f"),
        )
    return _(
        "At the input of {name} the variances of the channels differ from those that training stored: the median "
        "absolute logarithm of their ratio is {ratio} on {n} images (95 % interval {low} to {high}), and means lie "
        "{shift} stored standard deviations away. Either the preprocessing is wrong, or these images are of another "
        "kind than those of training. {advice}",
        name=name,
        ratio=signed(first["log_ratio"], ".2f"),
        n=results["images"],
        low=signed(first["log_ratio_interval"][0], ".2f"),
        high=signed(first["log_ratio_interval"][1], ".2f"),
        shift=signed(first["shift"], ".2f"),
        advice=_("Ask how the network was trained, and give --mean, --std, or the right --transform.")
        if std is None or abs(first["signed"]) < ALIKE * first["log_ratio"]
        else _(
            "A standard deviation of about {told} would fit in place of {used}. Ask how the network was trained, and "
            "give --mean and --std.",
            told=f"{std:.2g}",
            used=", ".join(f"{value:.3g}" for value in pipeline["std"]),
        ),
    )
