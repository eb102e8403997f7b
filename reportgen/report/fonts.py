"""The fonts that an HTML file carries in itself."""

from __future__ import annotations

import base64
import io
import logging
from functools import cache
from typing import Final

from reportgen.figures.fonts import font_file
from reportgen.report.environment import KeptFiles
from reportgen.versions import versions_of

_LATIN: Final = frozenset({*range(0x20, 0x7F), *range(0xA0, 0x180), *map(ord, "\u2009\u202f–—‘’“”…×·−→←≤≥≠≈∂∑σ∞")})
"""What the fonts inside an HTML file can draw; for the rest a browser has fonts of its own."""

_PACKAGES: Final = ("fonttools", "font-source-sans-pro", "font-source-serif-pro")

_FACES: Final = (
    ("serif", "Report Serif", "normal", 400),
    ("serif-italic", "Report Serif", "italic", 400),
    ("sans", "Report Sans", "normal", 400),
    ("sans-semibold", "Report Sans", "normal", 600),
)


def font_faces(kept: KeptFiles) -> str:
    """Style sheet rules that carry the fonts themselves, cut down to Latin (WOFF, some 80 kB together).

    Args:
        kept: may know fonts that were cut before: to cut them takes a second.
    """
    names = [name for name, *_face in _FACES]
    cut = kept({"fonts": names, **versions_of(_PACKAGES)}, lambda: {name: _latin(name) for name in names})
    rule = (
        '@font-face {{ font-family: "{}"; font-style: {}; font-weight: {}; font-display: swap; '
        "src: url(data:font/woff;base64,{}) }}\n"
    )
    return "".join(
        rule.format(family, style, weight, base64.b64encode(cut[name]).decode())
        for name, family, style, weight in _FACES
    )


@cache
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
