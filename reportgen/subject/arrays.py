"""Arrays in files (NumPy's ``.npy``), for inputs that no image format holds: many channels, floating point.

What stands in such a file is read as what is handed over in memory: floats (C,H,W) go into the model as they are,
integers and (H,W) or (H,W,C) with at most four channels are images.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from reportgen.subject.decoding import MAX_PIXELS, ImageError
from reportgen.subject.digests import open_regular

SUFFIX = ".npy"
MOST_BANDS = 4
"""Channels of an image; an array with more is an input, channels first."""


def is_input(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether an array is what goes into the model as it is, (C,H,W), and not an image (H,W,C)."""
    return dtype.kind == "f" and len(shape) == 3 and not (shape[2] <= MOST_BANDS < shape[0])


def head_of(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array in a file, without reading it. Raises ImageError."""
    try:
        with open_regular(path) as file:
            return _head(file)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or type(error).__name__}") from None


def array_of(path: Path) -> npt.NDArray[Any]:
    """The array in a file. Nothing in it is run: arrays of Python objects are refused. Raises ImageError."""
    try:
        with open_regular(path) as file:
            shape, _dtype = _head(file)
            if prod(shape) > MAX_PIXELS * MOST_BANDS:
                raise ImageError(f"an array of {prod(shape) / 1e6:.3g} million values, more than is read")
            file.seek(0)
            return np.asarray(np.load(file, allow_pickle=False))
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or 'truncated'}") from None
    except (ValueError, EOFError):
        raise ImageError("truncated") from None


def _head(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    form: Any = np.lib.format
    try:
        version = form.read_magic(file)
        read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
        shape, _fortran, dtype = read(file)
    except (ValueError, TypeError, SyntaxError, EOFError):
        raise ImageError("not a NumPy array, as its name says") from None
    if dtype.hasobject or dtype.names:
        raise ImageError("an array of objects, not of numbers")
    return tuple(int(side) for side in shape), dtype
