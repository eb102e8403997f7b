"""Positions for a layered drawing of a directed acyclic graph (Sugiyama, Tagawa and Toda 1981).

Layers by the longest path, an order within layers by barycentres, positions by least squares, chains straight, and
lanes for edges that pass layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SWEEPS: Final = 8
_ROUNDS: Final = 200
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
        self.slants = [0.0] * len(self.shapes)

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
        """Sweep down and up, each item to the mean place of its neighbours; keep the order with fewest crossings."""
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
        """Middles of all items, none touching another: chains straight, everything else as near as can be.

        Sum of squared distances between neighbours under the least distances within layers, by the method of
        Hildreth (1957).
        """
        unit = self._straight()
        apart = self._constraints(unit)
        count = max(unit) + 1
        pull = np.eye(count) * 1e-4
        offset = np.zeros(count)
        for upper, lower in self.links:
            a, b = unit[upper], unit[lower]
            if a != b:
                weight = 1.0 if upper < self.nodes and lower < self.nodes else 0.25
                shift = self._slant(upper) - self._slant(lower) + self.shapes[upper].leaves - self.shapes[lower].enters
                pull[[a, b], [a, b]] += weight
                pull[[a, b], [b, a]] -= weight
                offset[a] -= weight * shift
                offset[b] += weight * shift
        inverse = np.linalg.inv(pull)
        x = inverse @ offset
        forces = dict.fromkeys(apart, 0.0)
        for _round in range(_ROUNDS):
            moved = 0.0
            for (a, b), least in apart.items():
                reply = inverse[:, b] - inverse[:, a]
                force = max(0.0, forces[a, b] + (least - (x[b] - x[a])) / (reply[b] - reply[a]))
                if force != forces[a, b]:
                    x += reply * (force - forces[a, b])
                    moved = max(moved, abs(force - forces[a, b]) * (reply[b] - reply[a]))
                    forces[a, b] = force
            if moved < 0.05:
                break
        self._push(x, apart)
        self.x = [float(x[unit[item]]) + self._slant(item) for item in range(len(self.shapes))]

    def _slant(self, item: int) -> float:
        """How far an item stands right of the middle of its unit."""
        return self.slants[item]

    def _straight(self) -> list[int]:
        """The unit of each item. Items of one unit stand one above the other: lanes, and nodes that are each other's
        first choice; units do not cross.
        """
        unit = list(range(len(self.shapes)))
        self.slants = [0.0] * len(self.shapes)
        number = {item: place for row in self.rows for place, item in enumerate(row)}
        taken: dict[int, list[tuple[int, int]]] = {}
        lanes = [link for link in self.links if link[0] >= self.nodes and link[1] >= self.nodes]
        mutual = [link for link in self.links if self._prefers(link[0], self.below) == link[1]]
        mutual = [link for link in mutual if self._prefers(link[1], self.above) == link[0]]
        for upper, lower in (*lanes, *(link for link in mutual if link not in lanes)):
            rank, pair = self.rank[upper], (number[upper], number[lower])
            if any((pair[0] - a) * (pair[1] - b) <= 0 for a, b in taken.get(rank, ())):
                continue
            taken.setdefault(rank, []).append(pair)
        for rank in sorted(taken):
            for a, b in taken[rank]:
                upper, lower = self.rows[rank][a], self.rows[rank + 1][b]
                unit[lower] = unit[upper]
                shift = self.shapes[upper].leaves - self.shapes[lower].enters
                self.slants[lower] = self.slants[upper] + shift
        names = {name: place for place, name in enumerate(dict.fromkeys(unit))}
        return [names[name] for name in unit]

    def _prefers(self, item: int, neighbours: Sequence[Sequence[int]]) -> int | None:
        """The neighbour that it would stand in line with: a node before a lane, the middle one of an odd number."""
        mine = [one for one in neighbours[item] if one < self.nodes] or list(neighbours[item])
        place = {one: number for row in self.rows for number, one in enumerate(row) if one in mine}
        mine.sort(key=lambda one: place[one])
        return mine[len(mine) // 2] if len(mine) % 2 else None

    def _constraints(self, unit: Sequence[int]) -> dict[tuple[int, int], float]:
        """Least distance between the middles of two units, by pair from left to right."""
        apart: dict[tuple[int, int], float] = {}
        for row in self.rows:
            for left, right in pairwise(row):
                least = self._apart(left, right) + self._slant(left) - self._slant(right)
                pair = (unit[left], unit[right])
                apart[pair] = max(apart.get(pair, 0.0), least)
        return apart

    def _push(self, x: NDArray[np.float64], apart: Mapping[tuple[int, int], float]) -> None:
        """What is still too near moves right: the method above ends a hair's breadth from its goal."""
        for _round in range(len(x)):
            near = [(a, b, least) for (a, b), least in apart.items() if x[b] - x[a] < least - 1e-6]
            for a, b, least in near:
                x[b] = max(x[b], x[a] + least)
            if not near:
                return

    def _apart(self, left: int, right: int) -> float:
        lanes = (left >= self.nodes) + (right >= self.nodes)
        return (self.shapes[left].width + self.shapes[right].width) / 2 + (self.side, self.side * 0.7, 1.0)[lanes]

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
