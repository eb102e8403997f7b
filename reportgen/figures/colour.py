"""Colour tables, and numbers turned into colours.

Sources of the tables:

- ``inferno``, ``viridis``, ``magma``: S. van der Walt and N. Smith (2015), perceptually uniform; CC0.
- ``cividis``: J. Nuñez, C. Anderton and R. Renslow (2018), "Optimizing colormaps with consideration for color vision
  deficiency", PLoS ONE 13(7); the same to readers with red-green deficiency; as distributed with matplotlib.
- ``RdBu``, ``RdBu_r`` (reversed: blue is negative, red positive): C. Brewer, colorbrewer2.org, Apache-2.0; eleven
  colours, interpolated.
- ``grey`` and ``jet`` (the classic rainbow; not uniform, not legible in grey) are computed.
"""

from __future__ import annotations

import io
from functools import lru_cache
from importlib import resources
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reportgen.errors import UsageError
from reportgen.figures.figure import Picture

Values = NDArray[Any]
"""An array of real numbers of any float or integer type."""

# Rows of data/colour_tables.png, in this order.
_STORED: Final = ("inferno", "viridis", "magma", "cividis")

SEQUENTIAL: Final[tuple[str, ...]] = (*_STORED, "grey", "jet")
UNIFORM: Final[tuple[str, ...]] = (*_STORED, "grey")
"""Those in which equal steps of the value are equal steps to the eye, and lighter means more."""
DIVERGING: Final[tuple[str, ...]] = ("RdBu", "RdBu_r")
NAMES: Final[tuple[str, ...]] = SEQUENTIAL + DIVERGING

MID_GREY: Final = 128
"""The grey level of what is not a number."""

_RD_BU: Final = (
    (103, 0, 31),
    (178, 24, 43),
    (214, 96, 77),
    (244, 165, 130),
    (253, 219, 199),
    (247, 247, 247),
    (209, 229, 240),
    (146, 197, 222),
    (67, 147, 195),
    (33, 102, 172),
    (5, 48, 97),
)

# Corners (position, level) of jet's red, green and blue, from 0 to 1.
_JET: Final = (
    ((0, 0), (0.35, 0), (0.66, 1), (0.89, 1), (1, 0.5)),
    ((0, 0), (0.125, 0), (0.375, 1), (0.64, 1), (0.91, 0), (1, 0)),
    ((0, 0.5), (0.11, 1), (0.34, 1), (0.65, 0), (1, 0)),
)


@lru_cache(maxsize=len(NAMES))
def table(name: str) -> NDArray[np.uint8]:
    """The 256 colours called `name`, from low to high.

    Returns:
        (256, 3) uint8, red, green, blue; read-only, the same array at every call.

    Raises:
        UsageError: no table has that name.
    """
    if name in _STORED:
        colours = np.array(_stored_tables()[_STORED.index(name)])
    elif name == "grey":
        colours = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    elif name == "jet":
        colours = _interpolated(_JET)
    elif name in DIVERGING:
        places = np.linspace(0, 1, len(_RD_BU))
        corners = tuple(tuple((p, c[i] / 255) for p, c in zip(places, _RD_BU, strict=True)) for i in range(3))
        colours = _interpolated(corners)
        colours = colours[::-1] if name.endswith("_r") else colours
    else:
        raise UsageError(f"unknown colour table '{name}'", f"choose one of {', '.join(NAMES)}")
    colours.setflags(write=False)
    return colours


def unit_range(values: Values, *, low: float, high: float) -> NDArray[np.float32]:
    """`values` measured from `low` (0) to `high` (1), not clipped; infinities become the ends, NaN stays NaN.

    Where the range is empty (``high <= low``) everything but NaN becomes 0.

    Raises:
        ValueError: `low` or `high` is not finite.
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("the values to be drawn are not finite")
    numbers = np.asarray(values, dtype=np.float64)
    if high <= low:
        return np.where(np.isnan(numbers), np.nan, 0.0).astype(np.float32)
    # Both halved: the span of two large floats of opposite sign may overflow.
    span = high / 2 - low / 2
    with np.errstate(over="ignore"):
        unit = (numbers / 2 - low / 2) / span
    unit = np.nan_to_num(unit, nan=np.nan, posinf=1.0, neginf=0.0)
    # The outliers of a float64 must not become infinities of a float32.
    return np.clip(unit, -1e6, 1e6).astype(np.float32)


def levels(unit: Values) -> NDArray[np.uint8]:
    """Numbers from 0 to 1 as levels 0 … 255, rounded to the nearest, clipped; NaN becomes `MID_GREY`."""
    scaled = np.clip(unit, 0, 1) * 255 + 0.5
    return np.nan_to_num(scaled, nan=MID_GREY).astype(np.uint8)


def colourise(values: Values, *, low: float, high: float, name: str) -> NDArray[np.uint8]:
    """A map in the colours of a table.

    Args:
        values: (h, w); what lies outside `low` … `high` takes the colour of the nearer end. NaN becomes mid grey,
            which no table but ``grey`` holds.
        low: value of the lowest colour.
        high: value of the highest; where it is not above `low` every value takes the lowest colour.
        name: a table, see `NAMES`.

    Returns:
        (h, w, 3) uint8.

    Raises:
        UsageError: no table has that name.
        ValueError: `low` or `high` is not finite.
    """
    unit = unit_range(values, low=low, high=high)
    colours: NDArray[np.uint8] = table(name)[levels(unit)]
    colours[np.isnan(unit)] = MID_GREY
    return colours


@lru_cache(maxsize=len(NAMES))
def gradient_png(name: str) -> Picture:
    """The colour bar of a table: 256 by 1 pixels, lowest colour on the left.

    Raises:
        UsageError: no table has that name.
    """
    file = io.BytesIO()
    Image.fromarray(np.array(table(name)[None])).save(file, "PNG", optimize=True)
    return Picture(file.getvalue(), "image/png", 256, 1)


@lru_cache(maxsize=1)
def _stored_tables() -> NDArray[np.uint8]:
    file = resources.files("reportgen.figures").joinpath("data/colour_tables.png")
    with Image.open(io.BytesIO(file.read_bytes()), formats=("PNG",)) as image:
        return np.array(image)


def _interpolated(corners: tuple[tuple[tuple[float, float], ...], ...]) -> NDArray[np.uint8]:
    places = np.linspace(0, 1, 256)
    channels = [np.interp(places, [p for p, _ in channel], [v for _, v in channel]) for channel in corners]
    return levels(np.stack(channels, axis=1))
