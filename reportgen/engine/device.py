"""Where passes run, and what to do when memory runs out there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from reportgen.errors import UsageError
from reportgen.versions import library_versions

AUTO_BATCH = {"cpu": 4, "mps": 16, "cuda": 32}
"""Images a pass where the user names no number, of inputs of `USUAL` pixels or fewer."""
USUAL = 224 * 224


def choose_device(wanted: str) -> torch.device:
    """The device of that name; ``auto`` prefers CUDA, then MPS. Raises UsageError if it is not there."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise UsageError(
            f"the device {wanted!r} is not available", "use --device cpu, cuda, cuda:1, mps or auto"
        ) from None
    return device


def reduced(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Under what passes run that may be less precise: torch decides operation by operation what takes harm."""
    types = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, types[precision]) if precision in types else nullcontext()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a pass means that memory ran out, on whatever device."""
    words = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in words or "can't allocate memory" in words)
    )


def numerics(
    device: torch.device, batch_size: int | None, pixels: int = USUAL, precision: str = "fp32"
) -> dict[str, Any]:
    """What the bits of a result depend on besides model and image: part of every key.

    Args:
        pixels: of one input: a graph of larger ones holds as much of fewer. On the CPU memory that runs out ends the
            process rather than raising, so that halving would come too late.
        precision: of the scan and of ascents.
    """
    return {
        "device": device.type,
        "precision": precision,
        "batch": batch_size or max(1, AUTO_BATCH.get(device.type, AUTO_BATCH["cpu"]) * USUAL // max(pixels, USUAL)),
        **library_versions(),
    }
