"""What the model says of every image, and how often it is right where the truth is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from reportgen.engine.requests import Forward, Look, Needs, Scope
from reportgen.engine.resolution import Resolution
from reportgen.figures.figure import Figure, Panel, Picture, Row
from reportgen.figures.metric_charts import MOST_CLASSES, confusion_chart, reliability_chart
from reportgen.findings import Finding, FindingRule
from reportgen.metrics import BINS, FEWEST, TOP, Labelled, calibration_bins, confusion, metrics
from reportgen.relabelling import Renamed, paired_gain, renamed
from reportgen.report.document import Reference
from reportgen.store import Array
from reportgen.techniques.prediction_rules import RULES, Answers, chance_error, concluded
from reportgen.techniques.technique import Case, Evidence, Probe, Technique
from reportgen.text import Message, _

if TYPE_CHECKING:
    from torch import Tensor

ALL_OF = 100
"""Scores of all classes are kept where there are no more."""
MOST_CONFUSED = 20
"""Pairs of classes listed."""


@dataclass(frozen=True)
class Predictions(Technique):
    """Scores and probabilities of the strongest classes of every image.

    Stored for each image, K the number of classes kept, strongest first:
    ``logits`` (K,) scores S before softmax or sigmoid, ``index`` (K,) class numbers, ``probability`` (K,) in [0, 1],
    ``entropy`` () of the whole distribution in nats (mean binary entropy where classes are independent), ``rest`` ()
    the probability that the first class leaves to the others, without the rounding of 1 − p; ``size`` (2,) height and
    width of the upright image in pixels.
    Of images in the trial of the channels' order, ``swapped`` () is the class ranked first in the opposite order.

    Attributes:
        top: how many classes are kept, where there are more than `ALL_OF`.
    """

    name: ClassVar[str] = "predictions"
    title: ClassVar[Message] = _("Predictions")
    summary: ClassVar[str] = "scores of the strongest classes of every image; how often they are right"
    scope: ClassVar[Scope] = "scan"
    essential: ClassVar[bool] = True
    version: ClassVar[int] = 3
    rules: ClassVar[tuple[FindingRule, ...]] = RULES
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "wilson1927",
            "E. B. Wilson",
            "Probable Inference, the Law of Succession, and Statistical Inference",
            "Journal of the American Statistical Association 22(158), 209–212",
            1927,
            "10.1080/01621459.1927.10502953",
        ),
        Reference(
            "delong1988",
            "E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson",
            "Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves: "
            "A Nonparametric Approach",
            "Biometrics 44(3), 837–845",
            1988,
            "10.2307/2531595",
        ),
        Reference(
            "guo2017",
            "C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger",
            "On Calibration of Modern Neural Networks",
            "International Conference on Machine Learning (ICML), 1321–1330",
            2017,
        ),
    )
    results_schema = {
        "type": "object",
        "properties": {
            "images": {"type": "integer"},
            "mean_top_probability": {"type": ["number", "null"]},
            "classes_predicted": {"type": "integer"},
            "groups": {"type": ["integer", "null"]},
            "confused": {"type": "array", "items": {"type": "object", "required": ["true", "predicted", "n", "share"]}},
            "calibration": {
                "type": ["object", "null"],
                "properties": {
                    "bins": {"type": "integer"},
                    "by_chance": {"type": "number"},
                    "filled": {"type": "array", "items": {"type": "object", "required": ["low", "high", "accuracy"]}},
                },
            },
            "renaming": {"type": ["object", "null"]},
            "channels": {"type": ["object", "null"]},
        },
        "required": ["images"],
    }

    layers: tuple[str, ...] = ()
    channels: str = ""
    top: int = 20

    def needs(self, resolution: Resolution) -> Needs:
        return (Forward(), Look())

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        scores, probabilities = probe.scores(), probe.probabilities()
        classes = scores.shape[1]
        # by score, not by probability: softmax saturates, scores do not
        logits, index = scores.topk(classes if classes <= ALL_OF else min(self.top, classes), dim=1)
        first = index[:, :1]
        others = probabilities.scatter(1, first, 0.0)
        return {
            "logits": logits,
            "index": index.int(),
            "probability": probabilities.gather(1, index),
            "entropy": probe.entropy(),
            "rest": others.sum(dim=1),
            "size": probe.sizes(),
        }

    def results(self, evidence: Evidence) -> dict[str, Any]:
        rows = _Rows(evidence)
        seen = rows.labelled()
        certain = rows.probability[:, 0]
        told: dict[str, Any] = {
            "images": len(certain),
            "mean_top_probability": float(certain.mean()) if len(certain) else None,
            "classes_predicted": len(np.unique(rows.index[:, 0])),
            "groups": None,
            "confused": [],
            "calibration": None,
            "renaming": None,
            "channels": None,
            "metrics": {},
        }
        if seen is None:
            return told
        label = evidence.resolution.label
        fit = _renaming(seen, evidence.resolution)
        return told | {
            "groups": seen.witnesses if any(case.truth and case.truth.group for case in evidence.cases) else None,
            "confused": _confused(seen, evidence.resolution),
            "calibration": _calibration(seen) if len(seen.truth) >= FEWEST else None,
            "renaming": None if fit is None else {"gain": dict(fit.gain), "pattern": fit.pattern, "shift": fit.shift},
            "channels": rows.swapped(),
            "metrics": dict(metrics(seen, evidence.resolution.classes, label)),
        }

    def findings(self, results: Mapping[str, Any], evidence: Evidence) -> list[Finding]:
        rows = _Rows(evidence)
        seen = rows.labelled()
        logits, index, rest = rows.different()
        answers = Answers(
            logits=logits,
            index=index,
            rest=rest,
            seen=seen,
            renamed=None if seen is None else _renaming(seen, evidence.resolution),
            channels=results["channels"],
            varied=lambda: evidence.varied(2),
            label=evidence.resolution.label,
            limits=evidence.limits,
        )
        return list(concluded(answers))

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        seen = _Rows(evidence).labelled()
        if seen is None or len(seen.truth) < FEWEST:
            return
        yield self._reliability(seen, evidence)
        if len(np.union1d(seen.truth, seen.predicted)) <= MOST_CLASSES:
            yield self._confusion(seen, evidence)

    def _confusion(self, seen: Labelled, evidence: Evidence) -> Figure:
        there = [int(one) for one in np.union1d(seen.truth, seen.predicted)]
        place = {one: number for number, one in enumerate(there)}
        counts = {(place[true], place[said]): n for (true, said), n in confusion(seen).items()}
        words = {"true": evidence.words(_("true class")), "predicted": evidence.words(_("predicted class"))}
        names = [evidence.resolution.label(one) for one in there]
        picture = confusion_chart(counts, names, **words, han=evidence.han)
        caption = _(
            "Confusion matrix of {n} labelled images. Rows are true classes, columns what they are called; the "
            "stronger a cell, the greater its share of the row, blue where the name is right. Classes that neither "
            "occur nor are named are left out.",
            n=len(seen.truth),
        )
        return self._figure("confusion", picture, caption, _("confusion matrix of {n} classes", n=len(there)))

    def _reliability(self, seen: Labelled, evidence: Evidence) -> Figure:
        words = {
            "confidence": evidence.words(_("confidence")),
            "accuracy": evidence.words(_("accuracy")),
            "images": evidence.words(_("images")),
        }
        picture = reliability_chart(calibration_bins(seen), **words, han=evidence.han)
        caption = _(
            "Reliability diagram of {n} labelled images, in {bins} equal stretches of confidence (the probability of "
            "the predicted class). Left: share of right answers over mean confidence, with 95 % intervals; below the "
            "dashed line the network is surer than it is right. Right: how many images each stretch holds.",
            n=len(seen.truth),
            bins=BINS,
        )
        return self._figure("reliability", picture, caption, _("accuracy over confidence"))

    def _figure(self, what: str, picture: Picture, caption: Message, alt: Message) -> Figure:
        panel = Panel(picture, Message(""), alt, name=what)
        return Figure(f"{self.name}-{what}", self.name, (Row((panel,)),), caption, columns=1, wide=True)


class _Rows:
    """The rows of all images as arrays, n of them in the order of their names."""

    def __init__(self, evidence: Evidence) -> None:
        self.cases: Sequence[Case] = evidence.cases
        self.resolution = evidence.resolution
        rows = [evidence.read(case) for case in self.cases]
        self._rows = rows

        def stacked(name: str) -> Array:
            return np.stack([row[name] for row in rows]) if rows else np.zeros((0, 1))

        self.logits = stacked("logits").astype(np.float64)
        self.index = stacked("index").astype(np.int64)
        self.probability = stacked("probability").astype(np.float64)
        self.rest = stacked("rest").astype(np.float64)

    def different(self) -> tuple[Array, Array, Array]:
        """Logits, class numbers and what is left to other classes, of every different image once."""
        first = {case.digest: place for place, case in reversed(list(enumerate(self.cases)))}
        places = sorted(first.values())
        return self.logits[places], self.index[places], self.rest[places]

    def _known(self) -> Array:
        return np.array([place for place, case in enumerate(self.cases) if case.truth is not None], dtype=np.int64)

    def labelled(self) -> Labelled | None:
        """Those whose true class is known; None where there are none."""
        known = self._known()
        if not len(known):
            return None
        cases = [self.cases[place] for place in known]
        truths = [case.truth for case in cases if case.truth is not None]
        truth = np.array([one.label for one in truths], dtype=np.int64)
        index = self.index[known]
        units, grouped = _units(cases)
        return Labelled(
            truth=truth,
            predicted=index[:, 0],
            confidence=np.clip(np.nan_to_num(self.probability[known, 0]), 0, 1),
            units=units,
            grouped=grouped,
            odds=self._odds(known) if index.shape[1] == self.resolution.classes else None,
            within=(index[:, :TOP] == truth[:, None]).any(axis=1),
            slices=[one.slice for one in truths],
        )

    def _odds(self, known: Array) -> Array:
        """(n, classes) log odds, by class number. Of the first class from the others' scores, not from 1 − p."""
        logits = np.nan_to_num(self.logits[known], posinf=0.0, neginf=0.0)
        if not self.resolution.independent:
            relative = logits - logits[:, :1]
            exponentials = np.exp(relative)
            others = exponentials.sum(axis=1, keepdims=True) - exponentials
            others[:, 0] = exponentials[:, 1:].sum(axis=1)
            logits = relative - np.log(np.maximum(others, np.finfo(np.float64).tiny))
        odds = np.empty_like(logits)
        np.put_along_axis(odds, self.index[known], logits, axis=1)
        return odds

    def swapped(self) -> dict[str, Any] | None:
        """What the opposite order of channels gains on the images it was tried on."""
        tried = [
            (case, case.truth.label, int(row["index"][0]), int(row["swapped"]))
            for case, row in zip(self.cases, self._rows, strict=True)
            if case.truth is not None and "swapped" in row
        ]
        if not tried:
            return None
        before = np.array([first == label for _case, label, first, _other in tried])
        after = np.array([other == label for _case, label, _first, other in tried])
        units, _grouped = _units([case for case, *_answers in tried])
        return paired_gain(before, after, units)


def _units(cases: Sequence[Case]) -> tuple[Array, bool]:
    """Which witness each image is, as numbers without a gap, and whether these are others than the images: images of a
    group are one, and so are copies of a file.
    """
    numbers: dict[tuple[str, str], int] = {}
    groups = [case.truth.group if case.truth is not None else None for case in cases]
    keys = [("file", c.digest) if group is None else ("group", group) for c, group in zip(cases, groups, strict=True)]
    units = [numbers.setdefault(key, len(numbers)) for key in keys]
    return np.array(units, dtype=np.int64), any(group is not None for group in groups) or len(numbers) < len(units)


def _calibration(seen: Labelled) -> dict[str, Any]:
    return {"bins": BINS, "by_chance": chance_error(seen), "filled": calibration_bins(seen)}


def _renaming(seen: Labelled, resolution: Resolution) -> Renamed | None:
    return renamed(seen, resolution.labels or tuple(map(str, range(resolution.classes))))


def _confused(seen: Labelled, resolution: Resolution) -> list[dict[str, Any]]:
    """The pairs of true and predicted class that occur most among the mistakes."""
    totals = np.bincount(seen.truth)
    wrong = [(pair, n) for pair, n in confusion(seen).items() if pair[0] != pair[1]]
    return [
        {
            "true": resolution.label(true),
            "predicted": resolution.label(said),
            "n": n,
            "share": n / int(totals[true]),
        }
        for (true, said), n in sorted(wrong, key=lambda item: (-item[1], item[0]))[:MOST_CONFUSED]
    ]
