"""What an image looks like, in so few numbers that all images of a set can be compared."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 16

Pixels = npt.NDArray[np.uint8]


def look_of(image: Image.Image) -> Pixels:
    """(SIDE, SIDE) grey levels: means over the whole upright image, whatever its shape."""
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small if small.mode == "L" else small.convert("RGB").convert("L"), np.uint8)


def look_of_values(values: npt.NDArray[np.float32]) -> Pixels:
    """The same of a (C, H, W) input that was handed over ready, from its own lowest to its own highest value."""
    grey = values.mean(axis=0)
    small = np.asarray(Image.fromarray(grey.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BOX))
    low, high = float(small.min()), float(small.max())
    return np.round(255 * (small - low) / (high - low if high > low else 1.0)).astype(np.uint8)
