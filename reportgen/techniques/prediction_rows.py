"""What a scan kept of the answers, as arrays: all images, those that differ, and those whose true class is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from reportgen.metrics import TOP, Labelled
from reportgen.relabelling import paired_gain
from reportgen.store import Array
from reportgen.techniques.technique import Case, Evidence


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
