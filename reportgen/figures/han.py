"""A font for Chinese, where there is one: of the package noto-cjk-sans-otc, or installed on the machine."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from reportgen.figures.characters import characters

FAMILY: Final = "Report Han"

_PACKAGE: Final = "noto_cjk_sans_otc"
# file names of fonts with simplified Chinese, the best for print first
_INSTALLED: Final = (
    r"NotoSansCJK(sc)?-Regular",
    r"NotoSansSC-Regular",
    r"SourceHanSans(SC|CN)?-Regular",
    r"msyh",
    r"PingFang.*",
    r"Hiragino Sans GB.*",
    r"STHeiti Light",
    r"wqy-(zenhei|microhei)",
    r"DroidSansFallback.*",
    r"simhei",
    r"simsun",
    r"uming",
)
_SIMPLIFIED: Final = re.compile(r"\b(SC|CN|Simplified|YaHei|GB)\b|WenQuanYi", re.IGNORECASE)


@cache
def han_font() -> Path | None:
    """A font file with one face of simplified Chinese; None where there is none.

    A collection holds the forms of several countries: its face for simplified Chinese is taken out of it.
    """
    found = _shipped() or _installed()
    return found if found is None or found.suffix.lower() in (".otf", ".ttf") else _face(found)


@cache
def han_covered() -> frozenset[int]:
    """Characters that `han_font` can draw."""
    file = han_font()
    return frozenset() if file is None else characters(file)


def _shipped() -> Path | None:
    if find_spec(_PACKAGE) is None:
        return None
    found = sorted(entry for entry in Path(str(files(_PACKAGE))).iterdir() if entry.suffix.lower() in _SUFFIXES)
    return found[0] if found else None


_SUFFIXES: Final = (".otf", ".ttf", ".ttc", ".otc")


def _installed() -> Path | None:
    from matplotlib.font_manager import findSystemFonts

    listed = sorted(Path(found) for found in findSystemFonts())
    for pattern in _INSTALLED:
        for path in listed:
            if re.fullmatch(pattern, path.stem, re.IGNORECASE) and path.suffix.lower() in _SUFFIXES:
                return path
    return None


def _face(collection: Path) -> Path:
    """The face for simplified Chinese of a collection (its first if none says so), as a file of this process."""
    from fontTools.ttLib import TTCollection, TTFont

    with TTCollection(str(collection), lazy=True) as faces:
        names = [str(face["name"].getDebugName(4)) for face in faces.fonts]
    number = next((place for place, name in enumerate(names) if _SIMPLIFIED.search(name) and "Mono" not in name), 0)
    folder = Path(tempfile.mkdtemp(prefix="reportgen-font-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with TTFont(collection, fontNumber=number, lazy=True, recalcTimestamp=False) as face:
        face.save(folder / "han.otf")
    return folder / "han.otf"
