"""The file formats that weights come in, opened without running anything in them.

A zip archive of torch (``data.pkl`` and raw records), torch's older single-stream format, and safetensors.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reportgen.errors import ModelFileError, UnsafeModelError
from reportgen.subject.safe_pickle import (
    MOST_BYTES,
    ForbiddenGlobal,
    MalformedPickle,
    Name,
    StorageSpec,
    TensorSpec,
    read_pickle,
)

DTYPES: Mapping[str, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
_PROGRAM = ("code/", "constants.pkl", "models/", "archive_format", "serialized_exported_program")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


@dataclass
class Container:
    """An opened file: its object tree and the bytes of its storages.

    Attributes:
        kind: ``zip``, ``legacy`` or ``safetensors``.
        root: dictionaries, lists, numbers, words, `TensorSpec`, `Inert` (for safetensors: names to tensors).
        metadata: words that stand beside the tensors (safetensors).
    """

    kind: str
    root: Any
    metadata: Mapping[str, str]
    _records: Mapping[str, bytes] | _ZipRecords | None = None
    _cache: dict[str, torch.Tensor] | None = None

    def tensor(self, spec: TensorSpec | Tensor) -> Tensor:
        """The real tensor; shares memory with others of its storage. Raises ModelFileError if it reaches beyond its
        storage.
        """
        if isinstance(spec, Tensor):
            return spec
        assert self._records is not None
        if self._cache is None:
            self._cache = {}
        raw = self._cache.get(spec.storage.key)
        if raw is None:
            data = bytearray(self._records[spec.storage.key])
            raw = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
            self._cache[spec.storage.key] = raw
        dtype = DTYPES.get(spec.dtype or spec.storage.dtype)
        if dtype is None:
            raise ModelFileError(
                f"the file holds tensors of type {spec.dtype}, which are not supported", "save it as float32"
            )
        if 0 in spec.size:
            return torch.empty(spec.size, dtype=dtype)
        last = spec.offset + sum((side - 1) * step for side, step in zip(spec.size, spec.stride, strict=True))
        if (last + 1) * dtype.itemsize > raw.numel() or prod(spec.size) > raw.numel():
            raise ModelFileError("the file is damaged: a tensor reaches beyond its bytes", "get the file again")
        elements = raw[: raw.numel() // dtype.itemsize * dtype.itemsize].view(dtype)
        return elements.as_strided(spec.size, spec.stride, spec.offset)


class _ZipRecords(Mapping[str, bytes]):
    """Raw records of a torch archive; the zip layer checks their CRC."""

    def __init__(self, archive: zipfile.ZipFile, names: Mapping[str, zipfile.ZipInfo]) -> None:
        self._archive = archive
        self._names = names

    def __getitem__(self, key: str) -> bytes:
        try:
            return self._archive.read(self._names[key])
        except (KeyError, zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
            raise ModelFileError(
                f"the file is damaged: record {key[:40]!r} cannot be read ({error})", "get the file again"
            ) from None

    def __iter__(self) -> Any:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def open_container(path: Path, shown: str) -> Container:
    """Open a weights file by what it is, not by what it is called.

    Args:
        shown: the file's name for messages.

    Raises:
        ModelFileError: if it is none of the formats, or damaged.
        UnsafeModelError: if opening it could run code: a program (TorchScript, exported program) or a pickle that names
            what no weights need.
    """
    size = path.stat().st_size
    if size == 0:
        raise ModelFileError(f"{shown!r} is empty", "get the file again")
    with path.open("rb") as file:
        head = file.read(16)
    try:
        if head[:4] == b"PK\x03\x04":
            return _open_zip(path, shown, size)
        if _looks_like_safetensors(head, size):
            return _open_safetensors(path, shown)
        if head[:1] == b"\x80" or head[:1] in b"(cl]}":
            return _open_legacy(path, shown, size)
    except ForbiddenGlobal as error:
        raise UnsafeModelError(
            f"opening {shown!r} could run code: it names {error.name}, which is not needed to read weights",
            "if you trust its author, add --trust-model; better, ask for a state dict (.safetensors)",
        ) from None
    except MalformedPickle as error:
        raise ModelFileError(f"{shown!r} is damaged: {error}", "get the file again") from None
    except zipfile.BadZipFile as error:
        raise ModelFileError(f"{shown!r} is a damaged archive: {error}", "get the file again") from None
    raise ModelFileError(
        f"{shown!r} is {_what(head)}, not a PyTorch model", "give a .pt, .pth, .ckpt or .safetensors file"
    )


def _what(head: bytes) -> str:
    known = {
        b"\xff\xd8\xff": "a JPEG image",
        b"\x89PNG": "a PNG image",
        b"%PDF": "a PDF document",
        b"\x1f\x8b": "a gzip archive",
        b"GIF8": "a GIF image",
        b"\x89HDF": "an HDF5 file (Keras?)",
        b"<!DO": "an HTML page",
        b"<htm": "an HTML page",
        b"vers": "a pointer to a file in Git LFS",
    }
    return next((words for magic, words in known.items() if head.startswith(magic)), "a file of an unknown format")


# zip
# -------------------------------------------------------------------------------------------------------------------


def _open_zip(path: Path, shown: str, size: int) -> Container:
    archive = zipfile.ZipFile(path)
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if len(set(names)) != len(names):
        raise ModelFileError(f"{shown!r} is a damaged archive: it holds two records of one name", "get the file again")
    for info in infos:
        if (
            info.file_size > size
            or info.compress_size > size
            or (info.compress_type != zipfile.ZIP_STORED and info.file_size > 2**26)
        ):
            raise ModelFileError(
                f"{shown!r} is a damaged archive: a record is larger than the file", "get the file again"
            )
    inside = {name.partition("/")[2] for name in names}
    if any(name.startswith(_PROGRAM) for name in inside):
        program = "a TorchScript program" if "constants.pkl" in inside else "an exported program"
        raise UnsafeModelError(
            f"{shown!r} is {program}: opening it means running its code",
            "if you trust its author, add --trust-model; better, ask for a state dict (.safetensors)",
        )
    pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise ModelFileError(
            f"{shown!r} is a zip archive without weights of PyTorch", "give a .pt, .pth, .ckpt or .safetensors file"
        )
    root = pickles[0].removesuffix("data.pkl")
    if archive.getinfo(pickles[0]).file_size > MOST_BYTES:
        raise ModelFileError(
            f"{shown!r} has {archive.getinfo(pickles[0]).file_size >> 20} MB of names", "it is no weights file"
        )
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise ModelFileError(f"{shown!r} was written on a big-endian machine", "save it again on a usual one")
    records = {
        name.removeprefix(f"{root}data/"): info
        for name, info in zip(names, infos, strict=True)
        if name.startswith(f"{root}data/")
    }

    def storage(pid: Any) -> StorageSpec:
        spec = _storage_of(pid)
        if spec.key not in records:
            raise MalformedPickle(f"record {spec.key[:40]!r} is missing")
        if spec.count * DTYPES[spec.dtype].itemsize > records[spec.key].file_size:
            raise MalformedPickle(f"record {spec.key[:40]!r} is too short")
        return spec

    tree = read_pickle(io.BytesIO(archive.read(pickles[0])), storage)
    return Container("zip", tree, {}, _ZipRecords(archive, records))


def _storage_of(pid: Any) -> StorageSpec:
    """('storage', type, key, location, count[, view]) as torch writes it."""
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], Name):
        raise MalformedPickle("a reference to something that is no storage")
    dtype = _STORAGES.get(pid[1].path.rpartition(".")[2])
    if dtype is None or type(pid[4]) is not int or pid[4] < 0:
        raise MalformedPickle(f"a storage of the unknown type {pid[1].path}")
    return StorageSpec(str(pid[2]), dtype, pid[4])


# legacy
# ----------------------------------------------------------------------------------------------------------------


def _open_legacy(path: Path, shown: str, size: int) -> Container:
    with path.open("rb") as file:
        magic = read_pickle(file, _refused)
        if magic != _LEGACY_MAGIC:
            raise UnsafeModelError(
                f"{shown!r} is a plain pickle, not a file of torch.save: only unpickling it, which could run code, "
                f"would tell more",
                "if you trust its author, add --trust-model; better, ask for a state dict (.safetensors)",
            )
        read_pickle(file, _refused)  # protocol
        read_pickle(file, _refused)  # sizes of the writing machine
        specs: dict[str, StorageSpec] = {}

        def storage(pid: Any) -> StorageSpec | Name:
            if isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module" and isinstance(pid[1], Name):
                return pid[1]  # a class, with its source for comparison; the source is not looked at
            spec = _storage_of(pid)
            if len(pid) > 5 and pid[5] is not None:
                raise MalformedPickle("views of storages, which torch stopped writing in 2018")
            return specs.setdefault(spec.key, spec)

        tree = read_pickle(file, storage)
        order = read_pickle(file, _refused)
        if not isinstance(order, list):
            raise MalformedPickle("no list of storages")
        records: dict[str, bytes] = {}
        for key in map(str, order):
            count = int.from_bytes(file.read(8), "little", signed=True)
            spec = specs.get(key)
            if spec is None or count < 0 or count * DTYPES[spec.dtype].itemsize > size:
                raise MalformedPickle(f"storage {key[:40]!r} does not fit")
            records[key] = file.read(count * DTYPES[spec.dtype].itemsize)
            if len(records[key]) < count * DTYPES[spec.dtype].itemsize:
                raise MalformedPickle("truncated")
    if missing := set(specs) - set(records):
        raise MalformedPickle(f"storage {min(missing)[:40]!r} is missing")
    return Container("legacy", tree, {}, records)


def _refused(_pid: Any) -> StorageSpec:
    raise MalformedPickle("a storage where none can be")


# safetensors
# -----------------------------------------------------------------------------------------------------------


def _looks_like_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return len(head) >= 10 and 2 <= length <= min(size - 8, 100_000_000) and head[8:9] == b"{"


def _open_safetensors(path: Path, shown: str) -> Container:
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
            metadata = dict(opened.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError, json.JSONDecodeError) as error:
        raise ModelFileError(f"{shown!r} is damaged: {str(error)[:120]}", "get the file again") from None
    return Container("safetensors", tensors, metadata)
