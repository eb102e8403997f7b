"""Words in pictures and on plates: how wide they are, and where their lines break."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Final

from reportgen.figures.characters import characters
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

_OPENING: Final = "（《“‘「『【〈([{"
_CLOSING: Final = "，。、；：！？）》”’」』】〉…—·,.;:!?)]}%"


@cache
def font(name: str) -> FreeTypeFont:
    """A font of the report in letters of 100 pixels."""
    from PIL import ImageFont

    return ImageFont.truetype(str(font_file(name)), 100)


@cache
def _latin() -> frozenset[int]:
    return characters(font_file("sans"))


def runs(text: str) -> Iterator[tuple[str, str]]:
    """(part, font) of a line: what the report's own sans-serif cannot draw is left to others."""

    def font_of(c: str) -> str:
        return "sans" if ord(c) in _latin() else HAN if wants_han(c) else "mono"

    for name, run in groupby(text, key=font_of):
        yield "".join(run), name


def width_of(text: str, size: float, *, bold: bool = False) -> float:
    """Millimetres that a line takes in letters of so many points."""
    return _length(text, bold) * size * POINT


@lru_cache(maxsize=10_000)
def _length(text: str, bold: bool) -> float:
    """In units of its letters."""
    named = ((run, "sans-semibold" if bold and name == "sans" else name) for run, name in runs(text))
    return sum(float(font(name).getlength(run)) for run, name in named) / 100


def leading(size: float) -> float:
    """Millimetres from one line of so many points to the next."""
    return LINE * size * POINT


@lru_cache(maxsize=10_000)
def wrapped(text: str, width: float, size: float, most: int) -> tuple[str, ...]:
    """`text` in lines as `paragraph` sets it, at most so many; what is left out ends in an ellipsis."""
    lines = [line for line in paragraph(" ".join(text.split()), width, size)[0] if line]
    if len(lines) > most:
        last = lines[most - 1]
        while last and width_of(last + "…", size) > width:
            last = last[:-1]
        lines = [*lines[: most - 1], last + "…"]
    return tuple(lines)


def paragraph(text: str, width: float, size: float, indent: float = 0.0) -> tuple[list[str], float]:
    """`text` in lines no wider than `width` millimetres, and how wide the last one is.

    Lines break at spaces and between Chinese characters, but not before a mark that closes or behind one that opens. A
    word that is wider than a line breaks behind the signs of which names of layers and files are made, and where
    nothing else helps.

    Args:
        indent: of the first line, in millimetres.
    """
    lines, used = [""], indent
    for word in _words(re.sub("[ \n\t]+", " ", text).strip()):
        whole = width_of(word.rstrip(" "), size) <= width
        for part in (word,) if whole else _parts(word, width, size):
            if used and used + width_of(part.rstrip(" "), size) > width:
                lines.append("")
                used = 0.0
            lines[-1] += part
            used += width_of(part, size)
    return [line.rstrip(" ") for line in lines], used


def _parts(word: str, width: float, size: float) -> Iterator[str]:
    for piece in _pieces(word):
        yield from _fitting(piece, width, size)


def _words(text: str) -> Iterator[str]:
    """Parts that stay in one line of a paragraph if they can."""
    start = 0
    for place in range(1, len(text)):
        before, after = text[place - 1], text[place]
        if before == " " or (_wide(before + after) and before not in _OPENING and after not in _CLOSING + " "):
            yield text[start:place]
            start = place
    if text:
        yield text[start:]


def _wide(characters: str) -> bool:
    return any(unicodedata.east_asian_width(c) in "WF" for c in characters)


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
