"""What a measurement of time depends on: the machine, by its parts and not by its name. Imports nothing heavy."""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from pathlib import Path
from typing import Any


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
