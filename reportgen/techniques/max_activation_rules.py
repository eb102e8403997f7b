"""Rules about ascents that came to nothing, and channels that nothing moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from reportgen.findings import Finding, FindingRule, Limits
from reportgen.text import Message, _

INERT = FindingRule("max_activation.inert", "model", "notice", _("Channels that no input moves"), 1)
NEVER_ROSE = FindingRule("max_activation.never_rose", "method", "notice", _("Ascents that did not rise"), 1)
BROKE_DOWN = FindingRule("max_activation.broke_down", "method", "notice", _("Ascents that broke down"), 1)
RULES: Final = (INERT, NEVER_ROSE, BROKE_DOWN)


def concluded(layers: Mapping[str, Any], limits: Limits, figure: Callable[[str], str]) -> Iterator[Finding]:
    """What all rules find.

    Args:
        layers: those of the results of `max_activation`.
        figure: id of the figure of a layer.
    """
    every = sum(len(told["channels"]) for told in layers.values())
    inert = {name: set(told["inert"]) for name, told in layers.items()}
    stuck = {name: _by_any_method(told, "never_rose") - inert[name] for name, told in layers.items()}
    broken = {name: _by_any_method(told, "broke_down") for name, told in layers.items()}
    details = {
        INERT: _(
            "{n} of {all} channels looked at ({channels}) respond to noise and to every optimised picture alike: "
            "nothing in them moves these channels, as where weights are zero. Their pictures are struck through."
        ),
        NEVER_ROSE: _(
            "{n} of {all} channels looked at ({channels}) respond no more to the optimised picture of some method than "
            "to the noise it began with: no gradient led upwards from there, or the steps were too coarse. Their "
            "pictures are struck through."
        ),
        BROKE_DOWN: _(
            "The objective or the picture of {n} of {all} channels ({channels}) became infinite or not a number. "
            "They are shown as grey and struck through."
        ),
    }
    for rule, found in ((INERT, inert), (NEVER_ROSE, stuck), (BROKE_DOWN, broken)):
        yield from _about(rule, details[rule], found, every, rule.limit(limits), figure)


def _by_any_method(told: Mapping[str, Any], what: str) -> set[int]:
    return set().union(*(one[what] for one in told["methods"].values()))


def _about(
    rule: FindingRule,
    detail: Message,
    found: Mapping[str, set[int]],
    every: int,
    limit: float,
    figure: Callable[[str], str],
) -> Iterator[Finding]:
    concerned = {name: sorted(channels) for name, channels in found.items() if channels}
    n = sum(map(len, concerned.values()))
    if n and n >= limit:
        channels = "; ".join(f"{name}: {', '.join(map(str, numbers))}" for name, numbers in concerned.items())
        yield rule.found(
            detail.filled(n=n, all=every, channels=channels),
            subject=", ".join(concerned),
            value=n,
            threshold=limit,
            n=every,
            figures=tuple(map(figure, concerned)),
        )
