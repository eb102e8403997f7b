"""What a run would do, in words: ``--plan``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reportgen import steps
from reportgen.blueprint import Blueprint
from reportgen.engine.plan import Planned, about_model, plan_examination
from reportgen.engine.requests import Ascent, Backward
from reportgen.engine.sampling import Sampling, plan_sampling
from reportgen.job import Job
from reportgen.scanned import Scanned, known_truth, read_scan
from reportgen.store import Store
from reportgen.subject.subject import Subject
from reportgen.techniques.technique import Case
from reportgen.text import counted

BACKWARD_COST = 2.0
"""A backward to inner layers costs about as much as two forwards."""
MAP_BYTES = 4
ROW_BYTES = 24
"""What a scan keeps of an image for a channel of a layer it looks at, at most: six numbers."""


def words(job: Job, subject: Subject, made: Blueprint, store: Store, spent: Mapping[str, Any]) -> str:
    """The plan of a run, a few lines; bounds where the scan would decide.

    Args:
        spent: passes that were needed to make the plan itself (the look at the layers).
    """
    lines = [
        f"model    {subject.model_name}: {made.resolution.model['architecture']}, {made.resolution.parameters:,} "
        f"parameters",
        f"images   {len(subject.images)} found, {len(subject.skipped)} skipped",
        f"layers   {', '.join(made.resolution.defaults) or 'none that give maps'}",
    ]
    shards = steps.open_shards(made, store)
    digests = {image.digest for image in subject.images}
    lacking = sum(not all(one.knows(digest) for one in shards.values()) for digest in digests)
    scanning = -(-lacking // made.batch)
    rows = (request for planned in made.planned if planned.reason is None for request in planned.rows)
    short = f", {scanning} backward from the last layer" if any(isinstance(one, Backward) for one in rows) else ""
    told = _passes(scanning, lacking) + (short if scanning else "")
    lines.append(f"3 scan     {counted(len(digests), 'image')}, {len(digests) - lacking} stored: {told}")
    known = known_truth(job, subject, made)
    trial = steps.trial(job, subject, made, store, known)
    tried = trial.lacking if trial is not None else 0
    if tried:
        batches = -(-tried // made.batch)
        lines.append(f"3 swap     {tried} labelled images with red and blue exchanged: {_passes(batches, tried)}")
    scanned = read_scan(job, subject, made, shards, known) if lacking == 0 else None
    exact = scanned is not None
    wanted = min(job.preset_values.exhibits, len(digests))
    if scanned is not None:
        examination = plan_examination(made.planned, scanned.cases, store, made.batch)
        batches, images, backwards = examination.passes(made.batch)
        missing, stored = examination.missing, examination.stored
        lines.append(
            f"4 examine  {stored + missing} results about exhibits, {stored} stored: "
            f"{_passes(batches, images)}, {backwards} backward"
        )
    else:
        # the exhibits are not known yet: the bound is that of images of which nothing is stored, in full batches
        unknown = [Case("", "", (0,), (), place) for place in range(wanted)]
        examination = plan_examination(made.planned, unknown, store, made.batch)
        batches, images, backwards = examination.passes(made.batch)
        lines.append(
            f"4 examine  at most {examination.missing} results about {counted(wanted, 'exhibit')}: at most "
            f"{_passes(batches, images)}, {backwards} backward where one class of each is explained"
        )
    sampling = _sampling(job, subject, made, store, scanned)
    batches_too, images_too, backwards_too = sampling.passes()
    if sampling.stored + sampling.missing:
        bound = "" if exact else "at most "
        lines.append(
            f"4 measure  {sampling.stored + sampling.missing} results about the sample, {sampling.stored} stored: "
            f"{bound}{_passes(batches_too, images_too)}, {backwards_too} backward"
        )
    images, backwards = images + images_too, backwards + backwards_too
    lines += [_line(planned, store) for planned in made.planned if planned.name in made.shown]
    climbs, share = _ascents(made, store)
    if climbs:
        lines.append(f"4 ascend   at most {climbs} forward and backward of {made.batch} inputs, as far as the layer")
    passes = (
        lacking + tried + images + BACKWARD_COST * made.batch * backwards + (1 + BACKWARD_COST) * made.batch * share
    )
    seconds = made.resolution.seconds * passes
    lines.append(
        f"about {seconds / 60:.1f} minutes of passes and {_megabytes(made, wanted, lacking):.0f} MB in the store"
    )
    if spent["forward"]["batches"]:
        run = _passes(spent["forward"]["batches"], spent["forward"]["samples"])
        lines.append(f"{run} of noise, run to learn the layers and stored")
    return "\n".join(lines)


def _ascents(made: Blueprint, store: Store) -> tuple[int, float]:
    """Steps in full batches that are at most ahead, and how many whole ones at the model's own size cost as much."""
    shorter = min(made.resolution.pipeline["size"])
    last = max((one.order for one in made.resolution.layers), default=1)
    climbs, share = 0, 0.0
    for task in about_model(made.planned, store):
        for request in task.part.needs:
            if isinstance(request, Ascent):
                own = request.steps * -(-len(request.channels) // made.batch)
                climbs += own
                reached = made.resolution.layer(request.layer).order / last
                share += own * reached * (min(request.size, shorter) / shorter) ** 2
    return climbs, share


def _sampling(job: Job, subject: Subject, made: Blueprint, store: Store, scanned: Scanned | None) -> Sampling:
    """What is measured; where the scan decides which images, as if nothing about them were stored."""
    if scanned is not None:
        return plan_sampling(made.planned, scanned.sample, store, made.batch)
    count = min(job.preset_values.sample, len({image.digest for image in subject.images}))
    return plan_sampling(made.planned, [Case("", "", (0,), (), place) for place in range(count)], store, made.batch)


def _passes(batches: int, samples: int) -> str:
    return f"{batches} forward of {counted(samples, 'image')}" if batches else "no pass"


def _line(planned: Planned, store: Store) -> str:
    if planned.reason is not None:
        return f"  {planned.name:17} not applicable: {planned.reason}"
    whole = planned.technique.scope == "model" and not planned.tasks(None, store)
    kept = "stored" if whole else planned.technique.scope
    layers = ", ".join(planned.technique.layers)
    return f"  {planned.name:17} {kept}{': ' + layers if layers else ''}"


def _megabytes(made: Blueprint, wanted: int, lacking: int) -> float:
    """Upper bound of what the exhibits and filters take: inputs, and for every technique one map a channel and
    layer; and of rows of the images that the scan lacks.
    """
    height, width = made.resolution.pipeline["size"]
    total: float = wanted * height * width * (made.resolution.pipeline["channels"] * MAP_BYTES + 6)
    for planned in made.planned:
        technique = planned.technique
        if planned.reason is None and technique.scope == "scan":
            shapes = [made.resolution.layer(name).shape for name in technique.layers]
            total += lacking * sum(ROW_BYTES * shape[0] for shape in shapes)
        if planned.reason is not None or technique.scope not in ("exhibit", "model"):
            continue
        for name in technique.layers:
            layer = made.resolution.layer(name)
            if technique.scope == "model":
                pictures = [r for r in planned.needs if isinstance(r, Ascent) and r.layer == name]
                size = made.resolution.pipeline["channels"] * height * width / min(height, width) ** 2
                # each picture for itself and among those of its layer
                total += sum(2 * MAP_BYTES * len(r.channels) * size * r.size**2 for r in pictures)
                total += 0 if pictures else MAP_BYTES * layer.parameters
            else:
                kind, _colon, number = technique.channels.partition(":")
                maps = int(number) if number.isdigit() else layer.shape[0] if kind == "all" else 8
                total += wanted * maps * MAP_BYTES * layer.resolution[0] * layer.resolution[1]
    return total / 1e6
