"""Weights spread over several files, with an index that tells which file holds which (the convention of Hugging Face).

The index is JSON: ``{"metadata": …, "weight_map": {key: file name}}``. The files lie beside it, as safetensors or as
files of torch.save. What tells the files of a model, and their digest, imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.errors import ModelFileError
from reportgen.subject.stand_ins import TensorSpec

if TYPE_CHECKING:
    from reportgen.subject.containers import Container

INDEX = ".index.json"
_MOST_FILES = 1000
_MOST_INDEX = 2**25
PART = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})(?P<suffix>\.[a-z]+)")


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that a model is in: itself, or an index with the files that it names, in the order of their names.

    Raises:
        ModelFileError: if the index is damaged, or a file that it names is not beside it.
    """
    if not path.name.endswith(INDEX):
        return (path,)
    return (path, *(path.parent / name for name in sorted(set(_index(path, path.name).values()))))


def digest_of_model(path: Path, sha256: Callable[[Path], str]) -> str:
    """SHA-256 of a model's file; of the names and digests of all of them where there are several.

    Args:
        sha256: digest of one file.

    Raises:
        ModelFileError: as `files_of`.
        OSError: if one cannot be read.
    """
    files = files_of(path)
    if len(files) == 1:
        return sha256(path)
    return hashlib.sha256("".join(f"{sha256(file)}  {file.name}\n" for file in files).encode()).hexdigest()


def whole_of(path: Path) -> Path | None:
    """The index beside one of several files that belong together; None for every other file."""
    part = PART.fullmatch(path.name)
    if part is None or int(part["count"]) < 2:
        return None
    index = path.with_name(f"{part['stem']}{part['suffix']}{INDEX}")
    return index if index.is_file() else None


def _index(path: Path, shown: str) -> dict[str, str]:
    """Keys to names of files, all of which are there."""
    if path.stat().st_size > _MOST_INDEX:
        raise ModelFileError(f"{shown!r} has more names than any weights do", "it is no index of a model's files")
    try:
        table = json.loads(path.read_bytes())["weight_map"]
        plain = all(isinstance(key, str) and _is_plain(name) for key, name in table.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        plain = False
    if not plain or not table:
        raise ModelFileError(f"{shown!r} is no index of a model's files: it has no weight_map", "get the file again")
    names = sorted(set(table.values()))
    if len(names) > _MOST_FILES:
        raise ModelFileError(f"{shown!r} names {len(names)} files", "it is no index of an image classifier")
    for name in names:
        if not (path.parent / name).is_file():
            raise ModelFileError(
                f"{shown!r} needs {name!r}, which is not beside it", f"put all {len(names)} files into one folder"
            )
    return dict(table)


def _is_plain(name: Any) -> bool:
    """A file's own name: no folder is left by it."""
    return isinstance(name, str) and bool(re.fullmatch(r"[\w-][\w.-]{0,200}", name)) and not name.endswith(INDEX)


def open_weights(path: Path, shown: str) -> Container:
    """A weights file, or all files of an index as one.

    Raises:
        ModelFileError: if a file is missing or damaged, is a part of a whole, or lacks a weight that the index says it
            has.
        UnsafeModelError: if opening one could run code.
    """
    from reportgen.subject.containers import open_container

    if path.name.endswith(INDEX):
        return _open_shards(path, shown)
    whole = whole_of(path)
    if whole is not None:
        raise ModelFileError(f"{shown!r} is one part of a model", f"give {whole.name!r}, which lies beside it")
    return open_container(path, shown)


def _open_shards(path: Path, shown: str) -> Container:
    from reportgen.subject.containers import Container, open_container

    table = _index(path, shown)
    tree: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    records: dict[str, Mapping[str, bytes]] = {}
    sizes: dict[str, int] = {}
    kinds: set[str] = set()
    foreign: set[str] = set()
    for name in sorted(set(table.values())):
        part = open_container(path.parent / name, name)
        kinds.add(part.kind)
        foreign.update(part.foreign)
        wanted = [key for key, file in table.items() if file == name]
        if not isinstance(part.root, dict) or (missing := [key for key in wanted if key not in part.root]):
            what = f"{missing[0]!r}" if isinstance(part.root, dict) else "weights"
            raise ModelFileError(f"{name!r} lacks {what}, which {shown!r} says it holds", "get the files again")
        metadata |= part.metadata
        tree |= {key: _moved(part.root[key], name) for key in wanted}
        records[name] = part.records
        sizes |= {f"{name}/{key}": size for key, size in part.sizes.items()}
    kind = "safetensors" if kinds == {"safetensors"} else min(kinds - {"safetensors"})
    return Container(kind, tree, metadata, _Together(records), sizes, tuple(sorted(foreign)))


def _moved(value: Any, file: str) -> Any:
    """The same tensor with its storage named by its file."""
    if not isinstance(value, TensorSpec):
        return value
    return replace(value, storage=replace(value.storage, key=f"{file}/{value.storage.key}"))


@dataclass(frozen=True)
class _Together(Mapping[str, bytes]):
    """Records of several files under ``file/key``."""

    files: Mapping[str, Mapping[str, bytes]]

    def __getitem__(self, key: str) -> bytes:
        file, _slash, inner = key.partition("/")
        return self.files[file][inner]

    def __iter__(self) -> Iterator[str]:
        return (f"{file}/{key}" for file, inner in self.files.items() for key in inner)

    def __len__(self) -> int:
        return sum(len(inner) for inner in self.files.values())
