"""Which layers a model has, found out by one forward: their outputs, the head, what attends, what folds."""

from __future__ import annotations

import pickle
import random as random_numbers
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn

from reportgen.engine.attention import Attentions, read_attention
from reportgen.engine.defaults import attends, usable
from reportgen.engine.folding import Successions
from reportgen.engine.layout import read_layout
from reportgen.engine.nested import exchanged, first_tensor, tensors_in
from reportgen.engine.outputs import FinalNonlinearity, as_matrix, detect_kind, scores_of
from reportgen.engine.resolution import Attention, Fold, Layer, PooledHead

IMAGES = 2
"""Images looked at: an output that is no batch of two (a table of positions, windows in a row) does not depend on the
image alone.
"""
ALIKE = 1e-4
"""Scores that differ by less of the largest are the same."""


@dataclass(frozen=True)
class Discovery:
    """What one forward showed.

    Attributes:
        layers: all modules, in the order in which they are registered.
        outputs: width of the model's output.
        kind: what the output holds (see `detect_kind`).
        head: where global average pooling and one linear layer end the network.
        seconds: duration of the forward, for one image.
        folds: batch normalisations that convolutions can take over.
        random: random numbers were drawn in the forward.
        attention: where all tokens attend to all others from block to block.
        attends: attention of any kind was seen.
        forwards: how often the model was run.
    """

    layers: tuple[Layer, ...]
    outputs: int
    kind: str
    head: PooledHead | None
    seconds: float
    folds: tuple[Fold, ...]
    random: bool
    attention: Attention | None
    attends: bool
    forwards: int = 1


class _Recorder:
    """Watches one forward: the last output of every module, in the order in which the calls end."""

    def __init__(self, module: nn.Module, successions: Successions) -> None:
        self._successions = successions
        self.outputs: dict[str, Tensor] = {}
        self.one_of_several: dict[str, Tensor] = {}
        self.several = False
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.order: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        self.pooled: dict[str, Tensor] = {}
        self._handles = []
        named = ((part, name) for name, part in module.named_modules() if name)
        # scripted modules accept no hooks
        self._names = {part: name for part, name in named if not isinstance(part, torch.jit.ScriptModule)}
        for part in self._names:
            self._handles.append(part.register_forward_hook(self._see))

    def _see(self, module: nn.Module, _args: object, output: object) -> object:
        with self._successions.unwatched():
            self._note(module, output)
            return self._parted(self._names[module], output)

    def _parted(self, name: str, output: object) -> object:
        """The output with a copy of the tensor that stands for it where it holds others: what follows may have been
        computed from that tensor before (a pooled one, say) and hang on the copy no more.
        """
        self.one_of_several.pop(name, None)
        tensor = first_tensor(output)
        if tensor is None or isinstance(output, Tensor) or sum(1 for _ in tensors_in(output)) < 2:
            return None
        self.several = True
        if not tensor.requires_grad:
            return None
        self.one_of_several[name] = tensor.clone()
        return exchanged(output, tensor, self.one_of_several[name])

    def _note(self, module: nn.Module, output: object) -> None:
        name = self._names[module]
        self.calls[name] = self.calls.get(name, 0) + 1
        self.order[name] = sum(self.calls.values())
        tensor = first_tensor(output)
        if tensor is not None:
            self._successions.returned(name, tensor)
        if tensor is None or tensor.dim() < 2 or tensor.shape[0] != IMAGES or not tensor.is_floating_point():
            self.shapes.pop(name, None)
            return
        if torch.equal(tensor[0], tensor[1]) and bool(tensor.any()):  # places encoded, the same for each image
            self.shapes.pop(name, None)
            return
        self.shapes[name] = tuple(tensor.shape[1:])
        self.pooled.pop(name, None)
        if tensor.dim() == 4:
            self.pooled[name] = tensor.detach().mean(dim=(2, 3))
        # tokens are kept with their graph: which of them a class score depends on is asked afterwards
        self.outputs.pop(name, None)
        if tensor.dim() == 3 and tensor.requires_grad:
            self.outputs[name] = tensor

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def discover(module: nn.Module, sample: Tensor, kind: str = "auto") -> Discovery:
    """Run one forward of two images and note every layer; one backward too where tokens must be told apart, or where
    a layer returns several tensors of which not all go on: the latter is seen in a forward without a graph, and the
    next one has it.

    Args:
        module: in evaluation mode, parameters frozen.
        sample: (2, C, H, W), not constant.
        kind: the output kind if the user named it, else ``auto``.
    """
    graph = _may_have_tokens(module)
    seen, several = _discover(module, sample, kind, graph)
    if graph or not several:
        return seen
    return replace(_discover(module, sample, kind, True)[0], forwards=2)


def _discover(module: nn.Module, sample: Tensor, kind: str, graph: bool) -> tuple[Discovery, bool]:
    """What one forward shows, and whether a layer returned several tensors."""
    size = (sample.shape[2], sample.shape[3])
    successions = Successions(module)
    recorder = _Recorder(module, successions)
    attentions = Attentions()
    try:
        chance = _state_of_chance(sample.device)
        with torch.inference_mode(False), torch.set_grad_enabled(graph), FinalNonlinearity() as nonlinearity:
            begin = perf_counter()
            with successions, attentions:
                output = as_matrix(module(sample.clone().requires_grad_(graph)), IMAGES)
            seconds = (perf_counter() - begin) / IMAGES
        random = chance != _state_of_chance(sample.device)
    finally:
        recorder.close()
    kind = detect_kind(output.detach(), nonlinearity) if kind == "auto" else kind
    scores = scores_of(output, kind, nonlinearity)
    layers = [_layer(name, part, recorder, size) for name, part in module.named_modules() if name]
    layers = _mark_bypassed(_without_false_maps(layers), recorder.one_of_several, scores)
    gradients = _gradients_of_tokens(layers, recorder.outputs, scores)
    layers = _mark_unexplaining(layers, gradients)
    attention = read_attention(attentions.shapes, layers, lambda name: _strength(gradients.get(name)), IMAGES)
    head = _pooled_head(module, layers, recorder.pooled, scores.detach(), output.shape[1])
    found = Discovery(
        layers=tuple(layers),
        outputs=output.shape[1],
        kind=kind,
        head=head,
        seconds=seconds,
        folds=successions.folds(),
        random=random,
        attention=attention,
        attends=bool(attentions.shapes),
    )
    return found, recorder.several


def _state_of_chance(device: torch.device) -> tuple[bytes, ...]:
    """The states of all generators that a model may draw from without naming one of its own."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    own = (pickle.dumps(np.random.get_state(legacy=False)), pickle.dumps(random_numbers.getstate()))
    return (*(state.numpy().tobytes() for state in states), *own)


def _may_have_tokens(module: nn.Module) -> bool:
    """Attention or a token parameter somewhere: only then is a graph worth its memory."""
    return any(attends(type(part).__name__) for part in module.modules()) or any(
        "token" in name for name, _ in module.named_parameters()
    )


def _layer(name: str, part: nn.Module, seen: _Recorder, size: tuple[int, int]) -> Layer:
    kind = type(part).__name__
    output = seen.shapes.get(name, ())
    layout, shape, prefix = read_layout(kind, output, size)
    weight = part.weight if isinstance(part, nn.Conv2d) else None
    return Layer(
        name=name,
        type=kind,
        order=seen.order.get(name, -1),
        output=output,
        layout=layout,
        shape=shape,
        prefix=prefix,
        parameters=sum(p.numel() for p in part.parameters()),
        kernel=tuple(weight.shape) if weight is not None else (),
        leaf=next(part.children(), None) is None,
        calls=seen.calls.get(name, 0),
    )


def _gradients_of_tokens(
    layers: Sequence[Layer], outputs: dict[str, Tensor], scores: Tensor
) -> dict[str, Tensor | None]:
    """Derivative of some sum of the scores by the tokens (n, tokens, C) that each layer returns."""
    asked = [layer.name for layer in layers if layer.layout == "tokens" and layer.name in outputs]
    if not asked:
        return {}
    weights = torch.linspace(-1, 1, scores.numel(), device=scores.device).reshape(scores.shape)
    found = torch.autograd.grad((scores * weights).sum(), [outputs[name] for name in asked], allow_unused=True)
    return dict(zip(asked, found, strict=True))


def _without_false_maps(layers: list[Layer]) -> list[Layer]:
    """The layers, read as maps no more where rows and columns are tokens (weights of attention), or where tokens are
    no longer in the order of their places (Hiera).
    """
    counts = {layer.output[0] for layer in layers if layer.layout == "tokens"}
    shuffled = min((layer.order for layer in layers if layer.type == "Unroll" and layer.order >= 0), default=None)

    def false(layer: Layer) -> bool:
        square = layer.layout == "channels-first" and layer.output[1] == layer.output[2] in counts
        return square or (layer.layout == "tokens" and shuffled is not None and layer.order >= shuffled)

    return [replace(layer, layout="none", shape=(), prefix=0) if false(layer) else layer for layer in layers]


def _mark_bypassed(layers: list[Layer], tensors: dict[str, Tensor], scores: Tensor) -> list[Layer]:
    """Mark the layers that hand on something else than the tensor that stands for them."""
    if not tensors:
        return layers
    found = torch.autograd.grad(scores.sum(), list(tensors.values()), retain_graph=True, allow_unused=True)
    unused = {name for name, gradient in zip(tensors, found, strict=True) if gradient is None}
    return [replace(layer, explains=layer.explains and layer.name not in unused) for layer in layers]


def _strength(gradient: Tensor | None) -> Tensor | None:
    """(tokens,) of a derivative by tokens."""
    return None if gradient is None else gradient.abs().sum(dim=(0, 2))


def _mark_unexplaining(layers: list[Layer], gradients: dict[str, Tensor | None]) -> list[Layer]:
    """Mark the layers on whose patch tokens no class score depends: behind the last attention only the class token
    counts.
    """
    asked = {layer.name: layer.prefix for layer in layers if layer.prefix and layer.name in gradients}
    blind = {
        name
        for name, prefix in asked.items()
        if (gradient := gradients[name]) is None or not gradient[:, prefix:].any()
    }
    if len(blind) == len(asked):  # a head that is zero depends on nothing and tells nothing
        return layers
    return [replace(layer, explains=layer.explains and layer.name not in blind) for layer in layers]


def _pooled_head(
    module: nn.Module, layers: list[Layer], pooled: dict[str, Tensor], scores: Tensor, outputs: int
) -> PooledHead | None:
    """Where W·mean(A) + b gives the scores, or a multiple of them: found by trying, so that it holds for any way of
    writing it.
    """
    linears = [
        (name, part.weight.detach().reshape(outputs, -1), None if part.bias is None else part.bias.detach())
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear | nn.Conv2d) and part.weight.shape[0] == outputs
    ]
    candidates = sorted((layer for layer in layers if layer.name in pooled), key=lambda one: (-one.order, one.depth))
    for name, weight, bias in reversed(linears):
        for layer in candidates:
            means = pooled[layer.name]
            if layer.layout != "channels-first" or means.shape[1] != weight.shape[1] or not usable(layer):
                continue
            expected = means.to(weight.dtype) @ weight.T + (bias if bias is not None else 0)
            if outputs == 1:
                expected = torch.cat((-expected, expected), dim=1)
            if bool(means.any()) and bool(weight.any()) and (times := _times(expected, scores)):
                return PooledHead(layer.name, name, times)
    return None


def _times(expected: Tensor, scores: Tensor) -> float | None:
    """The number above zero by which `expected` is multiplied in `scores`; None where there is no such number."""
    largest = float(scores.abs().max()) or 1.0
    if float((expected - scores).abs().max()) <= ALIKE * largest:
        return 1.0
    square = float((expected * expected).sum())
    times = float((expected * scores).sum()) / square if square else 0.0
    alike = times > 0 and float((expected * times - scores).abs().max()) <= ALIKE * largest
    return times if alike else None
