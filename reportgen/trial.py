"""A trial: some labelled images with their colour channels in the opposite order. A wrong order shows nowhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from reportgen.engine.plan import Planned
from reportgen.engine.shards import Shards
from reportgen.metrics import FEWEST
from reportgen.store import Array, Store

if TYPE_CHECKING:
    from reportgen.engine.local import Prepare, Sight, Worker

MOST: Final = 128
"""Images tried: enough to see ten per cent more right answers."""


@dataclass(frozen=True)
class Trial:
    """What is tried, and where the answers are kept.

    Attributes:
        digests: of the images, in order; none where there are too few.
        rows: what `predictions` makes of them in the opposite order.
    """

    digests: tuple[str, ...]
    rows: Shards

    @classmethod
    def of(cls, labelled: Sequence[str], planned: Planned, store: Store, seed: int) -> Trial:
        """The trial on images whose class is known, by their digests.

        Args:
            planned: the technique `predictions`.
            seed: of the draw.
        """
        different = sorted(set(labelled), key=lambda one: hashlib.sha256(f"{seed} {one}".encode()).digest())
        chosen = sorted(different[:MOST]) if len(different) >= FEWEST else []
        rows = Shards(store, replace(planned, basis={**planned.basis, "channels": "opposite"}))
        return cls(tuple(chosen), rows)

    @property
    def lacking(self) -> int:
        """How many images have not been tried yet."""
        return sum(not self.rows.knows(digest) for digest in self.digests)

    def run(self, worker: Worker) -> Iterator[int]:
        """One forward of each that has not. `worker` prepares them by `opposite`. Raises OutOfMemory."""
        yield from worker.scan(self.digests, (self.rows,))

    def answer(self, digest: str) -> Array | None:
        """() class ranked first; None for images that were not tried, or cannot be used."""
        row = self.rows.row(digest) if digest in self.digests else None
        return None if row is None else np.asarray(row["index"][0])


def opposite(prepare: Prepare) -> Prepare:
    """The same images with the channels of their inputs in the opposite order, as ``--bgr`` hands them over."""

    def turned(digest: str) -> Sight:
        sight = prepare(digest)
        return replace(sight, values=np.ascontiguousarray(sight.values[::-1]))

    return turned
