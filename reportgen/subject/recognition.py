"""Weights to names: which architecture has these keys and shapes.

For every known architecture the repository keeps one 32-bit number per key and shape, without the head (whose size and
structure are free) and with the input channels of the first convolution left open. An architecture fits if all its
numbers are among those of the file; of those that fit, the ones that leave fewest keys over remain. The numbers are
made by ``scripts/build_fingerprints.py``.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from reportgen.errors import ArchitectureError

DATA = "fingerprints.npz"
Shapes = Mapping[str, tuple[int, ...]]
_MOST_BUILT = 8
"""Architectures, to see what their heads consist of."""


def number_of(key: str, shape: Sequence[int | str]) -> int:
    """32-bit number of a key with its shape."""
    return zlib.crc32(f"{key}:{','.join(map(str, shape))}".encode("utf-8", "replace"))


def counts(key: str) -> bool:
    """Whether a key tells anything: counters of batches do not."""
    return not key.endswith("num_batches_tracked")


@dataclass(frozen=True)
class Known:
    """One architecture as the data describe it.

    Attributes:
        name: qualified.
        heads: top-level names of everything that depends on the number of classes.
        stem: key of the first convolution's weight.
        function: equal for architectures that compute the same function of equal weights.
        start: where its numbers begin.
        stop: where they end.
    """

    name: str
    heads: tuple[str, ...]
    stem: str
    function: str
    start: int
    stop: int


@dataclass(frozen=True)
class Match:
    """What fits a set of weights.

    Attributes:
        name: qualified name of the architecture taken.
        candidates: the others that fit as well.
        prefix: what was stripped from every key.
        known: its description.
    """

    name: str
    candidates: tuple[str, ...]
    prefix: str
    known: Known


@cache
def catalogue() -> tuple[tuple[Known, ...], npt.NDArray[np.uint32]]:
    """All known architectures and their numbers, one after the other."""
    with (files("reportgen.subject") / "data" / DATA).open("rb") as file, np.load(file, allow_pickle=False) as data:
        numbers = data["numbers"]
        table = json.loads(data["table"].tobytes())
    return tuple(Known(**{**row, "heads": tuple(row["heads"])}) for row in table), numbers


def _numbers(shapes: Shapes) -> npt.NDArray[np.uint32]:
    """Numbers of all keys, and of every convolution with its input channels left open."""
    found = {number_of(key, shape) for key, shape in shapes.items() if counts(key)}
    found |= {number_of(key, (shape[0], "*", *shape[2:])) for key, shape in shapes.items() if len(shape) == 4}
    return np.array(sorted(found), np.uint32)


@dataclass(frozen=True)
class Fit:
    """How well an architecture fits some weights.

    Attributes:
        known: the architecture.
        prefix: what was stripped from every key.
        share: of its keys, those that the weights have.
        left: keys of the weights that it does not have.
        heads: keys of the weights that are of its head.
    """

    known: Known
    prefix: str
    share: float
    left: int
    heads: int


def _fits(shapes: Shapes, prefix: str) -> list[Fit]:
    """Every architecture with the share of its keys that the file has, best first."""
    table, numbers = catalogue()
    inside = np.isin(numbers, _numbers(shapes))
    sums = np.concatenate(([0], np.cumsum(inside)))
    starts = np.array([one.start for one in table])
    stops = np.array([one.stop for one in table])
    shares = (sums[stops] - sums[starts]) / np.maximum(stops - starts, 1)
    order = np.argsort(-shares, kind="stable")
    keys = [key for key in shapes if counts(key)]
    below = Counter(key.partition(".")[0] for key in keys if "." in key)
    found: list[Fit] = []
    for place in order[:200]:
        one = table[place]
        heads = sum(below[head] for head in one.heads)
        left = len(keys) - heads - (one.stop - one.start)
        found.append(Fit(one, prefix, float(shares[place]), left, heads))
        if shares[place] < 1 and len(found) > 8:
            break
    return found


def prefixes(shapes: Shapes) -> Iterable[str]:
    """Prefixes worth stripping: none first, then what most keys begin with, again and again."""
    prefix = ""
    keys = [key for key in shapes if counts(key)]
    for _depth in range(6):
        yield prefix
        inside = [key[len(prefix) :] for key in keys if key.startswith(prefix)]
        firsts = Counter(key.partition(".")[0] for key in inside if "." in key)
        if not firsts:
            return
        most = max(sorted(firsts), key=firsts.__getitem__)
        if firsts[most] < 0.5 * len(inside):
            return
        prefix += most + "."


def stripped(shapes: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The entries under a prefix, without it."""
    return {key[len(prefix) :]: value for key, value in shapes.items() if key.startswith(prefix)}


def recognise(shapes: Shapes, shown: str, *, trusted: Sequence[str] = ()) -> Match:
    """The architecture of these weights.

    Args:
        shapes: keys and shapes of a state dict.
        shown: the file's name for messages.
        trusted: qualified names that the file itself gives; taken if they fit.

    Raises:
        ArchitectureError: if none fits, with the nearest names; if several do that compute different functions, with
        all.
    """
    from reportgen.subject.apart import joined
    from reportgen.subject.strangers import refusal

    for prefix in prefixes(shapes):
        whole = _whole(shapes, prefix)
        if not whole:
            continue
        match = choose(whole, shown, trusted, shapes)
        headed = any(fit.heads for fit in whole if fit.known == match.known)
        if headed or joined(shapes, prefix, match.known) is not None:
            return match

    raise refusal(shapes, near(shapes), shown)


def _whole(shapes: Shapes, prefix: str) -> list[Fit]:
    """The architectures whose body lies under a prefix complete, with a head there or beside it."""
    from reportgen.subject.apart import linear_beside

    beside = linear_beside(shapes, prefix)
    return [fit for fit in _fits(stripped(shapes, prefix), prefix) if fit.share == 1 and (fit.heads or beside)]


def near(shapes: Shapes) -> list[Fit]:
    """The architectures that come nearest, best first."""
    found = [fit for prefix in prefixes(shapes) for fit in _fits(stripped(shapes, prefix), prefix)[:8]]
    return sorted(found, key=lambda fit: (-fit.share, fit.left if fit.share == 1 else 0))


def fitting(shapes: Shapes) -> tuple[str, ...]:
    """Every architecture that could have these weights, those of torchvision first; where several fit, which of them
    it is the weights do not tell.
    """
    for prefix in prefixes(shapes):
        whole = _whole(shapes, prefix)
        if whole:
            fewest = min(fit.left for fit in whole)
            names = (fit.known.name for fit in whole if fit.left == fewest)
            return tuple(sorted(names, key=lambda name: (not name.startswith("torchvision:"), len(name), name)))
    return ()


def choose(whole: Sequence[Fit], shown: str, trusted: Sequence[str], shapes: Shapes) -> Match:
    """One of several that fit.

    Args:
        shapes: keys and shapes of the whole file.

    Raises:
        ArchitectureError: if they compute different things.
    """
    fewest = min(fit.left for fit in whole)
    best = sorted((fit for fit in whole if fit.left == fewest), key=lambda fit: (len(fit.known.name), fit.known.name))
    if not trusted and len({fit.known.function for fit in best}) > 1:
        best = list(_of_these_heads(best, shapes))
    others = [fit.known.name for fit in best]
    taken = next((fit for fit in whole if fit.known.name in trusted), None)
    if taken is None:
        taken = next((fit for fit in best if fit.known.name.startswith("torchvision:")), None)
    if taken is None and len({fit.known.function for fit in best}) > 1:
        names = ", ".join(name.partition(":")[2] for name in others[:6]) + (", …" if len(others) > 6 else "")
        raise ArchitectureError(
            f"the weights in {shown!r} fit {len(others)} architectures that compute different things: {names}",
            f"say which with --arch, for example --arch {others[0]}",
        )
    taken = taken or best[0]
    return Match(
        taken.known.name, tuple(name for name in others if name != taken.known.name), taken.prefix, taken.known
    )


def _of_these_heads(fits: Sequence[Fit], shapes: Shapes) -> Sequence[Fit]:
    """Those whose head has the same parts as the weights; all of them where none has."""
    from reportgen.subject.apart import joined
    from reportgen.subject.architectures import meta

    def parts(keys: Iterable[str], heads: Sequence[str]) -> set[str]:
        return {key for key in keys if counts(key) and key.partition(".")[0] in heads}

    def alike(fit: Fit) -> bool:
        inside = stripped(shapes, fit.prefix)
        try:
            own = meta(fit.known.name, classes=None, channels=None, keys=inside).state_dict()
        except ArchitectureError:
            return False
        if parts(own, fit.known.heads) == parts(inside, fit.known.heads):
            return True
        return joined(shapes, fit.prefix, fit.known) is not None

    if len(fits) > _MOST_BUILT or any(fit.known.name.startswith("torchvision:") for fit in fits):
        return fits
    return [fit for fit in fits if alike(fit)] or fits


def described(name: str) -> Known | None:
    """The description of a qualified name, or None where the data do not have it."""
    return next((one for one in catalogue()[0] if one.name == name), None)
