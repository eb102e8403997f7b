"""Needs become passes: what the store already has is left out, and what several techniques need is done once.

Imports no torch, so that a plan can be printed, and a warm run found complete, without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reportgen.engine.requests import Backward, Forward, Needs, Rule, Weights
from reportgen.engine.resolution import Resolution
from reportgen.store import Store, key_of
from reportgen.techniques.technique import Case, NotApplicable, Technique, explains_classes
from reportgen.text import Message

BUCKETS = 256


@dataclass(frozen=True)
class Planned:
    """A technique settled for this model, with its needs, or the reason why it does not apply.

    Attributes:
        basis: everything but the image that its tensors depend on; hashed into their keys.
    """

    technique: Technique
    needs: Needs
    basis: Mapping[str, Any]
    reason: Message | None = None

    @property
    def name(self) -> str:
        return self.technique.name

    @property
    def explains_classes(self) -> bool:
        return explains_classes(self.needs)

    def key(self, case: Case | None) -> str:
        """Key of the entry for one image, or for the model."""
        if case is None:
            return key_of("technique", **self.basis)
        targets = list(case.targets) if self.explains_classes else []
        return key_of("technique", **self.basis, image=case.digest, targets=targets)

    def bucket_key(self, bucket: int) -> str:
        """Key of the shard that holds the rows of all images whose digest begins with this byte."""
        return key_of("scan", **self.basis, bucket=bucket)


def bucket_of(digest: str) -> int:
    """Which scan shard an image belongs to."""
    return int(digest[:2], 16)


def settle(techniques: Iterable[Technique], resolution: Resolution, identity: Mapping[str, Any]) -> tuple[Planned, ...]:
    """Every technique with its needs on this model.

    Args:
        identity: what tells this model from all others (digest of its file, architecture, digest of its code).
    """
    settled: list[Planned] = []
    for technique in techniques:
        technique = technique.settled(resolution)
        basis = {
            "technique": technique.name,
            "version": technique.version,
            "options": technique.options(),
            "model": dict(identity),
            "pipeline": dict(resolution.pipeline),
            "output_kind": resolution.output_kind,
            "numerics": dict(resolution.numerics),
        }
        try:
            settled.append(Planned(technique, technique.needs(resolution), basis))
        except NotApplicable as error:
            settled.append(Planned(technique, (), basis, error.reason))
    return tuple(settled)


@dataclass(frozen=True)
class Merged:
    """What one forward of a batch must provide so that several techniques are served.

    Attributes:
        taps: layers to tap.
        scores: whether the forward must reach the output.
        backwards: rule and what to differentiate by, for each distinct rule, served for every target at once.
    """

    taps: tuple[str, ...]
    scores: bool
    backwards: tuple[tuple[Rule, tuple[str, ...]], ...]

    @property
    def wrt(self) -> tuple[str, ...]:
        """Everything that is differentiated by."""
        return tuple(dict.fromkeys(name for _rule, names in self.backwards for name in names))


def merge(needs: Iterable[Needs]) -> Merged:
    """The union of needs: equal requests become one, different layers share one pass."""
    taps: dict[str, None] = {}
    rules: dict[Rule, dict[str, None]] = {}
    scores = False
    for request in (request for own in needs for request in own):
        if isinstance(request, Forward):
            taps.update(dict.fromkeys(request.taps))
            scores = scores or request.scores
        elif isinstance(request, Backward):
            scores = True
            rules.setdefault(request.rule, {}).update(dict.fromkeys(request.wrt))
    return Merged(tuple(taps), scores, tuple((rule, tuple(names)) for rule, names in rules.items()))


@dataclass(frozen=True)
class Batch:
    """One unit of work: some images, the techniques that miss something about any of them, and the passes that serve
    these.
    """

    cases: tuple[Case, ...]
    techniques: tuple[Planned, ...]
    merged: Merged

    @property
    def targets(self) -> int:
        """How many classes are explained for the image with the most."""
        return max((len(case.targets) for case in self.cases), default=0)

    @property
    def backwards(self) -> int:
        """Number of backward passes."""
        return len(self.merged.backwards) * self.targets


@dataclass(frozen=True)
class Examination:
    """All units of work on exhibits, and what is already stored."""

    batches: tuple[Batch, ...]
    stored: int
    missing: int


def plan_examination(planned: Sequence[Planned], cases: Sequence[Case], store: Store, size: int) -> Examination:
    """Batches of at most `size` exhibits for everything about them that the store does not have."""
    active = [p for p in planned if p.technique.scope == "exhibit" and p.reason is None]
    lacking = {case: tuple(p for p in active if not store.has(p.key(case))) for case in cases}
    missing = sum(len(techniques) for techniques in lacking.values())
    return Examination(tuple(_batches(lacking, size)), stored=len(active) * len(lacking) - missing, missing=missing)


def _batches(lacking: Mapping[Case, tuple[Planned, ...]], size: int) -> Iterator[Batch]:
    """Images that lack the same techniques go together, those with the most targets first, so that few batches need
    more backwards.
    """
    groups: dict[tuple[str, ...], list[Case]] = {}
    for case, techniques in lacking.items():
        if techniques:
            groups.setdefault(tuple(p.name for p in techniques), []).append(case)
    for cases in groups.values():
        techniques = lacking[cases[0]]
        ordered = sorted(cases, key=lambda case: -len(case.targets))
        for start in range(0, len(ordered), size):
            yield Batch(tuple(ordered[start : start + size]), techniques, merge(p.needs for p in techniques))


def about_model(planned: Sequence[Planned]) -> tuple[Planned, ...]:
    """The techniques that look at the model alone."""
    return tuple(p for p in planned if p.technique.scope == "model" and p.reason is None)


def needs_passes(planned: Planned) -> bool:
    """Whether it needs the model called, and not only its weights read."""
    return any(not isinstance(request, Weights) for request in planned.needs)
