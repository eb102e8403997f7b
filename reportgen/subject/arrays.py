"""Arrays in files (NumPy's ``.npy``), for inputs that no image format holds: many channels, floating point.

What stands in such a file is read as what is handed over in memory: floats (C,H,W) go into the model as they are,
integers and (H,W) or (H,W,C) with at most four channels are images.
"""

from __future__ import annotations

import ast
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from reportgen.subject.decoding import MAX_PIXELS, ImageError
from reportgen.subject.digests import open_regular

_SUFFIX = ".npy"
MOST_BANDS = 4
"""Channels of an image; an array with more is an input, channels first."""
_LONGEST_HEAD = 10_000
_MOST_SIDES = 32
"""NumPy's own bound before version 2."""
_NO_ARRAY = "not a NumPy array, as its name says"

_PARSING = threading.Lock()
"""Early releases of Python 3.11 count how deep they parse for all threads together, and stumble over the sum."""

_PLAIN = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")


def is_array(path: str | os.PathLike[str]) -> bool:
    """Whether a file is called one of NumPy's arrays."""
    return os.fspath(path).lower().endswith(_SUFFIX)


def is_input(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether an array is what goes into the model as it is, (C,H,W), and not an image (H,W,C)."""
    return dtype.kind == "f" and len(shape) == 3 and not (shape[2] <= MOST_BANDS < shape[0])


def head_of(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array in a file, without reading it. Raises ImageError."""
    with _opened(path) as file:
        head = _head(file)
        return head.shape, head.dtype


def array_of(path: Path) -> npt.NDArray[Any]:
    """The array in a file. Nothing in it is run: arrays of Python objects are refused. Raises ImageError."""
    with _opened(path) as file:
        head = _head(file)
        if prod(head.shape) > MAX_PIXELS * MOST_BANDS:
            raise ImageError(f"an array of {prod(head.shape) / 1e6:.3g} million values, more than is read")
        needed = prod(head.shape) * head.dtype.itemsize
        data = file.read(needed)
    if len(data) < needed:
        raise ImageError("truncated")
    values = np.frombuffer(bytearray(data), head.dtype)
    return values.reshape(head.shape, order="F" if head.columns else "C")


@dataclass(frozen=True)
class _Head:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    columns: bool
    """The first index runs fastest, as in Fortran."""


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with open_regular(path) as file:
            yield file
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or type(error).__name__}") from None


def _head(file: BinaryIO) -> _Head:
    """As NumPy's format says: a Python dictionary of constants. NumPy's own reader raises whatever damage makes it."""
    begin = file.read(8)
    size = file.read(2 if begin[6:7] == b"\x01" else 4)  # of the length, from version 2 on in four bytes
    length = int.from_bytes(size, "little")
    if not begin.startswith(b"\x93NUMPY") or length > _LONGEST_HEAD:
        raise ImageError(_NO_ARRAY)
    text = file.read(length)
    try:
        with _PARSING:
            told = ast.literal_eval(text.decode("utf-8"))
        kind, shape, columns = told["descr"], told["shape"], told["fortran_order"]
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError, KeyError):
        raise ImageError(_NO_ARRAY) from None
    if not isinstance(shape, tuple) or not all(type(side) is int and 0 <= side < 2**31 for side in shape):
        raise ImageError(_NO_ARRAY)
    if 0 in shape or len(shape) > _MOST_SIDES:
        raise ImageError("an array without values" if 0 in shape else f"an array of {len(shape)} dimensions")
    if not isinstance(kind, str) or not _PLAIN.fullmatch(kind):
        raise ImageError("an array of objects, not of numbers")
    return _Head(shape, np.dtype(kind), bool(columns))
