"""The machine: what a measurement of time depends on, and what is asked of its C library. Imports nothing heavy."""

from __future__ import annotations

import gc
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

_TRIM, _MMAP = -1, -3
"""``M_TRIM_THRESHOLD`` and ``M_MMAP_THRESHOLD`` of glibc's malloc.h."""
_KEPT: Final = (1 << 30, 1 << 25)
"""Bytes; the second is the most that older versions take."""


@cache
def machine() -> dict[str, Any]:
    """Processor and accelerators: equal for machines on which a pass takes equally long.

    Host name, user and addresses are not in it.
    """
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "accelerators": _accelerators(),
    }


def _processor(description: Path = Path("/proc/cpuinfo")) -> str:
    """Its model as it calls itself."""
    try:
        told = description.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", told, re.MULTILINE)
    return " ".join(found[1].split()) if found else platform.processor() or platform.machine()


def _accelerators(drivers: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """Models of the NVIDIA GPUs that the driver tells of; asking torch would mean importing it."""
    models = []
    for file in sorted(drivers.glob("*/information")):
        told = file.read_text(encoding="utf-8", errors="replace")
        models += [" ".join(model.split()) for model in re.findall(r"^Model:\s*(.+)$", told, re.MULTILINE)]
    return models


@contextmanager
def unreclaimed() -> Iterator[None]:
    """Never search for garbage among what is made meanwhile, for a program that ends soon: the pages of a document are
    millions of objects, and a search among them takes a twentieth of the time that it takes to set them.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def keep_freed_memory() -> None:
    """Have glibc keep blocks that are freed, for a program that takes blocks of the same sizes again and again.

    By default it returns those of a few megabytes and more, activations and gradients, to the system, which clears
    every page of them anew: that takes a twentieth of the time of an audit. Of the whole process, so for programs, not
    for libraries. Other C libraries are left alone, and so is one that the user has tuned.
    """
    import ctypes

    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    try:
        library = ctypes.CDLL(None)
        mallopt, _is_glibc = library.mallopt, library.gnu_get_libc_version
    except (OSError, TypeError, AttributeError):  # as Windows and other C libraries answer
        return
    # to set either ends the growing of both, so that the second alone would do harm
    if any(mallopt(_MMAP, kept) for kept in _KEPT):
        mallopt(_TRIM, _KEPT[0])
