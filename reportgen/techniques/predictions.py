"""What the model says of every image, and how often it is right where the truth is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from reportgen import multilabel
from reportgen.engine.requests import Forward, Look, Needs, Scope
from reportgen.engine.resolution import Resolution
from reportgen.figures.figure import Figure, Panel, Picture, Row
from reportgen.figures.metric_charts import MOST_CLASSES, confusion_chart, reliability_chart
from reportgen.findings import Finding, FindingRule
from reportgen.metrics import BINS, FEWEST, Believed, Labelled, calibration_bins, confusion, metrics
from reportgen.multilabel import Marked
from reportgen.relabelling import Renamed, renamed
from reportgen.report.document import Reference
from reportgen.techniques.prediction_rows import Rows
from reportgen.techniques.prediction_rules import RULES, Answers, chance_error, concluded
from reportgen.techniques.technique import Evidence, Probe, Technique
from reportgen.text import Message, _

if TYPE_CHECKING:
    from torch import Tensor

ALL_OF = 100
"""Scores of all classes are kept where there are no more."""
ALL_INDEPENDENT = 1000
"""The same where classes do not exclude each other: an image may show any of them."""
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
        top: how many classes are kept, where there are more than `ALL_OF`, or `ALL_INDEPENDENT`.
    """

    name: ClassVar[str] = "predictions"
    title: ClassVar[Message] = _("Predictions")
    summary: ClassVar[str] = "scores of the strongest classes of every image; how often they are right"
    scope: ClassVar[Scope] = "scan"
    essential: ClassVar[bool] = True
    version: ClassVar[int] = 4
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

    def kept(self, classes: int, *, independent: bool) -> int:
        """How many of the classes are kept."""
        return classes if classes <= (ALL_INDEPENDENT if independent else ALL_OF) else min(self.top, classes)

    def compute(self, probe: Probe) -> dict[str, Tensor]:
        scores, probabilities = probe.scores(), probe.probabilities()
        # by score, not by probability: softmax saturates, scores do not
        logits, index = scores.topk(self.kept(scores.shape[1], independent=probe.independent), dim=1)
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
        rows = Rows(evidence)
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
        if (seen := rows.labelled()) is not None:
            return told | _about_one(seen, evidence) | {"channels": rows.swapped()}
        if (marked := rows.marked()) is not None:
            return told | {
                "groups": _groups(marked, evidence),
                "calibration": _calibration(marked.decisions) if len(marked.truth) >= FEWEST else None,
                "metrics": dict(multilabel.metrics(marked, evidence.resolution.label)),
            }
        return told

    def findings(self, results: Mapping[str, Any], evidence: Evidence) -> list[Finding]:
        rows = Rows(evidence)
        seen = rows.labelled()
        logits, index, rest = rows.different()
        answers = Answers(
            logits=logits,
            index=index,
            rest=rest,
            seen=seen,
            marked=rows.marked(),
            renamed=None if seen is None else _renaming(seen, evidence.resolution),
            channels=results["channels"],
            varied=lambda: evidence.varied(2),
            label=evidence.resolution.label,
            limits=evidence.limits,
        )
        return list(concluded(answers))

    def figures(self, evidence: Evidence) -> Iterator[Figure]:
        rows = Rows(evidence)
        seen, marked = rows.labelled(), rows.marked()
        if marked is not None and len(marked.truth) >= FEWEST:
            yield self._decisions(marked, evidence)
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

    def _decisions(self, marked: Marked, evidence: Evidence) -> Figure:
        words = {
            "confidence": evidence.words(_("probability")),
            "accuracy": evidence.words(_("share that show the class")),
            "images": evidence.words(_("decisions")),
        }
        picture = reliability_chart(calibration_bins(marked.decisions), **words, han=evidence.han)
        caption = _(
            "Reliability diagram of {n} decisions, one for each class and labelled image, in {bins} equal stretches of "
            "probability. Left: share of the decisions in which the image shows the class over their mean "
            "probability, with 95 % intervals; below the dashed line the network gives classes too much. Right: how "
            "many decisions each stretch holds.",
            n=marked.truth.size,
            bins=BINS,
        )
        return self._figure("reliability", picture, caption, _("share that show the class over probability"))

    def _figure(self, what: str, picture: Picture, caption: Message, alt: Message) -> Figure:
        panel = Panel(picture, Message(""), alt, name=what)
        return Figure(f"{self.name}-{what}", self.name, (Row((panel,)),), caption, columns=1, wide=True)


def _about_one(seen: Labelled, evidence: Evidence) -> dict[str, Any]:
    """What is told where every image shows one class."""
    resolution = evidence.resolution
    fit = _renaming(seen, resolution)
    return {
        "groups": _groups(seen, evidence),
        "confused": _confused(seen, resolution),
        "calibration": _calibration(seen) if len(seen.truth) >= FEWEST else None,
        "renaming": None if fit is None else {"gain": dict(fit.gain), "pattern": fit.pattern, "shift": fit.shift},
        "metrics": dict(metrics(seen, resolution.classes, resolution.label)),
    }


def _groups(seen: Labelled | Marked, evidence: Evidence) -> int | None:
    return seen.witnesses if any(case.truth and case.truth.group for case in evidence.cases) else None


def _calibration(seen: Believed) -> dict[str, Any]:
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
