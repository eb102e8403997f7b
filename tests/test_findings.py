"""Thresholds and waivers: what a finding counts for, and what the user may say about it."""

from __future__ import annotations

import datetime
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import reportgen
from reportgen.configuration import read_toml
from reportgen.errors import UsageError
from reportgen.findings import ENDED, UNUSED, Finding, FindingRule, Waiver, gathered, waived, worst_first
from reportgen.job import Job
from reportgen.rules import RULES
from reportgen.techniques import check_limits, registry
from reportgen.text import _, verbatim
from reportgen.verdict import verdict

PACKAGE = Path(reportgen.__file__).parent
RULE = FindingRule("images.example", "data", "warning", _("An example"), threshold=0.5)


def finding(subject: str = "a.png", **changed: Any) -> Finding:
    return Finding(
        **{
            "rule": "images.example",
            "about": "data",
            "severity": "warning",
            "subject": subject,
            "title": verbatim("An example"),
            "detail": verbatim("It was seen."),
            **changed,
        }
    )


def test_a_threshold_is_the_rules_own_unless_another_is_set() -> None:
    assert RULE.limit({}) == 0.5
    assert RULE.limit({"images.other": 0.1}) == 0.5
    assert RULE.limit({"images.example": 0.1}) == 0.1
    found = RULE.found(verbatim("seen"), value=0.7, threshold=RULE.limit({}))
    assert (found.rule, found.about, found.severity, found.threshold) == ("images.example", "data", "warning", 0.5)


def test_what_counts() -> None:
    assert finding().counts
    assert finding(severity="critical", about="model").counts
    assert not finding(severity="notice").counts
    assert not finding(about="method").counts
    assert not finding(about="run").counts
    assert not finding(waived=Waiver("images.example", "known")).counts


def test_a_rule_speaks_once() -> None:
    several = [
        finding("layer1", severity="notice", figures=("a",)),
        finding("layer2", figures=("b",)),
        finding("layer3", figures=("b", "c")),
        finding("layer4", about="method"),
        finding("layer5", rule="other.rule"),
    ]
    told = gathered(several)
    assert [(one.rule, one.about, one.subject) for one in told] == [
        ("images.example", "data", "layer2"),
        ("images.example", "method", "layer4"),
        ("other.rule", "data", "layer5"),
    ]
    assert told[0].severity == "warning"
    assert told[0].figures == ("b", "a", "c")
    assert str(told[0].detail) == "It was seen. The same holds for layer1, layer3."
    assert told[1:] == several[3:]


def test_a_waiver_marks_what_it_is_about_and_nothing_else() -> None:
    others = [finding("b.png"), finding(rule="model.example")]
    marked = waived([finding(), *others], [Waiver("images.example", "known", "a.png")], "2026-11-25")
    assert [one.waived is not None for one in marked] == [True, False, False]
    assert marked[0].facts()["waived"] == {"reason": "known"}
    assert marked[1:] == others
    (by_pattern,) = waived([finding()], [Waiver("images.*", "all known")], "2026-11-25")
    assert by_pattern.waived is not None


def test_a_waiver_ends() -> None:
    until = Waiver("images.example", "for now", until=datetime.date(2026, 11, 25))
    assert waived([finding()], [until], "2026-11-25")[0].facts()["waived"] == {
        "reason": "for now",
        "until": "2026-11-25",
    }
    left, told = waived([finding()], [until], "2026-11-26")
    assert left.counts
    assert (told.rule, told.about, told.value) == ("waiver.ended", "run", 1)
    assert "2026-11-25" in str(told.detail)


def test_a_waiver_of_nothing_is_told() -> None:
    (told,) = waived([], [Waiver("images.exampel", "known")], "2026-11-25")
    assert (told.rule, told.about, told.counts) == ("waiver.unused", "run", False)
    assert "images.exampel" in str(told.detail)


def test_waived_ones_come_last() -> None:
    critical = finding("c", severity="critical", waived=Waiver("*", "known"))
    ordered = worst_first([critical, finding("b", severity="info"), finding("a")])
    assert [one.subject for one in ordered] == ["a", "b", "c"]


def test_thresholds_and_waivers_in_toml(tmp_path: Path) -> None:
    (tmp_path / "reportgen.toml").write_text(
        "[findings]\nduplicates.near = 25\n'duplicates.exact' = 3\n"
        "[[waivers]]\nrule = 'images.example'\nreason = 'two of a kind'\nuntil = 2027-01-31\n"
        "[[waivers]]\nrule = 'model.*'\nsubject = 'layer4'\nreason = 'known'\nuntil = '2027-02-28'\n"
    )
    job = Job.from_options(read_toml(None, tmp_path))
    assert job.findings == {"duplicates.near": 25.0, "duplicates.exact": 3.0}
    assert job.waivers == (
        Waiver("images.example", "two of a kind", until=datetime.date(2027, 1, 31)),
        Waiver("model.*", "known", "layer4", datetime.date(2027, 2, 28)),
    )
    told = job.canonical()
    assert told["waivers"][1] == {"rule": "model.*", "subject": "layer4", "reason": "known", "until": "2027-02-28"}
    hidden = job.model_copy(update={"names": "hash"}).canonical()
    assert [one["subject"] for one in hidden["waivers"]] == ["*", "(withheld)"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"findings": {"images.example": "much"}}, "[findings] images.example 'much'"),
        ({"findings": {"images.example": float("nan")}}, "[findings] images.example nan"),
        ({"waivers": [{"rule": "a.b"}]}, "[[waivers]] 0 reason"),
        ({"waivers": [{"rule": "a.b", "reason": " "}]}, "[[waivers]] 0 reason"),
        ({"waivers": [{"rule": "a.b", "reason": "x", "untill": "2027-01-01"}]}, "[[waivers]] 0 untill"),
        ({"waivers": [{"rule": "a.b", "reason": "x", "until": "soon"}]}, "[[waivers]] 0 until"),
    ],
)
def test_mistakes_in_them_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Job.from_options(options)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


# the verdict
# ----------------------------------------------------------------------------------------------------------------


def facts(accuracy: dict[str, Any] | None = None, failed: int = 0) -> dict[str, Any]:
    return {
        "images": {"exhibits": [{}] * 8, "used": 5000},
        "metrics": {"accuracy": accuracy} if accuracy else {},
        "techniques": {str(n): {"status": "failed" if n < failed else "complete"} for n in range(3)},
    }


def test_the_verdict_states_its_base() -> None:
    told = str(verdict(facts(), []))
    assert told == (
        "No true classes given, so nothing is said about accuracy; 8 of 5000 images examined in detail; "
        "no warning about the model or the images from the checks that were made."
    )
    told = str(verdict(facts({"value": 0.75, "n": 8, "interval": [0.409, 0.928]}, failed=2), []))
    assert told.startswith(
        "6 of 8 labelled images are named correctly (95 % interval of the accuracy: 40.9 to 92.8 %); 8 of"
    )
    assert told.endswith("; 2 sections could not be made.")


def test_the_verdict_counts_what_counts() -> None:
    some = [finding("a"), finding("b", severity="critical"), finding("c", about="run"), finding("d", severity="info")]
    hushed = [finding("e", waived=Waiver("*", "known"))]
    assert "; one warning about" in str(verdict(facts(), some[:1]))
    assert "; 2 warnings about the model or the images, 1 of them critical." in str(verdict(facts(), some))
    assert "that were made, 1 findings waived." in str(verdict(facts(), hushed))


# rules of findings
# ----------------------------------------------------------------------------------------------------------------


def rules_written() -> set[str]:
    """Names of all rules that a module gives a name of its own."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if "= FindingRule(" in path.read_text():
            module = importlib.import_module(".".join(("reportgen", *path.relative_to(PACKAGE).with_suffix("").parts)))
            found |= {one.name for one in vars(module).values() if isinstance(one, FindingRule)}
    return found


def test_every_rule_is_declared_once_and_can_be_set() -> None:
    declared = [*RULES, ENDED, UNUSED, *(rule for cls in registry().values() for rule in cls.rules)]
    names = [rule.name for rule in declared]
    assert len(names) == len(set(names))
    assert "robustness.flips" in rules_written()
    assert rules_written() <= set(names)
    for cls in registry().values():
        assert all(re.fullmatch(rf"{cls.name}\.[a-z_]+", rule.name) for rule in cls.rules)
    with_one = [rule.name for rule in declared if rule.threshold is not None]
    check_limits(Job.from_options({"findings": dict.fromkeys(with_one, 0.5)}), RULES)
    without = next(rule.name for rule in declared if rule.threshold is None)
    with pytest.raises(UsageError, match="no rule with a threshold"):
        check_limits(Job.from_options({"findings": {without: 0.5}}), RULES)


def test_findings_are_made_by_rules_alone() -> None:
    made = [path.name for path in PACKAGE.rglob("*.py") if re.search(r"\bFinding\(", path.read_text())]
    assert made == ["findings.py"]


def test_every_rule_stands_in_the_readme() -> None:
    told = (PACKAGE.parent / "README.md").read_text()
    rules = (*RULES, ENDED, UNUSED, *(rule for cls in registry().values() for rule in cls.rules))
    assert [rule.name for rule in rules if f"`{rule.name}`" not in told] == []
