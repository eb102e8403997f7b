"""What a scan stored: one row an image, in shards by the first byte of the image's digest.

Adding an image touches one shard, and a million images do not make a million files. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from reportgen.engine.plan import Planned, bucket_of
from reportgen.store import Array, Store

_DIGESTS = "digests"


@dataclass
class _Shard:
    """One shard.

    Attributes:
        digests: (n,) of 32 bytes each, ascending.
        arrays: rows in the order of `digests`, by tensor name.
        fresh: rows that are not among them yet.
        errors: why an image cannot be used, by digest.
    """

    digests: Array
    arrays: Mapping[str, Array]
    fresh: dict[str, Mapping[str, Array]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def row(self, digest: str) -> Mapping[str, Array] | None:
        """The row of the image with this digest, or None."""
        if digest in self.fresh:
            return self.fresh[digest]
        sought = np.frombuffer(bytes.fromhex(digest), "S32")
        place = int(np.searchsorted(self.digests, sought)[0])
        found = place < len(self.digests) and self.digests[place] == sought[0]
        return _Row(self.arrays, place) if found else None

    def settled(self) -> _Shard:
        """The same with what is fresh in its place."""
        digests = sorted({*(known.hex() for known in self._known()), *self.fresh})
        rows = [self.row(digest) for digest in digests]
        arrays = {name: np.stack([row[name] for row in rows if row is not None]) for name in rows[0] or ()}
        packed = np.frombuffer(b"".join(map(bytes.fromhex, digests)), "S32")
        return _Shard(packed, arrays, {}, self.errors)

    def _known(self) -> Iterator[bytes]:
        whole = self.digests.tobytes()
        return (whole[start : start + 32] for start in range(0, len(whole), 32))


class Shards:
    """The rows of one scanning technique.

    A row is the technique's tensors for one image, or the reason why the image could not be used.
    """

    def __init__(self, store: Store, planned: Planned) -> None:
        self.planned = planned
        self._store = store
        self._shards: dict[int, _Shard] = {}

    def row(self, digest: str) -> Mapping[str, Array] | None:
        """Tensors of the image with this digest, or None."""
        return self._shard(bucket_of(digest)).row(digest)

    def error(self, digest: str) -> str | None:
        """Why the image with this digest cannot be used, or None."""
        return self._shard(bucket_of(digest)).errors.get(digest)

    def knows(self, digest: str) -> bool:
        """Whether nothing about this image needs computing."""
        return self.row(digest) is not None or self.error(digest) is not None

    def put(self, digest: str, row: Mapping[str, Array]) -> None:
        """Note a row; `flush` stores it."""
        self._shard(bucket_of(digest)).fresh[digest] = row

    def put_error(self, digest: str, reason: str) -> None:
        """Note that an image cannot be used; `flush` stores it."""
        self._shard(bucket_of(digest)).errors[digest] = reason

    def flush(self, bucket: int, facts: Mapping[str, object]) -> None:
        """Write one shard: rows sorted by digest, one array a tensor name."""
        shard = self._shards[bucket]
        if shard.fresh:
            self._shards[bucket] = shard = shard.settled()
        digests = np.frombuffer(shard.digests.tobytes(), np.uint8).reshape(-1, 32)
        told = {"kind": self.planned.name, "errors": shard.errors, **facts}
        self._store.put(self.planned.bucket_key(bucket), {_DIGESTS: digests, **shard.arrays}, told)

    def _shard(self, bucket: int) -> _Shard:
        if bucket not in self._shards:
            entry = self._store.get(self.planned.bucket_key(bucket))
            if entry is None:
                self._shards[bucket] = _Shard(np.zeros(0, "S32"), {})
            else:
                digests = np.frombuffer(entry.arrays[_DIGESTS].tobytes(), "S32")
                arrays = {name: array for name, array in entry.arrays.items() if name != _DIGESTS}
                self._shards[bucket] = _Shard(digests, arrays, {}, dict(entry.facts["errors"]))
        return self._shards[bucket]


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
