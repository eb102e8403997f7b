"""Formulas are the outlines that mathtext sets, in a tight box, with the same bytes every time."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from reportgen.figures.formula import formula_svg

GRAD_CAM = r"L^c = \mathrm{ReLU}\left(\sum_k w_k A^k\right),\quad w_k = \frac{1}{Z}\sum_{i,j} G_{kij}"
SVG = "{http://www.w3.org/2000/svg}"


def points(tex: str) -> tuple[np.ndarray, list[float]]:
    """Absolute vertices (n, 2) of the path of a formula, and its view box."""
    root = ElementTree.fromstring(formula_svg(tex).data)
    path = root.find(f"{SVG}path")
    assert path is not None
    here = start = np.zeros(2)
    vertices = []
    for letter, numbers in re.findall(r"([mlqcz])([^mlqcz]*)", path.attrib["d"]):
        if letter == "z":
            here = start
            continue
        steps = np.array(re.findall(r"-?\d+", numbers), dtype=float).reshape(-1, 2)
        vertices.extend(here + steps)
        here = here + steps[-1]
        start = here if letter == "m" else start
    return np.array(vertices), [float(n) for n in root.attrib["viewBox"].split()]


@pytest.mark.parametrize("tex", ["x", r"\frac{\partial S_c}{\partial A}", GRAD_CAM])
def test_path_is_what_mathtext_sets(tex: str) -> None:
    theirs, codes = TextToPath().get_text_path(FontProperties(math_fontfamily="stix"), f"${tex}$", ismath=True)
    drawn = np.array([vertex for vertex, code in zip(theirs, codes, strict=True) if code != 79])
    ours, _ = points(tex)
    # A hundred units an em there, a thousand here, rounded.
    assert np.abs(ours - drawn * (10, -10)).max() <= 0.5


@pytest.mark.parametrize("tex", ["x", "-", GRAD_CAM])
def test_box_is_tight_and_centred(tex: str) -> None:
    vertices, (x, y, width, height) = points(tex)
    picture = formula_svg(tex)
    point = 1000 / 12
    low, high = vertices.min(axis=0) - (x, y), (x + width, y + height) - vertices.max(axis=0)
    assert min(*low, *high) >= -1
    assert max(*low, *high) <= point / 2 + 1
    assert (picture.width, picture.height) == (round(width / point), round(height / point))
    root = ElementTree.fromstring(picture.data)
    assert (root.attrib["width"], root.attrib["height"]) == (f"{picture.width}pt", f"{picture.height}pt")


def test_size_scales_the_box_and_not_the_drawing() -> None:
    small, large = formula_svg(GRAD_CAM, size=10), formula_svg(GRAD_CAM, size=20)
    assert abs(large.width - 2 * small.width) <= 2
    assert small.data.partition(b"<path")[2] == large.data.partition(b"<path")[2]


def test_colour_is_that_of_the_text() -> None:
    assert b'fill="currentColor"' in formula_svg("x").data


def test_no_date_and_no_reference() -> None:
    data = formula_svg(GRAD_CAM).data.replace(b"http://www.w3.org/2000/svg", b"")
    assert not re.search(rb"http|metadata|date|url\(", data)


@pytest.mark.parametrize("tex", [r"\nosuchcommand{x}", r"\frac{1}", "", " "])
def test_what_cannot_be_set_is_an_error(tex: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        formula_svg(tex)


def test_same_bytes_from_many_threads_and_without_the_cache() -> None:
    formulas = [rf"w_{i} = \sum_k \frac{{{i}}}{{A_k}}" for i in range(12)]
    formula_svg.cache_clear()
    alone = [formula_svg(tex).data for tex in formulas]
    formula_svg.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        assert [picture.data for picture in pool.map(formula_svg, formulas * 3)] == alone * 3


def test_pixels_need_neither_matplotlib_nor_torch() -> None:
    code = (
        "import sys; from reportgen.figures import colour, formula, overlays, tiles;"
        "import numpy as np;"
        "overlays.heat_map(np.zeros((9, 9, 3), np.uint8), np.ones((2, 2)), low=0, high=1, colormap='magma');"
        "assert not {'matplotlib', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
