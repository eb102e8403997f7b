"""Settles everything about model and passes that can be settled before images are looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from reportgen.engine.defaults import blocks, default_layers
from reportgen.engine.device import choose_device, is_out_of_memory, numerics
from reportgen.engine.layers import IMAGES, discover
from reportgen.engine.passes import prepared
from reportgen.engine.resolution import Resolution
from reportgen.engine.trace import Counts
from reportgen.errors import LabelsError, OutOfMemory, PassError, ReportgenError


def resolve(
    module: nn.Module,
    *,
    facts: Mapping[str, Any],
    pipeline: Mapping[str, Any],
    labels: tuple[str, ...],
    output_kind: str,
    device: str,
    batch_size: int | None,
    counts: Counts,
    precision: str = "fp32",
    labels_from: str | None = None,
    num_classes: int | None = None,
) -> Resolution:
    """Look at the model with one forward of two images of noise.

    Args:
        facts: of the model file, for the report.
        pipeline: the preprocessing; its ``size`` and ``channels`` make the noise.
        labels: class names.
        labels_from: what the user calls the place they are from: another number of classes is then an error; without
            it they are left out.
        output_kind: the user's word, or ``auto``.
        precision: of the scan and of ascents: ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        PassError: if the model cannot take such an image, or returns no class scores.
        LabelsError: if there are not as many names as classes.
    """
    where = choose_device(device)
    generator = torch.Generator().manual_seed(0)
    height, width = pipeline["size"]
    sample = torch.randn(IMAGES, pipeline["channels"], height, width, generator=generator).to(where)
    tappable = not isinstance(module, torch.jit.ScriptModule)
    with prepared(module, where) as ready:
        counts.forward_batches += 1
        counts.forward_samples += IMAGES
        try:
            seen = discover(ready, sample, output_kind)
            counts.forward_batches += seen.forwards - 1
            counts.forward_samples += (seen.forwards - 1) * IMAGES
        except ReportgenError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise OutOfMemory from None
            words = (str(error).strip().splitlines() or [""])[0][:200]
            raise PassError(
                f"the model cannot process a {pipeline['channels']} × {height} × {width} input: {words}",
                "give --input-size and --channels-in as it was trained, or --arch if it was recognised wrongly",
            ) from error
        parameters = sum(parameter.numel() for parameter in ready.parameters())
    classes = 2 if seen.outputs == 1 else seen.outputs
    if num_classes not in (None, classes, seen.outputs):
        raise PassError(f"the model returns {classes} classes, not {num_classes}", "leave out --num-classes")
    labels = _fitting(labels, classes, seen.outputs, labels_from)
    return Resolution(
        model=dict(facts),
        pipeline=dict(pipeline),
        labels=labels,
        classes=classes,
        outputs=seen.outputs,
        output_kind=seen.kind,
        parameters=parameters,
        layers=seen.layers if tappable else (),
        defaults=default_layers(seen.layers, seen.outputs) if tappable else (),
        blocks=blocks(seen.layers) if tappable else (),
        head=seen.head if tappable else None,
        numerics={**numerics(where, batch_size, height * width, precision), "folded": tappable and bool(seen.folds)},
        seconds=seen.seconds,
        tappable=tappable,
        folds=seen.folds if tappable else (),
        random=seen.random,
        attention=seen.attention if tappable else None,
        attends=seen.attends,
    )


def _fitting(labels: tuple[str, ...], classes: int, outputs: int, labels_from: str | None) -> tuple[str, ...]:
    """As many names as classes, or none. One name of a model with one output is that of its positive class."""
    if len(labels) == outputs == 1:
        return (f"not {labels[0]}", labels[0])
    if labels_from is not None and len(labels) != classes:
        what = f"{labels_from} has {len(labels)} class names, and the model {classes} classes"
        if classes == 2 and outputs == 1:
            raise LabelsError(what, "name the class of small outputs first, then that of large ones")
        raise LabelsError(what, "give --labels a file with one name for each class, in the order of the outputs")
    return labels if len(labels) == classes else ()
