"""The graph of a model as TensorBoard shows it, by `torch.utils.tensorboard`.

It rests on `torch.jit.trace`, which is deprecated and cannot follow every model: what it cannot trace has no graph.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from reportgen.engine.outputs import as_matrix
from reportgen.engine.passes import Passes
from reportgen.errors import PassError

if TYPE_CHECKING:
    from collections.abc import Iterator


def tensorboard_graph(passes: Passes) -> tuple[bytes, bytes]:
    """Trace the model with one image of noise.

    Args:
        passes: the model, prepared, on its device.

    Returns:
        A serialised ``GraphDef``, and the ``TaggedRunMetadata`` that `SummaryWriter.add_graph` writes with it.

    Raises:
        PassError: if the model cannot be traced; the message says why.
    """
    from torch.utils.tensorboard import SummaryWriter

    height, width = passes.resolution.pipeline["size"]
    noise = torch.randn(
        1, int(passes.resolution.pipeline["channels"]), height, width, generator=torch.Generator().manual_seed(0)
    )
    with tempfile.TemporaryDirectory(prefix="reportgen-") as folder, SummaryWriter(folder) as writer:
        try:
            # the tracer prints what it cannot do on stdout, where only results belong
            with _only_traced(), redirect_stdout(io.StringIO()), _answering(passes), torch.no_grad():
                writer.add_graph(passes.module, noise.to(passes.device), use_strict_trace=False)
        except Exception as error:
            words = (str(error).strip().splitlines() or [""])[0][:200]
            raise PassError(f"the model cannot be traced: {type(error).__name__}: {words}") from error
        writer.flush()
        return _events(next(Path(folder).iterdir()))


def _events(file: Path) -> tuple[bytes, bytes]:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    graph = metadata = b""
    for raw in RawEventFileLoader(str(file)).Load():
        event = Event.FromString(raw)
        graph = bytes(event.graph_def) or graph
        if event.HasField("tagged_run_metadata"):
            metadata = event.tagged_run_metadata.SerializeToString(deterministic=True)
    return graph, metadata


@contextmanager
def _only_traced() -> Iterator[None]:
    """Silence the deprecation of tracing, and what the tracer says of code that it holds for constant: the graph
    shows one executed path, and its section says so.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.trace", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.trace", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="The input to trace is already a ScriptModule", category=UserWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield


@contextmanager
def _answering(passes: Passes) -> Iterator[None]:
    """Every call counts (tracing calls the model more than once, to check itself) and returns class scores alone: the
    tracer follows tuples and dicts, but no other wrapping.
    """
    if isinstance(passes.module, torch.jit.ScriptModule):
        yield
        return

    def scores(_module: nn.Module, args: tuple[torch.Tensor, ...], output: object) -> torch.Tensor:
        passes.counts.forward_batches += 1
        passes.counts.forward_samples += 1
        return as_matrix(output, len(args[0]))

    handle = passes.module.register_forward_hook(scores)
    try:
        yield
    finally:
        handle.remove()
