"""Needs become passes: what the store already has is left out, and what several techniques need is done once.

Imports no torch, so that a plan can be printed, and a warm run found complete, without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reportgen.engine.requests import (
    INPUT,
    After,
    Ascent,
    Backward,
    Beside,
    Computing,
    Derivation,
    Forward,
    Look,
    Needs,
    Request,
    Rule,
    Units,
    Variant,
)
from reportgen.engine.resolution import Resolution
from reportgen.machine import machine
from reportgen.store import Array, Store, key_of
from reportgen.techniques.technique import Case, NotApplicable, Technique, explains_classes
from reportgen.text import Message
from reportgen.versions import library_versions

WHOLE = ""
"""Name of the part that batches serve, or that looks at the model as it is."""


@dataclass(frozen=True)
class Part:
    """What of a technique's needs one unit of work serves and one entry of the store holds.

    Attributes:
        name: distinguishes the parts of a technique in its keys.
        needs: the requests it serves.
    """

    name: str
    needs: Needs

    @property
    def alone(self) -> bool:
        """Whether it takes passes of its own for each image, instead of sharing those of a batch."""
        return bool(self.name)


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

    def parts(self, case: Case | None) -> tuple[Part, ...]:
        """What is computed and stored of it for one image, or for the model.

        Batches of images serve one part; each layer of units, all derived inputs and each ascent are parts of their
        own, so that little is repeated after an interruption and little is held in memory at once.
        """
        if self.technique.scope == "sample":
            return (Part(WHOLE, self.needs),)
        parts: dict[str, list[Request]] = {}
        rows = self.rows
        for request in self.needs:
            beyond = case is not None and _beyond(request, case)
            if request not in rows and not beyond and not isinstance(request, Beside):
                parts.setdefault(_part_of(request), []).append(request)
        return tuple(Part(name, tuple(requests)) for name, requests in parts.items())

    @property
    def rows(self) -> Needs:
        """What a scanning technique needs of each image: served by the one forward of the scan, stored as rows in
        shards. The rest of its needs is about the model, and a part like those of other techniques.
        """
        scanning = self.technique.scope == "scan"
        return tuple(request for request in self.needs if scanning and isinstance(request, Forward | Backward | Look))

    @property
    def beside(self) -> tuple[str, ...]:
        """Techniques whose tensors it looks at when it is drawn."""
        return tuple(request.technique for request in self.needs if isinstance(request, Beside))

    def key(self, part: Part, case: Case | None) -> str:
        """Key of the entry of a part for one image, or for the model."""
        if case is None:
            return key_of("technique", **self.basis, part=part.name)
        targets = list(case.targets) if explains_classes(part.needs) else []
        return key_of("technique", **self.basis, part=part.name, image=case.digest, targets=targets)

    def tasks(self, case: Case | None, store: Store) -> tuple[Task, ...]:
        """The parts that the store does not have."""
        parts = self.parts(case)
        return tuple(Task(self, part) for part in parts if not store.has(self.key(part, case)))

    def read(self, case: Case | None, store: Store) -> Mapping[str, Array] | None:
        """The tensors of all parts by name; None if any part is missing."""
        found: dict[str, Array] = {}
        for key in self.keys(case):
            entry = store.get(key)
            if entry is None:
                return None
            found.update(entry.arrays)
        return found

    def keys(self, case: Case | None) -> tuple[str, ...]:
        """Keys of everything that is stored of it for one image, or for the model."""
        return tuple(self.key(part, case) for part in self.parts(case))

    def bucket_key(self, bucket: int) -> str:
        """Key of the shard that holds the rows of all images whose digest begins with this byte."""
        return key_of("scan", **self.basis, bucket=bucket)


def _part_of(request: Request) -> str:
    if isinstance(request, Backward) and isinstance(request.origin, Units):
        return f"units/{request.origin.layer}"
    if isinstance(request, Forward) and request.inputs is not None:
        return "derived"
    if isinstance(request, Ascent):
        return f"{request.method}/{request.layer}"
    return WHOLE


def _beyond(request: Request, case: Case) -> bool:
    """Whether a request is for the first few exhibits only, and this is none of them."""
    return (
        isinstance(request, Backward)
        and isinstance(request.origin, Units)
        and not 0 <= case.place < request.origin.exhibits
    )


@dataclass(frozen=True)
class Task:
    """One part of one technique that has to be computed."""

    planned: Planned
    part: Part

    @property
    def name(self) -> str:
        """The technique's name."""
        return self.planned.name

    @property
    def key(self) -> tuple[str, str]:
        """Tells tasks of one image apart."""
        return self.planned.name, self.part.name


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
        basis: dict[str, Any] = {
            "technique": technique.name,
            "version": technique.version,
            "options": technique.options(),
            "model": dict(identity),
            "pipeline": dict(resolution.pipeline),
            "output_kind": resolution.output_kind,
            "numerics": dict(resolution.numerics),
        }
        if technique.measures_machine:
            basis["machine"] = machine()
        try:
            needs = technique.needs(resolution)
            others = [{"name": one.name, "version": one.version, "options": one.options()} for one in after(needs)]
            if others:
                basis["after"] = others
        except NotApplicable as error:
            settled.append(Planned(technique, (), basis, error.reason))
            continue
        if looks_only(needs):
            # the same under every model that is given the same images in the same way
            basis = {name: basis[name] for name in ("technique", "version", "options", "pipeline")}
            basis["pillow"] = library_versions()["pillow"]
        settled.append(Planned(technique, needs, basis))
    return tuple(settled)


def after(needs: Needs) -> tuple[Computing, ...]:
    """The other techniques that `needs` ask for, each once."""
    found: dict[Computing, None] = {}
    for request in needs:
        if isinstance(request, After):
            found.update(dict.fromkeys((request.technique, *after(request.needs))))
        elif isinstance(request, Variant):
            found.update(dict.fromkeys(after(request.requests)))
    return tuple(found)


def looks_only(needs: Needs) -> bool:
    """Whether a technique sees the images and nothing of the model."""
    return bool(needs) and all(isinstance(need, Look) for need in needs)


@dataclass(frozen=True)
class Merged:
    """What one forward must provide so that several techniques are served.

    Attributes:
        taps: layers to tap.
        scores: whether the forward must reach the output.
        backwards: rule and what to differentiate by, for each distinct rule, served for every target at once.
        units: rule and units for each distinct backward from units.
        attention: whether attention is to be caught.
    """

    taps: tuple[str, ...]
    scores: bool
    backwards: tuple[tuple[Rule, tuple[str, ...]], ...]
    units: tuple[tuple[Rule, Units], ...] = ()
    attention: bool = False

    @property
    def wrt(self) -> tuple[str, ...]:
        """Everything that is differentiated by."""
        names = (name for _rule, names in self.backwards for name in names)
        return tuple(dict.fromkeys((*names, *((INPUT,) if self.units else ()))))

    @property
    def rules(self) -> bool:
        """Whether any backward follows another rule than the gradient."""
        return any(rule != "gradient" for rule, _what in (*self.backwards, *self.units))


def merge(needs: Iterable[Needs]) -> Merged:
    """The union of needs: equal requests become one, different layers share one pass."""
    taps: dict[str, None] = {}
    rules: dict[Rule, dict[str, None]] = {}
    units: dict[tuple[Rule, Units], None] = {}
    scores = attention = False
    for request in (request for own in needs for request in own):
        if isinstance(request, Forward) and request.inputs is None:
            taps.update(dict.fromkeys(request.taps))
            scores = scores or request.scores
            attention = attention or request.attention
        elif isinstance(request, Backward) and isinstance(request.origin, Units):
            taps[request.origin.layer] = None
            units[request.rule, request.origin] = None
        elif isinstance(request, Backward):
            scores = True
            rules.setdefault(request.rule, {}).update(dict.fromkeys(request.wrt))
    backwards = tuple((rule, tuple(names)) for rule, names in rules.items())
    return Merged(tuple(taps), scores, backwards, tuple(units), attention)


@dataclass(frozen=True)
class Batch:
    """One unit of work: some images, the tasks that something about any of them is missing for, and the passes that
    serve these.
    """

    cases: tuple[Case, ...]
    tasks: tuple[Task, ...]
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
class Closeup:
    """One unit of work: passes for one image alone, with units projected from one forward, and derived inputs."""

    case: Case
    tasks: tuple[Task, ...]
    merged: Merged

    @property
    def derived(self) -> tuple[Derivation, ...]:
        """Each distinct derivation."""
        requests = (request for task in self.tasks for request in task.part.needs)
        return tuple(dict.fromkeys(r.inputs for r in requests if isinstance(r, Forward) and r.inputs is not None))

    def forwards(self, size: int) -> tuple[int, int]:
        """Number of forward passes in batches of `size`, and of inputs they process."""
        own = 1 if self.merged.units else 0
        counts = [derivation.count for derivation in self.derived]
        return own + sum(-(-count // size) for count in counts), own + sum(counts)

    @property
    def backwards(self) -> int:
        """Number of backward passes: one a rule and layer, for all units at once."""
        return len(self.merged.units)


@dataclass(frozen=True)
class Examination:
    """All units of work on exhibits, and how many results are already stored."""

    batches: tuple[Batch, ...]
    closeups: tuple[Closeup, ...]
    stored: int
    missing: int

    @property
    def works(self) -> tuple[Batch | Closeup, ...]:
        """All units of work, in order."""
        return (*self.batches, *self.closeups)

    def passes(self, size: int) -> tuple[int, int, int]:
        """Number of forward passes in batches of `size`, of inputs they process, and of backward passes.

        One of noise tells how much of the image units see. The forwards of windows around those that see little, which
        take the place of more work, are not known before, and not counted.
        """
        alone = [closeup.forwards(size) for closeup in self.closeups]
        looked = 1 if any(closeup.merged.units for closeup in self.closeups) else 0
        return (
            looked + len(self.batches) + sum(batches for batches, _inputs in alone),
            looked + sum(len(batch.cases) for batch in self.batches) + sum(inputs for _batches, inputs in alone),
            sum(work.backwards for work in self.works),
        )


def plan_examination(planned: Sequence[Planned], cases: Sequence[Case], store: Store, size: int) -> Examination:
    """Batches of at most `size` exhibits, and work on single ones, for everything that the store does not have."""
    active = [p for p in planned if p.technique.scope == "exhibit" and p.reason is None]
    lacking = {case: tuple(task for p in active for task in p.tasks(case, store)) for case in cases}
    missing = sum(len({task.name for task in tasks}) for tasks in lacking.values())
    return Examination(
        tuple(_batches(lacking, size)), tuple(_closeups(lacking)), len(active) * len(lacking) - missing, missing
    )


def _batches(lacking: Mapping[Case, tuple[Task, ...]], size: int) -> Iterator[Batch]:
    """Images that lack the same techniques go together, those with the most targets first, so that few batches need
    more backwards.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Case]] = {}
    shared = {case: tuple(task for task in tasks if not task.part.alone) for case, tasks in lacking.items()}
    for case, tasks in shared.items():
        if tasks:
            groups.setdefault(tuple(task.key for task in tasks), []).append(case)
    for cases in groups.values():
        tasks = shared[cases[0]]
        ordered = sorted(cases, key=lambda case: -len(case.targets))
        for start in range(0, len(ordered), size):
            yield Batch(tuple(ordered[start : start + size]), tasks, merge(task.part.needs for task in tasks))


def _closeups(lacking: Mapping[Case, tuple[Task, ...]]) -> Iterator[Closeup]:
    for case, tasks in lacking.items():
        alone = tuple(task for task in tasks if task.part.alone)
        if alone:
            yield Closeup(case, alone, merge(task.part.needs for task in alone))


def about_model(planned: Sequence[Planned], store: Store) -> tuple[Task, ...]:
    """What the store lacks of what is asked about the model alone."""
    models = (p for p in planned if p.technique.scope in ("model", "scan") and p.reason is None)
    return tuple(task for p in models for task in p.tasks(None, store))


def ascending(task: Task) -> int:
    """Steps of all channels in the ascents of a task."""
    return sum(len(one.channels) * one.steps for one in task.part.needs if isinstance(one, Ascent))
