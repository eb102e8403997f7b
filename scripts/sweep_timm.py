"""Audit one model of every timm family with random weights, and keep a table of what became of each.

    python scripts/sweep_timm.py
    python scripts/sweep_timm.py vision_transformer convnext
    python scripts/sweep_timm.py --failed

A family is a module of ``timm.models``; its model here is the classifier that costs least, by parameters times pixels.
It gets a head and statistics with real values, is saved as a state dict, opened again (recognised, or asked for, then
named), held against the module that was saved, and audited. All this happens in a process of its own under limits of
time and memory: what crashes or hangs costs its own row. The table is written after every family, and families that it
holds are not run again unless they are named.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import multiprocessing
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from sweep_torchvision import CLASSES, TOLERANCE, photographs  # noqa: E402

TABLE = ROOT / "docs" / "timm-families.md"
HEADER = "| family | model | parameters, M | input | architecture | complete | not applicable | failed | CPU seconds |"
GIGABYTE = 2**30
WARM = (
    "timm",
    "torchvision",
    "reportgen.pipeline",
    "reportgen.engine.local",
    "reportgen.subject.model_file",
    "weasyprint",
)
MOST_SIDE = 512


def main() -> int:
    """Returns 0 if at least 95 % of the families are complete: every technique complete, or not applicable with a
    reason.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", help="modules of timm.models (those that the table lacks)")
    parser.add_argument("-o", "--output", type=Path, default=TABLE)
    parser.add_argument("--failed", action="store_true", help="run again what failed")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--steps", type=int, default=4, help="of an ascent: whether it works shows after few")
    parser.add_argument("--grid", type=int, default=5, help="of occlusion, likewise")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=900, help="time limit of one family")
    parser.add_argument("--gigabytes", type=float, default=6, help="memory limit of one family")
    flags = parser.parse_args()
    for module in WARM:
        importlib.import_module(module)
    rows = existing(flags.output)
    for family in flags.families or families():
        done = family in rows and not flags.families
        if done and not (flags.failed and not is_complete(rows[family])):
            continue
        rows[family] = row_of(family, flags)
        print(rows[family], flush=True)
        flags.output.write_text(page(rows), encoding="utf-8")
    complete = sum(is_complete(row) for row in rows.values())
    print(f"{complete} of {len(rows)} families complete")
    return 0 if complete >= 0.95 * len(rows) else 1


def families() -> list[str]:
    """Modules of ``timm.models`` that hold models."""
    import timm

    return sorted(name for name in timm.list_modules() if timm.list_models(module=name))


def row_of(family: str, flags: argparse.Namespace) -> str:
    """The table's row of one family, made in a process of its own."""
    context = multiprocessing.get_context("fork")  # what is imported here need not be imported a hundred times
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=one, args=(family, flags, sending))
    begin = resource.getrusage(resource.RUSAGE_CHILDREN)
    child.start()
    sending.close()
    told: dict[str, Any] = {"failed": f"more than {flags.seconds:.0f} s"}
    limit = time.monotonic() + flags.seconds
    try:
        while receiving.poll(max(0.0, limit - time.monotonic())):
            told = receiving.recv()
    except EOFError:  # it ended
        child.join()
        if child.exitcode and told.get("failed"):
            told["failed"] = f"the process ended with {child.exitcode}"
    child.kill()
    child.join()
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    told["seconds"] = f"{end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime:.0f}"
    keys = ("model", "parameters", "input", "architecture", "complete", "not_applicable", "failed", "seconds")
    cells = [str(told.get(key) or "–").replace("|", "/").replace("\n", " ") for key in keys]
    return f"| {' | '.join([family, *cells])} |"


# one family, in its own process
# ----------------------------------------------------------------------------------------


def one(family: str, flags: argparse.Namespace, sending: Connection) -> None:
    """Build, save, open and audit. After each step what is known is sent, with what would be said if it went no
    further.
    """
    told: dict[str, Any] = {}

    def tell(**more: Any) -> None:
        told.update(more)
        sending.send(told)

    if sys.platform == "linux":
        limit = int(flags.gigabytes * GIGABYTE)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="sweep-") as folder:
            warnings.simplefilter("ignore")  # what libraries deprecate is not asked here
            swept(family, Path(folder), flags, tell)
    except BaseException as error:
        words = [line for line in str(error).splitlines() if line.strip()] or [""]
        tell(failed=f"{type(error).__name__}: {words[0][:200]}")


def swept(family: str, folder: Path, flags: argparse.Namespace, tell: Callable[..., None]) -> None:
    """What `one` does once its limits are set."""
    import torch

    torch.manual_seed(0)
    name = smallest(family)
    if name is None:
        tell(not_applicable="no classifier: its models are encoders without a head")
        return
    tell(model=name, failed=f"more than {flags.seconds:.0f} s")
    model, size = built(name)
    tell(parameters=f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f}", input=size)
    torch.save(model.state_dict(), folder / "model.pt")
    how, arch = opened(model, folder / "model.pt", name, size)
    tell(architecture=how)
    del model
    photographs(folder / "images", flags.images)
    tell(**audited(folder, arch, flags))


def smallest(family: str) -> str | None:
    """The classifier of a family that costs least; models made for tests of timm are no models, and those that fix
    too large an input come last.
    """
    import timm

    from reportgen.errors import ArchitectureError
    from reportgen.subject.architectures import meta, published
    from reportgen.subject.recognition import described

    costs = []
    for name in timm.list_models(module=family):
        if described(f"timm:{name}") is None or name.startswith("test_"):
            continue
        try:
            parameters = sum(p.numel() for p in meta(f"timm:{name}", classes=CLASSES, channels=None).parameters())
        except ArchitectureError:
            continue
        facts = published(f"timm:{name}")
        side = facts.input_size[-1] if facts else 224
        costs.append((side > MOST_SIDE, parameters * side * side, name))
    return min(costs)[-1] if costs else None


def built(name: str) -> tuple[Any, int]:
    """A module that behaves like a trained one, and the side of its input."""
    import timm
    from torch import nn

    from reportgen.subject.architectures import published
    from tests.networks import enlivened

    model = timm.create_model(name, num_classes=CLASSES)
    facts = published(f"timm:{name}")
    size = facts.input_size[-1] if facts else 224
    for key, parameter in model.named_parameters():
        scale = key.rpartition(".")[2] in ("gamma", "gamma_1", "gamma_2", "gamma1", "gamma2", "layer_scale")
        if scale and parameter.detach().abs().max() < 0.1:
            nn.init.uniform_(parameter, 0.2, 1.0)  # fresh ones all but close the branch they stand in
    return enlivened(model, size=size), size


def opened(model: Any, file: Path, name: str, size: int) -> tuple[str, str | None]:
    """(how the architecture was settled, what --arch must say). Raises where the opened module gives other scores."""
    import torch

    from reportgen.errors import ArchitectureError
    from reportgen.subject.model_file import open_model
    from tests.networks import noise

    arch = None
    try:
        again, facts = open_model(file, sha256="")
        taken = facts.architecture.partition(":")[2]
        how = "recognised" if taken == name else f"recognised as {facts.architecture}"
    except ArchitectureError as error:
        arch = f"timm:{name}"
        how = "asked" if "compute different things" in error.thing else f"not recognised ({error.thing})"
        again, _facts = open_model(file, sha256="", arch=arch)
    x = noise(2, size)
    with torch.no_grad():
        expected = model(x)
        difference = float((again(x) - expected).abs().max())
    if not difference <= TOLERANCE * float(expected.abs().max()):
        raise SystemExit(f"the opened module gives other scores: they differ by {difference:.2g}")
    return how, arch


def audited(folder: Path, arch: str | None, flags: argparse.Namespace) -> dict[str, Any]:
    """What became of every technique."""
    import reportgen

    report = reportgen.audit(
        folder / "model.pt",
        folder / "images",
        preset=flags.preset,
        arch=arch,
        cache_dir=folder / "cache",
        batch_size=flags.images,
        techniques={"max_activation": {"steps": flags.steps}, "occlusion": {"grid": flags.grid}},
    )
    report.write(folder / "report.html")
    techniques = report.facts["techniques"]
    done = sum(one["status"] == "complete" for one in techniques.values())
    told: dict[str, Any] = {"complete": f"{done} of {len(techniques)}"}
    for status in ("not_applicable", "failed"):
        reasons = [f"{key}: {one.get('reason')}" for key, one in techniques.items() if one["status"] == status]
        told[status] = "; ".join(reasons)
    return told


# the table
# -------------------------------------------------------------------------------------------------------------


def existing(file: Path) -> dict[str, str]:
    """Rows of an earlier run, by family."""
    if not file.exists():
        return {}
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return {line.split("|")[1].strip(): line for line in lines[1:]}


def is_complete(row: str) -> bool:
    """Nothing failed."""
    return row.split("|")[8].strip() == "–"


def page(rows: dict[str, str]) -> str:
    """The whole page as Markdown."""
    complete = sum(is_complete(row) for row in rows.values())
    waiting = [family for family in families() if family not in rows]
    told = [
        "# Models of timm",
        "",
        "One model of every family of timm with random weights, saved as a state dict, opened, audited with `--preset",
        "quick` on two images: made by `python scripts/sweep_timm.py`, which also says how the model is chosen.",
        "",
        f"{datetime.date.today().isoformat()}, timm {version('timm')}, torch {version('torch')}: {complete} of"
        f" {len(rows)} families complete: every technique is, or is not applicable for the reason given.",
        "`recognised` is from the weights alone, `asked` where other architectures have the same weights and compute",
        "something else: the error names them, and `--arch` settles it. To spend less on each, ascents take 4",
        "steps and occlusion 25 places; whether they work shows after few.",
        *(["", f"Not run yet ({len(waiting)}): {', '.join(waiting)}."] if waiting else []),
        "",
        HEADER,
        "|" + "---|" * (HEADER.count("|") - 1),
    ]
    return "\n".join([*told, *(rows[family] for family in sorted(rows))]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
