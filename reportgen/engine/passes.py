"""Forwards of a prepared model: taps that survive in-place operations, seeds, and an early stop."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from reportgen.engine.attention import Attentions
from reportgen.engine.device import reduced
from reportgen.engine.folding import Folding, Way
from reportgen.engine.layout import as_maps
from reportgen.engine.nested import exchanged, first_tensor
from reportgen.engine.outputs import FinalNonlinearity, as_matrix, scores_of
from reportgen.engine.requests import INPUT
from reportgen.engine.resolution import Resolution
from reportgen.engine.rules import CurrentRule, Rectifiers, followed
from reportgen.engine.structure import Recording
from reportgen.engine.trace import Counts, Trace, memory
from reportgen.errors import OutOfMemory, PassError


class _Enough(Exception):
    """Raised by the last tap when nothing behind it is wanted."""


@contextmanager
def prepared(module: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """The module in evaluation mode with frozen parameters on `device`; afterwards exactly as it was, whatever
    happens.
    """
    modes = [(part, part.training) for part in module.modules()]
    frozen = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    home = next((tensor.device for tensor in (*module.parameters(), *module.buffers())), device)
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        for part, _mode in modes:
            part.training = False
        for parameter, _flag in frozen:
            parameter.requires_grad_(False)
        if home != device:
            module.to(device)
        yield module
    finally:
        if home != device:
            module.to(home)
        for part, mode in modes:
            part.training = mode
        for parameter, flag in frozen:
            parameter.requires_grad_(flag)
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


@dataclass
class Passes:
    """A prepared model and what it takes to call it."""

    module: nn.Module
    resolution: Resolution
    device: torch.device
    counts: Counts
    seed: int = 0
    folding: Folding | None = None
    _recorded: list[Recording] = field(default_factory=list)

    def recorded(self) -> Recording:
        """The operations of one forward of noise, run once whoever asks."""
        from reportgen.engine.recording import record

        if not self._recorded:
            self._recorded.append(record(self.module, self.noise(1)))
        return self._recorded[0]

    def forward(
        self,
        batch: Tensor,
        count: int,
        *,
        taps: Sequence[str] = (),
        scores: bool = True,
        wrt: Sequence[str] = (),
        rules: bool = False,
        coarse: bool = False,
        whole: bool = False,
        attention: bool = False,
    ) -> Trace:
        """One forward of a padded batch.

        Args:
            batch: (B, C, H, W) float32 on the CPU; rows from `count` on are padding.
            count: images in it.
            taps: layers whose activations are wanted.
            scores: whether class scores are wanted; otherwise the forward stops behind the last tap.
            wrt: what backwards will ask for; the graph is kept from the shallowest of these on, and only then.
            rules: catch rectifiers, so that backwards may follow other rules than the gradient.
            coarse: the precision may be that which the user allows for scans, instead of float32.
            whole: normalisations are folded in the forward, too, where nothing is differentiated: scores agree to
                rounding with those of the plain model.
            attention: catch the attention of all blocks.

        Raises:
            OutOfMemory: if it did not fit.
            PassError: if the model raised, or returned no class scores.
        """
        x = batch.to(self.device)
        outputs: dict[str, Tensor] = {}
        if INPUT in wrt:
            outputs[INPUT] = x.requires_grad_(True)
            with torch.inference_mode(False), torch.enable_grad():
                x = x.clone()  # which the model may change
        tapped = _Taps(self.resolution, tuple(taps), frozenset(wrt), outputs, stop=not scores)
        tapped.attach(self.module)
        nonlinearity = FinalNonlinearity() if self.resolution.output_kind != "logits" else None
        torch.manual_seed(self.seed)  # a model that draws at random draws the same again
        self.counts.forward_batches += 1
        self.counts.forward_samples += count
        current = CurrentRule()
        rectifiers = Rectifiers(current) if rules else None
        attentions = Attentions(self.resolution.attention) if attention else None
        try:
            with (
                nonlinearity or nullcontext(),
                rectifiers or nullcontext(),
                attentions or nullcontext(),
                self._folded("backward" if wrt else "whole" if whole else None, taps),
                self._reduced() if coarse else nullcontext(),
            ):
                matrix = self._call(x, bool(wrt))
        finally:
            tapped.remove()
        # reading scores belongs to the graph, whatever mode the caller is in
        with torch.inference_mode(False), torch.set_grad_enabled(bool(wrt)):
            scores_read = None if matrix is None else scores_of(matrix, self.resolution.output_kind, nonlinearity)
        if coarse and scores_read is not None:
            scores_read = scores_read.float()
        ends = [*outputs.values(), *([] if scores_read is None else [scores_read])]
        how = None if rectifiers is None else followed(rectifiers, ends)
        return Trace(self.resolution, count, scores_read, outputs, self.counts, current, how, attentions)

    def noise(self, count: int) -> Tensor:
        """(count, C, H, W) seeded noise in the form of the model's input, on the device; the forward is counted."""
        height, width = self.resolution.pipeline["size"]
        generator = torch.Generator().manual_seed(self.seed)
        shape = (count, int(self.resolution.pipeline["channels"]), height, width)
        self.counts.forward_batches += 1
        self.counts.forward_samples += count
        return torch.randn(shape, generator=generator).to(self.device)

    def reach(self, x: Tensor, layers: Sequence[str], count: int) -> tuple[Tensor, ...]:
        """(B, C, h, w) outputs of `layers`, with the graph of `x` where it has one; the forward goes no further.

        Args:
            x: (B, C, H, W) on the device, of any size that the model takes.
            count: rows of it that are wanted; the rest is padding.

        Raises:
            OutOfMemory: if it did not fit.
            PassError: if the model raised, or an output does not read as maps at this size, or has lost the graph.
        """
        outputs: dict[str, Tensor] = {}
        tapped = _Taps(self.resolution, tuple(dict.fromkeys(layers)), frozenset(), outputs, stop=True)
        tapped.attach(self.module)
        torch.manual_seed(self.seed)
        self.counts.forward_batches += 1
        self.counts.forward_samples += count
        try:
            with self._folded("whole", layers), self._reduced():
                self._call(x, x.requires_grad)
        finally:
            tapped.remove()
        for layer in layers:
            if layer not in outputs:
                raise PassError(f"layer {layer!r} was not reached", "choose another layer")
            if x.requires_grad and not outputs[layer].requires_grad:
                raise PassError(f"layer {layer!r} cannot be differentiated by the input", "choose another layer")
        try:
            return tuple(as_maps(outputs[layer].float(), self.resolution.layer(layer)) for layer in layers)
        except RuntimeError as error:
            named = ", ".join(repr(layer) for layer in layers)
            raise PassError(f"the output of layer {named} cannot be read as maps at this size") from error

    def gradient(self, value: Tensor, wrt: Tensor, count: int) -> Tensor:
        """Derivative of `value`, a sum over `count` rows. Raises OutOfMemory."""
        # half precision has no room for the small derivatives of means
        scale = 2.0**12 if self.resolution.numerics.get("precision") == "fp16" else 1.0
        with memory():
            (found,) = torch.autograd.grad(value * scale, wrt)
        self.counts.backward_batches += 1
        self.counts.backward_samples += count
        return found / scale

    def _reduced(self) -> AbstractContextManager[object]:
        """Under what a pass runs whose precision the user may lower."""
        return reduced(self.device, str(self.resolution.numerics.get("precision", "fp32")))

    def _folded(self, way: Way | None, taps: Sequence[str]) -> AbstractContextManager[object]:
        """What to run the model under, so that nothing that `taps` ask for is folded away."""
        return nullcontext() if self.folding is None or way is None else self.folding.folded(way, taps)

    def _call(self, x: Tensor, graph: bool) -> Tensor | None:
        try:
            # a graph cannot be built from inference tensors, so inference mode is left even where the caller is in it
            with torch.inference_mode(not graph), torch.set_grad_enabled(graph), memory():
                return as_matrix(self.module(x), len(x))
        except _Enough:
            return None
        except (OutOfMemory, PassError):
            raise
        except Exception as error:
            words = str(error).strip().splitlines() or [""]
            raise PassError(f"the model failed in its forward: {type(error).__name__}: {words[0][:200]}") from error


class _Taps:
    """Hooks that note the outputs of layers during one forward."""

    def __init__(
        self,
        resolution: Resolution,
        names: tuple[str, ...],
        wrt: frozenset[str],
        outputs: dict[str, Tensor],
        *,
        stop: bool,
    ) -> None:
        self._calls = {name: max(resolution.layer(name).calls, 1) for name in names}
        self._remaining = set(names)
        self._wrt = wrt
        self._outputs = outputs
        self._stop = stop
        self._handles: list[RemovableHandle] = []

    def attach(self, module: nn.Module) -> None:
        for name in self._calls:
            self._handles.append(module.get_submodule(name).register_forward_hook(self._hook(name)))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Callable[[nn.Module, object, object], object]:
        def note(_module: nn.Module, _args: object, output: object) -> object:
            first = first_tensor(output)
            if first is None:
                raise PassError(f"layer {name!r} returns no tensor", "choose another layer")
            tensor = first
            if name in self._wrt and not tensor.requires_grad:
                tensor = tensor.detach().requires_grad_(True)  # the graph begins at the shallowest tap
            self._outputs[name] = tensor  # of a module called several times, the last call stays
            self._calls[name] -= 1
            if self._calls[name] <= 0:
                self._remaining.discard(name)
            if self._stop and not self._remaining:
                raise _Enough
            # what follows works on a copy: an operation in place would silently change the tapped tensor
            return exchanged(output, first, tensor.clone())

        return note
