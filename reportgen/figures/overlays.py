"""Heat maps laid over photographs.

The look, chosen for colour and for grey print alike: the photograph is dimmed and partly drained of colour, so that
only the heat is bright and colourful; the heat's opacity grows with the value, so that weak evidence leaves the
photograph visible; a thin light line runs at half of the range, which the eye finds without any colour, where the map
is coarse enough for it. Of a map with two signs the negative part is striped. A map that holds nothing leaves the
photograph as it is.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reportgen.figures.colour import DIVERGING, MID_GREY, Values, colourise, levels, table, unit_range
from reportgen.figures.figure import Picture
from reportgen.figures.tiles import COARSE, Pixels, coarse, fitted, jpeg, photograph, photograph_image, png
from reportgen.text import _

READING: Final = _(
    "The map is resized bicubically to the picture and laid over it, the stronger the more opaque; "
    "in all but the finest maps a thin light line runs at half of the colour range. "
    "An empty map leaves the picture untouched."
)
"""What a caption of overlays must say."""

ALONE: Final = _(
    "Photographs are withheld: the map stands alone, as means over at most {cells} × {cells} cells.", cells=COARSE
)
"""The same where the map is not laid over anything."""

HALF: Final = 0.5
"""Fraction of the range at which the line runs and the heat reaches its full opacity."""

_LINE_OPACITY: Final = 0.8
_STRIPE_EVERY, _STRIPE_WIDTH, _STRIPE_OPACITY = 8, 2, 0.75
_QUALITY: Final = 85

# Pixels that a cell of the map must cover for the line to be drawn: around smaller specks it would hide the very heat
# that it marks.
_LINE_CELL: Final = 6

# Red, green and blue of the dimmed photograph, each from red, green, blue and 1: two thirds of its colour are replaced
# by luminance (ITU-R BT.601), then contrast is reduced to 0.8 and blacks are lifted by 12 of 255.
_GREYED, _CONTRAST, _LIFT = 0.65, 0.8, 12.0
_LUMINANCE: Final = (0.299, 0.587, 0.114)
_DIMMED: Final = tuple(
    value
    for channel in range(3)
    for value in (
        *(_CONTRAST * (_GREYED * _LUMINANCE[i] + (1 - _GREYED) * (i == channel)) for i in range(3)),
        _LIFT,
    )
)


def heat_map(
    rgb: Pixels,
    values: Values,
    *,
    low: float,
    high: float,
    colormap: str = "inferno",
    opacity: float = 0.62,
    size: int = 224,
) -> Picture:
    """A map as heat over the photograph it explains.

    With u the resized map, 0 at `low` and 1 at `high`, the heat's opacity is ``opacity · s(2u)``, s(t) = 3t² - 2t³ up
    to t = 1 and 1 beyond: nothing at `low`, full at half of the range. A diverging table is read from its middle
    outwards: u is replaced by ``|2u - 1|`` for opacity and line; what lies below the middle is striped, or its sign
    would be lost in grey. The line is drawn where the map's cells are at least 6
    pixels wide. What is not a number is covered with mid grey.

    Args:
        rgb: (H, W, 3) or (H, W) uint8, the picture as the network saw it.
        values: (h, w), covering the whole picture; any size, infinities are taken as the ends of the range.
        low: value that shows nothing; the middle of `low` and `high` in a diverging table.
        high: value of the highest colour.
        colormap: a table, see `reportgen.figures.colour.NAMES`.
        opacity: the heat's greatest opacity, 0 … 1.
        size: pixels of the picture's longer side.

    Returns:
        JPEG, the plain photograph as its `Picture.over`; that photograph alone where ``high <= low`` or nothing of the
        map lies above `low` ("drawn empty").

    Raises:
        UsageError: no table has that name.
        ValueError: wrong shapes or types; the range is not finite.
    """
    colours = table(colormap)
    photo, plain = _frame(rgb, size)
    to = photo.size
    cells = unit_range(_checked(values), low=low, high=high)
    if not high > low or not _evidence(cells, colormap).any():
        return plain if (plain.width, plain.height) == to else jpeg(photo, quality=_QUALITY)

    unit = np.clip(resize_map(cells, (to[1], to[0])), 0, 1)
    unknown = np.isnan(unit)
    evidence = np.nan_to_num(_evidence(unit, colormap), nan=1.0)
    heat = Image.fromarray(levels(unit))
    heat.putpalette(colours.tobytes())
    heat = heat.convert("RGB")
    if unknown.any():
        heat.paste((MID_GREY, MID_GREY, MID_GREY), mask=Image.fromarray(unknown))
    strength = _strength(evidence)
    picture = photo.convert("RGB").convert("RGB", _DIMMED)
    picture.paste(heat, mask=Image.fromarray(levels(opacity * strength)))
    if colormap in DIVERGING:
        _stripe(picture, unit, strength)
    if min(unit.shape[0] / cells.shape[0], unit.shape[1] / cells.shape[1]) >= _LINE_CELL:
        picture.paste((255, 255, 255), mask=Image.fromarray(levels(_LINE_OPACITY * _line(evidence, HALF))))
    return replace(jpeg(picture, quality=_QUALITY), over=plain)


def _frame(rgb: Pixels, size: int) -> tuple[Image.Image, Picture]:
    """The photograph at the size at which heat is laid over it, and as the plain picture that belongs beneath."""
    pixels = np.ascontiguousarray(rgb)
    return _frame_of(pixels.tobytes(), pixels.shape, pixels.dtype.str, size)


@lru_cache(maxsize=4)
def _frame_of(data: bytes, shape: tuple[int, ...], kind: str, size: int) -> tuple[Image.Image, Picture]:
    rgb = np.frombuffer(data, np.dtype(kind)).reshape(shape)
    photo = photograph_image(rgb)
    to = fitted(*photo.size, size)
    # Pixels that are enlarged are shown as pixels: smoothing would invent a picture the network never saw.
    filter_ = Image.Resampling.NEAREST if size >= 2 * max(photo.size) else Image.Resampling.LANCZOS
    return photo if photo.size == to else photo.resize(to, filter_, reducing_gap=3.0), photograph(rgb, longest=size)


def map_alone(
    shape: tuple[int, ...], values: Values, *, low: float, high: float, colormap: str = "inferno", size: int = 224
) -> Picture:
    """A map in colours without the photograph it explains, as cells (`reportgen.figures.tiles.coarse`).

    Args:
        shape: (H, W, …) of the picture that the map covers: it decides the proportions.
        values: (h, w), covering the whole picture.
        low: value of the lowest colour.
        high: value of the highest; where it is not above `low` every cell has the lowest.
        colormap: in a diverging one what lies below the middle is striped.
        size: pixels of the longer side.

    Returns:
        PNG.

    Raises:
        UsageError: no table has that name.
        ValueError: wrong shapes; the range is not finite.
    """
    cells = coarse(_checked(values))
    to = fitted(shape[1], shape[0], size)
    picture = Image.fromarray(colourise(cells, low=low, high=high, name=colormap))
    picture = picture.resize(to, Image.Resampling.NEAREST)
    if colormap in DIVERGING:
        unit = Image.fromarray(np.clip(unit_range(cells, low=low, high=high), 0, 1))
        enlarged = np.array(unit.resize(to, Image.Resampling.NEAREST))
        _stripe(picture, enlarged, _strength(np.nan_to_num(_evidence(enlarged, colormap))))
    return png(picture, pixelated=True)


def resize_map(values: Values, size: tuple[int, int]) -> NDArray[np.float32]:
    """A map brought to the size of a picture, exactly as `heat_map` places it.

    Both cover the same area: cell (i, j) lies over the rectangle that begins at (i·H/h, j·W/w). Bicubic (a = -0.5),
    with support widened where the map is reduced; it may overshoot the range of `values`.

    Args:
        values: (h, w). What is not finite becomes NaN over its own cell and does not spread.
        size: (H, W).

    Returns:
        (H, W) float32.

    Raises:
        ValueError: `values` is not two-dimensional, or empty.
    """
    cells = _checked(values).astype(np.float32)
    to = (size[1], size[0])
    finite = np.isfinite(cells)
    known = Image.fromarray(np.where(finite, cells, np.float32(0)))
    resized: NDArray[np.float32] = np.array(known.resize(to, Image.Resampling.BICUBIC))
    if not finite.all():
        unknown = Image.fromarray(np.where(finite, np.uint8(0), np.uint8(255)))
        resized[np.array(unknown.resize(to, Image.Resampling.BOX)) > 0] = np.nan
    return resized


def _checked(values: Values) -> Values:
    values = np.asarray(values)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"a map has two dimensions, not the shape {values.shape}")
    return values


def _evidence(unit: NDArray[np.float32], colormap: str) -> NDArray[np.float32]:
    """How much there is to show, from 0 to 1: the value, or its distance from the middle of a diverging table."""
    return np.clip(np.abs(2 * unit - 1) if colormap in DIVERGING else unit, 0, 1)


def _strength(evidence: NDArray[np.float32]) -> NDArray[np.float32]:
    """What there is to show as the share of the greatest opacity: full from half of the range on."""
    part = np.minimum(evidence / HALF, 1)
    strength: NDArray[np.float32] = part * part * (3 - 2 * part)
    return strength


def _stripe(picture: Image.Image, unit: NDArray[np.float32], strength: NDArray[np.float32]) -> None:
    """Light stripes, falling to the right, over what lies below the middle of the range."""
    down, across = np.indices(unit.shape)
    stripes = (across - down) % _STRIPE_EVERY < _STRIPE_WIDTH
    covered = np.where(stripes & (np.nan_to_num(unit, nan=1.0) < HALF), _STRIPE_OPACITY * strength, 0)
    picture.paste((255, 255, 255), mask=Image.fromarray(levels(covered)))


def _line(surface: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    """Coverage, 0 … 1, of a line about one pixel wide where `surface` crosses `level`."""
    if min(surface.shape) < 2:
        return np.zeros_like(surface)
    down, across = np.gradient(surface)
    # The distance to the level set, in pixels, is to first order the difference over the slope.
    slope = np.maximum(np.hypot(down, across), np.float32(1e-6))
    coverage: NDArray[np.float32] = np.clip(np.float32(1.1) - np.abs(surface - np.float32(level)) / slope, 0, 1)
    return coverage
