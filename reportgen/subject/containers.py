"""The file formats that weights come in, opened without running anything in them.

A zip archive of torch (``data.pkl`` and raw records), torch's older single-stream format, and safetensors.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from reportgen.errors import ModelFileError
from reportgen.subject.kinds import MOST_DIRECTORY, directory_size, kind_of_file, program_among
from reportgen.subject.refusals import not_ours, plain_pickle, program, unreadable
from reportgen.subject.safe_pickle import MOST_BYTES, read_pickle
from reportgen.subject.stand_ins import (
    MOST_DIMENSIONS,
    MOST_LETTERS,
    ForbiddenGlobal,
    MalformedPickle,
    Name,
    StorageSpec,
    TensorSpec,
    UnsupportedTensor,
)
from reportgen.text import counted

MOST_TENSORS = 50_000
"""The classifier with most parts has some two thousand."""
_MOST_HEADER = 2**25
_MOST_COMPRESSED = 16
_SLACK = 2**26
_BROADCAST = 2**20

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
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
}
_MARK_OF_TAR = 257
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


@dataclass
class Container:
    """An opened file: its object tree and the bytes of its storages.

    Attributes:
        kind: ``zip``, ``legacy`` or ``safetensors``.
        root: dictionaries, lists, numbers, words, `TensorSpec`, `Inert` (for safetensors: names to tensors).
        metadata: words that stand beside the tensors (safetensors).
        records: bytes of the storages by their keys.
        sizes: how many bytes those are.
        foreign: names of other packages that stand-ins took the place of.
    """

    kind: str
    root: Any
    metadata: Mapping[str, str]
    records: Mapping[str, bytes] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()
    _cache: dict[str, torch.Tensor] = field(default_factory=dict)

    def check(self, specs: Iterable[TensorSpec | Tensor]) -> None:
        """Look, before memory is asked for, whether tensors have the bytes that their shapes claim.

        Views of one storage are usual (tied weights), a thousand views of everything are not.

        Raises:
            ModelFileError: if one reaches beyond its storage, or all together beyond what views can explain.
        """
        described = [spec for spec in specs if isinstance(spec, TensorSpec)]
        claimed = sum(prod(spec.size) * self._room(spec) for spec in described)
        if claimed > 4 * sum(self.sizes.values()) + _SLACK:
            raise ModelFileError("the file is damaged: its tensors claim more than its bytes", "get the file again")
        for spec in described:
            self._within(spec)

    def tensor(self, spec: TensorSpec | Tensor) -> Tensor:
        """The real tensor; shares memory with others of its storage. Raises ModelFileError if it reaches beyond its
        storage.
        """
        if isinstance(spec, Tensor):
            return spec
        self._within(spec)
        dtype = self._type(spec)
        if 0 in spec.size:
            return torch.empty([min(side, 1) for side in spec.size], dtype=dtype).expand(spec.size)
        raw = self._cache.get(spec.storage.key)
        if raw is None:
            raw = torch.frombuffer(bytearray(self.records[spec.storage.key]), dtype=torch.uint8)
            self._cache[spec.storage.key] = raw
        elements = raw[: raw.numel() // dtype.itemsize * dtype.itemsize].view(dtype)
        return elements.as_strided(spec.size, spec.stride, spec.offset)

    def _within(self, spec: TensorSpec) -> None:
        if 0 in spec.size:
            return
        there = self.sizes[spec.storage.key]
        last = spec.offset + sum((side - 1) * step for side, step in zip(spec.size, spec.stride, strict=True))
        if (last + 1) * self._type(spec).itemsize > there or prod(spec.size) > max(there, _BROADCAST):
            raise ModelFileError("the file is damaged: a tensor reaches beyond its bytes", "get the file again")

    def _room(self, spec: TensorSpec) -> int:
        """Bytes that one number takes in the network, which computes in float32."""
        kind = self._type(spec)
        return max(kind.itemsize, 4) if kind.is_floating_point else kind.itemsize

    def _type(self, spec: TensorSpec) -> torch.dtype:
        name = spec.dtype or spec.storage.dtype
        if name not in DTYPES:
            raise ModelFileError(f"the file holds tensors of type {name}, which are not read", "save it as float32")
        return DTYPES[name]


class _ZipRecords(Mapping[str, bytes]):
    """Raw records of a torch archive; the zip layer checks their CRC."""

    def __init__(self, archive: zipfile.ZipFile, names: Mapping[str, zipfile.ZipInfo]) -> None:
        self._archive = archive
        self._names = names

    def __getitem__(self, key: str) -> bytes:
        try:
            return _record(self._archive, self._names[key])
        except Exception as error:  # whatever the archive's bytes make of zipfile and zlib
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
        head = file.read(_MARK_OF_TAR + 5)
    bare = head[:1] in b"(cl]}"  # so begin the oldest pickles, and many texts
    try:
        if head[_MARK_OF_TAR:] == b"ustar":
            raise ModelFileError(
                f"{shown!r} is a tar archive: PyTorch has not written such files since 2017",
                "save it again with today's PyTorch",
            )
        if head[:4] == b"PK\x03\x04":
            return _open_zip(path, shown, size)
        if _looks_like_safetensors(head[:16], size):
            return _open_safetensors(path, shown)
        if head[:1] == b"\x80" or bare:
            return _open_legacy(path, shown, size)
    except (ForbiddenGlobal, MalformedPickle) as error:
        raise unreadable(error, path, shown, bare=bare) from None
    except UnsupportedTensor as error:
        raise ModelFileError(
            f"{shown!r} holds {error} tensors, which are not read", "save its weights as plain float32 tensors"
        ) from None
    raise not_ours(kind_of_file(path), shown)


# zip
# -------------------------------------------------------------------------------------------------------------------


def _record(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """One record, and no more than the directory says: a compressed one may expand to anything."""
    with archive.open(info) as record:
        data = record.read(info.file_size)
    if len(data) < info.file_size:
        raise zipfile.BadZipFile("truncated")
    return data


def _opened(path: Path, shown: str, size: int) -> zipfile.ZipFile:
    """The archive, once its directory was found plausible: no record larger than the file, none within another."""
    try:
        if (directory_size(path) or 0) > MOST_DIRECTORY:
            raise zipfile.BadZipFile("its directory is larger than any of weights")
        archive = zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises half a dozen kinds for a damaged directory
        raise ModelFileError(f"{shown!r} is a damaged archive: {error}", "get the file again") from None
    infos = archive.infolist()
    stored = [info for info in infos if info.compress_type == zipfile.ZIP_STORED]
    problem = None
    if len({info.filename for info in infos}) != len(infos):
        problem = "it holds two records of one name"
    elif any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in infos):
        problem = "a record is compressed in an unusual way"
    elif any(info.flag_bits & 1 for info in infos):
        problem = "a record is encrypted"
    elif any(info.file_size != info.compress_size for info in stored) or any(info.file_size > size for info in stored):
        problem = "a record is larger than the file"
    elif sum(info.compress_size for info in infos) > size:
        problem = "its records lie within each other"
    elif sum(info.file_size for info in infos) > _MOST_COMPRESSED * size + _SLACK:
        problem = "it expands to many times its size"
    if problem:
        archive.close()
        raise ModelFileError(f"{shown!r} is a damaged archive: {problem}", "get the file again")
    return archive


def _open_zip(path: Path, shown: str, size: int) -> Container:
    archive = _opened(path, shown, size)
    try:
        return _read_zip(archive, path, shown)
    except (ModelFileError, MalformedPickle, ForbiddenGlobal, UnsupportedTensor):
        archive.close()
        raise
    except Exception as error:
        archive.close()
        raise ModelFileError(f"{shown!r} is a damaged archive: {error}", "get the file again") from None


def _read_zip(archive: zipfile.ZipFile, path: Path, shown: str) -> Container:
    infos = archive.infolist()
    names = [info.filename for info in infos]
    kind = program_among(names)
    if kind is not None:
        raise program(kind, shown)
    pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise not_ours(kind_of_file(path), shown)
    root = pickles[0].removesuffix("data.pkl")
    if archive.getinfo(pickles[0]).file_size > MOST_BYTES:
        raise ModelFileError(
            f"{shown!r} has {archive.getinfo(pickles[0]).file_size >> 20} MB of names", "it is no weights file"
        )
    if f"{root}byteorder" in names and _record(archive, archive.getinfo(f"{root}byteorder")) != b"little":
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

    foreign: set[str] = set()
    tree = read_pickle(io.BytesIO(_record(archive, archive.getinfo(pickles[0]))), storage, foreign=foreign)
    sizes = {key: info.file_size for key, info in records.items()}
    return Container("zip", tree, {}, _ZipRecords(archive, records), sizes, tuple(sorted(foreign)))


def _storage_of(pid: Any) -> StorageSpec:
    """('storage', type, key, location, count[, view]) as torch writes it."""
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], Name):
        raise MalformedPickle("a reference to something that is no storage")
    dtype = _STORAGES.get(pid[1].path.rpartition(".")[2])
    if dtype is None or type(pid[4]) is not int or pid[4] < 0:
        raise MalformedPickle(f"a storage of the unknown type {pid[1].path}")
    if not isinstance(pid[2], str) or len(pid[2]) > MOST_LETTERS:
        raise MalformedPickle("a storage without a name")
    return StorageSpec(pid[2], dtype, pid[4])


# legacy
# ----------------------------------------------------------------------------------------------------------------


def _open_legacy(path: Path, shown: str, size: int) -> Container:
    with path.open("rb") as file:
        magic = read_pickle(file, _refused, size, set())
        if magic != _LEGACY_MAGIC:
            raise plain_pickle(magic, shown)
        read_pickle(file, _refused, size)  # protocol
        read_pickle(file, _refused, size)  # sizes of the writing machine; the storages are little-endian on all
        specs: dict[str, StorageSpec] = {}

        def storage(pid: Any) -> StorageSpec | Name:
            if isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module" and isinstance(pid[1], Name):
                return pid[1]  # a class, with its source for comparison; the source is not looked at
            spec = _storage_of(pid)
            if len(pid) > 5 and pid[5] is not None:
                raise MalformedPickle("views of storages, which torch stopped writing in 2018")
            return specs.setdefault(spec.key, spec)

        foreign: set[str] = set()
        tree = read_pickle(file, storage, size, foreign)
        order = read_pickle(file, _refused, size)
        if not isinstance(order, list) or not all(isinstance(key, str) for key in order):
            raise MalformedPickle("no list of storages")
        records: dict[str, bytes] = {}
        for key in order:
            count = int.from_bytes(file.read(8), "little", signed=True)
            spec = specs.get(key)
            if spec is None or count < 0 or count * DTYPES[spec.dtype].itemsize > size:
                raise MalformedPickle(f"storage {key[:40]!r} does not fit")
            records[key] = file.read(count * DTYPES[spec.dtype].itemsize)
            if len(records[key]) < count * DTYPES[spec.dtype].itemsize:
                raise MalformedPickle("truncated")
    if missing := set(specs) - set(records):
        raise MalformedPickle(f"storage {min(missing)[:40]!r} is missing")
    sizes = {key: len(data) for key, data in records.items()}
    return Container("legacy", tree, {}, records, sizes, tuple(sorted(foreign)))


def _refused(_pid: Any) -> StorageSpec:
    raise MalformedPickle("a storage where none can be")


# safetensors
# -----------------------------------------------------------------------------------------------------------


def _looks_like_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return len(head) >= 10 and 2 <= length <= min(size - 8, 100_000_000) and head[8:9] == b"{"


def _open_safetensors(path: Path, shown: str) -> Container:
    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > _MOST_HEADER:
            raise ModelFileError(f"{shown!r} has more names than weights", "it is no weights file")
    try:
        with safe_open(path, framework="pt") as opened:
            names = list(opened.keys())
            if len(names) > MOST_TENSORS:
                raise ModelFileError(f"{shown!r} holds {counted(len(names), 'tensor')}", "it is no image classifier")
            tensors = {name: opened.get_tensor(name) for name in names}
            metadata = dict(opened.metadata() or {})
        if any(tensor.dim() > MOST_DIMENSIONS for tensor in tensors.values()):
            raise ModelFileError(f"{shown!r} is damaged: a tensor of too many sides", "get the file again")
    except ModelFileError:
        raise
    except Exception as error:  # of the library: its own kind, and those of torch for types it does not know
        raise ModelFileError(f"{shown!r} is damaged: {str(error)[:120]}", "get the file again") from None
    return Container("safetensors", tensors, metadata)
