"""Contrast of colours as WCAG 2.2 measures it."""

from __future__ import annotations

from typing import Final

WHITE: Final = "#ffffff"
DARK_PAGE: Final = "#16181c"
LEAST: Final = 4.5
"""Of text with its page (WCAG 2.2, success criterion 1.4.3)."""


def contrast(one: str, other: str) -> float:
    """Ratio of the luminances of two colours ``#rrggbb``, from 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def lightened(colour: str, page: str = DARK_PAGE, least: float = LEAST + 2) -> str:
    """`colour` mixed with as much white as its contrast with a dark page needs."""
    for white in range(0, 101, 2):
        mixed = "#" + "".join(f"{round(part + (255 - part) * white / 100):02x}" for part in _parts(colour))
        if contrast(mixed, page) >= least:
            return mixed
    return WHITE


def _parts(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(colour: str) -> float:
    linear = [
        unit / 12.92 if unit <= 0.04045 else ((unit + 0.055) / 1.055) ** 2.4
        for unit in (part / 255 for part in _parts(colour))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
