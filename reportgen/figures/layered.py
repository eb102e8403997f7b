"""Positions for a layered drawing of a directed acyclic graph (Sugiyama, Tagawa and Toda 1981).

Layers by the longest path, an order within layers by barycentres, positions by weighted medians that keep to that
order, and lanes for edges that pass layers: straight wherever nothing stands in the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

_SWEEPS: Final = 8
_LANE: Final = 6.0
"""Width kept free for a passing edge."""


@dataclass(frozen=True)
class Shape:
    """Size of a node, and how far right of its middle edges come in and go out."""

    width: float
    height: float
    enters: float = 0.0
    leaves: float = 0.0


@dataclass(frozen=True)
class Placement:
    """A laid-out graph in a box from (0, 0) to (width, height).

    Attributes:
        corners: top left corner of each node.
        routes: for each edge the points it runs through, from the foot of its tail to the top of its head; where two
            neighbouring points have not the same x, a curve lies between them.
    """

    width: float
    height: float
    corners: tuple[tuple[float, float], ...]
    routes: tuple[tuple[tuple[float, float], ...], ...]


def ranks_of(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Layer of each node: the longest path that leads there. Edges point from lower to higher numbers."""
    ranks = [0] * count
    for tail, head in sorted(edges, key=lambda edge: edge[1]):
        ranks[head] = max(ranks[head], ranks[tail] + 1)
    return ranks


def place(shapes: Sequence[Shape], edges: Sequence[tuple[int, int]], *, gap: float, side: float) -> Placement:
    """Lay out a graph from top to bottom.

    Args:
        shapes: of the nodes, in an order in which all edges point forward.
        edges: (tail, head) by number.
        gap: least distance between layers; more where edges have far to go sideways.
        side: distance between neighbours of a layer.
    """
    if not shapes:
        return Placement(0.0, 0.0, (), ())
    layers = _Layers(shapes, edges, side)
    layers.order()
    layers.position()
    return layers.placed(gap)


class _Layers:
    """Nodes, and lanes of the edges that pass layers, in layers.

    The edges of one node share one lane, which they leave where their heads stand.
    """

    def __init__(self, shapes: Sequence[Shape], edges: Sequence[tuple[int, int]], side: float) -> None:
        self.side = side
        self.edges = edges
        self.nodes = len(shapes)
        self.shapes = list(shapes)
        self.rank = ranks_of(len(shapes), edges)
        self.lanes: dict[int, list[int]] = {}
        self.paths = [self._path(tail, head) for tail, head in edges]
        self.links = sorted({link for path in self.paths for link in pairwise(path)})
        self.rows: list[list[int]] = [[] for _ in range(max(self.rank) + 1)]
        for item in range(len(self.shapes)):
            self.rows[self.rank[item]].append(item)
        self.above: list[list[int]] = [[] for _ in self.shapes]
        self.below: list[list[int]] = [[] for _ in self.shapes]
        for upper, lower in self.links:
            self.above[lower].append(upper)
            self.below[upper].append(lower)
        self.x = [0.0] * len(self.shapes)

    def _path(self, tail: int, head: int) -> list[int]:
        lane = self.lanes.setdefault(tail, [])
        between = self.rank[head] - self.rank[tail] - 1
        while len(lane) < between:
            self.shapes.append(Shape(_LANE, 0.0))
            self.rank.append(self.rank[tail] + 1 + len(lane))
            lane.append(len(self.shapes) - 1)
        return [tail, *lane[:between], head]

    # order

    def order(self) -> None:
        """Sweep down and up, each item to the mean place of its neighbours; keep the order with the fewest crossings."""
        best, fewest = [list(row) for row in self.rows], self._crossings()
        for sweep in range(_SWEEPS):
            down = sweep % 2 == 0
            places = self._places()
            for row in self.rows if down else reversed(self.rows):
                neighbours = self.above if down else self.below
                row.sort(key=lambda item, n=neighbours, p=places: self._barycentre(item, n, p))  # type: ignore[misc]
                for number, item in enumerate(row):
                    places[item] = number / max(1, len(row) - 1) if len(row) > 1 else 0.5
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(row) for row in self.rows], crossings
        self.rows = best

    def _places(self) -> list[float]:
        places = [0.0] * len(self.shapes)
        for row in self.rows:
            for number, item in enumerate(row):
                places[item] = number / (len(row) - 1) if len(row) > 1 else 0.5
        return places

    def _barycentre(self, item: int, neighbours: Sequence[Sequence[int]], places: Sequence[float]) -> float:
        mine = neighbours[item]
        return sum(places[one] for one in mine) / len(mine) if mine else places[item]

    def _crossings(self) -> int:
        number = {item: place for row in self.rows for place, item in enumerate(row)}
        count = 0
        for row in self.rows[:-1]:
            pairs = [(number[item], number[low]) for item in row for low in self.below[item]]
            count += sum((a - c) * (b - d) < 0 for i, (a, b) in enumerate(pairs) for c, d in pairs[:i])
        return count

    # position

    def position(self) -> None:
        """Middles of all items: near their neighbours, in order, none touching another."""
        for row in self.rows:
            self._settle(row, [0.0] * len(row))
        for sweep in range(2 * _SWEEPS):
            down = sweep % 2 == 0
            for row in self.rows if down else list(reversed(self.rows)):
                self._settle(row, [self._wish(item, down=down) for item in row])
        self._straighten()

    def _wish(self, item: int, *, down: bool) -> float:
        """Weighted median of where the neighbours above (or below) would have it."""
        wishes: list[tuple[float, float]] = []
        for other in self.above[item] if down else self.below[item]:
            upper, lower = (other, item) if down else (item, other)
            shift = self.shapes[upper].leaves - self.shapes[lower].enters
            wish = self.x[other] + (shift if down else -shift)
            both = (upper < self.nodes) == (lower < self.nodes)
            wishes.append((wish, 1.0 if both else 0.3))
        return _median(wishes) if wishes else self.x[item]

    def _settle(self, row: Sequence[int], wishes: Sequence[float]) -> None:
        """The positions nearest to the wishes (least squares, nodes counting more than lanes) that keep the order."""
        offsets, at = [0.0], 0.0
        for left, right in pairwise(row):
            at += self._apart(left, right)
            offsets.append(at)
        blocks: list[list[float]] = []  # [sum of weights, weighted sum, count], pooled where they violate the order
        for item, wish, offset in zip(row, wishes, offsets, strict=True):
            weight = 12.0 if item < self.nodes else 1.0
            blocks.append([weight, weight * (wish - offset), 1])
            while len(blocks) > 1 and blocks[-2][1] / blocks[-2][0] >= blocks[-1][1] / blocks[-1][0]:
                weight, total, count = blocks.pop()
                blocks[-1] = [blocks[-1][0] + weight, blocks[-1][1] + total, blocks[-1][2] + count]
        places = [total / weight for weight, total, count in blocks for _ in range(int(count))]
        for item, place_, offset in zip(row, places, offsets, strict=True):
            self.x[item] = place_ + offset

    def _apart(self, left: int, right: int) -> float:
        lanes = (left >= self.nodes) + (right >= self.nodes)
        return (self.shapes[left].width + self.shapes[right].width) / 2 + (self.side, self.side * 0.7, 1.0)[lanes]

    def _straighten(self) -> None:
        """Give every lane one x where its neighbours leave room for it."""
        number = {item: place for row in self.rows for place, item in enumerate(row)}
        for _again in range(2):
            for tail, lane in sorted(self.lanes.items(), key=lambda entry: -len(entry[1])):
                low, high = float("-inf"), float("inf")
                for item in lane:
                    row, at = self.rows[self.rank[item]], number[item]
                    if at > 0:
                        low = max(low, self.x[row[at - 1]] + self._apart(row[at - 1], item))
                    if at + 1 < len(row):
                        high = min(high, self.x[row[at + 1]] - self._apart(item, row[at + 1]))
                if lane and low <= high:
                    wish = self.x[tail] + self.shapes[tail].leaves
                    for item in lane:
                        self.x[item] = min(max(wish, low), high)

    # coordinates

    def placed(self, gap: float) -> Placement:
        """Corners and routes."""
        left = min(x - shape.width / 2 for x, shape in zip(self.x, self.shapes, strict=True))
        self.x = [x - left for x in self.x]
        tops, bottoms, y = [], [], 0.0
        for number, row in enumerate(self.rows):
            height = max(self.shapes[item].height for item in row)
            tops.append(y)
            bottoms.append(y + height)
            y += height + (self._gap(number, gap) if number + 1 < len(self.rows) else 0)
        corners = []
        for item in range(self.nodes):
            shape, rank = self.shapes[item], self.rank[item]
            middle = (tops[rank] + bottoms[rank]) / 2
            corners.append((self.x[item] - shape.width / 2, middle - shape.height / 2))
        width = max(x + shape.width / 2 for x, shape in zip(self.x, self.shapes, strict=True))
        routes = tuple(self._route(path, corners, tops, bottoms) for path in self.paths)
        return Placement(width, y, tuple(corners), routes)

    def _gap(self, number: int, gap: float) -> float:
        farthest = max(
            (
                abs(self.x[a] + self.shapes[a].leaves - self.x[b] - self.shapes[b].enters)
                for a, b in self.links
                if self.rank[a] == number
            ),
            default=0.0,
        )
        return gap + min(10.0, farthest / 14)

    def _route(
        self,
        path: Sequence[int],
        corners: Sequence[tuple[float, float]],
        tops: Sequence[float],
        bottoms: Sequence[float],
    ) -> tuple[tuple[float, float], ...]:
        tail, *lane, head = path
        start = self.x[tail] + self.shapes[tail].leaves
        end = self.x[head] + self.shapes[head].enters
        points = [(start, corners[tail][1] + self.shapes[tail].height), (start, bottoms[self.rank[tail]])]
        for item in lane:
            points += [(self.x[item], tops[self.rank[item]]), (self.x[item], bottoms[self.rank[item]])]
        points += [(end, tops[self.rank[head]]), (end, corners[head][1])]
        return tuple(point for point, before in zip(points, [None, *points], strict=False) if point != before)


def _median(wishes: Sequence[tuple[float, float]]) -> float:
    """Weighted median; midway between two where half the weight lies on either side."""
    ordered = sorted(wishes)
    half = sum(weight for _wish, weight in ordered) / 2
    passed = 0.0
    for number, (wish, weight) in enumerate(ordered):
        passed += weight
        if abs(passed - half) < 1e-9:
            return (wish + ordered[number + 1][0]) / 2
        if passed > half:
            return wish
    return ordered[-1][0]
