"""Formulas as SVG outlines, set by matplotlib's mathtext in STIX: sharp in print, and no font to embed."""

from __future__ import annotations

import threading
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from reportgen.figures.figure import Picture

if TYPE_CHECKING:
    from matplotlib.textpath import TextToPath

_EM: Final = 1000
"""Units of the drawing in the width of an em: finer than print, and whole numbers keep the file short."""

_LOCK: Final = threading.Lock()


@lru_cache(maxsize=256)
def formula_svg(tex: str, *, size: float = 12.0) -> Picture:
    r"""A formula as an SVG of one path.

    The colour is ``currentColor``: black in an ``<img>`` or a PDF, in a browser that of the text where the SVG stands
    inline. The box is tight but for being widened to whole points. Fractions are set small, as in running text;
    ``\dfrac`` sets them large.

    Args:
        tex: TeX of the subset that mathtext knows, without dollars, for example ``r"\frac{1}{Z}\sum_{i,j} G_{ij}"``.
        size: font size in points.

    Returns:
        SVG, its width and height in points.

    Raises:
        ValueError: mathtext cannot read `tex`, or nothing is drawn by it.
    """
    with _LOCK:
        vertices, codes = _outline(tex)
    if not len(vertices):
        raise ValueError(f"the formula {tex!r} draws nothing")
    points = size / _EM
    left, top = vertices.min(axis=0).tolist()
    right, bottom = vertices.max(axis=0).tolist()
    width, height = ceil((right - left) * points), ceil((bottom - top) * points)
    # The widening is shared by both sides, so that the formula stays centred.
    box_width, box_height = round(width / points), round(height / points)
    x, y = left - (box_width - (right - left)) // 2, top - (box_height - (bottom - top)) // 2
    path = _path_data(vertices, codes)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}pt" height="{height}pt" '
        f'viewBox="{x} {y} {box_width} {box_height}"><path fill="currentColor" d="{path}"/></svg>\n'
    )
    return Picture(svg.encode("ascii"), "image/svg+xml", width, height)


def _outline(tex: str) -> tuple[NDArray[np.int64], list[int]]:
    """Vertices (n, 2) in units of the drawing, y downwards, and matplotlib's path codes.

    A closing has a code and no vertex: the one that matplotlib gives it lies anywhere.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.path import Path

    setter = _setter()
    vertices, codes = setter.get_text_path(FontProperties(math_fontfamily="stix"), f"${tex}$", ismath=True)
    points = np.asarray(vertices, dtype=np.float64).reshape(-1, 2) * (_EM / setter.FONT_SCALE)
    drawn = points[np.asarray(codes, dtype=np.uint8) != Path.CLOSEPOLY]
    return np.rint(drawn * (1, -1)).astype(np.int64), [int(code) for code in codes]


@lru_cache(maxsize=1)
def _setter() -> TextToPath:
    from matplotlib.textpath import TextToPath

    return TextToPath()


def _path_data(vertices: NDArray[np.int64], codes: list[int]) -> str:
    """The outline as SVG path data in relative coordinates."""
    from matplotlib.path import Path

    commands = {int(Path.MOVETO): ("m", 1), int(Path.LINETO): ("l", 1), int(Path.CURVE3): ("q", 2)}
    commands[int(Path.CURVE4)] = ("c", 3)
    data: list[str] = []
    here = start = np.zeros(2, dtype=np.int64)
    code, vertex = 0, 0
    while code < len(codes):
        if codes[code] == Path.CLOSEPOLY:
            data.append("z")
            here = start
            code += 1
            continue
        letter, count = commands[codes[code]]
        points = vertices[vertex : vertex + count]
        data.append(letter + " ".join(f"{dx} {dy}" for dx, dy in (points - here).tolist()).replace(" -", "-"))
        here = points[-1]
        start = here if letter == "m" else start
        # matplotlib repeats the code of a curve for each of its points.
        code, vertex = code + count, vertex + count
    return "".join(data)
