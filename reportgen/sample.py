"""The images on which maps are measured: a seeded draw with the share of every class."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Drawable:
    """What the draw looks at.

    Attributes:
        name: of the image.
        digest: of its file.
        stratum: the true class where it is known, the predicted one otherwise.
    """

    name: str
    digest: str
    stratum: int


def draw_sample(images: Sequence[Drawable], count: int, *, seed: int = 0) -> tuple[str, ...]:
    """Names of `count` images, of all if there are no more, in an order that is as random as the draw.

    Every class has its share of them, rounded by the largest remainders. Of each class those come first whose hash
    with the seed is lowest, so that an image more changes the sample little. The same image is drawn once.
    """
    once = {one.digest: one for one in sorted(images, key=lambda one: one.name, reverse=True)}
    strata: dict[int, list[Drawable]] = {}
    for one in sorted(once.values(), key=lambda one: _hash(seed, one.digest)):
        strata.setdefault(one.stratum, []).append(one)
    count = min(count, len(once))
    shares = {stratum: count * len(members) / len(once) for stratum, members in strata.items()}
    quotas = {stratum: int(share) for stratum, share in shares.items()}
    left = count - sum(quotas.values())
    for stratum in sorted(shares, key=lambda s: (quotas[s] - shares[s], _hash(seed, str(s))))[:left]:
        quotas[stratum] += 1
    chosen = (one for stratum, members in strata.items() for one in members[: quotas[stratum]])
    return tuple(one.name for one in sorted(chosen, key=lambda one: _hash(seed, one.digest)))


def _hash(seed: int, words: str) -> bytes:
    return hashlib.sha256(f"sample:{seed}:{words}".encode()).digest()
