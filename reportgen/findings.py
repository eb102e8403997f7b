"""What the report concludes: one small rule each, in words that do not depend on a language.

A `FindingRule` says what it is about, how grave that is and from which value on it speaks; ``[findings]`` in TOML sets
another value. A `Waiver` lets a finding stand without counting against the model; it has a reason, and may end.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, StringConstraints

from reportgen.text import Message, _, verbatim

About = Literal["model", "data", "method", "run"]
Severity = Literal["info", "notice", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "notice", "warning", "critical")
GRAVE: tuple[Severity, ...] = ("warning", "critical")

Limits = Mapping[str, float]
"""Thresholds by the name of the rule, where they are not its own."""

Said = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


@dataclass(frozen=True)
class Waiver:
    """Somebody's word that a finding is known and accepted.

    Attributes:
        rule: name of the rule; ``*`` stands for any letters, as in a file pattern.
        reason: why it is accepted.
        subject: of the finding, word for word; any if not given.
        until: the last day on which the waiver holds; without end if not given.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    rule: Said
    reason: Said
    subject: str = "*"
    until: datetime.date | None = None

    def covers(self, finding: Finding) -> bool:
        """Whether it is about this finding, whatever the day."""
        return fnmatchcase(finding.rule, self.rule) and self.subject in ("*", finding.subject)

    def holds(self, today: str) -> bool:
        """Whether it has not ended on a day, YYYY-MM-DD."""
        return self.until is None or today <= self.until.isoformat()

    def facts(self) -> dict[str, Any]:
        """What ``report.json`` tells of it."""
        return {"reason": self.reason, **({"until": self.until.isoformat()} if self.until else {})}


@dataclass(frozen=True)
class Finding:
    """One conclusion.

    Attributes:
        rule: name of the rule that found it.
        about: what it is about; ``--strict`` looks at model and data only.
        severity: from ``info`` to ``critical``.
        subject: the layer, file or class concerned.
        title: one short sentence.
        detail: what was measured and what to do about it.
        value: what was measured.
        threshold: from which value on the rule speaks.
        n: on how many cases.
        interval: interval of the value, where one was computed.
        figures: ids of the figures that show it.
        waived: by whom it does not count.
    """

    rule: str
    about: About
    severity: Severity
    subject: str
    title: Message
    detail: Message
    value: float | int | str | None = None
    threshold: float | int | None = None
    n: int | None = None
    interval: tuple[float, float] | None = None
    figures: tuple[str, ...] = ()
    waived: Waiver | None = None

    @property
    def counts(self) -> bool:
        """Whether ``--strict`` and the verdict count it: a grave one about model or data, not waived."""
        return self.about in ("model", "data") and self.severity in GRAVE and self.waived is None

    def facts(self) -> dict[str, Any]:
        """Its entry in ``report.json``: English text, empty optional parts left out."""
        told: dict[str, Any] = {
            "rule": self.rule,
            "about": self.about,
            "severity": self.severity,
            "subject": self.subject,
            "value": self.value,
            "threshold": self.threshold,
            "n": self.n,
            "title": str(self.title),
            "detail": str(self.detail),
            "figures": list(self.figures),
        }
        if self.interval is not None:
            told["interval"] = list(self.interval)
        if self.waived is not None:
            told["waived"] = self.waived.facts()
        return told


@dataclass(frozen=True)
class FindingRule:
    """What is looked for. It finds at most one thing in a report, however many cases it concerns.

    Attributes:
        name: ``<technique or matter>.<what>``, stable.
        about: see `Finding`.
        severity: see `Finding`.
        title: see `Finding`.
        threshold: from which value on it speaks, unless ``[findings]`` names another; None for what is either so or
            not.
    """

    name: str
    about: About
    severity: Severity
    title: Message
    threshold: float | None = None

    def limit(self, limits: Limits) -> float:
        """The threshold that holds."""
        assert self.threshold is not None
        return limits.get(self.name, self.threshold)

    def found(
        self,
        detail: Message,
        *,
        subject: str = "",
        value: float | int | str | None = None,
        threshold: float | None = None,
        n: int | None = None,
        interval: Sequence[float] | None = None,
        figures: tuple[str, ...] = (),
        severity: Severity | None = None,
    ) -> Finding:
        """The finding. `detail` says what was measured and what to do about it.

        Args:
            severity: another than the rule's, where more or less was found than it usually speaks of.
        """
        return Finding(
            self.name,
            self.about,
            severity or self.severity,
            subject,
            self.title,
            detail,
            value,
            threshold,
            n,
            None if interval is None else (interval[0], interval[1]),
            figures,
        )


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """By severity, then rule and subject, so that the order depends on nothing else; waived ones last."""
    return sorted(findings, key=lambda f: (f.waived is not None, -SEVERITIES.index(f.severity), f.rule, f.subject))


def gathered(findings: Iterable[Finding]) -> list[Finding]:
    """One finding a rule: of several by the same rule about the same matter the gravest stays and names the others."""
    by_rule: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        by_rule.setdefault((finding.rule, finding.about), []).append(finding)
    return [_together(several) for several in by_rule.values()]


def _together(several: Sequence[Finding]) -> Finding:
    first = min(several, key=lambda f: -SEVERITIES.index(f.severity))
    others = [finding for finding in several if finding is not first]
    if not others:
        return first
    subjects = ", ".join(dict.fromkeys(finding.subject for finding in others))
    figures = tuple(dict.fromkeys(figure for finding in (first, *others) for figure in finding.figures))
    detail = _("{detail} The same holds for {subjects}.", detail=first.detail, subjects=subjects)
    return replace(first, detail=detail, figures=figures)


ENDED = FindingRule("waiver.ended", "run", "notice", _("A waiver has ended"))
UNUSED = FindingRule("waiver.unused", "run", "info", _("A waiver waives nothing"))


def waived(findings: Sequence[Finding], waivers: Sequence[Waiver], today: str) -> list[Finding]:
    """The findings, marked where a waiver covers them, and what is to be said of waivers that have ended or cover none.

    Args:
        today: YYYY-MM-DD.
    """
    marked: list[Finding] = []
    for finding in findings:
        first = next((one for one in waivers if one.covers(finding) and one.holds(today)), None)
        marked.append(finding if first is None else replace(finding, waived=first))
    ended = [one for one in waivers if not one.holds(today) and any(one.covers(f) for f in findings)]
    unused = [one for one in waivers if not any(one.covers(finding) for finding in findings)]
    if ended:
        names = ", ".join(f"{one.rule} ({one.until})" for one in ended)
        detail = _("{names}. What it was about counts again: mend it, or waive it anew.", names=names)
        marked.append(ENDED.found(detail, subject=ended[0].rule, value=len(ended)))
    if unused:
        names = ", ".join(dict.fromkeys(one.rule for one in unused))
        detail = _("No finding fits {names}. Take it out, or mend its rule and subject.", names=verbatim(names))
        marked.append(UNUSED.found(detail, subject=unused[0].rule, value=len(unused)))
    return marked
