"""SHA-256 of files, remembered by path, size and time, so that a warm run does not read everything again."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import io
import json
import os
import stat
import tempfile
import threading
import time
from functools import cached_property
from pathlib import Path

import numpy as np

MOST = 1_000_000
"""Files remembered; beyond that those go first that were not asked for longest."""
FINE_GRAIN = 50_000_000
"""Nanoseconds within which a file system may give two changes the same time (a clock tick is 1 to 10 ms)."""
COARSE_GRAIN = 2_000_000_000
"""The same where times carry whole seconds only (FAT counts in twos)."""
_SCHEMA = "reportgen digests 1"


def open_regular(path: Path) -> io.BufferedReader:
    """A regular file opened for reading, without ever waiting for the other end of a pipe.

    Raises:
        OSError: if it cannot be opened, or is a pipe, socket, device or folder.
    """
    _refuse_special(os.stat(path).st_mode)
    # what was a file a moment ago may be a pipe now
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 (the caller closes it)
    try:
        _refuse_special(os.fstat(file.fileno()).st_mode)
    except OSError:
        file.close()
        raise
    return file


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def _refuse_special(mode: int) -> None:
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "not a file but a pipe, socket or device"
        raise OSError(errno.EINVAL, what)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a regular file. Raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_live(image: object) -> str:
    """SHA-256 of an image in memory: over its kind, shape and values. Equal images have equal digests.

    Args:
        image: a PIL image, an array, a tensor, or anything that tells its own `digest`.
    """
    from PIL import Image

    told = getattr(image, "digest", None)
    if isinstance(told, str):
        return told
    digest = hashlib.sha256()
    if isinstance(image, Image.Image):
        digest.update(f"pil {image.mode} {image.size} {_orientation(image)} ".encode())
        digest.update(image.tobytes())
        digest.update(bytes(image.getpalette("RGB") or ()) if image.mode in ("P", "PA") else b"")
    else:
        array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
        digest.update(f"array {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _orientation(image: object) -> object:
    try:
        return image.getexif().get(0x0112, 1)  # type: ignore[attr-defined]
    except Exception:  # damaged metadata raise whatever they like, and count as none
        return 1


class DigestMemory:
    """Digests by path, size, times and inode; safe for several threads, and for several processes that save in turn.

    A file that was changed so shortly before it was read that another change could carry the same time is not
    remembered: it is read again next time (Git calls such entries racily clean). One JSON file whose first line vouches
    for the second; a damaged one counts as empty. Paths are kept as hashes only.

    Args:
        file: where to keep it; None to forget everything afterwards.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._used: dict[str, str] = {}
        self._changed = False

    @cached_property
    def _known(self) -> dict[str, str]:
        return _read(self._file)

    def sha256(self, path: Path) -> str:
        """Digest of a file, read only if it is new or has changed. Raises OSError."""
        before = os.stat(path)
        name = _short(os.fsencode(os.path.abspath(path)))
        mark = _mark(before)
        known = self._used.get(name) or self._known.get(name)
        if known is not None and known.startswith(mark):
            with self._lock:
                self._used[name] = known
            return base64.b64decode(known[len(mark) :]).hex()
        now = time.time_ns()
        digest = sha256_of(path)
        if mark == _mark(os.stat(path)) and not _racy(before, now):
            with self._lock:
                self._used[name] = mark + base64.b64encode(bytes.fromhex(digest)).decode()
                self._changed = True
        return digest

    def save(self) -> None:
        """Write the memory if it changed. That it cannot be written costs time in the next run and nothing else."""
        if self._file is None or not self._changed:
            return
        with self._lock:
            # another process may have saved since; what this run asked for goes last, and so stays longest
            kept = {name: mark for name, mark in {**self._known, **_read(self._file)}.items() if name not in self._used}
            kept.update(self._used)
            for name in list(kept)[: max(0, len(kept) - MOST)]:
                del kept[name]
            self._changed = False
        body = json.dumps(kept, separators=(",", ":"))
        head = json.dumps({"schema": _SCHEMA, "sha256": hashlib.sha256(body.encode()).hexdigest()})
        with contextlib.suppress(OSError):
            _replace(self._file, f"{head}\n{body}\n")


def _short(data: bytes) -> str:
    """128 bits of a hash, as 22 characters: enough that no two of a million paths meet."""
    return base64.b64encode(hashlib.sha256(data).digest()[:16]).decode().rstrip("=")


def _mark(status: os.stat_result) -> str:
    # on Windows the third is the time of creation, which does no harm
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return _short(f"{status.st_size} {times} {status.st_dev} {status.st_ino}".encode())


def _racy(status: os.stat_result, now: int) -> bool:
    latest = max(status.st_mtime_ns, status.st_ctime_ns)
    grain = FINE_GRAIN if latest % 1_000_000_000 else COARSE_GRAIN
    return now - latest < grain


def _read(file: Path | None) -> dict[str, str]:
    if file is None:
        return {}
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        head, body = file.read_bytes().split(b"\n")[:2]
        told = json.loads(head)
        if told["schema"] == _SCHEMA and told["sha256"] == hashlib.sha256(body).hexdigest():
            return dict(json.loads(body))
    return {}


def _replace(file: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix="digests-", suffix=".part", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(text)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
