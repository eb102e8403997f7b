"""Words in pictures and on plates: how wide they are, and where their lines break."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Final

from reportgen.figures.fonts import HAN, font_file, wants_han

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

LINE: Final = 1.2
"""Height of a line in units of its letters."""
ASCENT: Final = 0.955
"""From the top of a line to its base, in units of its letters, as a browser sets Source Sans."""
MM: Final = 25.4
"""Millimetres of an inch."""
POINT: Final = MM / 72
"""Millimetres of a point."""


@cache
def font(name: str) -> FreeTypeFont:
    """A font of the report in letters of 100 pixels."""
    from PIL import ImageFont

    return ImageFont.truetype(str(font_file(name)), 100)


@cache
def _latin() -> frozenset[int]:
    from fontTools.ttLib import TTFont

    with TTFont(font_file("sans"), lazy=True) as opened:
        return frozenset(opened.getBestCmap())


def runs(text: str) -> Iterator[tuple[str, str]]:
    """(part, font) of a line: what the report's own sans-serif cannot draw is left to others."""

    def font_of(c: str) -> str:
        return "sans" if ord(c) in _latin() else HAN if wants_han(c) else "mono"

    for name, run in groupby(text, key=font_of):
        yield "".join(run), name


def width_of(text: str, size: float) -> float:
    """Millimetres that a line takes in letters of so many points."""
    return _length(text) * size * POINT


@lru_cache(maxsize=10_000)
def _length(text: str) -> float:
    """In units of its letters."""
    return sum(float(font(name).getlength(run)) for run, name in runs(text)) / 100


def leading(size: float) -> float:
    """Millimetres from one line of so many points to the next."""
    return LINE * size * POINT


@lru_cache(maxsize=10_000)
def wrapped(text: str, width: float, size: float, most: int) -> tuple[str, ...]:
    """`text` in lines no wider than `width` millimetres, at most so many; what is left out ends in an ellipsis.

    Lines break at spaces, behind the signs of which names of layers and files are made, and where nothing else helps.
    """
    lines = [""]
    for piece in _pieces(" ".join(text.split())):
        if width_of((lines[-1] + piece).rstrip(), size) <= width:
            lines[-1] += piece
            continue
        for part in _fitting(piece, width, size):
            lines.append(part)
    kept = [line.strip() for line in lines if line.strip()]
    if len(kept) > most:
        last = kept[most - 1]
        while last and width_of(last + "…", size) > width:
            last = last[:-1]
        kept = [*kept[: most - 1], last + "…"]
    return tuple(kept)


def _pieces(text: str) -> Iterator[str]:
    """Parts after each of which a line may end."""
    start = 0
    for place, c in enumerate(text, 1):
        if c in " _./:-" or unicodedata.east_asian_width(c) in "WF":
            yield text[start:place]
            start = place
    if start < len(text):
        yield text[start:]


def _fitting(piece: str, width: float, size: float) -> Iterator[str]:
    """A piece cut where it is wider than a line."""
    part = ""
    for c in piece:
        if part and width_of(part + c, size) > width:
            yield part
            part = ""
        part += c
    yield part
