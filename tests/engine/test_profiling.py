"""What is measured is true in its sums, disturbs nothing, and tells nobody where it was made."""

from __future__ import annotations

import getpass
import gzip
import json
import os
import socket
import subprocess
import sys
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reportgen.engine.passes import Passes, prepared
from reportgen.engine.profiling import WORKER, measure, plain, scrubbed
from reportgen.engine.resolve import resolve
from reportgen.engine.trace import Counts
from reportgen.errors import PassError

SIZE = 32
PATIENT = 1e9
"""Seconds: as many repetitions as are asked for, however slow the machine is."""


def small() -> nn.Module:
    torch.manual_seed(0)
    stage = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        stage,
        stage,  # called twice
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()


def passes_of(module: nn.Module) -> Passes:
    pipeline = {"size": (SIZE, SIZE), "channels": 3}
    resolution = resolve(
        module,
        facts={},
        pipeline=pipeline,
        labels=(),
        output_kind="logits",
        device="cpu",
        batch_size=2,
        counts=Counts(),
    )
    return Passes(module, resolution, torch.device("cpu"), Counts())


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    module = small()
    with prepared(module, torch.device("cpu")) as ready:
        return measure(passes_of(ready), repeats=2, budget=PATIENT)


def test_everything_but_the_trace_is_json(measured: dict[str, Any]) -> None:
    told = {name: value for name, value in measured.items() if name != "trace"}
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert measured["batch"] == [2, 3, SIZE, SIZE]
    assert measured["device"] == "cpu"
    assert measured["threads"] == torch.get_num_threads()


def test_layers_hold_what_is_in_them(measured: dict[str, Any]) -> None:
    layers = dict(measured["layers"])
    names = [name for name, _part in small().named_modules() if name]
    assert list(layers) == names
    assert all(value > 0 for value in layers.values())
    # medians of two runs are means, and a mean of sums is a sum of means
    assert layers["3"] >= layers["3.0"] + layers["3.1"]


def test_operators_are_those_of_the_pass(measured: dict[str, Any]) -> None:
    calls = {one["name"]: one["calls"] for one in measured["operators"]}
    assert calls["aten::conv2d"] == 3
    assert calls["aten::convolution_backward"] == 3
    assert not [name for name in calls if name in dict(measured["layers"]) or name.startswith("ProfilerStep")]
    for one in measured["operators"]:
        assert 0 <= one["self"] <= one["total"] + 1e-3
        assert one["device"] is None
    own = [one["self"] for one in measured["operators"]]
    assert own == sorted(own, reverse=True)


def test_no_gradient_of_weights() -> None:
    """The convolution that the input reaches last is differentiated by its input alone: nothing holds its weights'
    gradient.
    """
    module = small()
    with prepared(module, torch.device("cpu")) as ready:
        measure(passes_of(ready), repeats=1)
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in ready.parameters())


def test_memory_is_that_of_the_tensors(measured: dict[str, Any]) -> None:
    memory = measured["memory"]
    assert memory["device"] == "CPU"
    assert len(memory["times"]) == len(memory["bytes"])
    assert memory["times"] == sorted(memory["times"])
    one_map = 2 * 8 * SIZE * SIZE * 4
    # input and the maps that the backward needs: convolution, normalisation, and two of each stage
    assert memory["peak"] >= 4 * one_map
    assert memory["peak"] == max(memory["bytes"])
    assert memory["bytes"][-1] < one_map
    # most is held where the backward begins
    most = memory["times"][memory["bytes"].index(memory["peak"])]
    assert 0 < memory["backward"] < memory["times"][-1]
    assert most > memory["times"][0]
    allocated = {one["name"]: one["memory"] for one in measured["operators"]}
    assert allocated["aten::conv2d"] >= 3 * one_map


def test_passes_are_counted() -> None:
    module = small()
    seen: list[int] = []
    with prepared(module, torch.device("cpu")) as ready:
        passes = passes_of(ready)
        handle = ready.register_forward_hook(lambda _m, args, _out: seen.append(len(args[0])))
        measure(passes, repeats=2, budget=PATIENT)
        handle.remove()
    assert passes.counts.forward_batches == len(seen)
    assert passes.counts.forward_samples == sum(seen)
    assert passes.counts.backward_batches == 2 + 2 + 1  # to warm up, timed, profiled


def test_a_slow_machine_repeats_less() -> None:
    module = small()
    with prepared(module, torch.device("cpu")) as ready:
        assert measure(passes_of(ready), repeats=3, budget=0)["repeats"] == 1


def test_trace_tells_nobody_where_it_was_made(measured: dict[str, Any]) -> None:
    text = gzip.decompress(measured["trace"]).decode()
    trace = json.loads(text)
    assert set(trace) <= {"schemaVersion", "deviceProperties", "displayTimeUnit", "traceEvents"}
    names = {event["name"] for event in trace["traceEvents"]}
    assert {"aten::conv2d", "ProfilerStep#0", "3.0"} <= names
    assert str(os.getpid()) not in {str(event["pid"]) for event in trace["traceEvents"]}
    for event in trace["traceEvents"]:
        words = json.dumps({**event, "ts": 0, "dur": 0, "name": ""})
        assert socket.gethostname() not in words.replace(WORKER, "") or len(socket.gethostname()) < 3
        assert f"/{getpass.getuser()}/" not in words
        assert "/tmp" not in words


def test_scrubbing_keeps_which_thread_did_what() -> None:
    trace = {
        "host_name": "secret",
        "traceName": "/home/me/trace.json",
        "traceEvents": [
            {"ph": "M", "name": "process_name", "pid": 900, "tid": 0, "args": {"name": "/home/me/python"}},
            {"ph": "M", "name": "thread_name", "pid": 900, "tid": 901, "args": {"name": "thread 901 (me)"}},
            {"ph": "X", "name": "aten::add", "pid": 900, "tid": 901, "ts": 1, "dur": 1},
            {"ph": "X", "name": "kernel", "pid": 0, "tid": 7, "ts": 1, "dur": 1, "args": {"stream": 7}},
        ],
    }
    clean = scrubbed(trace)
    assert "secret" not in json.dumps(clean)
    assert "/home" not in json.dumps(clean)
    _process, thread, add, kernel = clean["traceEvents"]
    assert (add["pid"], add["tid"]) == (thread["pid"], thread["tid"])
    assert (kernel["pid"], kernel["args"]) == (0, {"stream": 7})


class Raising(nn.Module):
    def __init__(self, after: int) -> None:
        super().__init__()
        self.inner = small()
        self.left = after

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        y: Tensor = self.inner(x)
        if self.left == 0:
            raise RuntimeError("no more")
        return y


@pytest.mark.parametrize("after", [2, 5, 8, 10])
def test_hooks_are_gone_when_a_pass_raises(after: int) -> None:
    """Whether it raises while warming up, being timed, under the clocks or under the profiler."""
    module = Raising(after)
    with prepared(module, torch.device("cpu")) as ready, pytest.raises(RuntimeError, match="no more"):
        measure(passes_of(ready), repeats=2, budget=PATIENT)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    with prepared(module, torch.device("cpu")) as ready:
        assert measure(passes_of(ready), repeats=1)["operators"]  # the profiler is not left running


def test_scripted_models_have_no_layers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch announces the end of scripting
        module = torch.jit.script(small())
    whole = passes_of(small())
    passes = replace(whole, module=module, resolution=replace(whole.resolution, layers=(), tappable=False))
    measured = measure(passes, repeats=1)
    assert measured["layers"] == []
    assert measured["forward"] > 0
    assert measured["operators"]


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 3)


def test_a_score_without_a_way_back() -> None:
    module = nn.Sequential(Constant())
    with pytest.raises(PassError, match="differentiable"):
        measure(passes_of(module), repeats=1)
    assert "forward_backward" not in measure(passes_of(module), backward=False, repeats=1)


def test_advice_without_mark_up() -> None:
    told = plain('Use <a href="https://x" target="_blank">Automatic  Mixed Precision</a> now.')
    assert told == "Use Automatic Mixed Precision now."


def test_nothing_is_said_on_stderr() -> None:
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "from tests.engine.test_profiling import *\n"
        "measure(passes_of(small()), repeats=1); measure(passes_of(small()), repeats=1)\n"
        "import os; assert 'KINETO_LOG_LEVEL' not in os.environ"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout + done.stderr == ""
