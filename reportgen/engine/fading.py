"""Images that give way, or come back, in the order of maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from reportgen.engine.requests import Fading

BLUR = 1 / 20
"""Standard deviation of the blur that insertion begins with, as a share of the shorter side: objects cannot be told."""


def faded(images: Tensor, maps: Sequence[Tensor], fading: Fading) -> Iterator[tuple[Tensor, tuple[int, int] | None]]:
    """Batches of derived inputs: each holds one input of every image.

    Args:
        images: (B, C, H, W).
        maps: (B, h, w) each; enlarged bilinearly to the images. Of equal values a fixed draw decides.

    Yields:
        (B, C, H, W), and of which map and step it is; None for the end that all maps share.
    """
    mean = images.mean(dim=(2, 3), keepdim=True)
    if fading.kind == "masking":
        for place, one in enumerate(maps):
            mask = enlarged(unit(one), images)[:, None]
            yield mean + (images - mean) * mask, (place, 1)
        return
    other = mean.expand_as(images) if fading.kind == "deletion" else blurred(images, BLUR * min(images.shape[2:]))
    yield other, None
    pixels = images.shape[2] * images.shape[3]
    for place, one in enumerate(maps):
        ranks = ranked(enlarged(one, images)).reshape(len(images), 1, *images.shape[2:])
        for step in range(1, fading.steps):
            first = ranks < round(step * pixels / fading.steps)
            yield torch.where(first == (fading.kind == "deletion"), other, images), (place, step)


def enlarged(maps: Tensor, images: Tensor) -> Tensor:
    """(B, H, W) of (B, h, w), bilinearly."""
    size = images.shape[2:]
    return functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def unit(maps: Tensor) -> Tensor:
    """(B, h, w) each moved and scaled to 0..1; 0 where it is the same everywhere."""
    flat = maps.flatten(1)
    low, high = (edge[:, None, None] for edge in (flat.amin(dim=1), flat.amax(dim=1)))
    return torch.where(high > low, (maps - low) / (high - low), 0.0)


def ranked(maps: Tensor) -> Tensor:
    """(B, H·W) place of every pixel when they are ordered from the highest value down; NaN comes last."""
    flat = maps.flatten(1).nan_to_num(nan=-torch.inf)
    # the order of rows and columns would favour the top of the image where a map is flat
    shuffled = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(0)).to(flat.device)
    order = shuffled[flat[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    places = torch.arange(flat.shape[1], device=flat.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def blurred(images: Tensor, deviation: float) -> Tensor:
    """(B, C, H, W) under a Gaussian of `deviation` pixels, the border repeated outwards."""
    radius = max(1, round(3 * deviation))
    places = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-((places / max(deviation, 1e-3)) ** 2) / 2)
    kernel = kernel / kernel.sum()
    count = images.shape[1]
    padded = functional.pad(images, (radius,) * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel.view(1, 1, -1, 1).expand(count, -1, -1, -1), groups=count)
    return functional.conv2d(rows, kernel.view(1, 1, 1, -1).expand(count, -1, -1, -1), groups=count)
