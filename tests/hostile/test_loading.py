"""Hostile model files opened in a process of their own: it never dies by a signal, nor takes more than is promised.

The memory that counts is the system's, with what torch, zlib and safetensors take besides Python.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reportgen.errors import ReportgenError
from reportgen.subject.model_file import open_model
from tests.networks import lively
from tests.subject import test_hostile_files as hostile

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is counted as Linux does it")
MOST_MEMORY = 300_000_000
"""What opening a file may take besides ten times its size, as SECURITY.md promises."""
FUSE = 4_000_000_000
"""Bytes that a process may ask for in all, so that a fault is this test's and not the machine's."""


def opened(paths: list[Path], told: Connection, *, run: bool) -> None:
    """In a process of its own: open files; tell of each what was said, and how much memory was taken at most so far."""
    torch.set_num_threads(1)
    begin = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (begin + FUSE, begin + FUSE))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in paths:
        try:
            module, _facts = open_model(path, sha256="")
            said = ""
            if run:
                module(torch.zeros(1, 3, 32, 32))
        except ReportgenError as error:
            said = str(error)
        except Exception as error:  # of a network that does not compute
            if not run:
                raise
            said = f"{type(error).__name__}: {error}"
        told.send((said, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)))


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reportgen.subject.model_file", "timm", "torchvision", "safetensors.torch"])
    return context


def trial(context: ForkServerContext, paths: list[Path], *, run: bool = False) -> list[str]:
    """What was said of each file, once the process that opened them (and ran them) ended well and within its bounds."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=opened, args=(paths, sender), kwargs={"run": run}, daemon=True)
    process.start()
    sender.close()
    said: list[str] = []
    for path in paths:
        try:
            words, taken = receiver.recv()
        except EOFError:
            process.join()
            pytest.fail(f"{path.name}: exit {process.exitcode}")
        assert taken < MOST_MEMORY + 10 * path.stat().st_size, (path.name, taken)
        said.append(words)
    process.join()
    assert process.exitcode == 0
    return said


def hostile_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(what it is, path) of the files of `tests.subject.test_hostile_files`."""
    places = (folder / f"{number}.pt" for number in range(sys.maxsize))
    for name, make in hostile.FORMS.items():
        for what, words in hostile.CALLS.items():
            yield f"{name}: {what}", make(next(places), hostile.marked(words, folder / "done"))
        for what, words in hostile.ABSURD.items():
            yield f"{name}: {what}", make(next(places), words, **{"0": bytes(16)})
    for what, trick in hostile.TRICKS.items():
        path = next(places)
        path.write_bytes(trick(hostile.archive(path)))
        yield what, path
    for what, head in hostile.HEADERS.items():
        path = next(places).with_suffix(".safetensors")
        data = head if head[:1] != b"{" else len(head).to_bytes(8, "little") + head + bytes(16)
        path.write_bytes(data)
        yield what, path


def test_hostile_files_are_refused(server: ForkServerContext, tmp_path: Path) -> None:
    files = dict(hostile_files(tmp_path))
    assert len(files) > 120
    for what, said in zip(files, trial(server, list(files.values())), strict=True):
        assert 1 <= len(said.splitlines()) <= 2, what
        assert "Memory" not in said, what
        assert "allocate" not in said, what
    assert not (tmp_path / "done").exists()


def broadcast(kind: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda one: torch.zeros(1, dtype=kind).expand(one.shape) if one.is_floating_point() else one


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float16, torch.float64])
def test_weights_that_are_one_number(kind: torch.dtype, server: ForkServerContext, tmp_path: Path) -> None:
    """A few kilobytes that claim to be a network: they open within the bound or are refused."""
    state = {key: broadcast(kind)(one) for key, one in lively("resnet18", classes=7, size=64).state_dict().items()}
    torch.save(state, tmp_path / "m.pt")
    wide = nn.Sequential(*(nn.Linear(1024, 1024, bias=False) for _layer in range(200)))
    for layer in wide:
        layer._parameters["weight"] = nn.Parameter(broadcast(kind)(layer.weight), requires_grad=False)
    torch.save(wide, tmp_path / "n.pt")
    _opened_or_not, said = trial(server, [tmp_path / "m.pt", tmp_path / "n.pt"])
    assert "claim more than its bytes" in said


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_a_sound_file_takes_some_times_its_size(
    kind: torch.dtype, legacy: bool, server: ForkServerContext, tmp_path: Path
) -> None:
    state = lively("resnet18", classes=7, size=64).to(kind).state_dict()
    torch.save(state, tmp_path / "m.pt", _use_new_zipfile_serialization=not legacy)
    assert trial(server, [tmp_path / "m.pt"]) == [""]


ODD: list[tuple[nn.Module, dict[str, Any]]] = [
    (nn.Conv2d(4, 4, 1), {"groups": 0}),
    (nn.Conv2d(4, 4, 1), {"groups": 2**40}),
    (nn.Conv2d(4, 4, 1), {"stride": (0, 0)}),
    (nn.Conv2d(4, 4, 1), {"padding": (2**40, 2**40)}),
    (nn.Conv2d(4, 4, 1), {"dilation": (-1, 0)}),
    (nn.ConvTranspose2d(4, 4, 1), {"output_padding": (2**40, 0)}),
    (nn.AvgPool2d(2), {"kernel_size": 0}),
    (nn.MaxPool2d(2), {"stride": -1}),
    (nn.AdaptiveAvgPool2d(1), {"output_size": (2**30, 2**30)}),
    (nn.FractionalMaxPool2d(2, 3), {"_random_samples": torch.full((1, 4, 2), 9e9)}),
    (nn.PixelShuffle(2), {"upscale_factor": 0}),
    (nn.ChannelShuffle(2), {"groups": 0}),
    (nn.GroupNorm(2, 4), {"num_groups": -2}),
    (nn.LocalResponseNorm(2), {"size": 0}),
    (nn.Unfold(2), {"dilation": 0}),
    (nn.Upsample(2), {"size": 2**30}),
    (nn.ReflectionPad2d(1), {"padding": (99, 99, 99, 99)}),
    (nn.ReplicationPad2d(1), {"padding": (-99, -99, -99, -99)}),
    (nn.Softmax(1), {"dim": 77}),
    (nn.BatchNorm2d(4), {"_buffers": {"running_mean": torch.zeros(1), "running_var": torch.zeros(1)}}),
    (nn.PReLU(4), {"_parameters": {"weight": nn.Parameter(torch.zeros(3))}}),
    (nn.Conv2d(4, 4, 1), {"_parameters": {"weight": nn.Parameter(torch.zeros(4, 3, 0, 0)), "bias": None}}),
]


def test_networks_with_absurd_parts_fail_and_do_not_crash(server: ForkServerContext, tmp_path: Path) -> None:
    paths: list[Path] = []
    for number, (part, own) in enumerate(ODD):
        part.__dict__.update(own)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), part, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        paths.append(tmp_path / f"{number}.pt")
        torch.save(model, paths[-1])
    said = trial(server, paths, run=True)
    assert sum(map(bool, said)) >= len(ODD) - 2
