"""The graph that TensorBoard shows, and models that cannot be traced."""

from __future__ import annotations

import socket
import warnings
from dataclasses import replace

import pytest
import torch
from tensorboard.compat.proto.graph_pb2 import GraphDef
from torch import Tensor, nn

from reportgen.engine.graph import tensorboard_graph
from reportgen.engine.passes import prepared
from reportgen.errors import PassError
from tests.engine.test_profiling import passes_of, small


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = small()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if x.mean() > 100:  # the tracer warns that it holds this for constant
            x = x + 1
        return {"logits": self.inner(x)}


class Untraceable(Wrapped):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        assert not torch.jit.is_tracing(), "not this one"
        return {"logits": self.inner(x)}


@pytest.mark.parametrize("make", [small, Wrapped])
def test_nodes_are_named_by_their_modules(make: type[nn.Module], capfd: pytest.CaptureFixture[str]) -> None:
    module = make()
    passes = passes_of(module)
    seen: list[int] = []
    handle = module.register_forward_hook(lambda _m, args, _out: seen.append(len(args[0])))
    with prepared(module, torch.device("cpu")):
        data, metadata = tensorboard_graph(passes)
    handle.remove()
    graph = GraphDef.FromString(data)
    convolutions = [node.name for node in graph.node if node.op == "aten::_convolution"]
    assert len(convolutions) == 3
    assert all("Conv2d[0]" in name for name in convolutions)
    assert metadata
    assert socket.gethostname().encode() not in data or len(socket.gethostname()) < 3
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert passes.counts.forward_batches == len(seen) > 0
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_traced_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    module = Untraceable().eval()
    with pytest.raises(PassError, match="cannot be traced: AssertionError: not this one"):
        tensorboard_graph(passes_of(module))
    assert not module._forward_pre_hooks
    assert capfd.readouterr() == ("", "")


def test_scripted_models_have_a_graph() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch announces the end of scripting
        module = torch.jit.script(small())
    data, _metadata = tensorboard_graph(replace(passes_of(small()), module=module))
    assert GraphDef.FromString(data).node
