"""Activation maximisation: inputs optimised until a channel of a layer responds as strongly as possible.

Objective: the mean of one channel over all positions of the layer's output. All channels ascend in batches of one fixed
shape, since the bits of a result depend on it; whatever is random comes from the channel's own seed. So a channel's
picture does not depend on which others were asked for, nor on its row. Each group of channels is stored as soon as it
is done: an interrupted ascent resumes at its last group, and another choice of channels reuses what it shares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from reportgen.engine.parametrisation import GREY, Parametrisation, Pixels, Spectrum, affine, drawn_moves, moved
from reportgen.engine.passes import Passes
from reportgen.engine.requests import Ascent
from reportgen.errors import PassError
from reportgen.store import Array, Store, key_of
from reportgen.techniques.technique import Ascended

VERSION: Final = 2
"""Raised whenever the same request gives other pictures."""
TOGETHER: Final = 16
"""Channels that ascend together at most: more gain nothing, and channels that are lacking are padding."""
BASIS: Final = ("model", "pipeline", "numerics")
"""Of what a technique's tensors depend on, what an ascent depends on: not on the technique's other options."""

Tick = Callable[[int], object]
"""Told, after every step, for how many channels it was."""


def unheard(_channels: int) -> None:
    """A tick that nobody listens to."""


@dataclass(frozen=True)
class Ascents:
    """Runs ascents on a prepared model.

    Attributes:
        batch: images of the model's size in one pass; of channels, as many ascend together as `group_size` says.
        basis: what tells this model, its preprocessing and its numerics from others: part of every key.
        provenance: stored beside every result.
        tick: told of every step.
    """

    passes: Passes
    store: Store
    batch: int
    basis: Mapping[str, Any]
    provenance: Mapping[str, Any]
    tick: Tick = unheard

    def run(self, request: Ascent) -> Ascended:
        """Ascend all channels of a request that the store does not have; each group is stored when it is done.

        Raises:
            OutOfMemory: if a batch did not fit.
            PassError: if the model failed, or the layer cannot be differentiated.
        """
        found = {channel: self._stored(request, channel) for channel in dict.fromkeys(request.channels)}
        lacking = [channel for channel, arrays in found.items() if arrays is None]
        self.tick(request.steps * (len(found) - len(lacking)))
        size = self._size(request) if lacking else (0, 0)
        together = group_size(self.batch, self.passes.resolution.pipeline["size"], size)
        for start in range(0, len(lacking), together):
            group = lacking[start : start + together]
            made = self._climb(request, group, size, together)
            for row, channel in enumerate(group):
                arrays = {name: tensor[row : row + 1] for name, tensor in made.items()}
                self.store.put(self.key(request, channel), arrays, {"kind": "ascent", **self.provenance})
                found[channel] = arrays
        rows = [found[channel] or {} for channel in request.channels]
        return Ascended(**{name: torch.from_numpy(np.concatenate([row[name] for row in rows])) for name in rows[0]})

    def key(self, request: Ascent, channel: int) -> str:
        """Key of the entry of one channel: it says nothing of the others."""
        return key_of(
            "ascent",
            version=VERSION,
            **{name: self.basis[name] for name in BASIS},
            layer=request.layer,
            channel=channel,
            method=request.method,
            steps=request.steps,
            size=request.size,
            seed=request.seed,
        )

    def _stored(self, request: Ascent, channel: int) -> Mapping[str, Array] | None:
        entry = self.store.get(self.key(request, channel))
        return None if entry is None else entry.arrays

    def _size(self, request: Ascent) -> tuple[int, int]:
        """(H, W) of the pictures: as asked for, or the model's own where it takes no other. Found out by trying."""
        height, width = self.passes.resolution.pipeline["size"]
        wanted = scaled(height, width, request.size)
        if wanted != (height, width):
            grey = torch.full((1, self._channels, *wanted), GREY, device=self.passes.device)
            try:
                self._means(grey, (request.layer, self._deepest(request)), 1)
            except PassError:
                return height, width
        return wanted

    def _deepest(self, request: Ascent) -> str:
        """The layer whose means are the features that the network decides by, or the deepest that gives maps."""
        resolution = self.passes.resolution
        if resolution.head is not None:
            return resolution.head.layer
        return resolution.defaults[-1] if resolution.defaults else request.layer

    @property
    def _channels(self) -> int:
        return int(self.passes.resolution.pipeline["channels"])

    def _climb(self, request: Ascent, group: Sequence[int], size: tuple[int, int], together: int) -> dict[str, Array]:
        """One group of channels, padded to `together`, all its steps; results by row."""
        count, device = len(group), self.passes.device
        rows = list(group) + [group[-1]] * (together - count)
        shape = (self._channels, *size)
        # a graph is built even where the caller wants none
        with torch.inference_mode(False), torch.enable_grad():
            own = torch.arange(together, device=device), torch.tensor(rows, device=device)
            style: Parametrisation = (
                Pixels(shape) if request.method == "plain" else Spectrum(shape, device, request.steps)
            )
            parameters = torch.stack([style.start(_generator(request, c, "start")) for c in rows]).to(device)
            matrices = self._matrices(request, rows, size)
            (start,) = self._means(style.pictures(parameters), (request.layer,), count)
            objective = torch.empty(together, request.steps, device=device)
            for step in range(request.steps):
                parameters.requires_grad_(True)
                pictures = style.pictures(parameters)
                seen = pictures if matrices is None else moved(pictures, matrices[:, step])
                (means,) = self._means(seen, (request.layer,), count)
                reached = means[own]
                gradient = self.passes.gradient(reached.sum(), parameters, count)
                objective[:, step] = reached.detach()
                parameters = style.climbed(parameters.detach(), gradient)
                self.tick(count)
            images = style.pictures(parameters)
            responses, features = self._means(images, (request.layer, self._deepest(request)), count)
        final = responses[own]
        sound = images.flatten(1).isfinite().all(dim=1) & final.isfinite()
        made = {
            "images": torch.where(sound[:, None, None, None], images, GREY),
            "objective": objective,
            "start": start[own],
            "final": torch.where(sound, final, torch.nan),
            "responses": responses,
            "features": features,
        }
        return {name: tensor[:count].detach().float().cpu().numpy() for name, tensor in made.items()}

    def _matrices(self, request: Ascent, rows: Sequence[int], size: tuple[int, int]) -> Tensor | None:
        """(B, steps, 2, 3) moves of each row before each step; None where pictures stay where they are."""
        if request.method == "plain":
            return None
        moves = torch.stack([drawn_moves(_generator(request, c, "moves"), request.steps) for c in rows])
        return affine(moves, *size).to(self.passes.device)

    def _means(self, pictures: Tensor, layers: tuple[str, ...], count: int) -> tuple[Tensor, ...]:
        """(B, channels) means over positions of each layer."""
        return tuple(maps.mean(dim=(2, 3)) for maps in self.passes.reach(self._normalised(pictures), layers, count))

    def _normalised(self, pictures: Tensor) -> Tensor:
        """Pictures in [0, 1] as inputs of the model.

        Own preprocessing (``--transform``) does not tell its statistics; those published with the architecture, or the
        usual ones, then stand for them.
        """
        pipeline = self.passes.resolution.pipeline
        mean, std = (pictures.new_tensor(pipeline[name])[:, None, None] for name in ("mean", "std"))
        inputs = ((pictures.flip(1) if pipeline["bgr"] else pictures) - mean) / std
        # a fifth faster on a CPU
        return inputs.contiguous(memory_format=torch.channels_last)


def group_size(batch: int, usual: Sequence[int], size: Sequence[int]) -> int:
    """Channels that ascend together: they fill a pass with as many pixels as `batch` images of the model's size do.

    A CPU is a tenth faster with eight pictures of 160 pixels than with four. It depends on nothing but what is part of
    an ascent's key, since the bits of a picture depend on the shape of its batch.

    Args:
        usual: (H, W) of the model's input.
        size: (H, W) of the pictures; zeros where there are none to be made.
    """
    pixels = max(1, size[0] * size[1])
    return max(1, min(TOGETHER, round(batch * max(usual[0] * usual[1], pixels) / pixels)))


def scaled(height: int, width: int, shorter: int) -> tuple[int, int]:
    """(H, W) in proportion, the shorter side `shorter` pixels, but never larger than it was."""
    share = min(1.0, shorter / min(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def _generator(request: Ascent, channel: int, purpose: str) -> torch.Generator:
    """Random numbers of one channel alone, on the CPU so that every device draws the same."""
    words = f"{request.seed}/{request.method}/{request.layer}/{channel}/{purpose}"
    seed = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "little") >> 1
    return torch.Generator().manual_seed(seed)
