"""What was drawn, kept in the store: a warm run draws nothing, and no run holds all its pictures in memory.

A drawing is kept under everything that it depends on: what it shows, the program's own code, and the libraries that
draw. An index holds its values and figures as JSON; beside it lie entries of about `PART` bytes with the pictures, each
under the SHA-256 of its bytes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

import reportgen
from reportgen.entry import Opened
from reportgen.errors import EntryVanished
from reportgen.figures.figure import Colorbar, Figure, Panel, Picture, Row
from reportgen.figures.formula import formula_svg
from reportgen.findings import Finding
from reportgen.store import Array, Store, key_of
from reportgen.text import Message
from reportgen.versions import DRAWINGS, PAGES, versions_of

PART = 8_000_000
"""Bytes of pictures after which they are written."""
SMALL = 20_000
"""A drawing of no more bytes, such as a formula, stands in the index."""

_KNOWN: Mapping[str, type] = {cls.__name__: cls for cls in (Figure, Row, Panel, Colorbar, Finding)}


class _Unkeepable(Exception):
    """A drawing holds something that could not be read again as it was written."""


@dataclass(frozen=True)
class Kept:
    """The bytes of one picture in the store."""

    opened: Opened
    sha256: str

    def read(self) -> bytes:
        """The bytes."""
        return self.opened.read(self.sha256)


def drawn(store: Store, about: Mapping[str, Any], draw: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """What `draw` makes, from the store where it was drawn before.

    A first run goes on with what it reads back, as a later one does: what tuples were in JSON values are lists to both.

    Args:
        about: JSON values that tell what the drawing depends on besides code and libraries.
        draw: gives JSON values, `Message`, `Picture`, `Figure`, `Finding`, and lists, dictionaries and iterators of
            these. An iterator is run through once, and what it gives is not held.

    Raises:
        EntryVanished: if what was just written is gone.
    """
    key = key_of("drawn", about=dict(about), code=code_digest(), libraries=dict(versions_of(DRAWINGS)))
    found = _read(store, key)
    if found is None:
        try:
            _Writer(store, key).write(draw())
        except _Unkeepable:
            # a technique from elsewhere may put anything into its captions
            return draw()
        found = _read(store, key)
    if found is None:
        raise EntryVanished
    return found


def kept_formula(store: Store) -> Callable[[str], Picture]:
    """`formula_svg` with what was set before from the store."""

    def formula(tex: str) -> Picture:
        picture: Picture = drawn(store, {"formula": tex}, lambda: {"picture": formula_svg(tex)})["picture"]
        return picture

    return formula


def kept_pages(store: Store, about: Mapping[str, Any], make: Callable[[], bytes]) -> bytes:
    """What `make` makes, from the store where the same pages were made before.

    Args:
        about: JSON values that tell what they depend on besides code and libraries.
    """
    key = key_of("pages", about=dict(about), code=code_digest(), libraries=dict(versions_of(PAGES)))
    entry = store.get(key)
    if entry is not None:
        return entry.arrays["pages"].tobytes()
    made = make()
    store.put(key, {"pages": np.frombuffer(made, np.uint8)}, {"kind": "pages"})
    return made


def kept_files(store: Store, about: Mapping[str, Any], make: Callable[[], Mapping[str, bytes]]) -> Mapping[str, bytes]:
    """Files by name that `make` encodes, from the store where the same ones were encoded before.

    Args:
        about: JSON values that tell what they depend on besides code and libraries.
    """
    key = key_of("encoded", about=dict(about), code=code_digest(), libraries=dict(versions_of(DRAWINGS)))
    entry = store.get(key)
    if entry is not None:
        return {name: array.tobytes() for name, array in entry.arrays.items()}
    made = make()
    store.put(key, {name: np.frombuffer(data, np.uint8) for name, data in made.items()}, {"kind": "encoded"})
    return made


@cache
def code_digest() -> str:
    """Over the source of this package: other code may draw otherwise."""
    return _digest_of(Path(reportgen.__file__).parent, "*.py")


def digest_of_module(cls: type) -> str:
    """Over the source of the module that defines `cls`, where it has any."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return _digest_of(Path(file).parent, Path(file).name) if file else ""


@cache
def _digest_of(folder: Path, pattern: str) -> str:
    digest = hashlib.sha256(reportgen.__version__.encode())
    for file in sorted(folder.rglob(pattern)):
        source = file.read_bytes()
        digest.update(f"\0{file.relative_to(folder).as_posix()}\0{len(source)}\0".encode())
        digest.update(source)
    return digest.hexdigest()


# writing
# ----------------------------------------------------------------------------------------------------------------


class _Writer:
    """Takes a drawing apart; pictures leave for the store as they come."""

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._key = key
        self._parts = 0
        self._waiting: dict[str, Array] = {}
        self._size = 0
        self._where: dict[str, int] = {}

    def write(self, made: Mapping[str, Any]) -> None:
        """Store everything. Raises _Unkeepable."""
        index = json.dumps(self._plain(made)).encode()
        if self._waiting:
            self._flush()
        self._store.put(self._key, {"index": np.frombuffer(index, np.uint8)}, {"kind": "drawn", "parts": self._parts})

    def _flush(self) -> None:
        self._store.put(_part_key(self._key, self._parts), self._waiting, {"kind": "drawn"})
        self._parts += 1
        self._waiting, self._size = {}, 0

    def _plain(self, value: Any) -> Any:
        """`value` as JSON."""
        if value is None or isinstance(value, str | int | float):
            return value
        if isinstance(value, Message):
            return {"~": "Message", "with": [value.template, self._parameters(value.parameters)]}
        if isinstance(value, Picture):
            return {"~": "Picture", "with": self._picture(value)}
        if type(value) in _KNOWN.values():
            held = [self._plain(getattr(value, field.name)) for field in fields(value)]
            return {"~": type(value).__name__, "with": held}
        if isinstance(value, Mapping):
            if "~" in value or not all(isinstance(name, str) for name in value):
                raise _Unkeepable
            return {name: self._plain(item) for name, item in value.items()}
        if isinstance(value, Iterable):
            return [self._plain(item) for item in value]
        raise _Unkeepable

    def _parameters(self, parameters: Mapping[str, object]) -> dict[str, Any]:
        for value in parameters.values():
            # words are made of them by `str.format`, which tells a list from a tuple and an array from both
            if value is not None and type(value) not in (str, int, float, bool, Message):
                raise _Unkeepable
        return {name: self._plain(value) for name, value in parameters.items()}

    def _picture(self, picture: Picture) -> list[Any]:
        over = None if picture.over is None else self._plain(picture.over)
        rest = [picture.media, picture.width, picture.height, picture.pixelated, over]
        data = picture.data
        if picture.media == "image/svg+xml" and len(data) <= SMALL:
            return [data.decode("utf-8"), 0, *rest]
        if picture.sha256 not in self._where:
            self._where[picture.sha256] = self._parts
            self._waiting[picture.sha256] = np.frombuffer(data, np.uint8)
            self._size += len(data)
            if self._size >= PART:
                self._flush()
        return [picture.sha256, 1 + self._where[picture.sha256], *rest]


def _part_key(key: str, part: int) -> str:
    return key_of("pictures", of=key, part=part)


# reading
# ----------------------------------------------------------------------------------------------------------------


def _read(store: Store, key: str) -> Mapping[str, Any] | None:
    """A drawing as it was written; None unless all of it is there."""
    entry = store.get(key)
    if entry is None:
        return None
    parts: list[Opened] = []
    for part in range(entry.facts["parts"]):
        opened = store.open(_part_key(key, part))
        if opened is None:
            return None
        parts.append(opened)

    def restored(value: dict[str, Any]) -> Any:
        kind = value.get("~")
        if kind is None:
            return value
        if kind == "Message":
            template, parameters = value["with"]
            return Message(template, MappingProxyType(parameters))
        if kind == "Picture":
            where, part, *rest = value["with"]
            return Picture(Kept(parts[part - 1], where) if part else where.encode("utf-8"), *rest)
        return _KNOWN[kind](*(tuple(item) if isinstance(item, list) else item for item in value["with"]))

    found: Mapping[str, Any] = json.loads(entry.arrays["index"].tobytes(), object_hook=restored)
    return found
