"""A small network trained in seconds to tell textures of a patch apart: what its answers depend on is known."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 48
PATCH = 16
TEXTURES = 4


def patches(count: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images (n, 3, SIDE, SIDE) with a patch of texture on smooth noise, classes (n,), and corners of patches (n, 2).

    A second patch, of coarse noise with more contrast, says nothing of the class.
    """
    generator = torch.Generator().manual_seed(seed)
    images = functional.interpolate(torch.randn(count, 3, 6, 6, generator=generator), size=SIDE, mode="bicubic")
    images = 0.4 * images + 0.15 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    classes = torch.randint(0, TEXTURES, (count,), generator=generator)
    corners = torch.randint(0, SIDE - PATCH + 1, (count, 2), generator=generator)
    distance = torch.randint(PATCH, SIDE - 2 * PATCH + PATCH + 1, (count, 2), generator=generator)
    others = (corners + distance) % SIDE
    row, column = torch.meshgrid(torch.arange(PATCH), torch.arange(PATCH), indexing="ij")
    lines = [row // 2 % 2, column // 2 % 2, (row // 2 + column // 2) % 2, ((row + column) // 3) % 2]
    for image, (top, left) in zip(images, others.tolist(), strict=True):
        noise = torch.randint(0, 2, (PATCH // 2, PATCH // 2), generator=generator).repeat_interleave(2, 0)
        part = image[:, top : top + PATCH, left : left + PATCH]
        part[:] = (2.4 * noise.repeat_interleave(2, 1) - 1.2)[: part.shape[1], : part.shape[2]]
    for image, label, (top, left) in zip(images, classes.tolist(), corners.tolist(), strict=True):
        image[:, top : top + PATCH, left : left + PATCH] = 1.6 * lines[label] - 0.8
    return images, classes, corners


class Small(nn.Sequential):
    """Four convolutions with normalisations, pooled by their mean, and one linear layer."""

    def __init__(self) -> None:
        widths = (3, 16, 32, 32, 64)
        blocks = [
            nn.Sequential(
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.MaxPool2d(2) if place < 2 else nn.Identity(),
            )
            for place, (before, after) in enumerate(pairwise(widths))
        ]
        super().__init__(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], TEXTURES))


@cache
def trained_network(seed: int = 0) -> nn.Module:
    """In evaluation mode; right on nearly all images of `patches`."""
    with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        model = Small().train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
        steps = 70
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for step in range(steps):
            images, classes, _corners = patches(48, seed=1000 * seed + step + 1)
            loss = functional.cross_entropy(model(images), classes)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()
