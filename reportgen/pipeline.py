"""The six steps of an audit. `CONTRIBUTING.md` says where each of them stands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from reportgen import blueprint, forecast, steps
from reportgen.drawing import draw
from reportgen.errors import EntryVanished, OutOfMemory
from reportgen.house import style_of
from reportgen.job import Job
from reportgen.laboratory import Laboratory
from reportgen.pictures import Pictures
from reportgen.progress import Progress
from reportgen.result import Report
from reportgen.store import Store, key_of
from reportgen.subject.digests import DigestMemory
from reportgen.subject.subject import Subject, importable, load_subject
from reportgen.text import counted

ATTEMPTS = 3
"""How often work is planned again after stored tensors vanished."""


def audit(
    model: Any,
    images: Any,
    job: Job,
    *,
    model_id: str | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> Report:
    """Run an audit: the first five of the six steps; the sixth is `Report.write`, but for figures and logs.

    Args:
        model: path of a model file, or a live `torch.nn.Module`.
        images: path of a folder or a file, several of them, or live images.
        job: the options.
        model_id: name under which the caller vouches that a live module's results may be kept.
        progress: where to tell how far the run is.
        command: the command that makes the report again, for its appendix.

    Raises:
        ReportgenError: whatever a user can mend.
    """
    progress = progress or Progress()
    store = open_store(job, keep=isinstance(model, str | Path) or model_id is not None)
    threads = job.jobs or os.cpu_count() or 1
    timings: dict[str, float] = {}

    style = style_of(job)  # what cannot be read is told before the work, not after it
    with timed(timings, "load"):
        subject = load(model, images, job, store, threads, model_id)
    style = replace(style, title=style.title or subject.model_name)
    progress.step(
        1, "load", f"{subject.model_name}; {counted(len(subject.images), 'image')}, {len(subject.skipped)} skipped"
    )

    with (
        store.alone(_work(subject), progress.note),
        importable(job.pythonpath),
        Laboratory(subject, job, store, threads) as laboratory,
    ):
        with timed(timings, "plan"):
            made = blueprint.resolve(job, subject, store, laboratory)
        progress.step(2, "plan", f"{made.resolution.model['architecture']}; {counted(len(made.shown), 'technique')}")

        for attempt in range(ATTEMPTS + 64):  # memory is halved as often as it takes
            try:
                with timed(timings, "scan"):
                    scanned = steps.scan(job, subject, made, store, laboratory, progress)
                with timed(timings, "examine"):
                    examined = steps.examine(subject, made, scanned, store, laboratory, progress)
                with timed(timings, "draw"):
                    document = draw(job, subject, made, scanned, examined, store, laboratory, timings, command, style)
                break
            except OutOfMemory:
                made = blueprint.halved(made, job, subject, store)
                progress.note(f"memory ran out: going on with {made.batch} images a pass")
            except EntryVanished:
                store.suspicious = True
                if attempt >= ATTEMPTS:
                    raise
        traced = (b"", b"")
        if job.tensorboard is not None:
            traced = steps.graph(subject, made, store, laboratory, progress)
        progress.step(5, "draw", counted(sum(len(section.figures) for section in document.sections), "figure"))
    for notice in store.notices:
        progress.note(notice)
    store.close()
    pictures = Pictures(subject, made.resolution, store, threads)
    report = Report(document, made, scanned, store, pictures, progress, traced)
    if job.figures is not None:
        report.write_figures(job.figures)
    if job.tensorboard is not None:
        report.write_tensorboard(job.tensorboard)
    return report


def foresee(model: Any, images: Any, job: Job) -> str:
    """What `audit` would do, in words, without doing it (see `reportgen.forecast`)."""
    store = open_store(job, keep=True)
    threads = job.jobs or os.cpu_count() or 1
    subject = load(model, images, job, store, threads)
    with importable(job.pythonpath), Laboratory(subject, job, store, threads) as laboratory:
        made = blueprint.resolve(job, subject, store, laboratory)
        try:
            return forecast.words(job, subject, made, store, laboratory.pass_facts)
        except EntryVanished:
            store.suspicious = True  # what was found damaged is looked for again
            return forecast.words(job, subject, made, store, laboratory.pass_facts)


def load(model: Any, images: Any, job: Job, store: Store, threads: int, model_id: str | None = None) -> Subject:
    """Step 1, with the digests of files that earlier runs read."""
    memory = DigestMemory(store.base / "digests.json" if store.kept else None)
    subject = load_subject(model, images, job, memory, threads=threads, model_id=model_id)
    memory.save()
    return subject


def _work(subject: Subject) -> str:
    """Key of what runs that look at the same images with the same model have in common."""
    return key_of("work", model=dict(subject.identity), images=sorted(image.digest for image in subject.images))


def open_store(job: Job, *, keep: bool) -> Store:
    """The store a job names; one that goes with the report where nothing may or must be kept."""
    if job.no_cache or not keep:
        return Store(None)
    return Store(cache_directory(job), job.cache_size)


def cache_directory(job: Job) -> Path:
    """``--cache-dir``, else ``REPORTGEN_CACHE_DIR``, else the platform's cache directory of this user."""
    named = job.cache_dir or os.environ.get("REPORTGEN_CACHE_DIR")
    if named:
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("reportgen", appauthor=False)


@contextmanager
def timed(timings: dict[str, float], step: str) -> Iterator[None]:
    """Add the seconds spent inside to `timings`."""
    begin = perf_counter()
    try:
        yield
    finally:
        timings[step] = timings.get(step, 0.0) + perf_counter() - begin
