"""Images changed mildly."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from reportgen.engine.fading import blurred
from reportgen.engine.requests import Perturbed


def perturbed(images: Tensor, change: Perturbed, pipeline: Mapping[str, Any]) -> Tensor:
    """(B, C, H, W) inputs changed as values in 0..1, and normalised again.

    Args:
        images: (B, C, H, W), normalised.
        pipeline: the preprocessing; its ``mean`` and ``std`` say what 0 and 1 are. Where it has none, they are the
            lowest and the highest value of each image.
    """
    mean, spread = _scale(images, pipeline)
    plain = images * spread + mean
    match change.kind:
        case "brightness":
            made = plain + change.amount
        case "blur":
            made = blurred(plain, _pixels(change, images))
        case "noise":
            drawn = torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(0))
            made = plain + change.amount * drawn.to(images.device)
        case "jpeg":
            made = torch.stack([_compressed(one, round(change.amount), pipeline) for one in plain.clamp(0, 1)])
        case "shift":
            made = shifted(plain, int(_pixels(change, images)))
    return (made.clamp(0, 1) - mean) / spread


def _pixels(change: Perturbed, images: Tensor) -> float:
    length = change.pixels(images.shape[2], images.shape[3])
    assert length is not None
    return length


def shifted(images: Tensor, pixels: int) -> Tensor:
    """(…, H, W) moved to the right and down; what comes in repeats the border."""
    height, width = images.shape[-2:]
    return functional.pad(images, (pixels, 0, pixels, 0), mode="replicate")[..., :height, :width]


def _scale(images: Tensor, pipeline: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """What 0 and the distance from 0 to 1 are in normalised values, broadcast over images."""
    channels = images.shape[1]
    mean, std = pipeline.get("mean") or (), pipeline.get("std") or ()
    if pipeline.get("transform") or len(mean) != channels or len(std) != channels:
        low, high = images.amin(dim=(1, 2, 3), keepdim=True), images.amax(dim=(1, 2, 3), keepdim=True)
        spread = 1 / torch.where(high > low, high - low, 1.0)
        return -low * spread, spread
    return images.new_tensor(mean)[:, None, None], images.new_tensor(std)[:, None, None]


def _compressed(image: Tensor, quality: int, pipeline: Mapping[str, Any]) -> Tensor:
    """(C, H, W) in 0..1 written as JPEG and read again; channels that are no colours each for itself."""
    colours = image.flip(0) if pipeline.get("bgr") else image
    pixels = (255 * colours).round().byte().cpu().numpy()
    planes = [pixels.transpose(1, 2, 0)] if len(pixels) == 3 else list(pixels)
    read = []
    for plane in planes:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(plane)).save(file, format="JPEG", quality=quality)
        read.append(np.asarray(Image.open(file)))
    made = read[0].transpose(2, 0, 1) if len(pixels) == 3 else np.stack(read)
    back = torch.from_numpy(np.ascontiguousarray(made)).to(image) / 255
    return back.flip(0) if pipeline.get("bgr") else back
