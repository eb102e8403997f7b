"""What is measured on the sample, as units of work. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reportgen.engine.plan import Merged, Planned, Task, merge
from reportgen.engine.requests import After, Fading, Needs, Variant
from reportgen.store import Store
from reportgen.techniques.technique import Case


def flat(needs: Needs) -> Needs:
    """`needs` with what other techniques are asked for in the place of these."""
    return tuple(inner for need in needs for inner in (flat(need.needs) if isinstance(need, After) else (need,)))


@dataclass(frozen=True)
class Trial:
    """One unit of work: some images of the sample, and what is measured on all of them.

    One forward and its backwards serve all tasks; the inputs derived of each image, and every change of the model or
    of the images, take passes of their own, in batches that hold one input of each image.
    """

    cases: tuple[Case, ...]
    tasks: tuple[Task, ...]

    @property
    def needs(self) -> Needs:
        """Of all tasks."""
        return flat(tuple(need for task in self.tasks for need in task.part.needs))

    @property
    def merged(self) -> Merged:
        """What the one forward must provide. Scores always: measurements ask how sure the model is."""
        return merge([self.needs])

    def passes(self) -> tuple[int, int]:
        """Number of forward and of backward batches, each of one input of every image."""
        variants = [merge([flat(need.requests)]) for need in self.needs if isinstance(need, Variant)]
        derived = sum(need.count for need in self.needs if isinstance(need, Fading))
        every = (self.merged, *variants)
        return len(every) + derived, sum(len(one.backwards) for one in every)


@dataclass(frozen=True)
class Sampling:
    """All units of work on the sample, and how many results are already stored."""

    trials: tuple[Trial, ...]
    stored: int
    missing: int

    def passes(self) -> tuple[int, int, int]:
        """Number of forward passes, of inputs they process, and of backward passes."""
        each = [(trial.passes(), len(trial.cases)) for trial in self.trials]
        return (
            sum(forward for (forward, _backward), _images in each),
            sum(forward * images for (forward, _backward), images in each),
            sum(backward for (_forward, backward), _images in each),
        )


def plan_sampling(planned: Sequence[Planned], cases: Sequence[Case], store: Store, size: int) -> Sampling:
    """Batches of at most `size` images of the sample, for everything that the store does not have."""
    active = [p for p in planned if p.technique.scope == "sample" and p.reason is None]
    lacking: dict[Case, list[Task]] = {}
    asked = 0
    for one in active:
        taken = one.technique.of_sample(cases)
        asked += len(taken)
        for case in taken:
            lacking.setdefault(case, []).extend(one.tasks(case, store))
    missing = sum(len(tasks) for tasks in lacking.values())
    return Sampling(tuple(_trials(lacking, size)), asked - missing, missing)


def _trials(lacking: Mapping[Case, Sequence[Task]], size: int) -> Iterator[Trial]:
    groups: dict[tuple[tuple[str, str], ...], list[Case]] = {}
    for case, tasks in lacking.items():
        if tasks:
            groups.setdefault(tuple(task.key for task in tasks), []).append(case)
    for cases in groups.values():
        for start in range(0, len(cases), size):
            yield Trial(tuple(cases[start : start + size]), tuple(lacking[cases[0]]))
