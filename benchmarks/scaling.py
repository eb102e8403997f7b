"""How cost and peak memory grow with images, exhibits, layers, channels and pages, as a table.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --axes images --images 200,1000,5000

Images are generated and the network is small and random, so that what is seen is the program's own cost rather than
that of passes. Every point is two processes of its own on an empty cache: a cold run, and a warm one that finds
everything stored. Per unit stand the seconds over all units, and what each unit beyond those of the point before added
to the time and to the peak of memory: flat columns mean linear growth.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# What an axis varies, and what else is fixed meanwhile. `{n}` is the number of units.
AXES: Mapping[str, Mapping[str, Any]] = {
    "images": {"images": "{n}", "exhibits": 1, "only": "predictions", "write": "html,json"},
    "scan": {
        "images": "{n}",
        "exhibits": 1,
        "only": "predictions,population,exemplars,channel_health",
        "write": "html,json",
    },
    "exhibits": {"images": "{n}", "exhibits": "{n}", "skip": "max_activation,profile", "write": "html"},
    "layers": {"depth": "{n}", "layers": "blocks", "skip": "max_activation,profile", "write": "html"},
    "channels": {"width": "{n}", "channels": "even:{n}", "skip": "max_activation,profile", "write": "html"},
    "pages": {"images": "{n}", "exhibits": "{n}", "only": "predictions,class_activation,feature_maps", "write": "pdf"},
}
FIXED = {"images": 4, "exhibits": 4, "depth": 4, "width": 16}
SIZE = 64
"""Side of the images and of the input, in pixels."""


def main() -> int:
    """Print one table an axis."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axes", default=",".join(AXES), help="which, of %(default)s")
    parser.add_argument("--images", default="200,1000,5000", help="counts (%(default)s)")
    parser.add_argument("--scan", default="200,1000,5000", help="images of which channels are looked at too")
    parser.add_argument("--exhibits", default="8,32,128")
    parser.add_argument("--layers", default="4,16,48")
    parser.add_argument("--channels", default="8,32,128")
    parser.add_argument("--pages", default="8,32,128", help="exhibits that fill them; pages are counted")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.point:
        print(json.dumps(run_of(json.loads(flags.point))))
        return 0
    for axis in flags.axes.split(","):
        table(axis, [int(count) for count in getattr(flags, axis).split(",")])
    return 0


def table(axis: str, counts: Sequence[int]) -> None:
    """Print the points of one axis as they are measured."""
    print(f"\n| {axis} | run | wall, s | CPU, s | ms a unit | more ms a unit | peak, MB | more KB a unit |", flush=True)
    print("|---|---|---|---|---|---|---|---|")
    measured: dict[str, list[Mapping[str, float]]] = {}
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
            point = {name: _filled(value, count) for name, value in {**FIXED, **AXES[axis]}.items()}
            photographs(Path(folder, "images"), int(point["images"]))
            for run in ("cold", "warm"):
                told = in_process({**point, "folder": folder})
                units = told["pages"] if axis == "pages" else count
                print(row(units, run, told, measured.get(run)), flush=True)
                measured.setdefault(run, []).append({**told, "units": units})
    for run, points in measured.items():
        print(f"\n{run}: {slope(points):.2f} KB of memory more for each more of {axis}, over all points")


def slope(points: Sequence[Mapping[str, float]]) -> float:
    """KB a unit of the straight line through the first and the last point, which less than others shows noise."""
    first, last = points[0], points[-1]
    return (last["peak"] - first["peak"]) / ((last["units"] - first["units"]) or 1)


def _filled(value: Any, count: int) -> Any:
    return value.replace("{n}", str(count)) if isinstance(value, str) else value


def row(units: float, run: str, told: Mapping[str, float], earlier: Sequence[Mapping[str, float]] | None) -> str:
    """One line of a table."""
    seconds, held = told["seconds"], told["peak"] / 1024
    cells = [f"{units:.0f}", run, f"{told['wall']:.2f}", f"{seconds:.2f}", f"{1000 * seconds / units:.2f}"]
    before = earlier[-1] if earlier else None
    if before is None or units == before["units"]:
        cells += ["–", f"{held:.1f}", "–"]
    else:
        more = units - before["units"]
        larger = (told["peak"] - before["peak"]) / more
        cells += [f"{1000 * (seconds - before['seconds']) / more:.2f}", f"{held:.1f}", f"{larger:.2f}"]
    return "| " + " | ".join(cells) + " |"


def photographs(folder: Path, count: int, size: int = SIZE) -> None:
    """Small JPEGs of smooth noise, all different."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
        image.save(folder / f"photograph-{number:06d}.jpg", quality=80)


def in_process(point: Mapping[str, Any]) -> dict[str, float]:
    """One run in a process of its own. Raises CalledProcessError."""
    done = subprocess.run(
        [sys.executable, __file__, "--point", json.dumps(point)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        # threads that wait for one another in passes would be most of what is measured on a busy machine
        env={**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"},
    )
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


# what runs in a process of its own
# ----------------------------------------------------------------------------------------------------------------


def run_of(point: Mapping[str, Any]) -> dict[str, float]:
    """One audit and its documents: CPU and wall seconds, peak of memory in KB, pages."""
    import reportgen

    folder = Path(point["folder"])
    model = folder / "model.pt"
    if not model.exists():
        network(model, int(point["depth"]), int(point["width"]))
    begin, spent = time.perf_counter(), time.process_time()
    options = {name: point[name] for name in ("only", "skip", "layers", "channels") if name in point}
    report = reportgen.audit(
        model,
        folder / "images",
        arch="scaling:built",
        arch_arg={"depth": point["depth"], "width": point["width"]},
        pythonpath=(Path(__file__).resolve().parent,),
        cache_dir=folder / "cache",
        input_size=str(SIZE),
        batch_size=16,
        exhibits=int(point["exhibits"]),
        **options,
    )
    written = [report.write(folder / f"report.{suffix}") for suffix in point["write"].split(",")]
    wall, seconds = time.perf_counter() - begin, time.process_time() - spent
    told = {"wall": wall, "seconds": seconds, "peak": peak()}
    return {**told, "pages": sum(pages_of(file) for file in written if file.suffix == ".pdf")}


def pages_of(file: Path) -> int:
    """Pages of a PDF."""
    import pikepdf

    with pikepdf.open(file) as opened:
        return len(opened.pages)


def peak() -> float:
    """Peak of this process's memory in KB."""
    if sys.platform == "linux":  # what `resource` tells there begins with that of the process that started this one
        return float(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)


def network(file: Path, depth: int, width: int) -> None:
    """Save the weights of `built`."""
    import torch

    torch.manual_seed(0)
    torch.save(built(depth=depth, width=width).state_dict(), file)


def built(depth: Any = 4, width: Any = 16, num_classes: int = 10) -> Any:
    """`depth` convolutions of `width` channels, pooled and classified: named as own code by ``--arch``."""
    from torch import nn

    blocks: list[Any] = []
    for number in range(int(depth)):
        stride = 2 if number < 2 else 1
        convolution = nn.Conv2d(int(width) if number else 3, int(width), 3, stride, 1)
        blocks.append(nn.Sequential(convolution, nn.ReLU()))
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(int(width), num_classes))
    return nn.Sequential(*blocks, *pooled)


if __name__ == "__main__":
    sys.exit(main())
