"""What a scan stored: one row an image, in shards by the first byte of the image's digest.

Adding an image touches one shard, and a million images do not make a million files. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from reportgen.engine.plan import Planned, bucket_of
from reportgen.store import Array, Store


class Shards:
    """The rows of one scanning technique.

    A row is the technique's tensors for one image, or the reason why the image could not be used.
    """

    def __init__(self, store: Store, planned: Planned) -> None:
        self.planned = planned
        self._store = store
        self._rows: dict[int, dict[str, Mapping[str, Array]]] = {}
        self._errors: dict[int, dict[str, str]] = {}

    def row(self, digest: str) -> Mapping[str, Array] | None:
        """Tensors of the image with this digest, or None."""
        return self._loaded(bucket_of(digest)).get(digest)

    def error(self, digest: str) -> str | None:
        """Why the image with this digest cannot be used, or None."""
        bucket = bucket_of(digest)
        self._loaded(bucket)
        return self._errors[bucket].get(digest)

    def knows(self, digest: str) -> bool:
        """Whether nothing about this image needs computing."""
        return self.row(digest) is not None or self.error(digest) is not None

    def put(self, digest: str, row: Mapping[str, Array]) -> None:
        """Note a row; `flush` stores it."""
        self._loaded(bucket_of(digest))[digest] = row

    def put_error(self, digest: str, reason: str) -> None:
        """Note that an image cannot be used; `flush` stores it."""
        bucket = bucket_of(digest)
        self._loaded(bucket)
        self._errors[bucket][digest] = reason

    def flush(self, bucket: int, facts: Mapping[str, Any]) -> None:
        """Write one shard: rows sorted by digest, one array a tensor name."""
        rows = self._rows[bucket]
        digests = sorted(rows)
        arrays: dict[str, Array] = {
            "digests": np.frombuffer(b"".join(bytes.fromhex(d) for d in digests), np.uint8).reshape(-1, 32)
        }
        for name in rows[digests[0]] if digests else ():
            arrays[name] = np.stack([rows[digest][name] for digest in digests])
        told = {"kind": self.planned.name, "errors": self._errors[bucket], **facts}
        self._store.put(self.planned.bucket_key(bucket), arrays, told)

    def _loaded(self, bucket: int) -> dict[str, Mapping[str, Array]]:
        if bucket not in self._rows:
            entry = self._store.get(self.planned.bucket_key(bucket))
            rows: dict[str, Mapping[str, Array]] = {}
            if entry is not None:
                for place, digest in enumerate(entry.arrays["digests"]):
                    rows[digest.tobytes().hex()] = _Row(entry.arrays, place)
            self._rows[bucket] = rows
            self._errors[bucket] = dict(entry.facts["errors"]) if entry is not None else {}
        return self._rows[bucket]


class _Row(Mapping[str, Array]):
    """One row of a shard without copying it."""

    __slots__ = ("_arrays", "_place")

    def __init__(self, arrays: Mapping[str, Array], place: int) -> None:
        self._arrays = arrays
        self._place = place

    def __getitem__(self, name: str) -> Array:
        if name == "digests":
            raise KeyError(name)
        return np.asarray(self._arrays[name][self._place])

    def __iter__(self) -> Any:
        return (name for name in self._arrays if name != "digests")

    def __len__(self) -> int:
        return len(self._arrays) - 1
