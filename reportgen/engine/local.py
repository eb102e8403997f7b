"""Runs units of work here: one batch of a scan, one batch of exhibits, the techniques about the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reportgen.engine.ascent import Ascents, Tick, unheard
from reportgen.engine.derivations import derived
from reportgen.engine.device import is_out_of_memory
from reportgen.engine.passes import Passes
from reportgen.engine.plan import Batch, Closeup, Merged, Planned, Task, bucket_of, merge
from reportgen.engine.probe import Alone, EngineProbe, named
from reportgen.engine.requests import Derivation, Rule, Units
from reportgen.engine.shards import Shards
from reportgen.engine.trace import Trace
from reportgen.engine.windows import Projector
from reportgen.errors import OutOfMemory, PassError, ReportgenError
from reportgen.store import Array, Store
from reportgen.subject.feed import in_order
from reportgen.techniques.technique import Case


@dataclass(frozen=True, slots=True)
class Sight:
    """One image, decoded once: (C,H,W) float32 for the model, (side, side) uint8 of what it looks like, and (height,
    width) of its own.
    """

    values: Array
    look: Array
    size: tuple[int, int]


Prepare = Callable[[str], Sight]
"""By the digest of an image. Raises `Unusable`."""


class Unusable(Exception):
    """An image that cannot be used; the message is the reason."""


@dataclass
class Worker:
    """Passes, and where their inputs come from and their results go.

    Attributes:
        prepare: decodes one image of a scan; called in threads.
        batch: images a pass, always padded to this number: the bits of a result depend on the shape of its batch.
        threads: that decode.
        provenance: stored beside every result.
    """

    passes: Passes
    store: Store
    prepare: Prepare
    batch: int
    threads: int
    provenance: Mapping[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)
    """Spent in each technique's own computation; passes serve all of them and are nobody's."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why a technique failed in the scan, by name."""

    def scan(self, digests: Iterable[str], shards: Sequence[Shards]) -> Iterator[int]:
        """One forward over all images that a shard does not know. Yields the number of images done, now and then.

        Images are taken in the order of their digests, so that a shard is complete early and stored at once: what a
        killed run has stored need not be done again. What fails of one technique is noted in `failures`; what others
        share goes on without it.

        Args:
            shards: those of the techniques that scan; nothing but what they lack is computed.
        """
        lacking = sorted(d for d in set(digests) if not all(one.knows(d) for one in shards))
        active = [one for one in shards if not all(one.knows(digest) for digest in lacking)]
        pending: list[tuple[str, Sight]] = []
        last = {bucket_of(digest): digest for digest in lacking}
        for digest, made in in_order(self.prepare, lacking, threads=self.threads, ahead=3 * self.batch):
            if isinstance(made, Unusable):
                for one in [one for one in active if not one.knows(digest)]:
                    one.put_error(digest, str(made))
            elif isinstance(made, Exception):
                raise made
            else:
                pending.append((digest, made))
            if len(pending) == self.batch or (digest == lacking[-1] and pending):
                self._scan_batch(pending, active)
                done, pending = len(pending), []
                yield done
            held = {bucket_of(waiting) for waiting, _sight in pending}
            for bucket in [b for b, final in last.items() if final <= digest and b not in held]:
                del last[bucket]
                for one in active:
                    one.flush(bucket, self.provenance)

    def _scan_batch(self, pending: Sequence[tuple[str, Sight]], active: list[Shards]) -> None:
        """One forward for all of `active`; those that fail are taken out of it."""
        names = [digest for digest, _sight in pending]
        lacking = {one.planned.name: [not one.knows(digest) for digest in names] for one in active}
        serving = [one for one in active if any(lacking[one.planned.name])]
        if not serving:
            return
        try:
            trace, classes = self._scanned([sight.values for _digest, sight in pending], serving, active)
        except PassError as error:
            self._one_by_one(pending, active, error)
            return
        looks = torch.from_numpy(np.stack([sight.look for _digest, sight in pending]))
        sizes = torch.tensor([sight.size for _digest, sight in pending], dtype=torch.int32)
        for one in [one for one in serving if one in active]:
            needs, passes = one.planned.rows, self.passes
            probe = EngineProbe(
                passes.resolution, passes.module, needs, trace, classes, passes=passes, seen=looks, measured=sizes
            )
            try:
                with self.last_resort():
                    computed = self.computed(one.planned, probe)
            except OutOfMemory:
                raise
            except Exception as error:
                if one.planned.technique.essential:
                    raise
                self.failures[one.planned.name] = reason_of(error)
                active.remove(one)
                continue
            for row, (digest, lacks) in enumerate(zip(names, lacking[one.planned.name], strict=True)):
                if lacks:
                    one.put(digest, {name: values[row] for name, values in computed.items()})

    def _one_by_one(self, pending: Sequence[tuple[str, Sight]], active: list[Shards], error: PassError) -> None:
        """A batch in which the model failed, image by image, so that those it fails on are left out and no others."""
        if len(pending) > 1:
            for one in pending:
                self._scan_batch([one], active)
            return
        ((digest, _sight),) = pending
        for shard in [shard for shard in active if not shard.knows(digest)]:
            shard.put_error(digest, error.thing, passing=True)

    def _scanned(
        self, arrays: Sequence[Array], serving: Sequence[Shards], active: list[Shards]
    ) -> tuple[Trace | None, tuple[tuple[int, ...], ...]]:
        """The forward of one batch, and one backward from the predicted classes where one is needed; returned with
        these. Where it fails, techniques that need a backward are taken out of `active`, then all that tap a layer.
        """
        merged = merge(one.planned.rows for one in serving)
        if not merged.scores and not merged.taps:
            return None, ()
        count = len(arrays)
        try:
            with self.last_resort():
                return self._passed(arrays, merged)
        except OutOfMemory:
            raise
        except (PassError, RuntimeError) as error:
            self.passes.forward(
                self.padded(arrays), count, coarse=True
            )  # raises if it is the images, not what is tapped
            own = [(one, merge([one.planned.rows])) for one in serving if not one.planned.technique.essential]
            struck = [one for one, alone in own if alone.backwards] or [one for one, alone in own if alone.taps]
            if not struck:
                raise
            for one in struck:
                self.failures[one.planned.name] = reason_of(error)
                active.remove(one)
        return self._scanned(arrays, [one for one in serving if one in active], active)

    def _passed(self, arrays: Sequence[Array], merged: Merged) -> tuple[Trace, tuple[tuple[int, ...], ...]]:
        count = len(arrays)
        trace = self.passes.forward(self.padded(arrays), count, taps=merged.taps, wrt=merged.wrt, coarse=True)
        unreached = [tap for tap in merged.taps if tap not in trace.outputs]
        if unreached:
            raise PassError(f"layer {unreached[0]!r} was not reached", "choose another layer")
        if not merged.backwards:
            return trace, ()
        assert trace.scores is not None
        predicted = tuple(trace.scores[:count].argmax(dim=1).tolist())
        for place, (rule, wrt) in enumerate(merged.backwards, 1):
            trace.backward(0, predicted, wrt, keep=place < len(merged.backwards), rule=rule)
        return trace, (predicted,)

    @contextmanager
    def last_resort(self) -> Iterator[None]:
        """Where one image alone does not fit there is nothing left to halve: what asked for it fails, not the run.

        Raises:
            PassError: instead of OutOfMemory.
        """
        try:
            yield
        except OutOfMemory as error:
            if self.batch > 1:
                raise
            raise PassError(error.thing, error.remedy) from None

    def examine(self, batch: Batch, inputs: Mapping[str, Array]) -> dict[str, str]:
        """One batch of exhibits: one forward, one backward a rule and target, every technique. Returns failures by
        technique.

        Args:
            batch: what to do.
            inputs: (C,H,W) by digest.
        """
        classes = tuple(
            tuple(case.targets[place] if place < len(case.targets) else None for case in batch.cases)
            for place in range(batch.targets)
        )
        try:
            padded = self.padded([inputs[case.digest] for case in batch.cases])
            with self.last_resort():
                trace = traced(self.passes, padded, len(batch.cases), batch.merged, classes)
        except PassError as error:
            if len(batch.tasks) == 1:
                return {batch.tasks[0].name: error.thing}
            # what fails may be what one of them needs: each gets passes of its own, so that no other fails with it
            alone = (Batch(batch.cases, (task,), merge([task.part.needs])) for task in batch.tasks)
            return {name: why for one in alone for name, why in self.examine(one, inputs).items()}
        return self._each(batch.tasks, batch.cases, trace, classes)

    def close_up(self, work: Closeup, array: Array) -> dict[str, str]:
        """Everything about one image alone: one forward for all units, and each set of derived inputs. Returns
        failures by technique.

        Args:
            array: (C,H,W).
        """
        image = torch.from_numpy(np.asarray(array)[None])
        merged = work.merged
        trace = None
        if merged.units:
            try:
                with self.last_resort():
                    trace = self.passes.forward(
                        image, 1, taps=merged.taps, scores=False, wrt=merged.wrt, rules=merged.rules
                    )
            except PassError as error:
                if len(work.tasks) == 1:
                    return {work.tasks[0].name: error.thing}
                each = (Closeup(work.case, (task,), merge([task.part.needs])) for task in work.tasks)
                return {name: why for one in each for name, why in self.close_up(one, array).items()}
        classes = tuple((index,) for index in work.case.targets)
        return self._each(work.tasks, (work.case,), trace, classes, _Alone(self, image, trace))

    def _each(
        self,
        tasks: Sequence[Task],
        cases: Sequence[Case],
        trace: Trace | None,
        classes: tuple[tuple[int | None, ...], ...],
        alone: Alone | None = None,
    ) -> dict[str, str]:
        """Compute and store each task; what fails keeps no other from being done."""
        failures: dict[str, str] = {}
        for task in tasks:
            probe = EngineProbe(self.passes.resolution, self.passes.module, task.part.needs, trace, classes, alone)
            try:
                with self.last_resort():
                    computed = self.computed(task.planned, probe)
            except OutOfMemory:
                raise
            except Exception as error:
                failures[task.name] = reason_of(error)
                continue
            for row, case in enumerate(cases):
                self.put(task, case, named(computed, classes, row))
        return failures

    def about_model(self, task: Task, tick: Tick = unheard) -> str | None:
        """A technique that looks at the model alone. Returns why it failed, or None.

        Args:
            tick: told how many channels of an ascent did a step.
        """
        ascents = Ascents(self.passes, self.store, self.batch, task.planned.basis, self.provenance, tick)
        passes = self.passes
        probe = EngineProbe(passes.resolution, passes.module, task.part.needs, ascend=ascents.run, passes=passes)
        try:
            with self.last_resort():
                computed = self.computed(task.planned, probe)
        except OutOfMemory:
            raise
        except Exception as error:
            return reason_of(error)
        self.put(task, None, computed)
        return None

    def computed(self, planned: Planned, probe: EngineProbe) -> dict[str, Array]:
        """What a technique makes of a part. Raises PassError for maps of images that are not finite."""
        begin = perf_counter()
        try:
            with torch.no_grad():
                made = _on_host(planned.technique.compute(probe))
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise OutOfMemory from None
            raise
        finally:
            self.seconds[planned.name] = self.seconds.get(planned.name, 0.0) + perf_counter() - begin
        if planned.technique.scope == "exhibit":
            for name, array in made.items():
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise PassError(f"{name} has values that are not finite", "look for NaN in weights and inputs")
        return made

    def put(self, task: Task, case: Case | None, arrays: Mapping[str, Array]) -> None:
        self.store.put(task.planned.key(task.part, case), arrays, {"kind": task.name, **self.provenance})

    def padded(self, arrays: Sequence[Array]) -> Tensor:
        """(B,C,H,W): the images, then zeros up to the fixed batch."""
        stacked = np.zeros((self.batch, *arrays[0].shape), np.float32)
        for row, array in enumerate(arrays):
            stacked[row] = array
        return torch.from_numpy(stacked)


@dataclass(frozen=True)
class _Alone:
    """Passes for one image alone.

    Attributes:
        image: (1,C,H,W).
        trace: of the image, where units are wanted.
    """

    worker: Worker
    image: Tensor
    trace: Trace | None

    @cached_property
    def _projector(self) -> Projector:
        assert self.trace is not None
        return Projector(self.worker.passes, self.image, self.trace, self.worker.batch)

    def project(self, units: Units, rule: Rule) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Units of the image, sent back to it."""
        return self._projector.project(units, rule)

    def derived_scores(self, derivation: Derivation) -> Tensor:
        """Scores of derived inputs, made and processed in batches of the fixed shape."""
        passes, size = self.worker.passes, self.worker.batch
        found: list[Tensor] = []
        for start in range(0, derivation.count, size):
            count = min(size, derivation.count - start)
            inputs = derived(self.image, derivation, start, size, passes.resolution.pipeline)
            scores = passes.forward(inputs, count).scores
            assert scores is not None
            found.append(scores[:count])
        return torch.cat(found)


def traced(
    passes: Passes, images: Tensor, count: int, merged: Merged, classes: Sequence[Sequence[int | None]]
) -> Trace:
    """One forward of a padded batch, and one backward a rule and target.

    Args:
        images: (B,C,H,W), of which `count` are wanted.
        classes: for each target the class numbers of the images, None where an image has fewer targets.
    """
    trace = passes.forward(
        images,
        count,
        taps=merged.taps,
        scores=merged.scores,
        wrt=merged.wrt,
        rules=merged.rules,
        attention=merged.attention,
    )
    left = len(merged.backwards) * len(classes)
    for rule, wrt in merged.backwards:
        for place, chosen in enumerate(classes):
            left -= 1
            trace.backward(place, chosen, wrt, keep=left > 0, rule=rule)
    return trace


def _on_host(computed: Mapping[str, Tensor]) -> dict[str, Array]:
    """Results as arrays, copied from the device once."""
    return {name: tensor.detach().contiguous().cpu().numpy() for name, tensor in computed.items()}


def reason_of(error: Exception) -> str:
    if isinstance(error, ReportgenError):
        return error.thing
    words = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {words[0][:200]}"
