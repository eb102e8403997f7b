"""The one place where model and passes meet, opened when the first pass needs them: a warm run never comes here.

Everything that imports torch is imported inside these methods.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.engine.resolution import Resolution
from reportgen.job import Job
from reportgen.store import Store
from reportgen.subject.subject import Subject

if TYPE_CHECKING:
    from reportgen.engine.local import Prepare, Worker
    from reportgen.engine.passes import Passes
    from reportgen.engine.trace import Counts
    from reportgen.subject.trusted import Opened


@dataclass
class Laboratory:
    """The opened model. Use as a context: what it changed is changed back at the end.

    Attributes:
        threads: that decode images.
        opened: the module and its facts, where the file was opened already.
    """

    subject: Subject
    job: Job
    store: Store
    threads: int
    opened: Opened | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _model: tuple[Any, dict[str, Any]] | None = None
    _counts: Counts | None = None
    _passes: Passes | None = None

    def __enter__(self) -> Laboratory:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def resolve(self, labels: tuple[str, ...] | None) -> Resolution:
        """Open the model and look at it.

        Args:
            labels: class names the user gave; None for those in the file or published with the architecture.
        """
        from reportgen.engine.resolve import resolve
        from reportgen.subject.live import size_of
        from reportgen.subject.preprocessing import resolve_pipeline

        module, facts = self._open()
        job = self.job
        ready = self.subject.ready_shape
        channels = ready[0] if ready else job.channels_in or int(facts["channels_in"])
        pipeline = resolve_pipeline(
            self._published,
            channels_in=channels,
            fixed_size=(ready[1], ready[2]) if ready else None,
            only_size=size_of(module),
            input_size=job.input_size,
            resize=job.resize,
            interpolation=job.interpolation,
            mean=job.mean,
            std=job.std,
            bgr=job.bgr or bool(self._published and self._published.bgr),
            transform=job.transform,
        )
        if self._published is not None and self._published.stated:
            pipeline = replace(pipeline, assumed=self._published.assumed)
        return resolve(
            module,
            facts=facts,
            pipeline=asdict(pipeline),
            labels=labels if labels is not None else tuple(facts.get("labels") or ()),
            labels_from=self._labels_from,
            output_kind=_kind_of(module) if job.output_kind == "auto" else job.output_kind,
            device=job.device,
            batch_size=job.batch_size,
            precision=job.precision,
            counts=self.counts,
            num_classes=job.num_classes,
        )

    @property
    def _labels_from(self) -> str | None:
        """What a message calls the user's class names; None where the user gave none."""
        labels = self.job.labels
        return repr(labels.name) if isinstance(labels, Path) else None if labels is None else "labels"

    @property
    def counts(self) -> Counts:
        """How often the model was called."""
        if self._counts is None:
            from reportgen.engine.trace import Counts

            self._counts = Counts()
        return self._counts

    @property
    def pass_facts(self) -> dict[str, dict[str, int]]:
        """`counts` as ``report.json`` tells them; zeros without importing anything if nothing ran."""
        if self._counts is None:
            return {kind: {"batches": 0, "samples": 0} for kind in ("forward", "backward")}
        return self._counts.facts()

    def worker(self, resolution: Resolution, prepare: Prepare, provenance: dict[str, Any]) -> Worker:
        """Passes on the model, on the device and in batches as resolved."""
        from reportgen.engine.local import Worker

        batch = int(resolution.numerics["batch"])
        return Worker(self._run(resolution), self.store, prepare, batch, self.threads, provenance)

    def graph(self, resolution: Resolution) -> tuple[bytes, bytes]:
        """The graph for TensorBoard and its metadata. Raises PassError if the model cannot be traced."""
        from reportgen.engine.graph import tensorboard_graph

        return tensorboard_graph(self._run(resolution))

    def _run(self, resolution: Resolution) -> Passes:
        from reportgen.engine.device import choose_device
        from reportgen.engine.folding import Folding
        from reportgen.engine.passes import Passes, prepared

        if self._passes is None:
            module, _facts = self._open()
            device = choose_device(self.job.device)
            ready = self._stack.enter_context(prepared(module, device))
            folding = Folding(ready, resolution.folds)
            self._passes = Passes(ready, resolution, device, self.counts, self.job.seed, folding)
        self._passes = replace(self._passes, resolution=resolution)
        return self._passes

    def _open(self) -> tuple[Any, dict[str, Any]]:
        if self._model is None:
            self._model = self._read()
        return self._model

    def _read(self) -> tuple[Any, dict[str, Any]]:
        from reportgen.subject.live import live_facts
        from reportgen.subject.model_file import open_model

        job, subject = self.job, self.subject
        if self.opened is not None:
            module, facts = self.opened
        elif subject.path is None:
            facts = live_facts(subject.module)
            module = subject.module
        else:
            module, facts = open_model(
                subject.path,
                sha256=subject.sha256,
                arch=job.arch,
                arch_args=job.arch_arg,
                weights=job.weights,
                num_classes=job.num_classes,
                channels_in=job.channels_in,
                trust=job.trust_model,
            )
        self._published = facts.published
        return module, asdict(facts)


def _kind_of(module: Any) -> str:
    """``multilabel`` where a model of transformers says that its classes do not exclude each other; else ``auto``."""
    problem = getattr(getattr(module, "config", None), "problem_type", None)
    return "multilabel" if problem == "multi_label_classification" else "auto"
