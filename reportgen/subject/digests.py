"""SHA-256 of files, remembered by path, size and time, so that a warm run does not read everything again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
from pathlib import Path

import numpy as np

MOST = 1_000_000
"""Files remembered; beyond that the memory starts anew."""


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_live(image: object) -> str:
    """SHA-256 of an image in memory: over its kind, shape and values. Equal images have equal digests."""
    from PIL import Image

    digest = hashlib.sha256()
    if isinstance(image, Image.Image):
        digest.update(f"pil {image.mode} {image.size} {image.getexif().get(0x0112, 1)}".encode())
        digest.update(image.tobytes())
        if image.mode == "P":
            digest.update(bytes(image.getpalette() or ()))
    else:
        array = np.ascontiguousarray(np.asarray(image))
        digest.update(f"array {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


class DigestMemory:
    """Digests by path, size, time of change and inode.

    A file that is exchanged for another of the same size within the clock's grain keeps its time but not its inode; one that
    is rewritten in place changes its time. One JSON file, written atomically; a damaged one counts as empty.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, str]] = {}
        self._changed = False
        if file is not None:
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                stored = json.loads(file.read_text(encoding="utf-8"))
                self._known = {str(path): (str(mark), str(digest)) for path, (mark, digest) in stored.items()}

    def sha256(self, path: Path) -> str:
        """Digest of a file, read only if it is new or has changed. Raises OSError."""
        status = path.stat()
        name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
        mark = f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"
        known = self._known.get(name)
        if known is not None and known[0] == mark:
            return known[1]
        digest = sha256_of(path)
        with self._lock:
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[name] = (mark, digest)
            self._changed = True
        return digest

    def save(self) -> None:
        """Write the memory if it changed. That it cannot be written costs time in the next run and nothing else."""
        if self._file is None or not self._changed:
            return
        with contextlib.suppress(OSError):
            handle, name = tempfile.mkstemp(prefix="digests-", suffix=".part", dir=self._file.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(self._known, file, separators=(",", ":"))
                Path(name).replace(self._file)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        self._changed = False
