"""Runs units of work here: one batch of a scan, one batch of exhibits, the techniques about the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from reportgen.engine.passes import Passes, Trace
from reportgen.engine.plan import Batch, Closeup, Merged, Planned, Task, bucket_of, merge
from reportgen.engine.probe import Alone, EngineProbe, named
from reportgen.engine.requests import Derivation, Rule, Units
from reportgen.engine.shards import Shards
from reportgen.engine.windows import Projector
from reportgen.errors import OutOfMemory, PassError, ReportgenError
from reportgen.store import Array, Store
from reportgen.subject.feed import in_order
from reportgen.techniques.technique import Case


@dataclass(frozen=True, slots=True)
class Sight:
    """One image, decoded once: (C,H,W) float32 for the model, and (side, side) uint8 of what it looks like."""

    values: Array
    look: Array


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

    def scan(self, digests: Iterable[str], shards: Sequence[Shards]) -> Iterator[int]:
        """One forward over all images that a shard does not know. Yields the number of images done, now and then.

        Images are taken in the order of their digests, so that a shard is complete early and stored at once: what a
        killed run has stored need not be done again.
        """
        lacking = sorted(d for d in set(digests) if not all(one.knows(d) for one in shards))
        merged = merge(one.planned.needs for one in shards)
        pending: list[tuple[str, Sight]] = []
        last = {bucket_of(digest): digest for digest in lacking}
        for digest, made in in_order(self.prepare, lacking, threads=self.threads, ahead=3 * self.batch):
            if isinstance(made, Unusable):
                for one in shards:
                    one.put_error(digest, str(made))
            elif isinstance(made, Exception):
                raise made
            else:
                pending.append((digest, made))
            if len(pending) == self.batch or (digest == lacking[-1] and pending):
                self._scan_batch(pending, shards, merged)
                done, pending = len(pending), []
                yield done
            held = {bucket_of(waiting) for waiting, _sight in pending}
            for bucket in [b for b, final in last.items() if final <= digest and b not in held]:
                del last[bucket]
                for one in shards:
                    one.flush(bucket, self.provenance)

    def _scan_batch(self, pending: Sequence[tuple[str, Sight]], shards: Sequence[Shards], merged: Merged) -> None:
        trace = None
        if merged.scores or merged.taps:
            inputs = self._padded([sight.values for _, sight in pending])
            trace = self.passes.forward(inputs, len(pending), taps=merged.taps, coarse=True)
        looks = torch.from_numpy(np.stack([sight.look for _, sight in pending]))
        for one in shards:
            lacking = [row for row, (digest, _sight) in enumerate(pending) if not one.knows(digest)]
            if not lacking:
                continue
            needs = one.planned.needs
            probe = EngineProbe(self.passes.resolution, self.passes.module, needs, trace, seen=looks)
            computed = self._computed(one.planned, probe)
            for row in lacking:
                one.put(pending[row][0], {name: values[row] for name, values in computed.items()})

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
            trace = self._trace(batch, [inputs[case.digest] for case in batch.cases], classes)
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
                computed = self._computed(task.planned, probe)
            except OutOfMemory:
                raise
            except Exception as error:
                failures[task.name] = _reason(error)
                continue
            for row, case in enumerate(cases):
                self._put(task, case, named(computed, classes, row))
        return failures

    def _trace(self, batch: Batch, arrays: Sequence[Array], classes: Sequence[Sequence[int | None]]) -> Trace:
        merged = batch.merged
        trace = self.passes.forward(
            self._padded(arrays),
            len(arrays),
            taps=merged.taps,
            scores=merged.scores,
            wrt=merged.wrt,
            rules=merged.rules,
        )
        left = batch.backwards
        for rule, wrt in merged.backwards:
            for place, chosen in enumerate(classes):
                left -= 1
                trace.backward(place, chosen, wrt, keep=left > 0, rule=rule)
        return trace

    def about_model(self, task: Task, tick: Tick = unheard) -> str | None:
        """A technique that looks at the model alone. Returns why it failed, or None.

        Args:
            tick: told how many channels of an ascent did a step.
        """
        ascents = Ascents(self.passes, self.store, self.batch, task.planned.basis, self.provenance, tick)
        passes = self.passes
        probe = EngineProbe(passes.resolution, passes.module, task.part.needs, ascend=ascents.run, passes=passes)
        try:
            computed = self._computed(task.planned, probe)
        except OutOfMemory:
            raise
        except Exception as error:
            return _reason(error)
        self._put(task, None, computed)
        return None

    def _computed(self, planned: Planned, probe: EngineProbe) -> dict[str, Array]:
        begin = perf_counter()
        try:
            with torch.no_grad():
                return _on_host(planned.technique.compute(probe))
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise OutOfMemory from None
            raise
        finally:
            self.seconds[planned.name] = self.seconds.get(planned.name, 0.0) + perf_counter() - begin

    def _put(self, task: Task, case: Case | None, arrays: Mapping[str, Array]) -> None:
        self.store.put(task.planned.key(task.part, case), arrays, {"kind": task.name, **self.provenance})

    def _padded(self, arrays: Sequence[Array]) -> Tensor:
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


def _on_host(computed: Mapping[str, Tensor]) -> dict[str, Array]:
    """Results as arrays, copied from the device once."""
    return {name: tensor.detach().contiguous().cpu().numpy() for name, tensor in computed.items()}


def _reason(error: Exception) -> str:
    if isinstance(error, ReportgenError):
        return error.thing
    words = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {words[0][:200]}"
