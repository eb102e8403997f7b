"""What the benchmarks look at: a network with random weights that behave like trained ones, and generated images."""

from __future__ import annotations

import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SIZE = 224
SEED = 0


def network(name: str) -> Any:
    """A torchvision classifier in evaluation mode whose head and batch-norm statistics have real values."""
    import torch
    import torchvision

    from tests.networks import enlivened

    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return enlivened(torchvision.models.get_model(name, weights=None), size=SIZE)


def photographs(folder: Path, count: int) -> list[Path]:
    """JPEG files of smooth noise, of the size at which the network sees them."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        files.append(folder / f"{number}.jpg")
        Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(files[-1], quality=95)
    return files


def inputs(files: list[Path]) -> Any:
    """(n, 3, 224, 224) as the network was trained to see images."""
    import numpy as np
    import torch
    from PIL import Image

    arrays = [np.asarray(Image.open(file).convert("RGB"), np.float32) / 255 for file in files]
    x = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((x - mean[:, None, None]) / std[:, None, None]).contiguous()


def seconds(function: Callable[[], object], runs: int = 1, *, warm: bool = False) -> float:
    """The shortest of some runs; `warm`: after one that does not count."""
    if warm:
        function()
    times = []
    for _run in range(runs):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times)


def machine() -> str:
    """In words: processor, cores, versions."""
    import torch

    model = platform.processor() or platform.machine()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        named = (line.partition(":")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name"))
        model = next(named, model).strip()
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{model}, {os.cpu_count()} cores{device}, torch {torch.__version__}, Python {platform.python_version()}"
