"""Which layers of a model are worth looking at where nobody names any: its stages, and its blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reportgen.engine.resolution import Layer

MOST_DEFAULTS = 5
_TRANSPARENT = ("Dropout", "Identity", "Flatten", "Pool", "StochasticDepth", "DropPath")
_CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")


def default_layers(layers: Sequence[Layer], outputs: int) -> tuple[str, ...]:
    """For each resolution above 1×1 the outermost module with that output, and the last of these; the five deepest.

    Modules that only pass on what they get (dropout, pooling) do not count where another stands beside them, and
    neither do classifiers of single positions, which return `outputs` scores for each; modules on whose maps no class
    score depends are looked through, and so are lists of modules, which nobody calls. What is inside attention
    (queries, keys, weights) is no state of positions or tokens: it counts where nothing else does.
    """
    called = {layer.name for layer in layers if layer.order >= 0}
    blind = {layer.name for layer in layers if not layer.explains}
    attention = {layer.name for layer in layers if attends(layer.type) or attends(layer.name.rpartition(".")[2])}
    inside = tuple(name + "." for name in blocks(layers))  # a resolution that only a block has within is no stage
    best: dict[tuple[int, ...], tuple[int, bool, int, str]] = {}
    seen = [layer for layer in layers if usable(layer) and not layer.name.startswith(inside)]
    outside = [layer for layer in seen if attention.isdisjoint(_around(layer.name))]
    for layer in outside or seen:
        hidden = sum(name in blind or name not in called for name in _around(layer.name))
        classifies = layer.type in ("Linear", "Conv2d") and layer.shape[0] == outputs
        beside = classifies or any(word in layer.type for word in _TRANSPARENT)
        rank = (layer.depth - hidden, beside, -layer.order, layer.name)
        if layer.resolution not in best or rank < best[layer.resolution]:
            best[layer.resolution] = rank
    ordered = sorted(best.values(), key=lambda rank: -rank[2])
    return tuple(name for _depth, _beside, _order, name in ordered)[-MOST_DEFAULTS:]


def attends(word: str) -> bool:
    """Whether a module of that class or name does attention."""
    return "attention" in word.lower() or "attn" in word.lower()


def _around(name: str) -> list[str]:
    """Names of the modules that a module stands in."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def blocks(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Outermost modules that hold others, stand in a container, and are none themselves: the repeated units of a
    network.

    The network itself counts as a container of those of its children whose class occurs twice.
    """
    kinds = {layer.name: layer.type for layer in layers}
    often = Counter(layer.type for layer in layers if layer.depth == 1)
    found: list[Layer] = []
    for layer in layers:
        parent = layer.name.rpartition(".")[0]
        inside = any(layer.name.startswith(block.name + ".") for block in found)
        contained = kinds.get(parent) in _CONTAINERS or (not parent and often[layer.type] > 1)
        if not layer.leaf and layer.type not in _CONTAINERS and contained and not inside:
            found.append(layer)
    return tuple(layer.name for layer in sorted(filter(usable, found), key=lambda one: one.order))


def usable(layer: Layer) -> bool:
    """Called, read as maps of more than one position, and a class score depends on them."""
    return layer.order >= 0 and layer.explains and len(layer.shape) == 3 and max(layer.resolution) > 1
