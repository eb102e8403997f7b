"""Which characters a font can draw."""

from __future__ import annotations

from pathlib import Path


def characters(file: Path) -> frozenset[int]:
    """The code points that have a glyph in a font file."""
    from fontTools.ttLib import TTFont

    with TTFont(file, lazy=True) as font:
        # glyphs by number: their names, which nobody asks for here, stand elsewhere in the file
        font.setGlyphOrder(list(map(str, range(font["maxp"].numGlyphs))))
        return frozenset(font.getBestCmap())
