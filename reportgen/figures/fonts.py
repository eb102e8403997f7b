"""The fonts of the report. They come with packages, so that a machine without fonts draws the same."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from reportgen.errors import OutputError
from reportgen.figures.characters import characters
from reportgen.figures.han import han_covered, han_font
from reportgen.text import shown

FONTS: Final = ("serif", "serif-italic", "serif-semibold", "sans", "sans-italic", "sans-semibold", "mono")
"""Those that are always there."""

HAN: Final = "han"
"""The one for Chinese, where there is one."""

_BLANK: Final = frozenset({0x0A, 0x09, 0x0D, 0x200B})


@cache
def font_file(name: str) -> Path:
    """The file of one of `FONTS`, or of `HAN`.

    Raises:
        OutputError: if the package that should hold it does not.
    """
    if name == HAN:
        found_han = han_font()
        if found_han is None:
            raise OutputError("there is no font for Chinese", "pip install 'reportgen[zh]'")
        return found_han
    if name == "mono":
        return _of_matplotlib("DejaVuSansMono.ttf")
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


def _of_matplotlib(name: str) -> Path:
    """A font that comes with matplotlib, which need not be imported for it where it keeps its data in itself."""
    found = find_spec("matplotlib")
    for folder in (found.submodule_search_locations or []) if found else []:
        inside = Path(folder, "mpl-data", "fonts", "ttf", name)
        if inside.is_file():
            return inside
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", name)


@cache
def covered() -> frozenset[int]:
    """Characters that the fonts together can draw, and those that draw nothing."""
    found = _BLANK.union(*(characters(font_file(name)) for name in ("serif", "sans", "mono")))
    # a font may have a glyph of nothing for what turns the direction of writing
    return frozenset(code for code in found if code in _BLANK or shown(chr(code)) == chr(code))


def wants_han(text: str) -> bool:
    """Whether there are characters in `text` that the Chinese font alone can draw, and there is one."""
    foreign = {ord(c) for c in set(text)} - covered()
    return bool(foreign) and not foreign.isdisjoint(han_covered())


def drawable(text: str) -> str:
    """`text` with every character that no font can draw written as an escape (``\\u732b``): never a box."""
    known = covered()
    if all(ord(c) in known for c in set(text)):
        return text
    known |= han_covered()
    return "".join(c if ord(c) in known else escaped(c) for c in text)


def escaped(c: str) -> str:
    """A character as ``\\u732b``."""
    return f"\\u{ord(c):04x}" if ord(c) <= 0xFFFF else f"\\U{ord(c):08x}"
