"""Writes a file wholly or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from reportgen.errors import OutputError


def check_writable(target: Path) -> None:
    """Raises OutputError if a file cannot be written there: better before the work than after it."""
    if target.is_dir():
        raise OutputError(f"{target.name!r} is a folder", "give a file name with -o")
    folder = _followed(target).parent
    if not folder.is_dir():
        raise OutputError(f"the folder for {target.name!r} does not exist", "make it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(
            f"the folder for {target.name!r} cannot be written", "check its permissions, or give -o another one"
        )


def check_folder(directory: Path, what: str) -> None:
    """Raises OutputError if no files can be written into a folder that need not exist yet.

    Args:
        what: is to be written there, for the message.
    """
    existing = _followed(directory)
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise OutputError(f"{existing.name!r} is a file", f"give a folder for {what}")
    if not os.access(existing, os.W_OK):
        raise OutputError(f"the folder {existing.name!r} cannot be written", "check its permissions, or give another")


def _followed(path: Path) -> Path:
    """Where links lead. Raises OutputError for one that leads back to itself."""
    final = Path(os.path.realpath(path))
    if final.is_symlink():
        raise OutputError(f"{path.name!r} is a link that leads nowhere", "remove it, or give another name")
    return final


def write_atomically(target: Path, data: bytes | Iterable[bytes]) -> None:
    """Write `data`, whole or in parts, under a temporary name beside `target` and rename it: the previous file stays
    until the new one is whole.

    A symbolic link is followed, so that the link stays and its file changes.

    Raises:
        OutputError: if it cannot be written.
    """
    final = _followed(target)
    name = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{final.name[:40]}-", suffix=".part", dir=final.parent)
        with os.fdopen(handle, "wb") as file:
            for part in (data,) if isinstance(data, bytes) else data:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, final)
    except OSError as error:
        raise OutputError(f"cannot write {target.name!r}: {error.strerror}", "give -o another folder") from None
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)
