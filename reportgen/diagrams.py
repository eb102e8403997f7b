"""The architecture as graphs: an overview that fits a page, and the inside of the blocks it is built of.

Other techniques may lay their own numbers over the same boxes: `Diagram.modules` says what each box holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from reportgen.engine.hierarchy import CONTAINERS, Hierarchy, Level, Part
from reportgen.figures.graph import ENTRY, EXIT, MOST_NODES, Drawing, Graph, Node, draw_graph
from reportgen.text import Message, _, verbatim

_MOST_OVERVIEW: Final = 40
_MOST_INSIDE: Final = 36
_LEAST_SCALE: Final = 0.93
"""Smaller letters than 6.5 points are hard to read in print."""
_LARGE: Final = 0.6
"""A module with this share of all multiply-accumulates is looked into, container or not."""
_MOST_LETTERS: Final = 34

_SHORT: Final = {
    "BatchNorm2d": "BN",
    "BatchNorm1d": "BN",
    "LayerNorm": "LN",
    "LayerNorm2d": "LN",
    "GroupNorm": "GN",
    "BatchNormAct2d": "BN + act",
    "FrozenBatchNorm2d": "BN",
}
_WORDS: Final[Mapping[str, Message]] = {
    "addmm": _("matrix product"),
    "mm": _("matrix product"),
    "bmm": _("matrix product"),
    "baddbmm": _("matrix product"),
    "add": _("add"),
    "cat": _("concat"),
    "mul": _("multiply"),
    "hardtanh": _("clip"),
    "relu": verbatim("ReLU"),
    "silu": verbatim("SiLU"),
    "gelu": verbatim("GELU"),
    "_softmax": verbatim("softmax"),
    "native_batch_norm": verbatim("BN"),
    "native_layer_norm": verbatim("LN"),
    "native_group_norm": verbatim("GN"),
    "max_pool2d_with_indices": _("max pool"),
    "avg_pool2d": _("mean pool"),
    "_adaptive_avg_pool2d": _("mean pool"),
    "constant_pad_nd": _("pad"),
    "amax": _("maximum"),
    "stack": _("stack"),
}
_SILENT: Final = frozenset(
    ["roll", "constant_pad_nd", "slice", "select", "index", "where", "masked_fill", "add", "div"]
)


@dataclass(frozen=True)
class Diagram:
    """A graph, and what its boxes stand for.

    Attributes:
        graph: to be drawn by `draw_graph`.
        modules: names of the modules in each box, by key, the outermost only; none for bare operations.
        macs: multiply-accumulates in each box.
    """

    graph: Graph
    modules: Mapping[str, tuple[str, ...]]
    macs: Mapping[str, int]


@dataclass(frozen=True)
class Overview:
    """The whole network on one page.

    Attributes:
        opened: calls that are shown by what they hold.
        level: its parts.
        diagram: of them.
    """

    opened: frozenset[int]
    level: Level
    diagram: Diagram


def overview(hierarchy: Hierarchy) -> Overview:
    """The finest view that fits a page with letters one can read: large modules and containers are opened as long as
    there is room, outer ones first.
    """
    opened: frozenset[int] = frozenset()
    best = _overview(hierarchy, opened)
    refused: set[int] = set()
    while True:
        wanted = _openable(hierarchy, best.level, refused)
        if not wanted:
            return best
        for tried in (wanted, *({call} for call in sorted(wanted))):
            made = _overview(hierarchy, best.opened | tried)
            if _fits(made.diagram.graph, _MOST_OVERVIEW):
                best = made
                break
            refused |= tried if len(tried) == 1 else set()
        else:
            return best


def _overview(hierarchy: Hierarchy, opened: frozenset[int]) -> Overview:
    level = crowded(hierarchy.level(0, opened))
    return Overview(opened, level, diagram_of(hierarchy, level, ends=True))


def _openable(hierarchy: Hierarchy, level: Level, refused: set[int]) -> set[int]:
    """Calls that may be shown by what they hold: of the outermost depth at which there are any."""
    total = hierarchy.recording["macs"]
    found: dict[int, set[int]] = {}
    for part in level.parts:
        if (
            not part.composite
            or part.count > 1
            or part.main < 0
            or part.main in refused
            or hierarchy.is_leaf(part.main)
        ):
            continue
        large = sum(hierarchy.operation(number)["macs"] for number in part.operations) > _LARGE * total
        if hierarchy.type(part.main) in CONTAINERS or large:
            depth = hierarchy.recording["modules"][hierarchy.module(part.main)]["depth"]
            found.setdefault(depth, set()).add(part.main)
    return found[min(found)] if found else set()


def _fits(graph: Graph, most: int) -> bool:
    return graph.size <= most and draw_graph(graph).scale >= _LEAST_SCALE


def crowded(level: Level, most: int = MOST_NODES - 2) -> Level:
    """`level` with at most so many parts: what follows one another is put together where there are more."""
    if len(level.parts) <= most:
        return level
    group_of = {number: number * most // len(level.parts) for number in range(len(level.parts))}
    parts = []
    for group in range(most):
        held = [part for number, part in enumerate(level.parts) if group_of[number] == group]
        main = held[0] if len(held) == 1 else None
        parts.append(
            main
            or Part(
                calls=tuple(call for part in held for call in part.calls),
                operations=tuple(number for part in held for number in part.operations),
                main=next((part.main for part in held if part.main >= 0), -1),
                kind="" if any(part.main >= 0 for part in held) else held[0].kind,
                steps=(),
                joins=False,
            )
        )
    ends = {-1: -1, len(level.parts): most}
    edges = {(ends.get(t, group_of.get(t, -1)), ends.get(h, group_of.get(h, -1))) for t, h in level.edges}
    return Level(tuple(parts), tuple(sorted((t, h) for t, h in edges if t != h)))


# insides
# ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inside:
    """A block looked into.

    Attributes:
        name: of the module.
        type: its class.
        alike: names of the other modules of the same build, in order.
        diagram: one frame with its inside.
        width, height: of the drawing, alone.
    """

    name: str
    type: str
    alike: tuple[str, ...]
    node: Node
    diagram: Diagram


def insides(hierarchy: Hierarchy, seen: Overview) -> list[Inside]:
    """The inside of every block of the overview, blocks that are built alike once."""
    alike: dict[object, list[int]] = {}
    for part in seen.level.parts:
        if part.composite and part.main >= 0 and not hierarchy.is_leaf(part.main):
            calls = [call for call in part.calls if hierarchy.type(call) == hierarchy.type(part.main)]
            alike.setdefault(hierarchy.plan(part.main), []).extend(calls)
    found = []
    for calls in alike.values():
        graph = _inside(hierarchy, calls[0])
        if graph is None:
            continue
        names = list(dict.fromkeys(hierarchy.name(call) for call in calls))
        kind = hierarchy.type(calls[0])
        node = Node(key=f"c{calls[0]}", title=elided(names[0]), kind=kind, inside=graph.graph, count=1)
        found.append(Inside(names[0], kind, tuple(names[1:]), node, graph))
    return found


def _inside(hierarchy: Hierarchy, call: int) -> Diagram | None:
    """The graph within a call, blocks within as frames where there is room; None if it says no more than its name."""
    opened: frozenset[int] = frozenset()
    level = crowded(hierarchy.level(call, opened))
    made = diagram_of(hierarchy, level, scope=call)
    while True:
        deeper = {
            p.main
            for p in level.parts
            if p.composite and p.count == 1 and p.main >= 0 and not hierarchy.is_leaf(p.main)
        }
        if not deeper or deeper <= opened:
            break
        next_level = crowded(hierarchy.level(call, opened | deeper))
        next_made = diagram_of(hierarchy, next_level, scope=call)
        if not _fits(_alone(next_made.graph), _MOST_INSIDE):
            break
        opened, level, made = opened | deeper, next_level, next_made
    framed = diagram_of(hierarchy, level, scope=call, frames=True)
    if framed.graph.size > made.graph.size and _fits(_alone(framed.graph), _MOST_INSIDE):
        made = framed
    linear = len(made.graph.nodes) <= 2 and not any(node.inside for node in made.graph.nodes)
    return None if linear else made


def _alone(graph: Graph) -> Graph:
    return Graph((Node("alone", "", inside=graph),), ())


# graphs
# ----------------------------------------------------------------------------------------------------------------


def diagram_of(
    hierarchy: Hierarchy, level: Level, *, scope: int = 0, ends: bool = False, frames: bool = False
) -> Diagram:
    """A level as a graph.

    Args:
        scope: the call it is the inside of; names are given without its own.
        ends: begin with the input and end with the output, instead of lines from and to outside.
        frames: blocks that repeat are drawn with their inside, not as boxes.
    """
    framed = [frames and part.composite and part.main >= 0 and not hierarchy.is_leaf(part.main) for part in level.parts]
    # a frame and what comes first in it begin with the same operation
    keys = [f"{'f' if frame else 'o'}{part.operations[0]}" for part, frame in zip(level.parts, framed, strict=True)]
    nodes = []
    modules: dict[str, tuple[str, ...]] = {}
    macs: dict[str, int] = {}
    for key, part, frame in zip(keys, level.parts, framed, strict=True):
        inside = None
        if frame:
            within = diagram_of(hierarchy, crowded(hierarchy.level(part.main)), scope=part.main)
            inside = within.graph
            modules.update(within.modules)
            macs.update(within.macs)
        nodes.append(_node(hierarchy, part, key, scope, inside))
        modules[key] = tuple(dict.fromkeys(hierarchy.name(call) for call in part.calls))
        macs[key] = sum(hierarchy.operation(number)["macs"] for number in part.operations)
    first, last = (ENTRY, EXIT)
    if ends:
        operations = hierarchy.recording["operations"]
        first, last = "input", "output"
        nodes = [
            Node(first, hierarchy.words(_("input")), shape=dimensions(hierarchy.recording["input"]), role="end"),
            *nodes,
            Node(last, hierarchy.words(_("output")), shape=dimensions(operations[-1]["shape"]), role="end"),
        ]
    names = {-1: first, len(keys): last, **dict(enumerate(keys))}
    return Diagram(Graph(tuple(nodes), tuple((names[t], names[h]) for t, h in level.edges)), modules, macs)


def _node(hierarchy: Hierarchy, part: Part, key: str, scope: int, inside: Graph | None) -> Node:
    shape = dimensions(hierarchy.shape(part))
    if part.main < 0:
        words = [word for step in part.steps if (word := step_words(hierarchy, step))]
        return Node(key, ", ".join(words) or part.kind, role="operation", shape=shape if not part.joins else "")
    kind = type_words(hierarchy, part)
    return Node(key, elided(part_name(hierarchy, part, scope)), kind, shape, count=part.count, inside=inside)


def part_name(hierarchy: Hierarchy, part: Part, scope: int = 0) -> str:
    """The dotted name of the module that gives a part its name, without that of `scope`; for repeated ones the first
    and the end of the last.
    """
    outer = hierarchy.name(scope)
    first = hierarchy.name(part.main)
    short = first.removeprefix(outer + ".") if outer else first
    if part.count == 1:
        return short
    alike = [call for call in part.calls if hierarchy.type(call) == hierarchy.type(part.main)]
    last = hierarchy.name(alike[-1])
    parent, _dot, end = last.rpartition(".")
    return f"{short} – {end if parent == first.rpartition('.')[0] else last}"


def type_words(hierarchy: Hierarchy, part: Part) -> str:
    """What a part does: the types of its modules, with windows and strides."""
    if part.composite:
        before = [
            s
            for call in part.calls[: len(part.calls) // part.count]
            if call != part.main
            for s in hierarchy.steps(call)
        ]
        words = [hierarchy.type(part.main), *(step_words(hierarchy, step) for step in before)]
    else:
        words = [step_words(hierarchy, step) for step in part.steps]
    return ", ".join(dict.fromkeys(word for word in words if word))


def step_words(hierarchy: Hierarchy, step: int) -> str:
    """One module without structure, or one operation, in words; empty for what is not worth one."""
    numbers = hierarchy.inside(step)
    windows = [one for number in numbers if (one := hierarchy.operation(number))["kernel"]]
    if step < 0:
        kind = hierarchy.operation(~step)["kind"]
        if kind in _SILENT and len(hierarchy.operation(~step)["inputs"]) < 2:
            return ""
        known = _("attention") if kind.startswith("_scaled_dot_product") else _WORDS.get(kind)
        name = hierarchy.words(known) if known else kind.strip("_").replace("_", " ")
    else:
        name = _SHORT.get(hierarchy.type(step), hierarchy.type(step))
    if len(windows) != 1 or name.startswith("Adaptive"):
        return name
    (kernel, stride), groups = (windows[0]["kernel"], windows[0]["stride"]), windows[0]["groups"]
    words = f"{name} {kernel[0]} × {kernel[1]}"
    if max(stride) > 1:
        words += f" / {stride[0]}" if stride[0] == stride[1] else f" / {stride[0]}, {stride[1]}"
    return words + (hierarchy.words(_(", {groups} groups", groups=groups)) if groups > 1 else "")


def dimensions(shape: Sequence[int]) -> str:
    """``64 × 112 × 112``."""
    return " × ".join(str(side) for side in shape)


def elided(name: str, most: int = _MOST_LETTERS) -> str:
    """`name` with its middle left out where it is too long for a box."""
    if len(name) <= most:
        return name
    head = (most - 1) // 3
    return f"{name[:head]}…{name[head + 1 - most :]}"


def drawn(diagram: Diagram, total: int) -> Drawing:
    """The graph with the share of all multiply-accumulates in each box."""
    return draw_graph(diagram.graph, shares={k: v / total for k, v in diagram.macs.items()} if total else None)
