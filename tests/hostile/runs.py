"""Whole runs of the program in processes that can be killed, started quickly: what they import is imported once.

Each run is a fork of one server that has imported everything and computed nothing. It writes HTML, PDF and JSON under a
fixed date, so that an undisturbed run and one that follows a disturbance can be compared byte by byte.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook
from torchvision.models import ResNet

from tests.networks import lively

BOUNDARIES = (("tempfile", "mkstemp"), ("os", "fsync"), ("os", "replace"))
"""Where a file of the store or of the output comes into being, is safe on the disk, and gets its name."""
OPTIONS = ("--preset", "quick", "--input-size", "64", "--batch-size", "2")
ONLY = ("--only", "predictions,class_activation,feature_maps,filters,gradient,max_activation")
FEW = ("--set", "max_activation.steps=2", "--set", "max_activation.channels=even:2", "--set", "max_activation.size=32")
KINDS = ("html", "pdf", "json")


@dataclass(frozen=True)
class Fault:
    """What happens at a write.

    Attributes:
        how: ``before`` or ``after``: the process dies there. ``full store``, ``full output``: from there on the disk
            has no room for the one or the other. ``count``: writes are only counted. ``moment``: it dies after so many
            seconds of the processor's time, wherever it is then. ``vanish``: the store is removed there. ``read-only``:
            nothing in the store can be changed.
        at: number of the boundary, from 0, in the order in which the run comes to them; or seconds.
    """

    how: str
    at: float = 0


@dataclass(frozen=True)
class Subject:
    """A model file and a folder of images, and how the program is called about them."""

    model: Path
    images: Path
    words: tuple[str, ...] = (*OPTIONS, *ONLY, *FEW)
    kinds: tuple[str, ...] = KINDS


def small(folder: Path) -> Subject:
    """A network with random weights and five images, one of which is broken."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(lively("resnet18", classes=7, size=64).state_dict(), folder / "m.pt")
    (folder / "images").mkdir()
    for number in range(4):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((90, 80), Image.Resampling.BICUBIC).save(folder / "images" / f"{number}.png")
    (folder / "images" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a JPEG")
    return Subject(folder / "m.pt", folder / "images")


def server() -> ForkServerContext:
    """The server, which imports what runs need before the first of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torchvision", "weasyprint", "matplotlib.pyplot", "reportgen.cli"])
    return context


def start(
    context: ForkServerContext,
    subject: Subject,
    cache: Path,
    out: Path,
    fault: Fault | None = None,
    *,
    locks: bool = True,
) -> ForkServerProcess:
    """Begin a run that writes into `out`, where ``log`` gets what it says.

    Args:
        locks: hold; otherwise all who ask get them at once.
    """
    out.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=_run, args=(subject, cache, out, fault, locks), daemon=True)
    process.start()
    return process


def finished(context: ForkServerContext, subject: Subject, cache: Path, out: Path, fault: Fault | None = None) -> int:
    """A run to its end. Returns its exit status, negative for a signal."""
    process = start(context, subject, cache, out, fault)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def documents(out: Path) -> dict[str, bytes]:
    """What a run wrote, by kind."""
    return {path.suffix: path.read_bytes() for path in sorted(out.glob("report.*"))}


def end_after(seconds: float) -> None:
    """Let the system end this process after so many seconds of work, at once, as a kill does.

    Work is counted and not time, so that moments are spread over a run however busy the machine is. The program that
    takes the place of this one inherits it.
    """
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, max(seconds, 0.001))


def seconds_of(out: Path) -> float:
    """Time of the processor that a run took."""
    return float((out / "seconds").read_text())


def boundaries(out: Path) -> list[str]:
    """The writes a run under ``Fault(0, "count")`` came to."""
    return (out / "boundaries").read_text().splitlines()


def calls(out: Path) -> list[int]:
    """Inputs of each call of the network."""
    return [int(line) for line in (out / "calls").read_text().split()] if (out / "calls").exists() else []


def leftovers(folder: Path) -> list[Path]:
    """Files that were begun and not finished."""
    return [path for path in folder.rglob("*") if path.suffix in (".part", ".tmp")]


class Undisturbed:
    """What a run comes to that nobody disturbs: its documents, its writes, how much processor time it takes."""

    def __init__(self, context: ForkServerContext, folder: Path) -> None:
        self.context, self.subject = context, small(folder / "subject")
        assert finished(context, self.subject, folder / "warming-up", folder / "first") == 0  # what is imported lazily
        assert finished(context, self.subject, folder / "cache", folder / "whole", Fault("count")) == 0
        self.seconds = seconds_of(folder / "whole")
        self.documents = documents(folder / "whole")
        self.writes = boundaries(folder / "whole")

    def resumes(self, cache: Path, out: Path) -> None:
        """A run on what is left of a disturbed one gives the same documents and begins nothing that it does not end."""
        begun = set(leftovers(out))  # by one that was killed: nobody knows that it is not alive any more
        assert finished(self.context, self.subject, cache, out) == 0
        assert documents(out) == self.documents
        assert set(leftovers(out)) == begun


# in the process of a run
# ----------------------------------------------------------------------------------------------------------------


def _run(subject: Subject, cache: Path, out: Path, fault: Fault | None, locks: bool) -> None:
    log = os.open(out / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(REPORTGEN_CACHE_DIR=str(cache), SOURCE_DATE_EPOCH="1700000000", MPLBACKEND="Agg")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as a terminal would have it
    torch.set_num_threads(1)
    if fault is not None:
        _arm(fault, cache, out)
    if not locks:
        _weaken()
    _count_calls(out)
    from reportgen.cli import main

    targets = [word for kind in subject.kinds for word in ("-o", str(out / f"report.{kind}"))]
    status = main([str(subject.model), str(subject.images), *subject.words, *targets])
    (out / "seconds").write_text(str(time.process_time()))
    sys.exit(status)


def _count_calls(out: Path) -> None:
    """Write down how many inputs each call of the whole network gets."""

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, ResNet):
            with (out / "calls").open("a") as file:
                file.write(f"{len(inputs[0])}\n")

    register_module_forward_pre_hook(count)


def _weaken() -> None:
    """Locks that everybody gets, as some network file systems grant them."""
    import filelock

    filelock.FileLock.acquire = lambda _self, **_options: None  # type: ignore[assignment,method-assign]
    filelock.FileLock.release = lambda _self, **_options: None  # type: ignore[assignment,method-assign]


def _lock_down(cache: Path) -> None:
    """Every call that would change something below a folder fails, as on a file system that is mounted so."""
    inside = str(cache) + os.sep

    def refused(event: str, words: tuple[Any, ...]) -> None:
        changing = event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.utime", "os.chmod", "os.truncate")
        if event == "open" and isinstance(words[2], int):
            changing = bool(words[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if changing and any(isinstance(word, str | Path) and str(word).startswith(inside) for word in words):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    sys.addaudithook(refused)


def _arm(fault: Fault, cache: Path, out: Path) -> None:
    """Put the fault in the way of every write, or at the end of a time."""
    if fault.how == "moment":
        end_after(fault.at)
        return
    if fault.how == "read-only":
        _lock_down(cache)
        return
    passed = iter(range(sys.maxsize))

    def armed(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            number = next(passed)
            if fault.how == "count":
                with (out / "boundaries").open("a") as file:
                    file.write(name + "\n")
            if fault.how.startswith("full") and number >= fault.at and name == "mkstemp":
                stored = Path(options["dir"]).is_relative_to(cache)
                if stored == (fault.how == "full store"):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if number == fault.at and fault.how == "vanish":
                shutil.rmtree(cache)
            if number == fault.at and fault.how == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            found = real(*args, **options)
            if number == fault.at and fault.how == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return call

    places = {"tempfile": tempfile, "os": os}
    for module, name in BOUNDARIES:
        setattr(places[module], name, armed(getattr(places[module], name), name))
