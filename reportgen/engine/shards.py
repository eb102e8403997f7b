"""What a scan stored: one row an image, in shards by the first byte of the image's digest.

Adding an image touches one shard, and a million images do not make a million files. Which images a shard knows is told
without reading its rows, and of these no more than one shard is held, so that memory does not grow with the number of
images. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from reportgen.engine.plan import Planned, bucket_of
from reportgen.errors import EntryVanished
from reportgen.store import Array, Store
from reportgen.techniques.technique import Block, Case

_DIGESTS = "digests"


@dataclass
class _Index:
    """Which images a shard knows.

    Attributes:
        digests: (n,) of 32 bytes each, ascending.
        errors: why an image cannot be used, by digest.
    """

    digests: Array
    errors: dict[str, str]

    def place(self, digest: str) -> int | None:
        """In which row the image with this digest stands, or None."""
        sought = np.frombuffer(bytes.fromhex(digest), "S32")
        place = int(np.searchsorted(self.digests, sought)[0])
        return place if place < len(self.digests) and self.digests[place] == sought[0] else None


@dataclass
class _Shard:
    """The rows of one shard.

    Attributes:
        index: the images they are of.
        arrays: rows in the order of the index, by tensor name.
        fresh: rows that are not among them yet.
    """

    index: _Index
    arrays: Mapping[str, Array]
    fresh: dict[str, Mapping[str, Array]] = field(default_factory=dict)

    def row(self, digest: str) -> Mapping[str, Array] | None:
        """The row of the image with this digest, or None."""
        if digest in self.fresh:
            return self.fresh[digest]
        place = self.index.place(digest)
        return None if place is None else _Row(self.arrays, place)

    def settled(self) -> _Shard:
        """The same with what is fresh in its place."""
        digests = sorted({*(known.hex() for known in self._known()), *self.fresh})
        rows = [self.row(digest) for digest in digests]
        arrays = {name: np.stack([row[name] for row in rows if row is not None]) for name in rows[0] or ()}
        packed = np.frombuffer(b"".join(map(bytes.fromhex, digests)), "S32")
        return _Shard(_Index(packed, self.index.errors), arrays)

    def _known(self) -> Iterator[bytes]:
        whole = self.index.digests.tobytes()
        return (whole[start : start + 32] for start in range(0, len(whole), 32))


class Shards:
    """The rows of one scanning technique.

    A row is the technique's tensors for one image, or the reason why the image could not be used.

    Args:
        held: keep all shards in memory once they are read. Otherwise one is.
    """

    def __init__(self, store: Store, planned: Planned, *, held: bool = False) -> None:
        self.planned = planned
        self._store = store
        self._held = held
        self._passing: dict[str, str] = {}
        self._shards: dict[int, _Shard] = {}
        self._indices: dict[int, _Index] = {}

    def row(self, digest: str) -> Mapping[str, Array] | None:
        """Tensors of the image with this digest, or None."""
        return self._shard(bucket_of(digest)).row(digest)

    def rows(self, bucket: int, digests: Iterable[str]) -> Mapping[str, Array] | None:
        """Tensors of images of one shard, stacked in this order; None if one is unknown."""
        shard = self._shard(bucket)
        wanted = list(digests)
        places = [place for digest in wanted if (place := shard.index.place(digest)) is not None]
        if len(places) < len(wanted):
            return None
        return {name: array[places] for name, array in shard.arrays.items()}

    def error(self, digest: str) -> str | None:
        """Why the image with this digest cannot be used, or None."""
        return self._passing.get(digest) or self._index(bucket_of(digest)).errors.get(digest)

    def knows(self, digest: str) -> bool:
        """Whether nothing about this image needs computing."""
        bucket = bucket_of(digest)
        index = self._index(bucket)
        waiting = bucket in self._shards and digest in self._shards[bucket].fresh
        return waiting or digest in index.errors or digest in self._passing or index.place(digest) is not None

    def put(self, digest: str, row: Mapping[str, Array]) -> None:
        """Note a row; `flush` stores it."""
        self._shard(bucket_of(digest)).fresh[digest] = row

    def put_error(self, digest: str, reason: str, *, passing: bool = False) -> None:
        """Note that an image cannot be used; `flush` stores it unless it is `passing`: another run may succeed."""
        if passing:
            self._passing[digest] = reason
            return
        self._shard(bucket_of(digest)).index.errors[digest] = reason

    def flush(self, bucket: int, facts: Mapping[str, object]) -> None:
        """Write one shard: rows sorted by digest, one array a tensor name."""
        shard = self._shard(bucket)
        if shard.fresh:
            self._shards[bucket] = shard = shard.settled()
            self._indices[bucket] = shard.index
        digests = np.frombuffer(shard.index.digests.tobytes(), np.uint8).reshape(-1, 32)
        told = {"kind": self.planned.name, "errors": shard.index.errors, **facts}
        self._store.put(self.planned.bucket_key(bucket), {_DIGESTS: digests, **shard.arrays}, told)

    def release(self) -> None:
        """Hold nothing that is stored, unless all is to be held: it is read again when it is asked for."""
        if not self._held:
            self._shards, self._indices = {}, {}

    def _index(self, bucket: int) -> _Index:
        if bucket not in self._indices:
            found = self._store.peek(self.planned.bucket_key(bucket), _DIGESTS)
            digests = np.zeros(0, "S32") if found is None else np.frombuffer(found[0].tobytes(), "S32")
            self._indices[bucket] = _Index(digests, {} if found is None else dict(found[1]["errors"]))
        return self._indices[bucket]

    def _shard(self, bucket: int) -> _Shard:
        if bucket not in self._shards:
            if not self._held:  # what was not stored yet stays
                self._shards = {place: shard for place, shard in self._shards.items() if shard.fresh}
            entry = self._store.get(self.planned.bucket_key(bucket))
            arrays = {} if entry is None else dict(entry.arrays)
            digests = np.frombuffer(arrays.pop(_DIGESTS, np.zeros(0)).tobytes(), "S32")
            noted = self._indices[bucket].errors if bucket in self._indices else {}  # perhaps not stored yet
            errors = {} if entry is None else dict(entry.facts["errors"])
            self._indices[bucket] = _Index(digests, {**errors, **noted})
            self._shards[bucket] = _Shard(self._indices[bucket], arrays)
        return self._shards[bucket]


def blocks(shards: Shards, cases: Iterable[Case]) -> Iterator[Block]:
    """Images with their rows, shard by shard, by digest and name. Raises EntryVanished."""
    ordered = sorted(cases, key=lambda case: (case.digest, case.name))
    for bucket, found in groupby(ordered, key=lambda case: bucket_of(case.digest)):
        block = tuple(found)
        arrays = shards.rows(bucket, [case.digest for case in block])
        if arrays is None:
            raise EntryVanished
        yield Block(block, arrays)


class _Row(Mapping[str, Array]):
    """One row of a shard without copying it."""

    __slots__ = ("_arrays", "_place")

    def __init__(self, arrays: Mapping[str, Array], place: int) -> None:
        self._arrays = arrays
        self._place = place

    def __getitem__(self, name: str) -> Array:
        return np.asarray(self._arrays[name][self._place])

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)
