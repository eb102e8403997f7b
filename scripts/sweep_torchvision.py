"""Audit every torchvision classifier with random weights, and print what became of it.

    python scripts/sweep_torchvision.py -o sweep.md
    python scripts/sweep_torchvision.py resnet18 vit_b_16 --forms

Each network gets a head and batch-norm statistics with real values, is saved as a state dict, and is audited from that
file in a process of its own, with an empty cache and a time limit: what crashes or hangs costs its own row. The table
is written after every network; networks that it already holds are not run again. With ``--forms`` the file is opened in
four forms (state dict, checkpoint with ``module.`` prefixes, safetensors, pickled module) and the scores of each are
held against a plain forward of the same batch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

CLASSES = 7
IMAGES = 3
TOLERANCE = 1e-5
HEADER = "| network | parameters, M | recognised as | complete | others | forms | seconds | peak, MB |"

# What runs in a process of its own: one audit; it tells what became of it, and its peak of memory.
AUDIT = """
import json, resource, sys
import reportgen
folder, preset, steps = sys.argv[1:4]
few = {"max_activation": {"steps": int(steps)}}
report = reportgen.audit(
    folder + "/model.pt", folder + "/images", preset=preset, cache_dir=folder + "/cache", techniques=few
)
report.write(folder + "/report.html")
report.write(folder + "/report.pdf")
facts = report.facts
told = {name: [one["status"], one.get("reason")] for name, one in facts["techniques"].items()}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
if sys.platform == "linux":  # there the figure above begins with that of the process that started this one
    status = open("/proc/self/status").read()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
print(json.dumps({"architecture": facts["model"]["architecture"], "techniques": told, "peak": peak}))
"""


def main() -> int:
    """Returns 0 if every technique of every network is complete or does not apply for a stated reason."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", help="names (all)")
    parser.add_argument("-o", "--output", type=Path, default=Path("sweep.md"))
    parser.add_argument("--most-parameters", type=float, default=150e6, help="larger ones are left out and named")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--steps", type=int, default=8, help="of an ascent: whether it works shows after few")
    parser.add_argument("--forms", action="store_true", help="check four forms of the file too")
    parser.add_argument("--seconds", type=float, default=900, help="time limit of one audit")
    flags = parser.parse_args()
    names = flags.networks or all_names()
    rows = existing(flags.output)
    left_out = []
    for name in names:
        if name in rows:
            continue
        with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
            row = swept(name, Path(folder), flags)
        if row is None:
            left_out.append(name)
            continue
        rows[name] = row
        print(row, flush=True)
        flags.output.write_text(table(rows, left_out), encoding="utf-8")
    flags.output.write_text(table(rows, left_out), encoding="utf-8")
    good = sum(is_good(row) for row in rows.values())
    print(f"{good} of {len(rows)} networks: every technique complete, or a true reason; left out: {left_out or 'none'}")
    return 0 if good == len(rows) else 1


def all_names() -> list[str]:
    """Every classifier of torchvision."""
    import torchvision

    return sorted(torchvision.models.list_models(module=torchvision.models))


def swept(name: str, folder: Path, flags: argparse.Namespace) -> str | None:
    """The row of one network; None if it has too many parameters."""
    import torch

    from tests.networks import enlivened

    size = 299 if name == "inception_v3" else 224
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = built(name)
        parameters = sum(p.numel() for p in model.parameters())
        if parameters > flags.most_parameters:
            return None
        enlivened(model, size=size)
    torch.save(model.state_dict(), folder / "model.pt")
    photographs(folder / "images")
    forms = checked(model, folder, size) if flags.forms else "–"
    del model
    begin = time.perf_counter()
    told = audited(folder, flags)
    seconds = time.perf_counter() - begin
    if isinstance(told, str):
        return f"| {name} | {parameters / 1e6:.1f} | – | 0 | failed: {told} | {forms} | {seconds:.0f} | – |"
    complete = sum(status == "complete" for status, _reason in told["techniques"].values())
    others = "; ".join(
        f"{technique} {status.replace('_', ' ')}: {reason}"
        for technique, (status, reason) in told["techniques"].items()
        if status != "complete"
    )
    done = f"{complete} of {len(told['techniques'])}"
    return (
        f"| {name} | {parameters / 1e6:.1f} | {told['architecture']} | {done} | {others or '–'} | {forms} "
        f"| {seconds:.0f} | {told['peak']:.0f} |"
    )


def built(name: str) -> Any:
    """The network with random weights."""
    import torchvision

    return torchvision.models.get_model(name, weights=None, num_classes=CLASSES)


def photographs(folder: Path, count: int = IMAGES) -> None:
    """Images of smooth noise."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (7, 7, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((320, 280), Image.Resampling.BICUBIC).save(folder / f"{number}.png")


def audited(folder: Path, flags: argparse.Namespace) -> Any:
    """What an audit in a process of its own told, or why it told nothing."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", AUDIT, str(folder), flags.preset, str(flags.steps)],
            capture_output=True,
            text=True,
            timeout=flags.seconds,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return f"more than {flags.seconds:.0f} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][:200]
    return json.loads(done.stdout.splitlines()[-1])


def checked(model: Any, folder: Path, size: int) -> str:
    """Which of four forms opens with the scores of a plain forward."""
    import safetensors.torch
    import torch

    from reportgen.subject.model_file import open_model
    from tests.networks import noise

    state = {key: value.contiguous().clone() for key, value in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, folder / "c.pth")
    safetensors.torch.save_file(state, folder / "s.safetensors")
    torch.save(model, folder / "p.pt")
    x = noise(2, size)
    good = []
    with torch.no_grad():
        expected = model(x)
        for file in ("model.pt", "c.pth", "s.safetensors", "p.pt"):
            opened, _facts = open_model(folder / file, sha256="")
            difference = float((opened.eval()(x) - expected).abs().max())
            good.append(difference <= TOLERANCE * float(expected.abs().max()))
    return f"{sum(good)} of {len(good)}"


def existing(file: Path) -> dict[str, str]:
    """Rows of an earlier run."""
    if not file.exists():
        return {}
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return {line.split("|")[1].strip(): line for line in lines[1:]}


def is_good(row: str) -> bool:
    """Nothing failed, and all forms that were tried are equal."""
    cells = [cell.strip() for cell in row.split("|")]
    return "failed" not in cells[5] and cells[6] in ("–", "4 of 4")


def table(rows: dict[str, str], left_out: list[str]) -> str:
    """The whole table as Markdown."""
    rule = "|" + "---|" * (HEADER.count("|") - 1)
    told = f"\nLeft out for their size: {', '.join(left_out)}.\n" if left_out else ""
    return "\n".join([HEADER, rule, *(rows[name] for name in sorted(rows))]) + "\n" + told


if __name__ == "__main__":
    sys.exit(main())
