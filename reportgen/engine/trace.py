"""What one forward left behind, and the many backwards from it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reportgen.engine.attention import Attentions
from reportgen.engine.device import is_out_of_memory
from reportgen.engine.layout import as_maps
from reportgen.engine.requests import INPUT, Rule, Units
from reportgen.engine.resolution import Resolution
from reportgen.engine.rules import CurrentRule, Followed
from reportgen.errors import OutOfMemory


@dataclass
class Counts:
    """How often the model was really called, and for how many images (padding not counted)."""

    forward_batches: int = 0
    forward_samples: int = 0
    backward_batches: int = 0
    backward_samples: int = 0

    def facts(self) -> dict[str, dict[str, int]]:
        """As ``report.json`` tells it."""
        return {
            "forward": {"batches": self.forward_batches, "samples": self.forward_samples},
            "backward": {"batches": self.backward_batches, "samples": self.backward_samples},
        }


@dataclass
class Trace:
    """What one forward left behind: scores, tapped activations, and the graph for backwards.

    Attributes:
        count: images in the batch; the rest is padding.
        scores: (n, classes) class scores, or None where the forward stopped early.
        outputs: raw outputs of the tapped layers, and the input under `INPUT` where it is differentiated.
        current: the rule that its rectifiers follow.
        followed: how its activations follow the rules; None where they were not looked for.
        attentions: what was caught of its attention; None where it was not looked for.
    """

    resolution: Resolution
    count: int
    scores: Tensor | None
    outputs: dict[str, Tensor]
    counts: Counts
    current: CurrentRule = field(default_factory=CurrentRule)
    followed: Followed | None = None
    attentions: Attentions | None = None
    _gradients: dict[tuple[int, str, Rule], Tensor] = field(default_factory=dict)

    def activation(self, name: str) -> Tensor:
        """(n, C, h, w) of a tapped layer."""
        return as_maps(self.outputs[name].detach(), self.resolution.layer(name))[: self.count]

    def rollout(self) -> Tensor:
        """(n, h, w) attention of all blocks multiplied up; see `reportgen.engine.attention`. Raises PassError."""
        assert self.attentions is not None
        return self.attentions.rollout()[: self.count]

    def gradient(self, place: int, name: str, rule: Rule = "gradient") -> Tensor:
        """(n, C, h, w) derivative of the score of the `place`-th seed with respect to a tapped layer or the input."""
        return self._gradients[place, name, rule]

    def backward(
        self, place: int, classes: Sequence[int | None], wrt: Sequence[str], *, keep: bool, rule: Rule = "gradient"
    ) -> None:
        """One backward from the scores of `classes` (one an image, None for none) to all of `wrt` at once.

        The images of a batch do not touch one another, so one sum over their scores gives each its own derivative.

        Args:
            place: under which the gradients are found afterwards.
            classes: class number for each image of the batch.
            wrt: tapped layers, `INPUT` for the input.
            keep: whether another backward through the same graph follows.
            rule: what rectifiers do; others than the gradient need a forward that caught them.
        """
        assert self.scores is not None
        assert rule == "gradient" or self.followed is not None
        seed = torch.zeros_like(self.scores)
        for row, index in enumerate(classes):
            if index is not None:
                seed[row, index] = 1.0
        with memory(), self.current.set(rule):
            found = torch.autograd.grad(
                self.scores, [self.outputs[name] for name in wrt], seed, retain_graph=keep, allow_unused=True
            )
        self.counts.backward_batches += 1
        self.counts.backward_samples += sum(index is not None for index in classes)
        for name, gradient in zip(wrt, found, strict=True):
            raw = torch.zeros_like(self.outputs[name]) if gradient is None else gradient
            maps = raw if name == INPUT else as_maps(raw, self.resolution.layer(name))
            self._gradients[place, name, rule] = maps[: self.count]

    def strongest(self, units: Units) -> tuple[Tensor, Tensor, Tensor]:
        """The units that `units` means in the one image of this trace, strongest first, of equals the first.

        Returns:
            Channel numbers (K,), row and column of each one's strongest position (K, 2), activation there (K,).
        """
        maps = self.activation(units.layer)[0]
        chosen = torch.tensor(units.channels, device=maps.device)
        highest, place = maps[chosen].flatten(1).max(dim=1)
        order = highest.sort(descending=True, stable=True).indices[: units.most]
        width = maps.shape[2]
        positions = torch.stack((place[order] // width, place[order] % width), dim=1)
        return chosen[order], positions, highest[order]

    def project(self, layer: str, channels: Tensor, positions: Tensor, rule: Rule) -> Tensor:
        """Send 1 back from each of K units of a layer to the input, all by one backward. Keeps the graph.

        Args:
            channels: (K,) numbers.
            positions: (K, 2) row and column in the layer's maps.
            rule: what rectifiers do; others than the gradient need a forward that caught them.

        Returns:
            (K, C, H, W).
        """
        assert self.count == 1
        assert rule == "gradient" or self.followed is not None
        with torch.enable_grad():  # reading tokens as maps belongs to the graph
            maps = as_maps(self.outputs[layer], self.resolution.layer(layer))
        count = len(channels)
        seeds = torch.zeros((count, *maps.shape), dtype=maps.dtype, device=maps.device)
        seeds[torch.arange(count, device=maps.device), 0, channels, positions[:, 0], positions[:, 1]] = 1
        with memory(), self.current.set(rule), torch.enable_grad():
            found = _gradients(maps, self.outputs[INPUT], seeds)
        self.counts.backward_batches += 1
        self.counts.backward_samples += count
        return found[:, 0]

    def project_each(self, layer: str, channels: Tensor, positions: Tensor, rule: Rule) -> Tensor:
        """Send 1 back to the input (n, C, H, W) from one unit of each of n images; see `project`. Keeps the graph."""
        with torch.enable_grad():
            maps = as_maps(self.outputs[layer], self.resolution.layer(layer))
        seed = torch.zeros_like(maps)
        seed[torch.arange(len(maps), device=maps.device), channels, positions[:, 0], positions[:, 1]] = 1
        with memory(), self.current.set(rule):
            (found,) = torch.autograd.grad(maps, self.outputs[INPUT], seed, retain_graph=True)
        self.counts.backward_batches += 1
        self.counts.backward_samples += len(maps)
        return found


def _gradients(output: Tensor, x: Tensor, seeds: Tensor) -> Tensor:
    """(K, *x.shape) derivatives for K seeds, by one vectorised backward where the operations allow it."""

    def returned(seed: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(output, x, seed, retain_graph=True, allow_unused=True)
        return torch.zeros_like(x) if found is None else found

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of operations that are looped over instead
            found: Tensor = torch.vmap(returned)(seeds)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        return torch.stack([returned(seed) for seed in seeds])
    return found


@contextmanager
def memory() -> Iterator[None]:
    """Raises OutOfMemory where what runs within found no room."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise OutOfMemory() from None
        raise
