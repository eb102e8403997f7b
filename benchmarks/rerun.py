"""What a second run costs, against the first, as a table.

    python benchmarks/rerun.py
    python benchmarks/rerun.py --model model.pt --images images/ -- --preset quick

A small job on generated images, or one of your own, is run on an empty cache and then again: for each format, with
another title, and with one image more. Every run is a process of its own; seconds include the start of Python. The
ratio is that of processor seconds of the first run and of this one. The last columns tell what a run imported, which is
most of what a warm one costs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from scaling import peak, photographs  # noqa: E402

HEAVY = ("torch", "torchvision", "timm", "matplotlib", "weasyprint", "PIL", "numpy")
SIZE = 128
"""Side of the generated images and of the input, in pixels."""


def main() -> int:
    """Print the table as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="model file (a small network with random weights)")
    parser.add_argument("--images", type=Path, help="folder (six generated images)")
    parser.add_argument("rest", nargs="*", help="options of reportgen, after --")
    given = sys.argv[1:]
    if given[:1] == ["--one"]:
        return one(given[1:])
    flags = parser.parse_args(given)
    with tempfile.TemporaryDirectory(prefix="rerun-") as name:
        folder = Path(name)
        model, options = flags.model, list(flags.rest)
        if model is None:
            model, options = small(folder, options)
        images = flags.images or folder / "images"
        if flags.images is None:
            photographs(images, 6, SIZE)
        runs(folder, str(model.resolve()), str(images.resolve()), options)
    return 0


def small(folder: Path, rest: list[str]) -> tuple[Path, list[str]]:
    """A network that is quick to run, and the options that name it."""
    from scaling import network

    network(folder / "model.pt", 8, 32)
    own = ["--arch", "scaling:built", "--arch-arg", "depth=8", "--arch-arg", "width=32", "--input-size", str(SIZE)]
    return folder / "model.pt", [*own, "--pythonpath", str(Path(__file__).resolve().parent), *rest]


def runs(folder: Path, model: str, images: str, options: Sequence[str]) -> None:
    """Every run, a line each."""
    photographs(folder / "more", 7, SIZE)
    extra = str(sorted((folder / "more").iterdir())[-1])
    listed: list[tuple[str, list[str], list[str]]] = [
        ("first, HTML", [], ["-o", "a.html"]),
        ("again, HTML", [], ["-o", "a.html"]),
        ("again, JSON", [], ["-o", "a.json"]),
        ("again, first PDF", [], ["-o", "a.pdf"]),
        ("again, PDF", [], ["-o", "a.pdf"]),
        ("another title, HTML", [], ["-o", "a.html", "--title", "Another"]),
        ("one image more, HTML", [extra], ["-o", "a.html"]),
        ("the same again, HTML", [extra], ["-o", "a.html"]),
    ]
    print("| run | wall, s | CPU, s | first/this | peak, MB | imported |")
    print("|---|---|---|---|---|---|")
    first = 0.0
    for what, more, own in listed:
        told = in_process([model, images, *more, *options, *own, "-q"], folder)
        first = first or told["cpu"]
        cells = [what, f"{told['wall']:.2f}", f"{told['cpu']:.2f}", f"{first / told['cpu']:.1f}", f"{told['peak']:.0f}"]
        print("| " + " | ".join([*cells, ", ".join(told["imported"])]) + " |", flush=True)


def in_process(arguments: Sequence[str], folder: Path) -> dict[str, Any]:
    """One run in a process of its own. Raises CalledProcessError."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--one", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=folder,
        env={**os.environ, "REPORTGEN_CACHE_DIR": str(folder / "cache"), "MPLBACKEND": "Agg"},
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**told, "wall": time.perf_counter() - begin}


def one(arguments: list[str]) -> int:
    """The command line in this process, and what it took."""
    from reportgen.cli import main as command

    code = command(arguments)
    imported = [name for name in HEAVY if name in sys.modules]
    print(json.dumps({"cpu": time.process_time(), "peak": peak() / 1024, "imported": imported}))
    return code


if __name__ == "__main__":
    sys.exit(main())
