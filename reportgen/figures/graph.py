"""Layered graphs as SVG: boxes in the order of computation from top to bottom, and who hands what to whom.

Whole graphs inside a box make a frame. What is higher than the page goes on in a further column, like a text.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from math import ceil
from typing import TYPE_CHECKING, Final, Literal

from reportgen.figures.figure import Picture
from reportgen.figures.layered import Shape, place, ranks_of
from reportgen.text import shown

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

ENTRY: Final = "<entry>"
EXIT: Final = "<exit>"
"""Ends of edges that come into a frame from outside, or leave it."""

WIDTH: Final = 470.0
HEIGHT: Final = 470.0
"""Points: what a page of A4 or Letter leaves, with the words of its section above and a caption beneath."""

MOST_NODES: Final = 60

_TITLE: Final = 7.6
_SMALL: Final = 7.0
_LINE: Final = 9.0
_PAD: Final = 4.0
_GAP: Final = 11.0
_SIDE: Final = 8.0
_GUTTER: Final = 24.0
_RISE: Final = 9.0
"""Room above a column for the line that comes from the one before."""
_HEAD: Final = 4.2
_FAMILY: Final = "Report Sans, Report Han, Source Sans Pro, Helvetica, Arial, sans-serif"
_SHARE: Final = "#3f7fbf"
"""Blue of middling lightness: seen on white, on black, and in grey."""

Role = Literal["layer", "operation", "end"]


@dataclass(frozen=True)
class Node:
    """One box.

    Attributes:
        key: by which edges and shares name it; unique in the graph and all its frames.
        title: first line.
        kind: second line; may be empty.
        shape: stands beside the title, or beneath where room is scarce; may be empty.
        role: a layer is a box; an operation, or an end of the graph, has round ends.
        count: how many alike it stands for; they are drawn as a pile.
        inside: the graph within: the node is a frame around it.
    """

    key: str
    title: str
    kind: str = ""
    shape: str = ""
    role: Role = "layer"
    count: int = 1
    inside: Graph | None = None


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which edges point forward, and edges as pairs of keys; see `ENTRY` and `EXIT`."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]

    @property
    def size(self) -> int:
        """How many boxes are drawn, frames counted with what they hold."""
        return sum(1 + (node.inside.size if node.inside else 0) for node in self.nodes)


@dataclass(frozen=True)
class Box:
    """Where a node was drawn, in the units of the drawing."""

    key: str
    x: float
    y: float
    width: float
    height: float
    frame: bool = False


@dataclass(frozen=True)
class Drawing:
    """A drawn graph.

    Attributes:
        picture: SVG, as wide as was asked for, in points.
        boxes: of all nodes, frames before what they hold, in units of the viewBox.
        scale: points a unit: 1, or less where everything had to be reduced to fit.
    """

    picture: Picture
    boxes: tuple[Box, ...]
    scale: float


def draw_graph(
    graph: Graph, *, shares: Mapping[str, float] | None = None, width: float = WIDTH, height: float = HEIGHT
) -> Drawing:
    """Draw a graph from top to bottom, in as many columns as its height asks for.

    Lines and letters have the colour of the text around; what is written stays text, set in the fonts of the document.

    Args:
        graph: nodes and edges.
        shares: parts of a whole, in [0, 1], by key: a bar at the foot of the box, as wide as the box for the largest,
            and the percentage.
        width: points; the drawing is so wide.
        height: points; it is no higher.

    Raises:
        ValueError: if an edge names no node or points backwards, a key occurs twice, or there is no node.
    """
    _check(graph, set())
    timed = {key: share for key, share in (shares or {}).items() if share > 0}
    best: tuple[float, _Laid] | None = None
    for narrow in (False, True):
        for columns in range(1, 5):
            laid = _in_columns(graph, columns, timed, narrow=narrow)
            if laid is None:
                break
            scale = min(1.0, width / laid.width, height / laid.height)
            if best is None or scale > best[0] + 0.02:
                best = (scale, laid)
        if best is not None and best[0] >= 0.97:
            break
    if best is None:
        raise ValueError("a graph without nodes cannot be drawn")
    return _drawn(best[1], best[0], width, timed)


def _check(graph: Graph, seen: set[str]) -> None:
    order = {ENTRY: -1, EXIT: len(graph.nodes)}
    for number, node in enumerate(graph.nodes):
        if node.key in seen or node.key in (ENTRY, EXIT):
            raise ValueError(f"two nodes have the key {node.key!r}")
        seen.add(node.key)
        order[node.key] = number
        if node.inside is not None:
            _check(node.inside, seen)
    for tail, head in graph.edges:
        if tail not in order or head not in order or order[tail] >= order[head]:
            raise ValueError(f"the edge from {tail!r} to {head!r} names no node, or points backwards")


# layout
# ----------------------------------------------------------------------------------------------------------------

_Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Line:
    """An edge: the points it runs through, whether it turns at right angles, and whether it ends in a head."""

    points: _Points
    angular: bool = False
    head: bool = True


@dataclass(frozen=True)
class _Laid:
    """A graph with positions, from (0, 0) to (width, height); lines enter it and leave it at an x of their own."""

    width: float
    height: float
    boxes: tuple[tuple[Box, Node], ...]
    lines: tuple[_Line, ...]
    narrow: bool
    entry: float = 0.0
    exit: float = 0.0

    def moved(self, dx: float, dy: float) -> _Laid:
        boxes = tuple((replace(box, x=box.x + dx, y=box.y + dy), node) for box, node in self.boxes)
        lines = tuple(replace(one, points=tuple((x + dx, y + dy) for x, y in one.points)) for one in self.lines)
        return replace(self, boxes=boxes, lines=lines, entry=self.entry + dx, exit=self.exit + dx)


def _in_columns(graph: Graph, columns: int, shares: Mapping[str, float], *, narrow: bool) -> _Laid | None:
    """The graph broken into columns where one line alone crosses; None if there are not enough such places."""
    parts = _broken(graph, columns, shares, narrow=narrow)
    if parts is None:
        return None
    boxes: list[tuple[Box, Node]] = []
    lines: list[_Line] = []
    x = bottom = 0.0
    before: tuple[float, float] | None = None
    for part in parts:
        laid = _layered(part, shares, narrow=narrow).moved(x, _RISE if before else 0.0)
        if before is not None:
            gutter, (start, foot), top = x - _GUTTER / 2, before, 1.0
            end = (laid.entry, next(box.y for box, _node in laid.boxes))
            turns = ((start, foot), (start, foot + 7), (gutter, foot + 7), (gutter, top), (end[0], top), end)
            lines.append(_Line(turns, angular=True))
            bottom = max(bottom, foot + 8)
        boxes += laid.boxes
        lines += laid.lines
        high = laid.height + (_RISE if before else 0.0)
        bottom = max(bottom, high)
        before = (laid.exit, high)
        x += laid.width + _GUTTER
    return _Laid(x - _GUTTER, bottom, tuple(boxes), tuple(lines), narrow)


def _broken(graph: Graph, columns: int, shares: Mapping[str, float], *, narrow: bool) -> list[Graph] | None:
    """`columns` graphs of about equal height, each handing one result to the next."""
    if columns == 1:
        return [graph] if graph.nodes else None
    number = {node.key: place for place, node in enumerate(graph.nodes)}
    edges = [(number[tail], number[head]) for tail, head in graph.edges]
    ranks = ranks_of(len(graph.nodes), edges)
    heights = [0.0] * (max(ranks, default=0) + 1)
    for node, rank in zip(graph.nodes, ranks, strict=True):
        heights[rank] = max(heights[rank], _size(node, shares, narrow=narrow).height + _GAP)
    alone = [rank for rank in range(len(heights) - 1) if ranks.count(rank) == 1]
    cuts = [r for r in alone if all(ranks[tail] == r for tail, head in edges if ranks[tail] <= r < ranks[head])]
    cuts = [r for r in cuts if ranks.count(r + 1) == 1]  # the line from the column before leads to one node
    chosen = _balanced(heights, cuts, columns)
    if chosen is None:
        return None
    parts = []
    for first, last in zip([-1, *chosen], [*chosen, len(heights)], strict=True):
        nodes = tuple(node for node, rank in zip(graph.nodes, ranks, strict=True) if first < rank <= last)
        keys = {node.key for node in nodes}
        parts.append(Graph(nodes, tuple(edge for edge in graph.edges if edge[0] in keys and edge[1] in keys)))
    return parts


def _balanced(heights: Sequence[float], cuts: Sequence[int], columns: int) -> list[int] | None:
    """Behind which ranks to break, so that the highest column is as low as can be; None if there are too few cuts."""
    sums = [0.0]
    for height in heights:
        sums.append(sums[-1] + height)
    # best[cut]: (height of the highest column, breaks) of what lies above the cut, for the columns so far
    best: dict[int, tuple[float, list[int]]] = {cut: (sums[cut + 1], [cut]) for cut in cuts}
    for _column in range(columns - 2):
        following: dict[int, tuple[float, list[int]]] = {}
        for cut in cuts:
            tried = [(max(high, sums[cut + 1] - sums[c + 1]), [*b, cut]) for c, (high, b) in best.items() if c < cut]
            if tried:
                following[cut] = min(tried)
        best = following
    ends = [(max(high, sums[-1] - sums[cut + 1]), breaks) for cut, (high, breaks) in best.items()]
    return min(ends)[1] if ends else None


def _layered(graph: Graph, shares: Mapping[str, float], *, narrow: bool, framed: bool = False) -> _Laid:
    """One graph in one column; with points of entry and exit above and below it if it is `framed`."""
    insides = {
        node.key: _layered(node.inside, shares, narrow=narrow, framed=True) for node in graph.nodes if node.inside
    }
    shapes = [_size(node, shares, narrow=narrow, inside=insides.get(node.key)) for node in graph.nodes]
    widest = max(
        (s.width for s, n in zip(shapes, graph.nodes, strict=True) if n.role == "layer" and not n.inside), default=0
    )
    shapes = [
        replace(shape, width=widest) if node.role == "layer" and not node.inside else shape
        for shape, node in zip(shapes, graph.nodes, strict=True)
    ]
    number = {node.key: place for place, node in enumerate(graph.nodes)}
    if framed:
        number = {ENTRY: 0, **{key: place + 1 for key, place in number.items()}, EXIT: len(shapes) + 1}
        shapes = [Shape(2.0, 0.0), *shapes, Shape(2.0, 0.0)]
    edges = [(number[tail], number[head]) for tail, head in graph.edges]
    placed = place(shapes, edges, gap=_GAP, side=_SIDE)
    boxes: list[tuple[Box, Node]] = []
    lines = [_Line(route, head=head != EXIT) for route, (_tail, head) in zip(placed.routes, graph.edges, strict=True)]
    for node in graph.nodes:
        (x, y), shape = placed.corners[number[node.key]], shapes[number[node.key]]
        boxes.append((Box(node.key, x, y, shape.width, shape.height, frame=node.inside is not None), node))
        if node.inside is not None:
            inside = insides[node.key].moved(x + _indent(node, insides[node.key]), y + _band(node))
            boxes += inside.boxes
            # from the border of the frame to where its inside begins
            lines += [
                _Line(((inside.entry, y), (inside.entry, y + _band(node))), head=False),
                _Line(((inside.exit, y + shape.height - _PAD), (inside.exit, y + shape.height)), head=False),
                *inside.lines,
            ]
    ends = [0, len(shapes) - 1]
    middles = [placed.corners[end][0] + shapes[end].width / 2 for end in ends]
    entry, leave = middles[0] + shapes[0].enters, middles[1] + shapes[-1].leaves
    return _Laid(placed.width, placed.height, tuple(boxes), tuple(lines), narrow, entry, leave)


def _size(node: Node, shares: Mapping[str, float], *, narrow: bool, inside: _Laid | None = None) -> Shape:
    if node.inside is not None:
        inside = inside or _layered(node.inside, shares, narrow=narrow, framed=True)
        indent = _indent(node, inside)
        width = indent + inside.width + 2 * _PAD
        height = _band(node) + inside.height + _PAD
        return Shape(width, height, indent + inside.entry - width / 2, indent + inside.exit - width / 2)
    if node.role != "layer":
        return Shape(_text_width(_pill_text(node), _SMALL) + 2 * _PAD + 6, _LINE + 3)
    return Shape(max(line.width for line in _lines(node, shares, narrow)) + 2 * _PAD, _height(node, shares, narrow))


def _band(node: Node) -> float:
    """Height of the words at the top of a frame."""
    return _PAD + _LINE * (2 if node.kind else 1)


def _indent(node: Node, inside: _Laid) -> float:
    """How far the inside of a frame stands right of its border: the line that comes in passes right of the words."""
    words = max(_text_width(node.title, _TITLE, bold=True), _text_width(_counted(node), _SMALL))
    return max(2 * _PAD, words + 2 * _PAD - inside.entry)


# words
# ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Words:
    """One line of a box: what stands left, and what stands right."""

    left: str
    right: str = ""
    bold: bool = False

    @property
    def width(self) -> float:
        left = _text_width(self.left, _TITLE if self.bold else _SMALL, bold=self.bold)
        return left + (9 + _text_width(self.right, _SMALL) if self.right else 0)


def _lines(node: Node, shares: Mapping[str, float], narrow: bool) -> list[_Words]:
    share = f"{100 * shares[node.key]:.1f} %" if node.key in shares else ""
    if narrow:
        lines = [_Words(node.title, bold=True), _Words(_counted(node)), _Words(node.shape, share)]
    else:
        lines = [_Words(node.title, node.shape, bold=True), _Words(_counted(node), share)]
    return [line for line in lines if line.left or line.right]


def _height(node: Node, shares: Mapping[str, float], narrow: bool) -> float:
    return _LINE * len(_lines(node, shares, narrow)) + 4.5 + (1.5 if shares else 0)


def _counted(node: Node) -> str:
    return f"{node.count} × {node.kind}" if node.count > 1 else node.kind


def _pill_text(node: Node) -> str:
    return "  ".join(part for part in (node.title, node.shape) if part)


@cache
def _font() -> FreeTypeFont:
    """Pillow's own, a grotesque as wide as the faces that the drawing asks for, or wider."""
    from PIL import ImageFont

    font = ImageFont.load_default(100)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _text_width(words: str, size: float, *, bold: bool = False) -> float:
    """Width in points, rather too large than too small: which font will be there is not known."""
    known = "".join("x" if ord(c) > 0x2FF and c not in "–…·×→" else c for c in words)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in words)
    return (_font().getlength(known) / 100 + 0.5 * wide) * size * (1.03 if bold else 0.97)


# drawing
# ----------------------------------------------------------------------------------------------------------------


def _drawn(laid: _Laid, scale: float, width: float, shares: Mapping[str, float]) -> Drawing:
    margin = 2.5  # the pile behind a box, and half a line
    across = max(width / scale, laid.width + 2 * margin)
    dx = (across - laid.width) / 2
    moved = laid.moved(dx, margin)
    down = laid.height + 2 * margin
    scale = width / across
    high = ceil(down * scale)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(width)}" height="{high}" '
        f'viewBox="0 0 {_n(across)} {_n(down)}" font-family="{_FAMILY}" font-size="{_SMALL}" fill="currentColor">'
    ]
    largest = max(shares.values(), default=1.0)
    for box, node in moved.boxes:
        parts += _box(box, node)
        parts += _bar(box, shares.get(node.key, 0.0) / largest) if not box.frame else ()
    parts.append('<g fill="none" stroke="currentColor" stroke-width="0.8">')
    parts += [f'<path d="{_path(line)}"/>' for line in moved.lines]
    parts.append("</g>")
    parts += [_arrow(line) for line in moved.lines if line.head]
    for box, node in moved.boxes:
        parts += _text(box, node, shares, laid.narrow)
    parts.append("</svg>\n")
    picture = Picture("".join(parts).encode(), "image/svg+xml", round(width), high)
    return Drawing(picture, tuple(box for box, _node in moved.boxes), scale)


def _box(box: Box, node: Node) -> Iterator[str]:
    place = f'x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" height="{_n(box.height)}"'
    line = 'stroke="currentColor" stroke-width="0.6"'
    if node.count > 1:
        x, y = box.x + 3, box.y - 2
        right, bottom = _n(box.x + box.width), _n(box.y + box.height - 3)
        outline = f"M{_n(x)} {_n(box.y)}V{_n(y)}H{_n(box.x + box.width + 2)}V{bottom}H{right}"
        yield f'<path d="{outline}" fill="none" stroke="currentColor" stroke-width="0.6"/>'
    if box.frame:
        yield f'<rect {place} rx="3" fill="currentColor" fill-opacity="0.04" {line} stroke-opacity="0.6"/>'
    elif node.role == "layer":
        yield f'<rect {place} rx="2" fill="currentColor" fill-opacity="0.07" {line}/>'
    else:
        yield f'<rect {place} rx="{_n(box.height / 2)}" fill="none" {line}/>'


def _bar(box: Box, part: float) -> Iterator[str]:
    if part > 0:
        wide = max(0.6, (box.width - 1.2) * min(1.0, part))
        place = f'x="{_n(box.x + 0.6)}" y="{_n(box.y + box.height - 2.4)}" width="{_n(wide)}" height="1.8"'
        yield f'<rect {place} fill="{_SHARE}"/>'


def _text(box: Box, node: Node, shares: Mapping[str, float], narrow: bool) -> Iterator[str]:
    if not box.frame and node.role != "layer":
        middle = box.y + box.height / 2 + _SMALL * 0.34
        place = f'x="{_n(box.x + box.width / 2)}" y="{_n(middle)}" text-anchor="middle"'
        yield f"<text {place}>{escape(shown(_pill_text(node)))}</text>"
        return
    lines = [_Words(node.title, bold=True), _Words(_counted(node))] if box.frame else _lines(node, shares, narrow)
    y = box.y + 1.6
    for line in lines:
        y += _LINE
        base = _n(y - 1.9)
        style = f' font-weight="600" font-size="{_TITLE}"' if line.bold else ""
        if line.left:
            yield f'<text x="{_n(box.x + _PAD)}" y="{base}"{style}>{escape(shown(line.left))}</text>'
        if line.right:
            right = _n(box.x + box.width - _PAD)
            end = f'x="{right}" y="{base}" text-anchor="end"'
            yield f'<text {end} fill-opacity="0.75">{escape(shown(line.right))}</text>'


def _path(line: _Line) -> str:
    points = list(line.points)
    if line.head:  # the line ends where the head begins
        points[-1] = (points[-1][0], points[-1][1] - _HEAD + 0.5)
    if line.angular:
        return _turning(points)
    path = f"M{_n(points[0][0])} {_n(points[0][1])}"
    for (x, y), (to_x, to_y) in itertools.pairwise(points):
        if abs(x - to_x) < 0.05:
            path += f"V{_n(to_y)}"
        else:
            middle = (y + to_y) / 2
            path += f"C{_n(x)} {_n(middle)} {_n(to_x)} {_n(middle)} {_n(to_x)} {_n(to_y)}"
    return path


def _turning(points: Sequence[tuple[float, float]], radius: float = 3.0) -> str:
    """Along right angles with round corners."""
    path = f"M{_n(points[0][0])} {_n(points[0][1])}"
    for (ax, ay), (x, y), (bx, by) in zip(points, points[1:], points[2:], strict=False):
        before = min(radius, (abs(x - ax) + abs(y - ay)) / 2)
        behind = min(radius, (abs(bx - x) + abs(by - y)) / 2)
        path += f"L{_n(x - before * _sign(x - ax))} {_n(y - before * _sign(y - ay))}"
        path += f"Q{_n(x)} {_n(y)} {_n(x + behind * _sign(bx - x))} {_n(y + behind * _sign(by - y))}"
    return path + f"L{_n(points[-1][0])} {_n(points[-1][1])}"


def _sign(value: float) -> int:
    return (value > 0.01) - (value < -0.01)


def _arrow(line: _Line) -> str:
    x, y = line.points[-1]
    return f'<path d="M{_n(x)} {_n(y)}L{_n(x - 2)} {_n(y - _HEAD)}H{_n(x + 2)}Z"/>'


def _n(value: float) -> str:
    """A number with at most two decimals, as short as can be."""
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"
