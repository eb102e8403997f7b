"""A program of `torch.export` as a tree of modules, as far as it can be told apart.

An exported program is a list of operators that remember which module they came from. The tree is built from that, and
is used only where it answers as the program does. Layers that consist of one operator become modules of torch, and
activations become functions of torch, so that filters can be shown and backward rules hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from reportgen.errors import ModelFileError

_CLOSE = 1e-4
"""Greatest difference of two answers that count as the same, of the greatest score."""
_FUNCTIONS = (
    "relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_", "clamp", "clamp_", "clamp_min", "clamp_min_",
    "threshold", "threshold_", "silu", "silu_", "gelu", "hardswish", "hardswish_", "mish", "mish_", "elu", "elu_",
    "selu", "selu_", "celu", "celu_", "leaky_relu", "leaky_relu_", "prelu", "rrelu", "softplus", "softmax",
    "log_softmax", "sigmoid", "sigmoid_",
)  # fmt: skip
"""Operators that are looked for as functions of torch during a forward."""


def same(one: Any, other: Any) -> bool:
    """Whether two answers are the same to rounding, and say something."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= _CLOSE * one.abs().max()) and bool(one.std() > 0)


def input_shape(program: Any, shown: str) -> tuple[int | None, ...]:
    """(N, C, H, W) of the one input, None where it is free."""
    names = program.graph_signature.user_inputs
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    values = [node.meta.get("val") for node in nodes]
    if len(values) != 1 or not isinstance(values[0], Tensor) or values[0].dim() != 4:
        raise ModelFileError(
            f"{shown!r} is a program that does not take one batch of images", "export the classifier alone"
        )
    return tuple(side if isinstance(side, int) else None for side in values[0].shape)


def tree_of(program: Any, whole: nn.Module, images: Tensor) -> nn.Module | None:
    """The program as modules whose outputs can be looked at, for any number of images; None where it answers otherwise
    than the program then.

    Args:
        program: a `torch.export.ExportedProgram`.
        whole: the program as it can be called.
        images: (n, C, H, W) to compare the answers on.
    """
    try:
        tree: Any = torch.export.unflatten(program)
        tree.check_input_constraints = False  # of the number of images
        module: nn.Module = tree
        for part in list(module.modules()):
            graph = getattr(part, "graph", None)
            if isinstance(graph, fx.Graph):
                _call_functions(graph)
        for name, part in list(module.named_modules()):
            layer = _layer_of(part) if name else None
            if layer is not None:
                parent, _dot, last = name.rpartition(".")
                setattr(module.get_submodule(parent), last, layer.eval())
        with torch.no_grad():
            return module if same(whole(images), module(images)) else None
    except Exception:  # of a program that its modules cannot be told apart in, or that counts on its batch
        return None


def _call_functions(graph: fx.Graph) -> None:
    """Exchange operators for the functions of torch that they came from."""
    for node in graph.nodes:
        name = _operator(node)
        if name in _FUNCTIONS:
            node.target = getattr(torch, name, None) or getattr(torch._C._nn, name, None) or node.target


def _operator(node: fx.Node) -> str:
    """Name of the operator that a node calls; empty where it calls something else."""
    schema = getattr(node.target, "_schema", None) if node.op == "call_function" else None
    library, _colons, name = str(getattr(schema, "name", "")).partition("::")
    return name if library == "aten" else ""


def _layer_of(part: nn.Module) -> nn.Module | None:
    """The module of torch that a part with one operator and its own weights stands for."""
    graph = getattr(part, "graph", None)
    if not isinstance(graph, fx.Graph) or next(part.children(), None) is not None:
        return None
    calls = [node for node in graph.nodes if node.op == "call_function"]
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len(calls) != 1 or len(inputs) != 1 or calls[0].kwargs or calls[0].args[0] is not inputs[0]:
        return None
    values = [_value_of(argument, part) for argument in calls[0].args[1:]]
    name = _operator(calls[0])
    if name == "linear":
        return _filled(nn.Linear(values[0].shape[1], values[0].shape[0], bias=len(values) > 1), *values)
    if name == "conv2d":
        return _convolution(*values)
    if name == "batch_norm" and values[4] is False:
        layer = nn.BatchNorm2d(len(values[2]), eps=values[6], affine=values[0] is not None)
        layer.running_mean, layer.running_var = values[2], values[3]
        return _filled(layer, *values[:2])
    return None


def _value_of(argument: Any, part: nn.Module) -> Any:
    if isinstance(argument, fx.Node):
        return getattr(part, str(argument.target))
    return argument


def _convolution(
    weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> nn.Module:
    def pair(value: Any) -> Any:
        return value if isinstance(value, str | int) else tuple(value) * (3 - len(value))

    inputs, outputs = weight.shape[1] * groups, weight.shape[0]
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    places = {"stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation)}
    return _filled(nn.Conv2d(inputs, outputs, kernel, **places, groups=groups, bias=bias is not None), weight, bias)


def _filled(layer: nn.Module, weight: Tensor | None, bias: Tensor | None = None) -> nn.Module:
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            setattr(layer, name, nn.Parameter(value.detach(), requires_grad=False))
    return layer


class FixedBatch(nn.Module):
    """A program that takes so many images and no others, fed in pieces.

    Args:
        batch: number of images it takes.
    """

    def __init__(self, program: nn.Module, batch: int) -> None:
        super().__init__()
        self.program = program
        self.batch = batch

    def forward(self, x: Tensor) -> Any:
        missing = -len(x) % self.batch
        filled = torch.cat((x, x[-1:].expand(missing, *x.shape[1:]))) if missing else x
        pieces = torch.split(filled, self.batch)
        return _joined([self.program(piece) for piece in pieces], len(x))


def _joined(outputs: Sequence[Any], count: int) -> Any:
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(list(outputs))[:count]
    if isinstance(first, Mapping):
        return {key: _joined([one[key] for one in outputs], count) for key in first}
    if isinstance(first, tuple | list):
        return tuple(_joined(parts, count) for parts in zip(*outputs, strict=True))
    return first
