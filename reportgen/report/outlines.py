"""Paths of SVG as operators of PDF: what charts and formulas are made of.

WeasyPrint reads a path number by number, each with the units that it might have, and keeps the angles at its corners
for markers. Outlines of words have thousands of numbers, no units and no markers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_PLAIN: Final = re.compile(r"\s*[Mm][MmLlHhVvCcQqZz0-9.,\s-]*")
_PART: Final = re.compile(r"([MmLlHhVvCcQqZz])([^MmLlHhVvCcQqZz]*)")
_NUMBER: Final = re.compile(r"-?(?:\d+\.?\d*|\.\d+)")
_TAKES: Final = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "Q": 4}
"""Numbers of each command (SVG 2, 9.3); what follows is the command again."""


def operators(path: str) -> bytes | None:
    """A path (the attribute ``d``) as operators that construct it (ISO 32000-2, 8.5.2).

    Returns:
        The operators; None for a path that this cannot read: one with arcs, with smooth curves, with powers of ten, or
        broken.
    """
    if _PLAIN.fullmatch(path) is None:
        return None
    try:
        return " ".join(_steps(path)).encode("ascii")
    except ValueError:
        return None


def _steps(path: str) -> Iterator[str]:
    """Raises ValueError where numbers are missing."""
    x = y = begin_x = begin_y = 0.0
    for letter, words in _PART.findall(path):
        command, relative = letter.upper(), letter.islower()
        if command == "Z":
            x, y = begin_x, begin_y
            yield "h"
            continue
        numbers = [float(word) for word in _NUMBER.findall(words)]
        if not numbers or len(numbers) % _TAKES[command]:
            raise ValueError(letter)
        for given in zip(*[iter(numbers)] * _TAKES[command], strict=True):
            dx, dy = (x, y) if relative else (0.0, 0.0)
            if command == "H":
                x = given[0] + dx
            elif command == "V":
                y = given[0] + dy
            else:
                places = [value + (dy if k % 2 else dx) for k, value in enumerate(given)]
                if command == "Q":  # a cubic curve that is the same
                    across, down, *end = places
                    third_x, third_y = 2 * across / 3, 2 * down / 3
                    places = [x / 3 + third_x, y / 3 + third_y, end[0] / 3 + third_x, end[1] / 3 + third_y, *end]
                *before, x, y = places
                if command in "CQ":
                    yield f"{' '.join(map(_decimal, before))} {_decimal(x)} {_decimal(y)} c"
                    continue
            if command == "M":
                begin_x, begin_y = x, y
                yield f"{_decimal(x)} {_decimal(y)} m"
                command = "L"
            else:
                yield f"{_decimal(x)} {_decimal(y)} l"


def _decimal(value: float) -> str:
    """PDF has no powers of ten."""
    return str(int(value)) if value.is_integer() else f"{value:.6f}".rstrip("0")
