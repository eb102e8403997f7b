"""Tensors on disk, so that nothing is computed twice.

An entry is one safetensors file named by its key. It is written to a unique temporary name in the same directory,
flushed, and renamed: a reader sees all of it or nothing, and nothing rests on locks (they lie on network file systems).
Where locks hold, they keep runs of the same work from doing it twice (`Store.alone`).
The header carries a digest of everything in it, checked on reading: a bad entry is a miss, never an answer.
Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from reportgen.entry import Array as Array
from reportgen.entry import Entry, Opened, array_in, canonical, decode, digest_in, digest_of, encode, kind_in
from reportgen.errors import StoreError

if TYPE_CHECKING:
    from filelock import BaseFileLock

SCHEMA = 3
"""Part of every key: entries of another layout are never looked at."""

_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# This directory holds tensors that reportgen can compute again.\n"


def key_of(kind: str, **parts: Any) -> str:
    """The key of an entry: SHA-256 over the schema, the kind of entry and everything its content depends on."""
    return hashlib.sha256(canonical({"schema": SCHEMA, "kind": kind, **parts}).encode()).hexdigest()


@dataclass
class Store:
    """A directory of entries. `root` None means: keep them in a temporary directory that goes with this object.

    Raises:
        StoreError: if the directory can neither be made nor read.
    """

    root: Path | None
    limit: int | None = None
    notices: list[str] = field(default_factory=list)
    """What the user should hear about the store; each thing once."""

    def __post_init__(self) -> None:
        self.kept = self.root is not None
        """Whether entries outlive this store."""
        self.suspicious = False
        """An entry was found damaged or gone: from then on `has` reads what it finds."""
        self._memory: dict[str, Entry] = {}
        self._written = 0
        try:
            base = Path(tempfile.mkdtemp(prefix="reportgen-")) if self.root is None else self.root
            if self.root is None:  # goes when the last who holds this store is gone
                weakref.finalize(self, shutil.rmtree, base, ignore_errors=True)
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._objects = base / "objects"
            self._objects.mkdir(mode=0o700, exist_ok=True)
            tag = base / "CACHEDIR.TAG"
            if not tag.exists():
                tag.write_text(_TAG, encoding="utf-8")
        except OSError as error:
            if self.root is not None and (self.root / "objects").is_dir():
                self._objects = self.root / "objects"  # read-only: still worth reading
            else:
                raise StoreError(
                    f"the cache directory cannot be used: {error.strerror}",
                    "give --cache-dir another one, or --no-cache",
                ) from None
        self.base = self._objects.parent

    def close(self) -> None:
        """After a run: keep the size within its limit. Entries can still be read."""
        if self.kept and self._written and self.limit is not None:
            self.prune(self.limit)

    @contextmanager
    def alone(self, work: str, told: Callable[[str], object]) -> Iterator[None]:
        """Let no other run of the same work in meanwhile, so that the second finds what the first has stored.

        Nothing but time is lost where locks do not hold: whatever runs write is the same and appears at once.

        Args:
            work: key of the work.
            told: is told once if another run has to be waited for.
        """
        lock = self._taken(work, told) if self.kept else None
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def _taken(self, work: str, told: Callable[[str], object]) -> BaseFileLock | None:
        """One of a few locks, so that other work rarely waits; None where locks cannot be had."""
        from filelock import FileLock, Timeout

        folder = self.base / "locks"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            lock = FileLock(folder / f"{work[:2]}.lock", mode=0o600)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                told("another run is at the same work: waiting for what it stores")
                lock.acquire()
        except (OSError, NotImplementedError):  # a read-only directory, a file system without locks
            return None
        return lock

    def path(self, key: str) -> Path:
        """Where the entry of `key` lies or would lie."""
        return self._objects / key[:2] / f"{key}.safetensors"

    def has(self, key: str) -> bool:
        """Whether there is an entry; whether it is sound is looked at only once one was found not to be."""
        if self.suspicious:
            return self.get(key) is not None
        return key in self._memory or self.path(key).is_file()

    def get(self, key: str) -> Entry | None:
        """The entry of `key`, or None where there is none that can be believed."""
        if key in self._memory:
            return self._memory[key]
        found = self._believed(key)
        if found is None:
            return None
        entry, file = found
        file.close()
        return entry

    def open(self, key: str) -> Opened | None:
        """The entry of `key` to be read one array at a time; None where there is none that can be believed."""
        if key in self._memory:
            return Opened(None, self._memory[key].arrays)
        found = self._believed(key)
        return None if found is None else Opened(found[1], {})

    def peek(self, key: str, name: str) -> tuple[Array, Mapping[str, Any]] | None:
        """One array of bytes of the entry of `key`, and its facts; None where there is none that can be believed.

        The rest is not read, so that nothing vouches for it until one entry was found not to be sound.
        """
        if key in self._memory or self.suspicious:
            entry = self.get(key)
            return None if entry is None else (entry.arrays[name], entry.facts)
        path = self.path(key)
        found = array_in(path, key, name)
        if found is not None:
            _touch(path)
        return found

    def digest(self, key: str) -> str | None:
        """Digest of what the entry of `key` holds, as its header tells it; None where there is none."""
        if key in self._memory:
            return digest_of(self._memory[key], key)
        path = self.path(key)
        told = digest_in(path, key)
        if told is not None:
            _touch(path)
        return told

    def _believed(self, key: str) -> tuple[Entry, BinaryIO] | None:
        """The entry of `key` and its open file, if it is what was written; otherwise it is removed."""
        path = self.path(key)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        try:
            entry = decode(file.read(), key)
        except (OSError, ValueError):
            file.close()
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        _touch(path)
        return entry, file

    def put(self, key: str, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> Entry:
        """Store an entry. On a full or read-only disk it is kept in memory for this run and a notice says so."""
        entry = Entry(dict(arrays), dict(facts))
        path = self.path(key)
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _write(path, encode(entry, key))
            self._written += 1
        except OSError as error:
            self._memory[key] = entry
            notice = f"the cache cannot be written ({error.strerror}): results of this run are not kept"
            if notice not in self.notices:
                self.notices.append(notice)
        return entry

    def keys(self) -> Iterator[str]:
        """Keys of all entries, in order."""
        for path in sorted(self._objects.glob("??/*.safetensors")):
            yield path.stem

    def info(self) -> dict[str, Any]:
        """Number and bytes of the entries, in all and by kind."""
        count: Counter[str] = Counter()
        size: Counter[str] = Counter()
        for key in self.keys():
            path = self.path(key)
            kind, length = kind_in(path) or "damaged", 0
            with contextlib.suppress(OSError):
                length = path.stat().st_size
            count[kind] += 1
            size[kind] += length
        return {
            "entries": count.total(),
            "bytes": size.total(),
            "kinds": {kind: {"entries": count[kind], "bytes": size[kind]} for kind in sorted(count)},
        }

    def verify(self) -> tuple[int, int]:
        """Read every entry; remove the bad ones and what a killed run left. Returns (sound, removed)."""
        sound = removed = 0
        for leftover in self._objects.glob("??/*.part"):
            leftover.unlink(missing_ok=True)
            removed += 1
        for key in list(self.keys()):
            if self.get(key) is None:
                removed += 1
            else:
                sound += 1
        return sound, removed

    def prune(self, limit: int) -> tuple[int, int]:
        """Remove the entries longest unused until `limit` bytes are left. Returns (entries, bytes) removed."""
        aged: list[tuple[float, int, Path]] = []
        for path in self._objects.glob("??/*.safetensors"):
            with contextlib.suppress(OSError):
                status = path.stat()
                aged.append((status.st_mtime, status.st_size, path))
        excess = sum(size for _, size, _ in aged) - limit
        entries = freed = 0
        for _, size, path in sorted(aged):
            if excess - freed <= 0:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                entries, freed = entries + 1, freed + size
        return entries, freed


def _touch(path: Path) -> None:
    with contextlib.suppress(OSError):
        os.utime(path)  # "oldest" means longest unused


def _write(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=path.stem[:8], suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
