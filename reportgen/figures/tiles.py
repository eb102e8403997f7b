"""Small pictures of tensors: channels of a feature map, kernels, gradients; and photographs.

Maps of few pixels are enlarged here, by whole factors and without smoothing: PDF viewers blur what they enlarge, and a
blurred kernel shows weights that are not there. Enlarging pixels costs PNG almost nothing.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFile

from reportgen.figures.colour import Values, levels, unit_range
from reportgen.figures.figure import Picture

Pixels = NDArray[np.uint8]

_FEW_PIXELS: Final = 112
"""Photographs with a longer side below this are enlarged without smoothing: their pixels are what the network saw."""

COARSE: Final = 12
"""Cells along the longer side of a map, at most, where photographs are withheld."""

_FADED: Final = 0.35
"""What is left of the contrast of a picture that is struck through."""


def grey_tile(values: Values, *, low: float, high: float, size: int = 112) -> Picture:
    """One channel in grey, `low` black and `high` white.

    Args:
        values: (h, w). What lies outside the range is clipped; NaN is mid grey.
        low: value of black.
        high: value of white; where it is not above `low` the tile is black.
        size: the longer side has at least so many pixels (enlarged by a whole factor, unsmoothed) and at most twice
            as many (reduced by the mean over areas).

    Returns:
        An 8-bit grey PNG.

    Raises:
        ValueError: `values` is not two-dimensional, or empty; the range is not finite.
    """
    return _channels_tile(np.asarray(values)[None], low=low, high=high, size=size, what="a tile")


def kernel_tile(kernel: Values, *, low: float, high: float, size: int = 64) -> Picture:
    """One convolution kernel: three channels as red, green and blue, one channel in grey.

    Args:
        kernel: (c, kh, kw) with c = 1 or 3.
        low: weight drawn black. With ``low = -high`` a weight of 0 is mid grey.
        high: weight drawn white.
        size: as in `grey_tile`.

    Returns:
        An 8-bit PNG, grey or RGB.

    Raises:
        ValueError: another number of channels or dimensions, or an empty one; the range is not finite.
    """
    return _channels_tile(np.asarray(kernel), low=low, high=high, size=size, what="a kernel")


def signed_tile(values: Values, *, limit: float, size: int = 224) -> Picture:
    """A gradient with respect to the input: 0 is mid grey, `limit` full and ``-limit`` none of a channel's colour.

    Args:
        values: (C, h, w) with C = 1 (grey) or 3 (red, green, blue).
        limit: the largest magnitude that is told apart; not above 0 means that there is nothing: all mid grey.
        size: as in `grey_tile`.

    Returns:
        JPEG without chroma subsampling (gradients are noise, which PNG cannot compress); PNG where enlarged.

    Raises:
        ValueError: another number of channels or dimensions, or an empty one; `limit` is not finite.
    """
    signed = np.asarray(values)
    if limit <= 0:
        signed, limit = np.zeros_like(signed), 1.0
    return _channels_tile(signed, low=-limit, high=limit, size=size, what="a gradient", noisy=True)


def photograph(rgb: Pixels, *, longest: int = 640, quality: int = 88) -> Picture:
    """A photograph as JPEG without metadata; grey stays grey.

    Args:
        rgb: (h, w, 3) or (h, w) uint8.
        longest: pixels of the longer side; larger photographs are reduced, smaller ones left as they are.
        quality: JPEG quality, 1 … 95.

    Raises:
        ValueError: another type or number of dimensions, or an empty picture.
    """
    image = photograph_image(rgb)
    width, height = image.size
    if max(width, height) > longest:
        image = image.resize(fitted(width, height, longest), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return jpeg(image, quality=quality, pixelated=max(width, height) < _FEW_PIXELS)


def synthetic(picture: Values, *, struck: bool = False) -> Picture:
    """A picture that was optimised, as it is: 0 black, 1 full; neither stretched nor centred.

    Args:
        picture: (C, h, w) in [0, 1]: three channels as red, green and blue, otherwise their mean in grey.
        struck: faded and struck through, for one that must not be taken for a result.

    Returns:
        JPEG without chroma subsampling: the colour of single pixels counts.

    Raises:
        ValueError: another number of dimensions, or an empty picture.
    """
    values = np.asarray(picture, dtype=np.float64)
    if values.ndim != 3 or values.size == 0:
        raise ValueError(f"a picture is (C, h, w), not {values.shape}")
    values = np.moveaxis(values, 0, -1) if len(values) == 3 else values.mean(axis=0)
    image = Image.fromarray(levels(values * _FADED + (1 - _FADED) if struck else values))
    width, height = image.size
    if struck:
        draw = ImageDraw.Draw(image)
        ink, line = (0 if image.mode == "L" else (0, 0, 0)), max(1, min(width, height) // 64)
        draw.line((0, 0, width - 1, height - 1), fill=ink, width=line)
        draw.line((0, height - 1, width - 1, 0), fill=ink, width=line)
    return jpeg(image, quality=80, pixelated=max(width, height) < _FEW_PIXELS, subsampling="4:4:4")


def coarse(values: Values, cells: int = COARSE) -> NDArray[np.float32]:
    """Means over areas, so many along the longer side at most: what is left of a map where outlines must not show.

    Args:
        values: (…, h, w). Smaller ones stay as they are; an area with a value that is not a number has none.
    """
    maps = np.asarray(values, dtype=np.float32)
    height, width = maps.shape[-2:]
    if max(height, width) <= cells:
        return maps
    to = fitted(width, height, cells)
    flat = maps.reshape(-1, height, width)
    reduced = [np.array(Image.fromarray(one).resize(to, Image.Resampling.BOX)) for one in flat]
    return np.stack(reduced).reshape(*maps.shape[:-2], to[1], to[0])


def photograph_image(rgb: Pixels) -> Image.Image:
    """`rgb` as a Pillow image of mode RGB or L; raises ValueError as `photograph` does."""
    pixels = np.asarray(rgb)
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (colour or pixels.ndim == 2) or pixels.size == 0:
        raise ValueError(f"a photograph is (h, w, 3) or (h, w) uint8, not {pixels.shape} {pixels.dtype}")
    return Image.fromarray(np.ascontiguousarray(pixels))


def fitted(width: int, height: int, longest: int) -> tuple[int, int]:
    """Width and height of a picture whose longer side becomes `longest`, the other in proportion and at least 1."""
    scale = longest / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def jpeg(image: Image.Image, *, quality: int, pixelated: bool = False, subsampling: str = "4:2:0") -> Picture:
    """`image` (mode L or RGB) as a baseline JPEG without metadata, its Huffman tables optimised where possible."""
    file, pixels = io.BytesIO(), image.width * image.height
    # Pillow optimises in a buffer of so many bytes; noise takes more, up to three a pixel, and libjpeg would print that
    room = max(ImageFile.MAXBLOCK, pixels)
    if 3 * pixels > room:
        image.save(file, "JPEG", quality=quality, subsampling=subsampling)
    if file.tell() < room:  # what is optimised is no larger
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, subsampling=subsampling, optimize=True)
    return Picture(file.getvalue(), "image/jpeg", *image.size, pixelated=pixelated)


def png(image: Image.Image, *, pixelated: bool = False, dpi: int | None = None) -> Picture:
    """`image` as a PNG without metadata but for its resolution in print, if `dpi` is given."""
    file = io.BytesIO()
    image.save(file, "PNG", **({"dpi": (dpi, dpi)} if dpi else {}))
    return Picture(file.getvalue(), "image/png", *image.size, pixelated=pixelated)


def _channels_tile(values: Values, *, low: float, high: float, size: int, what: str, noisy: bool = False) -> Picture:
    if values.ndim != 3 or values.shape[0] not in (1, 3) or values.size == 0:
        raise ValueError(f"{what} has 1 or 3 channels of two dimensions, not the shape {values.shape}")
    # Clipped before areas are averaged, or one outlier would bleach its neighbours.
    unit = np.clip(unit_range(values, low=low, high=high), 0, 1)
    longer = max(values.shape[1:])
    if longer > 2 * size:
        to = fitted(values.shape[2], values.shape[1], 2 * size)
        unit = np.stack([np.array(Image.fromarray(c).resize(to, Image.Resampling.BOX)) for c in unit])
    pixels = levels(unit)
    factor = -(-size // longer)
    if factor > 1:
        pixels = pixels.repeat(factor, axis=1).repeat(factor, axis=2)
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if noisy and factor == 1:
        return jpeg(image, quality=88, subsampling="4:4:4")
    return png(image, pixelated=factor > 1)
