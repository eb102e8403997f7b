"""Small charts by matplotlib, as SVG that can stand inline in a page whose policy forbids styles.

Text is outlines, so that no font is needed where the chart is shown. Text and axes take the colour of the surrounding
text (``currentColor``: black in an ``<img>`` or a PDF); series have colours that are told from white, from a dark page
and, by their dashes too, from one another in grey print.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from reportgen.figures.figure import Picture
from reportgen.figures.fonts import HAN, font_file
from reportgen.figures.han import han_covered
from reportgen.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

INK: Final = "#000000"
"""The colour of text and axes in a drawing; it becomes ``currentColor``."""

SERIES: Final = ("#2f74b5", "#c96a1b", "#768390", "#b0589d")
"""Colours of series, in matplotlib's order: a contrast of at least 3:1 with white and with a dark page."""

MOST_POINTS: Final = 300
"""A line keeps at most so many points: print shows no more, and the file stays small."""

_FAMILY: Final = "Source Sans Pro"
_MM: Final = 25.4
_POINTS: Final = 72
_SOFT: Final = INK + "b8"
_FAINT: Final = INK + "66"
_DASHES: Final = ("-", (0, (4, 1.6)), "-", (0, (1, 1.2)))
_LOCK: Final = threading.Lock()
_SVG: Final = "http://www.w3.org/2000/svg"

_LOOK: Final[dict[str, Any]] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "reportgen",
    "path.simplify": False,
    "font.family": [_FAMILY, "DejaVu Sans"],
    "font.size": 7.5,
    "text.parse_math": False,  # a name with two dollars is a name
    "text.color": INK,
    "figure.facecolor": "none",
    "figure.constrained_layout.h_pad": 0.02,
    "figure.constrained_layout.w_pad": 0.02,
    "axes.facecolor": "none",
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _SOFT,
    "axes.labelsize": 7.5,
    "axes.labelpad": 2.5,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.axisbelow": True,
    "axes.xmargin": 0.01,
    "grid.color": INK + "24",
    "grid.linewidth": 0.4,
    "grid.linestyle": "-",
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.labelcolor": _SOFT,
    "legend.handlelength": 1.8,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.4,
    "legend.borderpad": 0.1,
    "lines.linewidth": 1.1,
    "lines.scale_dashes": True,
    "lines.solid_capstyle": "round",
    "lines.markersize": 3,
    "patch.linewidth": 0.4,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _SOFT,
    "ytick.labelcolor": _SOFT,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "xtick.minor.size": 1.2,
    "ytick.minor.size": 1.2,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.pad": 2,
    "ytick.major.pad": 2,
}


def chart(draw: Callable[[Axes], None], *, width_mm: float = 166, height_mm: float = 48, han: bool = False) -> Picture:
    """A chart with one pair of axes.

    Args:
        draw: draws into the axes it is given, whose colours, sizes and fonts are set already. Lines of more than
            `MOST_POINTS` points are thinned afterwards (`thinned`).
        width_mm: printed width in millimetres, labels included.
        height_mm: printed height.
        han: words may be Chinese; needs `reportgen.figures.han.han_font`.

    Returns:
        SVG without styles, titles, fonts, dates and references to anything outside; the same bytes for the same
        drawing. Its ids are made of its content, so that different charts can stand in one page.
    """
    return charts(lambda figure: draw(figure.add_subplot()), width_mm=width_mm, height_mm=height_mm, han=han)


def charts(
    draw: Callable[[Figure], None], *, width_mm: float = 166, height_mm: float = 48, han: bool = False
) -> Picture:
    """The same with as many axes as `draw` adds to the figure it is given."""
    import matplotlib
    from cycler import cycler
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    width, height = (max(round(mm / _MM * _POINTS), 1) for mm in (width_mm, height_mm))
    look: Any = {**_LOOK, "axes.prop_cycle": cycler(color=SERIES) + cycler(linestyle=_DASHES)}
    with _LOCK, matplotlib.rc_context():
        _register_font()
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(look)
        if han:
            matplotlib.rcParams["font.family"] = [_FAMILY, "DejaVu Sans", _register_han()]
        figure = Figure(figsize=(width / _POINTS, height / _POINTS), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        for axes in figure.axes:
            _thin(axes)
            _escape_ticks(axes, han=han)
        _escape_words(figure, han=han)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Picture(_plain(file.getvalue(), width, height), "image/svg+xml", width, height)


def thinned(
    x: NDArray[Any], y: NDArray[Any], most: int = MOST_POINTS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A line with at most `most` points: the first, the last, and the lowest and the highest of equal stretches.

    Peaks survive, which a plain stride would lose.

    Args:
        x: (n,) places, in order.
        y: (n,) values; stretches without any number are left out.
        most: at least 4.
    """
    places, values = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(places) <= most:
        return places, values
    kept = {0, len(places) - 1}
    edges = np.linspace(0, len(places), (most - 2) // 2 + 1).astype(int)
    for begin, end in pairwise(edges.tolist()):
        stretch = values[begin:end]
        if np.isfinite(stretch).any():
            kept |= {begin + int(np.nanargmin(stretch)), begin + int(np.nanargmax(stretch))}
    chosen = sorted(kept)
    return places[chosen], values[chosen]


# what is drawn, before it is drawn
# ----------------------------------------------------------------------------------------------------------------


def _thin(axes: Axes) -> None:
    for line in axes.lines:
        x, y = (np.asarray(values) for values in line.get_data(orig=False))
        if len(x) > MOST_POINTS:
            line.set_data(*thinned(x, y))


@lru_cache(maxsize=1)
def _register_font() -> frozenset[int]:
    """Make the report's own sans-serif known to matplotlib. Returns the characters that can be drawn."""
    import matplotlib
    from matplotlib.font_manager import fontManager, get_font

    known: set[int] = set(get_font(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))).get_charmap())
    found = sorted(
        entry
        for entry in Path(str(files("font_source_sans_pro"))).rglob("SourceSansPro-Regular.*")
        if entry.suffix.lower() in (".otf", ".ttf")
    )
    if found:
        fontManager.addfont(str(found[0]))
        known |= set(get_font(str(found[0])).get_charmap())
    return frozenset(known)


@lru_cache(maxsize=1)
def _register_han() -> str:
    """Make the font for Chinese known to matplotlib. Returns its family."""
    from matplotlib.font_manager import FontProperties, fontManager

    file = str(font_file(HAN))
    fontManager.addfont(file)
    return str(FontProperties(fname=file).get_name())


def _drawable(words: str, *, han: bool) -> str:
    """`words` with every character that no font has written as an escape, never as a box."""
    known = _register_font() | (han_covered() if han else frozenset())
    told = "\n".join(map(shown, words.split("\n")))  # fonts map control characters, too, to nothing
    return "".join(
        c if ord(c) in known or c == "\n" else c.encode("ascii", "backslashreplace").decode("ascii") for c in told
    )


def _escape_words(figure: Figure, *, han: bool) -> None:
    from matplotlib.text import Text

    texts: list[Text] = figure.findobj(Text)
    for text in texts:
        text.set_text(_drawable(text.get_text(), han=han))


def _escape_ticks(axes: Axes, *, han: bool) -> None:
    """Tick labels are set anew whenever the figure is drawn, so what makes them is wrapped."""
    from matplotlib.ticker import Formatter

    class Drawable(Formatter):
        def __init__(self, inner: Formatter) -> None:
            self.inner = inner

        def __call__(self, x: float, pos: int | None = None) -> str:
            return _drawable(self.inner(x, pos), han=han)

        def format_ticks(self, values: list[float]) -> list[str]:
            return [_drawable(words, han=han) for words in self.inner.format_ticks(values)]

        def get_offset(self) -> str:
            return _drawable(self.inner.get_offset(), han=han)

        def set_locs(self, locs: list[float]) -> None:
            self.inner.set_locs(locs)

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(Drawable(axis.get_major_formatter()))


# what was drawn, made plain
# ----------------------------------------------------------------------------------------------------------------

_DEFAULTS: Final = {
    "stroke-linecap": "butt",
    "stroke-dashoffset": "0",
    "fill-opacity": "1",
    "stroke-opacity": "1",
    "opacity": "1",
    "stroke-width": "1",
}


def _plain(drawn: bytes, width: int, height: int) -> bytes:
    """matplotlib's SVG with presentation attributes for styles, ids made of its content, and nothing unseen."""
    root = ElementTree.fromstring(drawn)
    referenced = {match for value in _values(root) for match in re.findall(r"#([^)\s]+)", value)}
    ids: dict[str, str] = {}
    _simplify(root, referenced, ids)
    _join_glyphs(root)
    _prune(root)
    root.attrib.clear()
    root.attrib.update({"xmlns": _SVG, "width": f"{width}pt", "height": f"{height}pt"})
    root.attrib.update({"viewBox": f"0 0 {width} {height}", "fill": "currentColor", "stroke-linejoin": "round"})
    text = ElementTree.tostring(root, encoding="unicode")
    unique = "c" + hashlib.sha256(text.encode()).hexdigest()[:10]
    return text.replace("ID-", f"{unique}-").encode("ascii") + b"\n"


def _values(root: ElementTree.Element) -> list[str]:
    return [value for element in root.iter() for name, value in element.attrib.items() if "#" in value]


def _simplify(element: ElementTree.Element, referenced: set[str], ids: dict[str, str]) -> None:
    """Attributes of `element` and of what is in it: local names, styles as attributes, short numbers, numbered ids."""
    element.tag = element.tag.rpartition("}")[2]
    element.text = element.tail = None
    attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    for declaration in attributes.pop("style", "").split(";"):
        name, colon, value = declaration.partition(":")
        if colon:
            attributes[name.strip()] = value.strip()
    element.attrib.clear()
    for name, value in attributes.items():
        if _DEFAULTS.get(name) == value:
            continue
        if name == "id":
            if value not in referenced:
                continue
            value = _numbered(value, ids)
        elif "#" in value and name in ("href", "clip-path"):
            value = re.sub(r"#([^)\s]+)", lambda match: "#" + _numbered(match[1], ids), value)
        elif name in ("fill", "stroke") and value == INK:
            value = "currentColor"
        elif name in ("d", "transform", "x", "y", "width", "height", "points", "stroke-dasharray"):
            value = _short(value)
        element.set(name, value)
    for child in element:
        _simplify(child, referenced, ids)


def _numbered(name: str, ids: dict[str, str]) -> str:
    """Ids by the order in which they are met; the digest comes when everything else is settled."""
    return ids.setdefault(name, f"ID-{len(ids)}")


def _short(value: str) -> str:
    """Numbers of five digits, a hundredth of a point at the far end of the widest chart, and no space to spare."""
    rounded = re.sub(r"-?\d+\.\d+", lambda match: f"{float(match[0]) + 0.0:.5g}", value)
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", " ".join(rounded.split())) if "(" not in value else rounded


def _join_glyphs(root: ElementTree.Element) -> None:
    """Each word as one outline: a PDF takes many times as long to draw it glyph by glyph, and a group that is
    transparent as a whole costs as much again.
    """
    glyphs = {
        path.attrib["id"]: path for defs in root.iter("defs") for path in defs.iter("path") if "id" in path.attrib
    }
    for group in root.iter("g"):
        uses = group.findall("use")
        scales = {glyphs[name].get("transform", "") for use in uses if (name := use.get("href", "")[1:]) in glyphs}
        if len(scales) != 1 or not {child.tag for child in group} <= {"use", "defs"}:
            continue
        scale = re.fullmatch(r"scale\(([\d.]+)\)", scales.pop())
        places = [re.fullmatch(r"(?:translate\(([-\d.e]+)(?: 0)?\))?", use.get("transform", "")) for use in uses]
        if scale is None or None in places or any(use.get("href", "")[1:] not in glyphs for use in uses):
            continue
        outline = "".join(
            _moved(glyphs[use.attrib["href"][1:]].get("d", ""), float(place[1] or 0) / float(scale[1]))
            for use, place in zip(uses, places, strict=True)
            if place is not None
        )
        word = ElementTree.SubElement(group, "path", {"d": outline, "transform": scale[0]})
        if "opacity" in group.attrib:
            word.set("fill-opacity", group.attrib.pop("opacity"))
        for use in uses:
            group.remove(use)
    used = {use.get("href", "")[1:] for use in root.iter("use")}
    for defs in root.iter("defs"):
        for path in [path for path in defs if path.get("id") in glyphs.keys() - used]:
            defs.remove(path)


def _moved(outline: str, right: float) -> str:
    """The outline of a glyph farther to the right, in whole units (a thousandth of a point) and steps, to be short."""
    here = (0, 0)
    told: list[str] = []
    for command, numbers in re.findall(r"([MLQCZz])([^MLQCZz]*)", outline):
        values = [round(float(number) + right * (k % 2 == 0)) for k, number in enumerate(numbers.split())]
        points = list(zip(values[::2], values[1::2], strict=True))
        if command == "M":
            told.append(f"M{points[0][0]} {points[0][1]}")
        else:
            steps = " ".join(f"{x - here[0]} {y - here[1]}" for x, y in points)
            told.append(command.lower() + steps.replace(" -", "-"))
        here = points[-1] if points else here
    return "".join(told)


def _prune(element: ElementTree.Element) -> None:
    """Take out what draws nothing: metadata, style sheets, empty groups, unpainted shapes, groups without a say."""
    for child in list(element):
        _prune(child)
        at = list(element).index(child)
        unpainted = child.get("fill") == "none" and child.get("stroke", "none") == "none"
        if child.tag in ("metadata", "style", "title") or unpainted or (child.tag in ("g", "defs") and not len(child)):
            element.remove(child)
        elif child.tag == "g" and not child.attrib:
            element[at : at + 1] = list(child)
