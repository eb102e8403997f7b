"""What the report concludes: one small rule each, in words that do not depend on a language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from reportgen.text import Message

About = Literal["model", "data", "method", "run"]
Severity = Literal["info", "notice", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "notice", "warning", "critical")


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
        return told


def worst_first(findings: list[Finding]) -> list[Finding]:
    """By severity, then rule and subject, so that the order depends on nothing else."""
    return sorted(findings, key=lambda f: (-SEVERITIES.index(f.severity), f.rule, f.subject))
