"""Which images are shown in detail, and why: a quota each for mistakes, doubtful, typical, and a few drawn at
random.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from reportgen.errors import UsageError
from reportgen.text import Message, _


@dataclass(frozen=True, slots=True)
class Seen:
    """What the choice looks at.

    Attributes:
        name: of the image.
        digest: of its file.
        first: predicted class.
        probability: of that class.
        margin: by how much it leads the second, in probability; where every class is decided by itself, by how much the
            least certain decision leads its contrary.
        mistake: probability that the model gives the gravest mistake of its answer; None where none is known.
        several: every class is decided by itself.
    """

    name: str
    digest: str
    first: int
    probability: float
    margin: float
    mistake: float | None
    several: bool = False


WHY: dict[str, Message] = {
    "given": _("asked for by the user"),
    "mistake": _("among the most confident mistakes"),
    "doubtful": _("among the most doubtful: the first class leads the second by least"),
    "undecided": _("among the most doubtful: the probability of a class is closest to one half"),
    "typical": _("among the most confident of its predicted class"),
    "random": _("drawn at random"),
}


@dataclass(frozen=True)
class Choice:
    """One image chosen, and the quota it was chosen under (a key of `WHY`)."""

    name: str
    why: str


def choose(seen: Sequence[Seen], count: int, *, given: Iterable[str] = (), seed: int = 0) -> tuple[Choice, ...]:
    """`count` images (more if more were given), in the order of the quotas; the same for the same images and seed.

    Every quota is a quarter of what is left after the given ones, filled in the order of `WHY`; what a quota does not
    use goes
    to the random draw, so that there are `count` as long as there are images.

    Raises:
        UsageError: if a given name is no image.
    """
    taken: dict[str, str] = {}
    names = {one.name: one for one in seen}
    for name in given:
        match = names.get(name) or _by_stem(name, seen)
        if match is None:
            raise _no_exhibit(name)
        taken.setdefault(match.name, "given")
    quota = -(-max(count - len(taken), 0) // 4)
    doubt = "undecided" if any(one.several for one in seen) else "doubtful"
    lists: dict[str, Callable[[], Iterable[Seen]]] = {
        "mistake": lambda: sorted((one for one in seen if one.mistake is not None), key=_by_mistake),
        doubt: lambda: sorted(seen, key=lambda one: (one.margin, one.name)),
        "typical": lambda: _by_class(one for one in seen if one.mistake is None),
        "random": lambda: sorted(
            seen, key=lambda one: hashlib.sha256(f"{seed}:{one.digest}:{one.name}".encode(errors="replace")).digest()
        ),
    }
    for why, ordered in lists.items():
        room = count - len(taken) if why == "random" else min(quota, count - len(taken))
        fresh = [one for one in ordered() if one.name not in taken] if room > 0 else []
        for one in fresh[: max(room, 0)]:
            taken[one.name] = why
    return tuple(Choice(name, why) for name, why in taken.items())


def _by_mistake(one: Seen) -> tuple[float, str]:
    return -(one.mistake or 0.0), one.name


def refuse_strangers(given: Iterable[str], names: Iterable[str]) -> None:
    """Raises UsageError for a name of `given` that no image is called by, whether it can be used or not."""
    names = set(names)
    ends = {_last(name) for name in names}
    for name in given:
        if name not in names and _last(name) not in ends:
            raise _no_exhibit(name)


def _no_exhibit(name: str) -> UsageError:
    return UsageError(f"--exhibit {name!r} is none of the usable images", "name it relative to the image folder")


def _last(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _by_stem(name: str, seen: Sequence[Seen]) -> Seen | None:
    """The only image whose last part is `name` (users name files as they see them)."""
    found = [one for one in seen if one.name.rpartition("/")[2] == _last(name)]
    return found[0] if len(found) == 1 else None


def _by_class(seen: Iterable[Seen]) -> list[Seen]:
    """The most confident of every class, then the second of every class, and so on."""
    ranked: dict[int, int] = {}
    keyed: list[tuple[int, float, str, Seen]] = []
    for one in sorted(seen, key=lambda one: (-one.probability, one.name)):
        rank = ranked.get(one.first, 0)
        ranked[one.first] = rank + 1
        keyed.append((rank, -one.probability, one.name, one))
    return [item[3] for item in sorted(keyed, key=lambda item: item[:3])]
