"""Runs what is measured on the sample: each unit of work is one batch of images, asked again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from reportgen.engine.cascade import Twin
from reportgen.engine.fading import faded
from reportgen.engine.folding import Folding
from reportgen.engine.local import Worker, reason_of, traced
from reportgen.engine.passes import Passes
from reportgen.engine.perturbations import perturbed
from reportgen.engine.plan import merge
from reportgen.engine.probe import EngineProbe, named
from reportgen.engine.requests import After, Fading, Needs, Perturbed, Variant
from reportgen.engine.sampling import Trial, flat
from reportgen.engine.trace import Trace
from reportgen.errors import OutOfMemory, PassError
from reportgen.store import Array


class Trials:
    """Runs trials one after another.

    Args:
        worker: whose passes, store and batch shape are used.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._twin = Twin(worker.passes.module, worker.passes.resolution)

    def run(self, trial: Trial, inputs: Mapping[str, Array]) -> dict[str, str]:
        """One batch of the sample, every task of it. Returns failures by technique.

        Args:
            inputs: (C,H,W) by digest.
        """
        worker = self._worker
        images = worker.padded([inputs[case.digest] for case in trial.cases])
        classes = (tuple(case.targets[0] for case in trial.cases),)
        try:
            with worker.last_resort():
                bench = Bench.ready(worker.passes, self._twin, images, classes, trial.needs)
        except PassError as error:
            if len(trial.tasks) == 1:
                return {trial.tasks[0].name: error.thing}
            # what fails may be what one of them needs
            each = (Trial(trial.cases, (task,)) for task in trial.tasks)
            return {name: why for one in each for name, why in self.run(one, inputs).items()}
        failures: dict[str, str] = {}
        for task in trial.tasks:
            try:
                with worker.last_resort():
                    computed = worker.computed(task.planned, bench.probe(task.part.needs))
            except OutOfMemory:
                raise
            except Exception as error:
                failures[task.name] = reason_of(error)
                continue
            for row, case in enumerate(trial.cases):
                worker.put(task, case, named(computed, classes, row))
        return failures


@dataclass(frozen=True)
class Bench:
    """Some images after one forward and its backwards, and passes on what is derived from them.

    Attributes:
        twin: takes on other weights; the model itself is not touched.
        images: (B,C,H,W) on the CPU, padded.
        classes: one class number for each image.
        trace: of the images as they are.
    """

    passes: Passes
    twin: Twin
    images: Tensor
    classes: tuple[tuple[int, ...], ...]
    trace: Trace
    _made: dict[After, Mapping[str, Tensor]] = field(default_factory=dict)

    @classmethod
    def ready(
        cls, passes: Passes, twin: Twin, images: Tensor, classes: tuple[tuple[int, ...], ...], needs: Needs
    ) -> Bench:
        """With the passes done that `needs` share. Raises OutOfMemory, PassError."""
        merged = replace(merge([flat(needs)]), scores=True)
        return cls(passes, twin, images, classes, traced(passes, images, len(classes[0]), merged, classes))

    def probe(self, needs: Needs) -> EngineProbe:
        """What a technique with these needs is handed."""
        return EngineProbe(self.passes.resolution, self.passes.module, needs, self.trace, self.classes, bench=self)

    def inputs(self) -> Tensor:
        """(n,C,H,W)."""
        return self.images[: len(self.classes[0])].to(self.passes.device)

    def after(self, request: After) -> Mapping[str, Tensor]:
        """What another technique makes of these images, once."""
        if request not in self._made:
            self._made[request] = request.technique.compute(self.probe(request.needs))
        return self._made[request]

    def variant(self, variant: Variant) -> EngineProbe:
        """The images, or the model, under a change."""
        passes, images = self.passes, self.images
        if isinstance(variant.change, Perturbed):
            images = perturbed(images, variant.change, passes.resolution.pipeline)
        else:
            module = self.twin.under(variant.change)
            folding = Folding(module, passes.resolution.folds)
            passes = replace(passes, module=module, folding=folding, _recorded=[])
        return Bench.ready(passes, self.twin, images, self.classes, variant.requests).probe(variant.requests)

    def faded_scores(self, fading: Fading, maps: Sequence[Tensor]) -> Tensor:
        """(n, m, steps + 1, classes) scores along each map from the highest pixels on; of masks (n, m, 1, classes)."""
        count = len(self.classes[0])
        full = [_filled(one.to(self.images.device), len(self.images)) for one in maps]
        own = self.trace.scores
        assert own is not None
        points = 1 if fading.kind == "masking" else fading.steps + 1
        found = own.detach()[:count, None, None].repeat(1, len(maps), points, 1)
        end = {"deletion": points - 1, "insertion": 0, "masking": 0}[fading.kind]
        for inputs, place in faded(self.images, full, fading):
            # a fifth faster on a CPU
            batch = inputs.contiguous(memory_format=torch.channels_last)
            scores = self.passes.forward(batch, count, whole=True).scores
            assert scores is not None
            if place is None:
                found[:, :, end] = scores[:count, None]
            else:
                found[:, place[0], place[1] if fading.kind != "masking" else 0] = scores[:count]
        return found


def _filled(maps: Tensor, size: int) -> Tensor:
    """(size, h, w): with zeros for the padding."""
    return torch.cat((maps, maps.new_zeros((size - len(maps), *maps.shape[1:]))))
