"""A recording seen from afar: what runs one after another becomes one part, what repeats is said once.

Imports no torch. At any level of the hierarchy of modules the operations fall into parts: calls of modules, and
operations that no such call holds. Normalisations and activations join the layer they follow, blocks of the same build
in a row become one part.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from reportgen.engine.structure import OperationRecord, Recording
from reportgen.text import Message

CONTAINERS: Final = ("Sequential", "ModuleList", "ModuleDict")

_LIGHT: Final = frozenset(
    [
        "relu",
        "hardtanh",
        "clamp",
        "clamp_min",
        "clamp_max",
        "leaky_relu",
        "_prelu_kernel",
        "prelu",
        "elu",
        "selu",
        "celu",
        "gelu",
        "silu",
        "mish",
        "hardswish",
        "hardsigmoid",
        "sigmoid",
        "tanh",
        "softplus",
        "log_sigmoid_forward",
        "rrelu_with_noise",
        "threshold",
        "_softmax",
        "_log_softmax",
        "native_batch_norm",
        "_native_batch_norm_legit_no_training",
        "cudnn_batch_norm",
        "batch_norm",
        "miopen_batch_norm",
        "native_layer_norm",
        "native_group_norm",
        "_fused_rms_norm",
        "add",
        "sub",
        "mul",
        "div",
        "pow",
        "neg",
        "abs",
        "exp",
        "sqrt",
        "rsqrt",
        "roll",
        "constant_pad_nd",
        "reflection_pad2d",
        "replication_pad2d",
        "where",
        "masked_fill",
        "bernoulli",
        "native_dropout",
        "slice",
        "select",
        "index",
    ]
)
"""They keep shape and place, and stand in the box of what they follow."""
_ARRANGING: Final = frozenset(["roll", "constant_pad_nd", "slice", "select", "index", "where", "masked_fill"])
"""Whether they are there does not make a block another one (the shift of windows that every second one has)."""


@dataclass(frozen=True)
class Part:
    """Some calls and operations seen as one.

    Attributes:
        calls: the outermost calls it is made of; of repeated blocks one each; none for bare operations.
        operations: all that run in it.
        main: the call that gives it its name, or -1: then `kind` does.
        kind: of the operation that gives it its name, if no call does.
        steps: what runs in it, one after another: calls (>= 0) of modules without structure, or ``~operation``;
            of repeated blocks those of the first. Empty where there is structure to look into.
        count: how many alike, one after another.
        joins: several results come together in it.
    """

    calls: tuple[int, ...]
    operations: tuple[int, ...]
    main: int
    kind: str
    steps: tuple[int, ...]
    count: int = 1
    joins: bool = False

    @property
    def composite(self) -> bool:
        """Whether it has structure to look into."""
        return not self.steps


@dataclass(frozen=True)
class Level:
    """Parts in the order in which they ran, and edges between their numbers; -1 is what came before, the number of
    parts what follows.
    """

    parts: tuple[Part, ...]
    edges: tuple[tuple[int, int], ...]


@dataclass
class Hierarchy:
    """A recording with what is asked of it again and again.

    Attributes:
        words: puts the name of an operation into the language of the reader.
    """

    recording: Recording
    words: Callable[[Message], str] = str

    @cached_property
    def items(self) -> dict[int, list[int]]:
        """For each call, and -1 for the whole, what runs directly in it, in order: calls, or ``~operation``."""
        found: dict[int, list[int]] = {}
        entered: set[int] = set()
        for number, operation in enumerate(self.recording["operations"]):
            if operation["kind"] in ("input", "output"):
                continue
            item, call = ~number, operation["call"]
            while True:
                found.setdefault(call, []).append(item)
                if call < 0 or call in entered:
                    break
                entered.add(call)
                item, call = call, self.recording["calls"][call]["parent"]
        return found

    def inside(self, item: int) -> tuple[int, ...]:
        """All operations that an item holds."""
        if item < 0:
            return (~item,)
        return tuple(number for one in self.items.get(item, ()) for number in self.inside(one))

    def operation(self, number: int) -> OperationRecord:
        return self.recording["operations"][number]

    def module(self, call: int) -> int:
        """Place of the called module in ``modules``."""
        return self.recording["calls"][call]["module"]

    def name(self, call: int) -> str:
        return self.recording["modules"][self.module(call)]["name"]

    def type(self, call: int) -> str:
        return self.recording["modules"][self.module(call)]["type"]

    # how items are built

    def steps(self, item: int) -> tuple[int, ...]:
        """The chain that an item is, if it is one with at most one operation of weight; empty where it is more."""
        if item < 0 or self.is_leaf(item):
            return (item,)
        steps = tuple(step for one in self.items[item] for step in self.steps(one) or (None,))
        if None in steps or sum(not self.is_light(step) for step in steps if step is not None) > 1:
            return ()
        if any(len(self.operation(number)["inputs"]) > 1 for number in self.inside(item)):
            return ()
        return tuple(step for step in steps if step is not None)

    def is_leaf(self, call: int) -> bool:
        """Whether it calls no other module."""
        return all(item < 0 for item in self.items.get(call, ()))

    def is_light(self, item: int) -> bool:
        """Whether it keeps the shape: a normalisation, an activation, a number added to everything."""
        return all(
            self.operation(number)["kind"] in _LIGHT and len(self.operation(number)["inputs"]) == 1
            for number in self.inside(item)
        )

    def build(self, item: int) -> object:
        """What two items have in common that are built alike: types, windows, activations; not widths."""
        if item < 0:
            one = self.operation(~item)
            if one["kind"] in _ARRANGING or (one["kind"] == "add" and len(one["inputs"]) == 1):
                return None
            grouped = min(one["groups"], 2) if one["groups"] != 1 else 1
            joins = len(one["inputs"]) > 1 or one["kind"] == "cat"
            return (one["kind"], tuple(one["kernel"]), tuple(one["stride"]), grouped, joins)
        inner = [build for one in self.items.get(item, ()) if (build := self.build(one)) is not None]
        return (self.type(item), tuple(inner))

    def plan(self, item: int) -> object:
        """As `build`, but for how often something is repeated: what two stages of different depth have in common."""
        build = self.build(item)
        return _compressed(build)

    # levels

    def level(self, scope: int, opened: Collection[int] = ()) -> Level:
        """The parts of one call (-1: of the whole), calls in `opened` replaced by what they hold."""
        items = list(self._opened(scope, opened))
        operations = [self.inside(item) for item in items]
        edges = self._edges(operations)
        parts = []
        for item, inner in zip(items, operations, strict=True):
            kind = self.operation(~item)["kind"] if item < 0 else ""
            steps = self.steps(item)
            joins = item < 0 and (len(self.operation(~item)["inputs"]) > 1 or kind == "cat")
            parts.append(Part(() if item < 0 else (item,), inner, item if item >= 0 else -1, kind, steps, 1, joins))
        level = self._joined(Level(tuple(parts), edges))
        return self._folded(level)

    def _opened(self, scope: int, opened: Collection[int]) -> Iterator[int]:
        for item in self.items.get(scope, ()):
            if item in opened:
                yield from self._opened(item, opened)
            else:
                yield item

    def _edges(self, parts: Sequence[tuple[int, ...]]) -> tuple[tuple[int, int], ...]:
        owner = {number: place for place, inner in enumerate(parts) for number in inner}
        found: set[tuple[int, int]] = set()
        for number, operation in enumerate(self.recording["operations"]):
            head = owner.get(number, len(parts))
            for source in operation["inputs"]:
                tail = owner.get(source, -1)
                if tail != head and not (tail == -1 and head == len(parts)):
                    found.add((tail, head))
        return tuple(sorted((tail, head) for tail, head in found if tail < head))

    def _joined(self, level: Level) -> Level:
        """Light parts put to the layer they follow; those that nobody comes before, to the one they lead to."""
        before, behind = _neighbours(level)
        groups: list[list[int]] = []
        group_of: dict[int, int] = {}
        for number, part in enumerate(level.parts):
            group = group_of.get(before[number][0]) if len(before[number]) == 1 else None
            if group is not None and self._takes(level, groups[group], part) and len(behind[before[number][0]]) == 1:
                groups[group].append(number)
            else:
                groups.append([number])
                group = len(groups) - 1
            group_of[number] = group
        parts = [self._merged([level.parts[number] for number in group]) for group in groups]
        return _regrouped(level, parts, group_of)

    def _takes(self, level: Level, group: Sequence[int], part: Part) -> bool:
        """Whether a part can stand in the box of the group it follows."""
        if part.joins:
            return False
        if self._light(part):
            first = level.parts[group[0]]
            return not any(level.parts[number].composite for number in group) and first.kind != "cat"
        return all(self._light(level.parts[number]) for number in group)

    def _light(self, part: Part) -> bool:
        return not part.joins and not part.composite and all(self.is_light(step) for step in part.steps)

    def _merged(self, parts: Sequence[Part]) -> Part:
        if len(parts) == 1:
            return parts[0]
        heavy = next((part for part in parts if not self._light(part)), parts[0])
        if heavy.main < 0 and not heavy.joins:  # a bare operation has no name; one of the modules beside it has
            heavy = next((part for part in parts if part.main >= 0), heavy)
        return Part(
            calls=tuple(call for part in parts for call in part.calls),
            operations=tuple(number for part in parts for number in part.operations),
            main=heavy.main,
            kind=heavy.kind,
            steps=() if heavy.composite else tuple(step for part in parts for step in part.steps),
            joins=heavy.joins,
        )

    def _folded(self, level: Level) -> Level:
        """Parts of the same build in a row, each feeding the next, as one."""
        before, _behind = _neighbours(level)
        runs: list[list[int]] = []
        for number, _part in enumerate(level.parts):
            run = runs[-1] if runs else []
            if run and self._continues(level, run, number, before):
                run.append(number)
            else:
                runs.append([number])
        group_of = {number: group for group, run in enumerate(runs) for number in run}
        parts = []
        for run in runs:
            first = level.parts[run[0]]
            alike = [level.parts[number] for number in run]
            calls = tuple(call for part in alike for call in part.calls)
            operations = tuple(number for part in alike for number in part.operations)
            parts.append(replace(first, calls=calls, operations=operations, count=len(run)))
        return _regrouped(level, parts, group_of)

    def _continues(self, level: Level, run: Sequence[int], number: int, before: Sequence[Sequence[int]]) -> bool:
        part, last, first = level.parts[number], level.parts[run[-1]], level.parts[run[0]]
        if part.main < 0 or last.main < 0 or part.joins or run[-1] not in before[number]:
            return False
        if not set(before[number]) <= {*run, *before[run[0]]}:
            return False
        if [self.build(step) for step in part.calls] != [self.build(step) for step in first.calls]:
            return False
        return part.composite or self.shape(part) == self.shape(last)

    def shape(self, part: Part) -> list[int]:
        """Shape of what a part results in: of its last operation."""
        if part.main >= 0 and part.calls and part.main == part.calls[-1]:
            output = self.recording["modules"][self.module(part.main)]["output"]
            if output:
                return output
        return self.operation(part.operations[-1])["shape"]


def _compressed(build: object) -> object:
    if not isinstance(build, tuple):
        return build
    parts: list[object] = []
    for part in map(_compressed, build):
        if not (parts and isinstance(part, tuple) and parts[-1] == part):
            parts.append(part)
    return tuple(parts)


def _neighbours(level: Level) -> tuple[list[list[int]], list[list[int]]]:
    """Numbers of the parts before and behind each part; what lies outside the level counts too."""
    before: list[list[int]] = [[] for _ in level.parts]
    behind: list[list[int]] = [[] for _ in level.parts]
    for tail, head in level.edges:
        if head < len(level.parts):
            before[head].append(tail)
        if tail >= 0:
            behind[tail].append(head)
    return before, behind


def _regrouped(level: Level, parts: Sequence[Part], group_of: dict[int, int]) -> Level:
    ends = {-1: -1, len(level.parts): len(parts)}
    edges = {(ends.get(t, group_of.get(t, -1)), ends.get(h, group_of.get(h, -1))) for t, h in level.edges}
    return Level(tuple(parts), tuple(sorted((t, h) for t, h in edges if t != h)))
