"""What a scan kept of the answers, as arrays: all images, those that differ, and those of which the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reportgen.metrics import TOP, Labelled
from reportgen.multilabel import Marked
from reportgen.relabelling import paired_gain
from reportgen.store import Array
from reportgen.techniques.technique import Case, Evidence

if TYPE_CHECKING:
    from reportgen.subject.truth import Truth


class Rows:
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

    def _known(self) -> tuple[Array, list[Case], list[Truth]]:
        """Places of those of which is known what they show, and the same as cases and as truths."""
        known = [(place, case, case.truth) for place, case in enumerate(self.cases) if case.truth is not None]
        places = np.array([place for place, _case, _truth in known], dtype=np.int64)
        return places, [case for _place, case, _truth in known], [truth for _place, _case, truth in known]

    def labelled(self) -> Labelled | None:
        """Those whose true class is known; None where there are none, or where images may show several classes."""
        known, cases, truths = self._known()
        classes = [truth.single for truth in truths if truth.single is not None]
        if not classes:
            return None
        truth = np.array(classes, dtype=np.int64)
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

    def marked(self) -> Marked | None:
        """Those of which is known which classes they show; None where there are none, or where each shows one."""
        known, cases, truths = self._known()
        if not truths or truths[0].single is not None:
            return None
        shown = np.zeros((len(truths), self.resolution.classes), dtype=bool)
        for place, truth in enumerate(truths):
            shown[place, list(truth.labels)] = True
        probability = np.empty(shown.shape)
        kept = np.clip(np.nan_to_num(self.probability[known]), 0, 1)
        np.put_along_axis(probability, self.index[known], kept, axis=1)
        units, grouped = _units(cases)
        return Marked(shown, probability, self._odds(known), units, grouped, [truth.slice for truth in truths])

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
            (case, case.truth.single, int(row["index"][0]), int(row["swapped"]))
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
