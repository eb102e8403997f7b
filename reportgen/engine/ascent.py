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

VERSION: Final = 1
"""Raised whenever the same request gives other pictures."""
METHODS: Final = ("plain", "robust")

Tick = Callable[[int], object]
"""Told, after every step, for how many channels it was."""


@dataclass(frozen=True)
class Ascended:
    """What an ascent of K channels came to.

    Attributes:
        images: (K, C, H, W) float32 in [0, 1], before normalisation, red first; grey where the ascent broke down.
        objective: (K, steps) before each step, of the picture as it was moved for it.
        start: (K,) objective of the seeded noise, unmoved.
        final: (K,) objective of `images`, unmoved; NaN where the ascent broke down.
    """

    images: Tensor
    objective: Tensor
    start: Tensor
    final: Tensor


@dataclass(frozen=True)
class Ascents:
    """Runs ascents on a prepared model.

    Attributes:
        batch: channels that ascend together, padded to this number.
        basis: everything that tells this model, its preprocessing and its numerics from others: part of every key.
        provenance: stored beside every result.
    """

    passes: Passes
    store: Store
    batch: int
    basis: Mapping[str, Any]
    provenance: Mapping[str, Any]

    def run(self, request: Ascent, tick: Tick = lambda _channels: None) -> Ascended:
        """Ascend all channels of a request that the store does not have; each group is stored when it is done.

        Raises:
            OutOfMemory: if a batch did not fit.
            PassError: if the model failed, or the layer cannot be differentiated.
        """
        found = {channel: self._stored(request, channel) for channel in dict.fromkeys(request.channels)}
        lacking = [channel for channel, arrays in found.items() if arrays is None]
        tick(request.steps * (len(found) - len(lacking)))
        size = self._size(request) if lacking else (0, 0)
        for start in range(0, len(lacking), self.batch):
            group = lacking[start : start + self.batch]
            made = self._climb(request, group, size, tick)
            for row, channel in enumerate(group):
                arrays = {name: tensor[row] for name, tensor in made.items()}
                self.store.put(self.key(request, channel), arrays, {"kind": "ascent", **self.provenance})
                found[channel] = arrays
        rows = [found[channel] or {} for channel in request.channels]
        stacked = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        return Ascended(**stacked)

    def key(self, request: Ascent, channel: int) -> str:
        """Key of the entry of one channel: it says nothing of the others."""
        return key_of(
            "ascent",
            version=VERSION,
            **self.basis,
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
        if wanted == (height, width):
            return wanted
        grey = torch.full((1, self._channels, *wanted), GREY, device=self.passes.device)
        try:
            self.passes.reach(self._normalised(grey), request.layer, 1)
        except PassError:
            return height, width
        return wanted

    @property
    def _channels(self) -> int:
        return int(self.passes.resolution.pipeline["channels"])

    def _climb(
        self, request: Ascent, group: Sequence[int], size: tuple[int, int], tick: Tick
    ) -> dict[str, Array]:
        """One group of channels, all its steps; results by row."""
        count, device = len(group), self.passes.device
        rows = [*group, *group[-1:] * (self.batch - count)]
        channels = torch.tensor(rows, device=device)
        robust = request.method == "robust"
        shape = (self._channels, *size)
        with torch.inference_mode(False), torch.enable_grad():
            style: Parametrisation = Spectrum(shape, device) if robust else Pixels(shape)
            parameters = torch.stack([style.start(_generator(request, c, "start")) for c in rows]).to(device)
            matrices = None
            if robust:
                moves = torch.stack([drawn_moves(_generator(request, c, "moves"), request.steps) for c in rows])
                matrices = affine(moves.double(), *size).float().to(device)
            start = self._responses(request, style.pictures(parameters), channels, count)
            objective = torch.empty(self.batch, request.steps, device=device)
            for step in range(request.steps):
                parameters.requires_grad_(True)
                pictures = style.pictures(parameters)
                seen = pictures if matrices is None else moved(pictures, matrices[:, step])
                responses = self._responses(request, seen, channels, count)
                gradient = self.passes.gradient(responses.sum(), parameters, count)
                objective[:, step] = responses.detach()
                parameters = style.climbed(parameters.detach(), gradient)
                tick(count)
            images = style.pictures(parameters)
            final = self._responses(request, images, channels, count)
        broken = ~(images.flatten(1).isfinite().all(dim=1) & final.isfinite())
        images = torch.where(broken[:, None, None, None], GREY, images)
        final = torch.where(broken, torch.nan, final)
        made = {"images": images, "objective": objective, "start": start, "final": final}
        return {name: tensor[:count].detach().float().cpu().numpy() for name, tensor in made.items()}

    def _responses(self, request: Ascent, pictures: Tensor, channels: Tensor, count: int) -> Tensor:
        """(B,) mean over positions of each row's own channel."""
        maps = self.passes.reach(self._normalised(pictures), request.layer, count)
        return maps[torch.arange(len(channels), device=maps.device), channels].mean(dim=(1, 2))

    def _normalised(self, pictures: Tensor) -> Tensor:
        """Pictures in [0, 1] as inputs of the model.

        Own preprocessing (``--transform``) does not tell its statistics; those published with the architecture, or the
        usual ones, then stand for them.
        """
        pipeline = self.passes.resolution.pipeline
        mean, std = (torch.tensor(pipeline[name], device=pictures.device)[:, None, None] for name in ("mean", "std"))
        return ((pictures.flip(1) if pipeline["bgr"] else pictures) - mean) / std


def scaled(height: int, width: int, shorter: int) -> tuple[int, int]:
    """(H, W) in proportion, the shorter side `shorter` pixels, but never larger than it was."""
    share = min(1.0, shorter / min(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def _generator(request: Ascent, channel: int, purpose: str) -> torch.Generator:
    """Random numbers of one channel alone, on the CPU so that every device draws the same."""
    words = f"{request.seed}/{request.method}/{request.layer}/{channel}/{purpose}"
    seed = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "little") >> 1
    return torch.Generator().manual_seed(seed)
