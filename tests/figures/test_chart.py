"""Charts may stand inline in a page that forbids styles, in any colour scheme, and are the same bytes every time."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import TextToPath

from reportgen.figures.chart import INK, MOST_POINTS, SERIES, chart, charts, thinned

SVG = "{http://www.w3.org/2000/svg}"


def curves(axes: Axes) -> None:
    steps = np.arange(2000)
    for number in range(2):
        axes.plot(steps, np.sin(steps / (200 + number)), label=f"method {number}")
    axes.set_xlabel("step")
    axes.set_ylabel("objective")
    axes.axhline(0, color=INK)
    axes.legend()


def bars(axes: Axes) -> None:
    axes.barh(["conv1", "layer1"], [1.5, 2.5])
    axes.fill_between([0, 1], [0, 0], [1, 1], alpha=0.2)
    axes.scatter([1], [1])


def elements(data: bytes) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(data).iter())


@pytest.mark.parametrize("draw", [curves, bars])
def test_nothing_that_a_policy_forbids(draw: object) -> None:
    data = chart(draw).data  # type: ignore[arg-type]
    for element in elements(data):
        assert element.tag.removeprefix(SVG) in {"svg", "g", "defs", "path", "use", "clipPath", "rect"}
        assert "style" not in element.attrib
        assert "class" not in element.attrib
        assert not (element.text or "").strip()
    assert not re.search(rb"http|date|url\((?!#)|<!--|<\?|xlink", data.replace(SVG[1:-1].encode(), b""))


def test_a_word_is_one_outline_and_the_same_as_matplotlibs() -> None:
    words = "AVA fi, ½ (gj)"
    root = ElementTree.fromstring(chart(lambda axes: axes.set_title(words, alpha=0.4)).data)
    drawn = [
        group for group in root.iter(f"{SVG}g") if group.find(f"{SVG}path") is not None and "scale" in str(group.attrib)
    ]
    (word,) = [path for group in drawn for path in group if path.get("fill-opacity") == "0.4"]
    assert not any("opacity" in group.attrib for group in drawn)
    assert not root.findall(f".//{SVG}defs/{SVG}path[@transform]")

    here, points = np.zeros(2), []
    for command, numbers in re.findall(r"([MlqcZz])([^MlqcZz]*)", word.attrib["d"]):
        steps = np.array(re.findall(r"-?\d+", numbers), float).reshape(-1, 2)
        points += (steps + (0 if command == "M" else here)).tolist()
        here = np.array(points[-1])
    vertices, codes = TextToPath().get_text_path(FontProperties(family="Source Sans Pro"), words)
    expected = [vertex for vertex, code in zip(vertices, codes, strict=True) if code != Path.CLOSEPOLY]
    assert np.array(points) / 64 == pytest.approx(np.array(expected), abs=1 / 64)


def test_ink_is_the_colour_of_the_text() -> None:
    data = chart(curves).data.decode()
    root = ElementTree.fromstring(data)
    assert root.attrib["fill"] == "currentColor"
    assert 'stroke="currentColor"' in data
    painted = {element.attrib.get(name) for element in root.iter() for name in ("fill", "stroke")}
    assert painted == {None, "none", "currentColor", *SERIES[:2]}


def test_box_is_the_printed_size() -> None:
    made = chart(curves, width_mm=50.8, height_mm=25.4)
    assert (made.width, made.height) == (144, 72)
    root = ElementTree.fromstring(made.data)
    assert (root.attrib["width"], root.attrib["viewBox"]) == ("144pt", "0 0 144 72")


def test_ids_are_found_and_belong_to_one_chart() -> None:
    ids = []
    for draw in (curves, bars):
        data = chart(draw).data.decode()
        own = re.findall(r' id="([^"]+)"', data)
        assert own
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', data)) == set(own)
        ids += own
    assert len(ids) == len(set(ids))


def test_letters_are_outlines_of_the_right_size() -> None:
    data = chart(lambda axes: axes.text(0.5, 0.5, "H", fontsize=10) and None).data.decode()
    # the letter is 0.66 em high, in the font's units, which the transforms bring to points
    scale = re.search(r"scale\(([\d.]+) -", data)
    inner = re.search(r'transform="scale\(([\d.]+)\)"', data)
    assert scale
    assert inner
    letter = max(
        (float(y) for path in re.findall(r' d="([^"]+)" transform', data) for y in re.findall(r" (\d+)", path)),
        default=0,
    )
    assert 6 < letter * float(inner[1]) * 0.1 < 7.5


@pytest.mark.parametrize("where", ["label", "tick", "legend"])
def test_what_no_font_draws_is_an_escape(where: str) -> None:
    def draw(words: str, axes: Axes) -> None:
        if where == "label":
            axes.set_xlabel(words)
        elif where == "tick":
            axes.barh([words], [1])
        else:
            axes.plot([0, 1], label=words)
            axes.legend()

    box, escape = (chart(lambda axes, words=words: draw(words, axes)).data for words in ("猫$a$", r"\u732b$a$"))
    assert box == escape


def test_lines_are_thinned_and_peaks_stay() -> None:
    values = np.zeros(10_000)
    values[4321], values[777] = 5, -3
    x, y = thinned(np.arange(10_000), values)
    assert len(x) <= MOST_POINTS
    assert (x[0], x[-1]) == (0, 9999)
    assert y[x == 4321] == [5]
    assert y[x == 777] == [-3]
    assert (np.diff(x) > 0).all()
    few = np.arange(5.0)
    assert thinned(few, few)[0].tolist() == few.tolist()
    holes = np.full(1000, np.nan)
    assert len(thinned(np.arange(1000), holes)[0]) == 2
    drawn = chart(lambda axes: axes.plot(np.random.default_rng(0).normal(size=5000)) and None).data.decode()
    line = max(re.findall(r'd="([^"]+)" (?:clip-path="[^"]+" )?fill="none"', drawn), key=len)
    assert 100 < line.count("L") < MOST_POINTS


def test_series_are_seen_on_white_on_dark_and_in_grey() -> None:
    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for colour in SERIES:
        assert 1.05 / (luminance(colour) + 0.05) >= 3
        assert (luminance(colour) + 0.05) / (luminance("#16181c") + 0.05) >= 3
    data = chart(lambda axes: [axes.plot([0, n]) for n in range(4)] and None).data.decode()
    # neighbours differ in their dashes too
    dashes = [re.search(rf'<path[^>]*stroke="{colour}"[^>]*>', data) for colour in SERIES]
    assert ["dasharray" in found[0] for found in dashes if found] == [False, True, False, True]


def test_several_axes() -> None:
    def draw(figure: Figure) -> None:
        for axes in figure.subplots(1, 3, sharey=True):
            curves(axes)

    assert len(charts(draw).data) > len(chart(curves).data)


def test_same_bytes_from_many_threads_whatever_the_caller_set() -> None:
    alone = chart(curves).data
    before = dict(matplotlib.rcParams)
    with ThreadPoolExecutor(4) as pool:
        assert {made.data for made in pool.map(chart, [curves] * 4)} == {alone}
    assert dict(matplotlib.rcParams) == before
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "text.usetex": True}):
        assert chart(curves).data == alone


def test_matplotlib_waits_until_something_is_drawn() -> None:
    code = "import sys; import reportgen.figures.chart; assert not {'matplotlib', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
