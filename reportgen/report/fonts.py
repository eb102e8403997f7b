"""The fonts of a document: from packages, so that a machine without fonts gives the same pages."""

from __future__ import annotations

import base64
import io
import logging
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from reportgen.errors import OutputError
from reportgen.text import shown

FONTS: Final = ("serif", "serif-italic", "serif-semibold", "sans", "sans-italic", "sans-semibold", "mono")

_LATIN: Final = frozenset({*range(0x20, 0x7F), *range(0xA0, 0x180), *map(ord, "\u2009\u202f–—‘’“”…×·−→←≤≥≠≈∂∑σ∞")})
"""What the fonts inside an HTML file can draw; for the rest a browser has fonts of its own."""

_BLANK: Final = frozenset({0x0A, 0x09, 0x0D, 0x200B})

_FACES: Final = (
    ("serif", "Report Serif", "normal", 400),
    ("serif-italic", "Report Serif", "italic", 400),
    ("sans", "Report Sans", "normal", 400),
    ("sans-semibold", "Report Sans", "normal", 600),
)


@cache
def font_file(name: str) -> Path:
    """The file of one of `FONTS`.

    Raises:
        OutputError: if the package that should bring it does not.
    """
    if name == "mono":
        import matplotlib

        return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf"
    family, _dash, variant = name.partition("-")
    style = {"": "Regular", "italic": "It", "semibold": "Semibold"}[variant]
    package = f"font_source_{family}_pro"
    stem = f"Source{family.title()}Pro-{style}"
    found = [entry for entry in Path(str(files(package))).rglob(f"{stem}*") if entry.suffix.lower() in (".otf", ".ttf")]
    if not found:
        raise OutputError(
            f"the package {package.replace('_', '-')} holds no font {stem}",
            f"pip install -U {package.replace('_', '-')}",
        )
    return sorted(found)[0]


@cache
def font_faces() -> str:
    """Style sheet rules that carry the fonts themselves, cut down to Latin (WOFF, some 80 kB together)."""
    rule = (
        '@font-face {{ font-family: "{}"; font-style: {}; font-weight: {}; font-display: swap; '
        "src: url(data:font/woff;base64,{}) }}\n"
    )
    return "".join(
        rule.format(family, style, weight, base64.b64encode(_latin(name)).decode())
        for name, family, style, weight in _FACES
    )


def _latin(name: str) -> bytes:
    """A font cut down to `_LATIN`, as WOFF. The same bytes each time."""
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import TTFont

    options = Options(layout_features=["kern", "liga", "tnum", "lnum", "mark", "ccmp"], hinting=False, name_IDs=[])
    logging.getLogger("fontTools.subset").setLevel(logging.ERROR)  # it tells of every table it drops
    file = io.BytesIO()
    with TTFont(font_file(name), lazy=True, recalcTimestamp=False) as font:
        subsetter = Subsetter(options)
        subsetter.populate(unicodes=_LATIN)
        subsetter.subset(font)
        font.flavor = "woff"
        font.save(file)
    return file.getvalue()


@cache
def _drawable() -> frozenset[int]:
    """Characters that the fonts together can draw, and those that draw nothing."""
    from fontTools.ttLib import TTFont

    found: set[int] = set(_BLANK)
    for name in ("serif", "sans", "mono"):
        with TTFont(font_file(name), lazy=True) as font:
            found |= set(font.getBestCmap())
    # a font may have a glyph of nothing for what turns the direction of writing
    return frozenset(code for code in found if code in _BLANK or shown(chr(code)) == chr(code))


def drawable(text: str) -> str:
    """`text` with every character that no font can draw written as an escape (``\\u732b``): never a box."""
    known = _drawable()
    if all(ord(c) in known for c in set(text)):
        return text
    return "".join(c if ord(c) in known else _escape(c) for c in text)


def _escape(c: str) -> str:
    return f"\\u{ord(c):04x}" if ord(c) <= 0xFFFF else f"\\U{ord(c):08x}"
