"""An entry of the store as a file: safetensors, whose header vouches for everything in it.

Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def canonical(value: Any) -> str:
    """JSON that is the same for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


@dataclass(frozen=True)
class Entry:
    """What one key holds.

    Attributes:
        arrays: the tensors by name.
        facts: JSON values stored beside them (provenance, errors, names).
    """

    arrays: Mapping[str, Array]
    facts: Mapping[str, Any]


class Opened:
    """An entry read one array at a time, safe for several threads.

    The file stays open as long as this object lives, so that what is removed meanwhile can still be read.

    Args:
        file: of an entry that was found to be sound, closed here; None for one in `memory`.
    """

    def __init__(self, file: BinaryIO | None, memory: Mapping[str, Array]) -> None:
        self._file: BinaryIO | None = None
        self._memory = memory
        self._lock = threading.Lock()
        self._header: dict[str, Any] = {}
        self._begin = 0
        if file is not None:
            # A descriptor of its own: a file object that is collected in a cycle complains of not having been closed,
            # whatever `__del__` would have done.
            descriptor = os.dup(file.fileno())
            file.close()
            weakref.finalize(self, os.close, descriptor)
            self._file = os.fdopen(descriptor, "rb", closefd=False)
            self._header = _read_header(self._file)
            self._begin = self._file.tell()

    def read(self, name: str) -> bytes:
        """The bytes of one array. Raises KeyError, OSError."""
        if self._file is None:
            return self._memory[name].tobytes()
        start, end = self._header[name]["data_offsets"]
        with self._lock:
            self._file.seek(self._begin + start)
            return self._file.read(end - start)


def _mark(name: str, array: Array) -> str:
    """Digest of an array: of its name, type, shape and bytes."""
    array = np.asarray(array, order="C")
    digest = hashlib.sha256(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
    digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _marks(arrays: Mapping[str, Array]) -> str:
    return canonical({name: _mark(name, array) for name, array in arrays.items()})


def _digest(key: str, facts: str, marks: str) -> str:
    """Over everything in an entry: over the digests of its arrays, so that one array can be read and believed alone."""
    return hashlib.sha256(f"{key}\0{facts}\0{marks}".encode()).hexdigest()


def _vouched(metadata: Mapping[str, str], key: str) -> bool:
    """Whether the header of an entry is what was written under `key`. Raises KeyError."""
    return metadata["key"] == key and metadata["digest"] == _digest(key, metadata["facts"], metadata["marks"])


def encode(entry: Entry, key: str) -> bytes:
    """The file."""
    from safetensors.numpy import save

    arrays = {name: np.asarray(array, order="C") for name, array in entry.arrays.items()}
    facts, marks = canonical(entry.facts), _marks(arrays)
    told = {"key": key, "facts": facts, "marks": marks, "digest": _digest(key, facts, marks)}
    return save(arrays, metadata=told)


def _header(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= 100_000_000:
        raise ValueError("not a safetensors header")
    return dict(json.loads(data[8 : 8 + length]))


def _read_header(file: BinaryIO) -> dict[str, Any]:
    """The header of a file, whose arrays it is left at. Raises OSError, ValueError."""
    file.seek(0)
    head = file.read(8)
    return _header(head + file.read(min(int.from_bytes(head, "little"), 100_000_000)))


def decode(data: bytes, key: str) -> Entry:
    """Raises ValueError for whatever is not exactly what was written under `key`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        metadata = _header(data)["__metadata__"]
        arrays = load(data)
        if not _vouched(metadata, key) or metadata["marks"] != _marks(arrays):
            raise ValueError("the entry is not what was written")
        return Entry(arrays, json.loads(metadata["facts"]))
    except (SafetensorError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def digest_of(entry: Entry, key: str) -> str:
    """Digest of all that is stored under `key`."""
    return _digest(key, canonical(entry.facts), _marks(entry.arrays))


_NOT_SOUND = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def digest_in(path: Path, key: str) -> str | None:
    """The same as the header of a file tells it; None where the header is not what was written under `key`."""
    try:
        with path.open("rb") as file:
            metadata = _read_header(file)["__metadata__"]
        return str(metadata["digest"]) if _vouched(metadata, key) else None
    except _NOT_SOUND:
        return None


def array_in(path: Path, key: str, name: str) -> tuple[Array, Mapping[str, Any]] | None:
    """One array of bytes in a file, and its facts; None where these are not what was written under `key`."""
    try:
        with path.open("rb") as file:
            header = _read_header(file)
            start, end = header[name]["data_offsets"]
            file.seek(start, os.SEEK_CUR)
            array = np.frombuffer(file.read(end - start), np.uint8).reshape(header[name]["shape"])
        metadata = header["__metadata__"]
        if not _vouched(metadata, key) or json.loads(metadata["marks"])[name] != _mark(name, array):
            return None
        return array, json.loads(metadata["facts"])
    except _NOT_SOUND:
        return None


def kind_in(path: Path) -> str | None:
    """What kind of entry a file says that it is; None where it is no entry."""
    try:
        with path.open("rb") as file:
            header = _read_header(file)
        return str(json.loads(header["__metadata__"]["facts"]).get("kind", "other"))
    except _NOT_SOUND:
        return None
