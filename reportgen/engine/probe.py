"""What techniques are handed: exactly what they declared, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from reportgen.engine.outputs import are_probabilities, entropy_of, probabilities_of
from reportgen.engine.passes import Passes
from reportgen.engine.requests import (
    After,
    Ascent,
    Backward,
    Derivation,
    Fading,
    Forward,
    Look,
    Needs,
    Profile,
    Record,
    Rule,
    Units,
    Upkeep,
    Variant,
    Weights,
)
from reportgen.engine.resolution import Layer, Resolution
from reportgen.engine.rules import Followed
from reportgen.engine.structure import Recording
from reportgen.engine.trace import Trace
from reportgen.store import Array
from reportgen.techniques.technique import Ascended, Projection, Target


class Undeclared(Exception):
    """A technique asked for something that its needs do not mention: a defect of the technique."""


class Alone(Protocol):
    """Passes that serve one part of one technique and nobody else, run when they are asked for."""

    def derived_scores(self, derivation: Derivation) -> Tensor:
        """(count, classes) scores of the inputs derived from the image at hand."""

    def project(self, units: Units, rule: Rule) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Channel numbers (K,), positions (K, 2), activations (K,) and derivatives (K, C, H, W) of units."""


class Repeated(Protocol):
    """Passes that ask the images of a batch, or altered ones, again; see `reportgen.engine.trials.Bench`."""

    def inputs(self) -> Tensor: ...

    def after(self, request: After) -> Mapping[str, Tensor]: ...

    def variant(self, variant: Variant) -> EngineProbe: ...

    def faded_scores(self, fading: Fading, maps: Sequence[Tensor]) -> Tensor: ...


@dataclass(frozen=True)
class EngineProbe:
    """The engine's side of `reportgen.techniques.technique.Probe`: one batch of images, or the model alone.

    Attributes:
        needs: what the technique declared; everything else raises `Undeclared`.
        trace: the forward that served this batch; None for techniques about the model.
        classes: for each target the class numbers of the images, None where an image has fewer targets.
        alone: passes of its own for this one part, where it takes such.
        ascend: runs an ascent, for techniques about the model.
        passes: the model, for what is asked about it alone.
        bench: further passes on the batch, for what is measured on the sample.
        seen: (n, side, side) grey levels of the images themselves.
        measured: (n, 2) height and width of the images themselves.
    """

    resolution: Resolution
    module: nn.Module
    needs: Needs
    trace: Trace | None = None
    classes: tuple[tuple[int | None, ...], ...] = ()
    alone: Alone | None = None
    ascend: Callable[[Ascent], Ascended] | None = None
    passes: Passes | None = None
    bench: Repeated | None = None
    seen: Tensor | None = None
    measured: Tensor | None = None

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(Target(place) for place in range(len(self.classes)))

    def projection(self, request: Backward) -> Projection:
        if request not in self.needs or not isinstance(request.origin, Units):
            raise Undeclared(f"{request.rule} of units")
        assert self.alone is not None
        channels, positions, activations, inputs = self.alone.project(request.origin, request.rule)
        return Projection(tuple(channels.tolist()), positions, activations, inputs)

    def derived_probabilities(self, derivation: Derivation) -> Tensor:
        if not any(isinstance(need, Forward) and need.inputs == derivation for need in self.needs):
            raise Undeclared(f"inputs derived by {derivation}")
        assert self.alone is not None
        return probabilities_of(self.alone.derived_scores(derivation), self.independent)

    def inputs(self) -> Tensor:
        if self.bench is None:
            raise Undeclared("inputs")
        return self.bench.inputs()

    def after(self, request: After) -> Mapping[str, Tensor]:
        if request not in self.needs or self.bench is None:
            raise Undeclared(f"what {request.technique.name!r} makes of the images")
        return self.bench.after(request)

    def variant(self, variant: Variant) -> EngineProbe:
        if variant not in self.needs or self.bench is None:
            raise Undeclared(f"the same under {variant.change}")
        return self.bench.variant(variant)

    def faded_probabilities(self, fading: Fading, maps: Sequence[Tensor]) -> Tensor:
        if fading not in self.needs or self.bench is None or len(maps) != fading.maps:
            raise Undeclared(f"{fading.kind} by {len(maps)} maps")
        return probabilities_of(self.bench.faded_scores(fading, maps), self.independent)

    def ascended(self, request: Ascent) -> Ascended:
        if request not in self.needs or self.ascend is None:
            raise Undeclared(f"an ascent of {request.layer!r}")
        return self.ascend(request)

    @property
    def head_layer(self) -> str | None:
        return self.resolution.head.layer if self.resolution.head else None

    def scores(self) -> Tensor:
        if not any(isinstance(need, Forward) and need.scores for need in self.needs):
            raise Undeclared("scores")
        trace = self._traced()
        assert trace.scores is not None
        return trace.scores.detach()[: trace.count]

    def probabilities(self) -> Tensor:
        return probabilities_of(self.scores(), self.independent)

    def entropy(self) -> Tensor:
        return entropy_of(self.scores(), self.independent)

    def activation(self, layer: str) -> Tensor:
        if not any(isinstance(need, Forward) and layer in need.taps for need in self.needs):
            raise Undeclared(f"activation of {layer!r}")
        return self._traced().activation(layer)

    def gradient(self, target: Target, layer: str, rule: Rule = "gradient") -> Tensor:
        if not any(isinstance(n, Backward) and n.rule == rule and layer in n.wrt for n in self.needs):
            raise Undeclared(f"{rule} of {layer!r}")
        return self._traced().gradient(target.place, layer, rule)

    def rollout(self) -> Tensor:
        if not any(isinstance(need, Forward) and need.attention for need in self.needs):
            raise Undeclared("attention")
        return self._traced().rollout()

    def followed(self) -> Followed:
        trace = self._traced()
        if trace.followed is None:
            raise Undeclared("a backward under another rule than the gradient")
        return trace.followed

    def head_weight(self) -> Tensor:
        head = self.resolution.head
        if head is None:
            raise Undeclared("the weight of a head that this model does not have")
        weight = self._parameter(head.linear).flatten(1) * head.scale
        return torch.cat((-weight, weight)) if len(weight) == 1 else weight

    def class_index(self, target: Target) -> Tensor:
        return torch.tensor([index or 0 for index in self.classes[target.place]])

    def layer(self, name: str) -> Layer:
        return self.resolution.layer(name)

    def weight(self, layer: str) -> Tensor:
        if not any(isinstance(need, Weights) and layer in need.layers for need in self.needs):
            raise Undeclared(f"weight of {layer!r}")
        return self._parameter(layer)

    def running(self, layer: str) -> tuple[Tensor, Tensor]:
        if not any(isinstance(need, Weights) and layer in need.layers for need in self.needs):
            raise Undeclared(f"running statistics of {layer!r}")
        part = self.module.get_submodule(layer)
        assert isinstance(part.running_mean, Tensor)
        assert isinstance(part.running_var, Tensor)
        return part.running_mean.detach(), part.running_var.detach()

    def looks(self) -> Tensor:
        if self.seen is None or not any(isinstance(need, Look) for need in self.needs):
            raise Undeclared("what images look like")
        return self.seen

    def sizes(self) -> Tensor:
        if self.measured is None or not any(isinstance(need, Look) for need in self.needs):
            raise Undeclared("sizes of images")
        return self.measured

    def recorded(self) -> Recording:
        if not any(isinstance(need, Record) for need in self.needs) or self.passes is None:
            raise Undeclared("a recording")
        return self.passes.recorded()

    def upkeep(self) -> dict[str, Any]:
        from reportgen.engine.upkeep import state_of

        if not any(isinstance(need, Upkeep) for need in self.needs) or self.passes is None:
            raise Undeclared("the state of weights")
        state = state_of(self.passes.module, self.passes.noise(1))
        scores = self.passes.forward(self.passes.noise(2), 2).scores
        assert scores is not None
        return {**state, "scores_are_probabilities": not self.independent and are_probabilities(scores)}

    def profiled(self) -> dict[str, Any]:
        from reportgen.engine.profiling import measure

        request = next((need for need in self.needs if isinstance(need, Profile)), None)
        if request is None or self.passes is None:
            raise Undeclared("a profile")
        return measure(self.passes, backward=request.backward)

    def _parameter(self, layer: str) -> Tensor:
        weight = self.module.get_submodule(layer).weight
        assert isinstance(weight, Tensor)
        return weight.detach()

    @property
    def independent(self) -> bool:
        return self.resolution.independent

    def _traced(self) -> Trace:
        if self.trace is None:
            raise Undeclared("anything about images")
        return self.trace


def named(computed: Mapping[str, Array], classes: tuple[tuple[int | None, ...], ...], row: int) -> dict[str, Array]:
    """The tensors of one image of a batch, with the class numbers of its targets in their names."""
    own: dict[str, Array] = {}
    for name, tensor in computed.items():
        place = next((p for p in range(len(classes)) if str(Target(p)) in name), None)
        if place is None:
            own[name] = tensor[row]
        elif (index := classes[place][row]) is not None:
            own[name.replace(str(Target(place)), str(index))] = tensor[row]
    return own
