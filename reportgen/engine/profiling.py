"""Where the time and the memory of a pass go: `torch.profiler` around warmed-up passes, and clocks at every module.

Three measurements, since each disturbs what it measures: passes with nothing around them for the totals, a forward
with a clock before and after every module for the layers, and a profiled forward with its backward for the operators,
the memory and the trace. The trace is read by torch-tb-profiler; it does not know how newer versions of torch name
the runtime of CUDA, so that times on a device are those of `torch.profiler` itself.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function, tensorboard_trace_handler

from reportgen.engine.outputs import as_matrix
from reportgen.engine.passes import Passes
from reportgen.errors import PassError
from reportgen.machine import machine

WORKER = "reportgen"
"""What the trace calls the machine it was made on: its own name is nobody's business."""

FORWARD, BACKWARD = "forward", "backward"
"""What the two halves of a pass are called in the trace."""

BUDGET = 2.0
"""Seconds: a measurement must not take long on a machine where a pass does."""

Clock = Callable[[], Any]
Scope = Callable[[str], Any]


def measure(passes: Passes, *, backward: bool = True, repeats: int = 3, budget: float = BUDGET) -> dict[str, Any]:
    """Profile a batch of noise in the shape of the model's input and of the audit's batches.

    Args:
        passes: the model, prepared, on its device.
        backward: also measure a forward with the backward from the highest scores to the input (weights get none).
        repeats: how often a pass is timed at most; medians are told.
        budget: seconds that the repetitions of one kind of pass may take together; each is done at least once.

    Returns:
        JSON values, times in milliseconds of one pass of the batch, memory in bytes, and the trace:

        - ``batch`` [B, C, H, W], ``device`` (``cpu``, ``cuda``, ``mps``), ``machine`` (`reportgen.machine`),
          ``threads``, ``repeats``;
        - ``forward`` and, with `backward`, ``forward_backward``;
        - ``layers``: (module, forward) in the order of the model, a module's time holding that of the modules in it;
          empty where hooks cannot be set (scripted models);
        - ``operators``: what the profiled pass called, most time of their own first, each ``name``, ``calls``,
          ``self``, ``total`` (on the CPU), ``device`` (None without one) and ``memory`` (all that was allocated in its
          calls, on the device where there is one);
        - ``memory``: ``device`` and, as steps, ``times`` and ``bytes`` allocated since the profiled pass began,
          ``peak``, and when the ``backward`` begins (None without one); None where nothing is told;
        - ``recommendations`` of torch-tb-profiler, in English, without mark-up;
        - ``trace``: bytes, a Chrome trace as gzipped JSON without names of machine, user or folders.

    Raises:
        PassError: if the model cannot be run, or its score does not depend on its input.
    """
    x = _noise(passes)
    step = _step(passes, x, backward=backward)
    forward = _step(passes, x, backward=False)
    for _ in range(2):
        begin = perf_counter()
        step()
        _wait(passes.device)
    repeats = max(1, min(repeats, int(budget / (perf_counter() - begin))))
    totals = {"forward": _median(passes.device, forward, repeats)}
    if backward:
        totals["forward_backward"] = _median(passes.device, step, repeats)
    return {
        "batch": list(x.shape),
        "device": passes.device.type,
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        **totals,
        "layers": _layers(passes, forward, repeats) if passes.resolution.tappable else [],
        **_profiled(passes, step),
    }


def _noise(passes: Passes) -> Tensor:
    height, width = passes.resolution.pipeline["size"]
    shape = (int(passes.resolution.numerics["batch"]), int(passes.resolution.pipeline["channels"]), height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(passes.seed)).to(passes.device)


def _step(passes: Passes, x: Tensor, *, backward: bool) -> Callable[[], None]:
    """One pass, counted as every other."""
    counts = passes.counts

    def step() -> None:
        torch.manual_seed(passes.seed)
        counts.forward_batches += 1
        counts.forward_samples += len(x)
        try:
            with torch.inference_mode(not backward), torch.set_grad_enabled(backward):
                given = x.detach().clone().requires_grad_(backward)
                with record_function(FORWARD):
                    scores = as_matrix(passes.module(given), len(given))
                if backward:
                    counts.backward_batches += 1
                    counts.backward_samples += len(x)
                    with record_function(BACKWARD):
                        torch.autograd.grad(scores.max(dim=1).values.sum(), given)
        except (PassError, torch.OutOfMemoryError, MemoryError):
            raise
        except RuntimeError as error:
            if "does not require grad" in str(error):
                raise PassError("the score does not depend on the input by differentiable operations") from error
            raise

    return step


# clocks
# ----------------------------------------------------------------------------------------------------------------


def _wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _clock(device: torch.device) -> Clock:
    """Takes a point in time. On CUDA that is an event in the stream, so that nothing waits between two of them."""
    if device.type == "cuda":

        def mark() -> Any:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(device))
            return event

        return mark
    if device.type == "mps":

        def synchronised() -> float:
            _wait(device)
            return perf_counter()

        return synchronised
    return perf_counter


def _between(begin: Any, end: Any) -> float:
    """Milliseconds between two points in time."""
    if isinstance(begin, float):
        return (float(end) - begin) * 1e3
    end.synchronize()
    return float(begin.elapsed_time(end))


def _median(device: torch.device, step: Callable[[], None], repeats: int) -> float:
    clock = _clock(device)
    points = []
    for _ in range(repeats):
        begin = clock()
        step()
        points.append((begin, clock()))
    return statistics.median(_between(*pair) for pair in points)


def _layers(passes: Passes, forward: Callable[[], None], repeats: int) -> list[list[Any]]:
    """Milliseconds of every called module in a forward: the median of several, each the sum over its calls."""
    clock = _clock(passes.device)
    runs: list[dict[str, float]] = []
    for _ in range(repeats):
        spans: list[tuple[str, Any, Any]] = []

        def scope(name: str, spans: list[tuple[str, Any, Any]] = spans) -> Any:
            begin = clock()
            return lambda: spans.append((name, begin, clock()))

        with _scopes(passes.module, scope):
            forward()
        run: dict[str, float] = {}
        for name, begin, end in spans:
            run[name] = run.get(name, 0.0) + _between(begin, end)
        runs.append(run)
    order = [name for name, _part in passes.module.named_modules() if name in runs[0]]
    return [[name, statistics.median(run.get(name, 0.0) for run in runs)] for name in order]


@contextmanager
def _scopes(module: nn.Module, scope: Scope) -> Iterator[None]:
    """`scope` called with a module's name before every call of it, and what it returned after the call; the hooks
    are gone afterwards whatever happens.
    """
    open_calls: list[tuple[nn.Module, Any]] = []

    def before(name: str) -> Callable[..., None]:
        return lambda part, _args: open_calls.append((part, scope(name)))

    def after(part: nn.Module, _args: object, _output: object) -> None:
        while open_calls:  # a module that raised, and was caught by one around it, left its call open
            opened, close = open_calls.pop()
            if opened is part:
                close()
                return

    with ExitStack() as stack:
        for name, part in module.named_modules():
            if name and not isinstance(part, torch.jit.ScriptModule):
                stack.callback(part.register_forward_pre_hook(before(name)).remove)
                stack.callback(part.register_forward_hook(after).remove)
        yield


# the profiler
# ----------------------------------------------------------------------------------------------------------------


def _profiled(passes: Passes, step: Callable[[], None]) -> dict[str, Any]:
    activities = [ProfilerActivity.CPU]
    if passes.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)

    def scope(name: str) -> Any:
        annotation = record_function(name)
        annotation.__enter__()  # type: ignore[no-untyped-call]
        return lambda: annotation.__exit__(None, None, None)

    with tempfile.TemporaryDirectory(prefix="reportgen-") as folder, _quiet():
        handler = tensorboard_trace_handler(folder, worker_name=WORKER, use_gzip=False)
        with ExitStack() as stack:
            if passes.resolution.tappable:
                stack.enter_context(_scopes(passes.module, scope))
            profiler = stack.enter_context(
                profile(
                    activities=activities,
                    record_shapes=True,
                    profile_memory=True,
                    acc_events=True,
                    on_trace_ready=handler,
                )
            )
            with record_function("ProfilerStep#0"):
                step()
        written = next(Path(folder).glob("*.pt.trace.json"))
        clean = scrubbed(json.loads(written.read_text(encoding="utf-8", errors="replace"), strict=False))
        written.write_text(json.dumps(clean), encoding="utf-8")
        read = _read(written, folder, clean)
    if passes.device.type == "cuda":
        spent = {event.key: event.self_device_time_total / 1e3 for event in profiler.key_averages()}
        read["operators"] = [{**row, "device": spent.get(row["name"], 0.0)} for row in read["operators"]]
    trace = gzip.compress(json.dumps(clean, separators=(",", ":")).encode(), mtime=0)
    return {**read, "trace": trace}


def scrubbed(trace: dict[str, Any]) -> dict[str, Any]:
    """A Chrome trace without what would tell on whose machine it was made: host, process, temporary folders."""
    pids: dict[int, int] = {}

    def number(value: Any) -> Any:
        return pids.setdefault(value, len(pids) + 1) if isinstance(value, int) and value > 0 else value

    told_of_all = ("schemaVersion", "deviceProperties", "displayTimeUnit")
    kept: dict[str, Any] = {name: trace[name] for name in told_of_all if name in trace}
    events = []
    for event in trace["traceEvents"]:
        told = {**event, "pid": number(event.get("pid")), "tid": number(event.get("tid"))}
        if event.get("ph") == "M":
            told["args"] = _metadata(event, number)
        events.append(told)
    return {**kept, "traceEvents": events}


def _metadata(event: Mapping[str, Any], number: Callable[[Any], Any]) -> dict[str, Any]:
    arguments = dict(event.get("args") or {})
    if event.get("name") == "process_name":
        return {"name": WORKER}
    if event.get("name") == "thread_name":
        words = str(arguments.get("name", ""))
        return {"name": words if words.startswith("stream") else f"thread {number(event.get('tid'))}"}
    if "sort_index" in arguments:
        return {"sort_index": number(arguments["sort_index"])}
    return arguments


def _read(file: Path, folder: str, trace: Mapping[str, Any]) -> dict[str, Any]:
    """Operators, memory and advice as torch-tb-profiler reads them from a trace."""
    from torch_tb_profiler.profiler.data import RunProfileData
    from torch_tb_profiler.profiler.run_generator import RunGenerator

    data = RunProfileData.parse(WORKER, "1", str(file), folder)
    run = RunGenerator(WORKER, "1", data).generate_run_profile()
    rows = run.operation_table_by_name["data"]
    allocated = _allocated(run)
    operators = [
        {
            "name": str(row["name"]),
            "calls": int(row["calls"]),
            "self": row["host_self_duration"] / 1e3,
            "total": row["host_total_duration"] / 1e3,
            "device": None,
            "memory": allocated.get(str(row["name"]), 0),
        }
        for row in rows
    ]
    operators.sort(key=lambda row: (-row["self"], row["name"]))
    advice = [plain(words) for words in data.recommendations]
    turn = next((event["ts"] for event in trace["traceEvents"] if event["name"] == BACKWARD), None)
    turn = None if turn is None else (turn - data.profiler_start_ts) / 1e3
    return {"operators": operators, "memory": _memory(run, turn), "recommendations": advice}


def _memory(run: Any, turn: float | None) -> dict[str, Any] | None:
    """The curve of what the pass holds, beginning at 0; None where the trace tells of no allocation.

    Args:
        turn: when the backward begins, in milliseconds since the profiler began.
    """
    if run.memory_snapshot is None:
        return None
    curve = run.get_memory_curve(time_metric="ms", memory_metric="B", patch_for_step_plot=False)
    device = curve["metadata"]["default_device"]
    rows = curve["rows"].get(device) or []
    if not rows:
        return None
    begin = 0.0 if device == "CPU" else float(rows[0][1])  # on a device, all that was there before is counted too
    held = [float(row[1]) - begin for row in rows]
    times = [float(row[0]) for row in rows]
    return {"device": str(device), "times": times, "bytes": held, "peak": max(held), "backward": turn}


def _allocated(run: Any) -> dict[str, int]:
    """Bytes allocated in all calls of each operator, what these called included."""
    if run.memory_snapshot is None:
        return {}
    stats = run.get_memory_stats(memory_metric="B")
    names = [column["name"] for column in stats["columns"]]
    size = names.index("Allocation Size (B)")
    return {str(row[0]): int(row[size]) for row in stats["rows"].get(stats["metadata"]["default_device"], ())}


def plain(words: str) -> str:
    """Advice without its HTML: the words of a link stay, its address goes."""
    return " ".join(re.sub(r"<[^>]*>", "", words).split())


@contextmanager
def _quiet() -> Iterator[None]:
    """Kineto tells on stderr that it begins and ends and that it found no GPU, torch-tb-profiler logs what it does,
    and pandas and tensorboard deprecate what it calls: none of it concerns the reader of a report.
    """
    logger = logging.getLogger("pytorch_profiler")
    before, disabled = os.environ.get("KINETO_LOG_LEVEL"), logger.disabled
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"torch_tb_profiler|tensorboard|torch\.profiler")
            yield
    finally:
        logger.disabled = disabled
        if before is None:
            os.environ.pop("KINETO_LOG_LEVEL", None)
