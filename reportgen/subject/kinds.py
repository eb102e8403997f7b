"""What a file or folder is that holds no weights of PyTorch (a program, or nothing of it), and what to do about it.

Told by the first bytes, by the names in an archive, and by what lies in a folder; never by what a file is called, but
where nothing else tells. Nothing is opened that could run code. Imports no torch.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

GIVE = "give a .pt, .pth, .ckpt or .safetensors file"
_ORIGINAL = "give the PyTorch model that it was made from"
_AGAIN = "get the file again: this is what the server answered instead"
_UNPACK = "unpack it, and give the model file in it"
_HEAD = 4096
MOST_DIRECTORY = 2**23
_PROGRAM = ("code/", "constants.pkl", "models/", "archive_format", "serialized_exported_program")
_WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".pkl", ".pt2")


@dataclass(frozen=True)
class Kind:
    """What something is.

    Attributes:
        what: with its article, for example ``a JPEG image``.
        remedy: what to give instead.
    """

    what: str
    remedy: str = GIVE


UNKNOWN = Kind("a file of an unknown format")
_STARTS: Sequence[tuple[bytes, Kind]] = (
    (b"\xff\xd8\xff", Kind("a JPEG image")),
    (b"\x89PNG", Kind("a PNG image")),
    (b"GIF8", Kind("a GIF image")),
    (b"BM", Kind("a BMP image")),
    (b"II*\x00", Kind("a TIFF image")),
    (b"MM\x00*", Kind("a TIFF image")),
    (b"%PDF", Kind("a PDF document")),
    (b"\x89HDF", Kind("an HDF5 file, as Keras writes models", _ORIGINAL)),
    (b"GGUF", Kind("a GGUF file, as llama.cpp reads language models", "give an image classifier")),
    (b"lmgg", Kind("a GGML file, as whisper.cpp and llama.cpp read", "give an image classifier")),
    (b"ftrt", Kind("an engine of TensorRT", _ORIGINAL)),
    (b"RKNN", Kind("a model of RKNN", _ORIGINAL)),
    (b"\x93NUMPY", Kind("an array of NumPy")),
    (b"\x1f\x8b", Kind("a gzip archive", _UNPACK)),
    (b"BZh", Kind("a bzip2 archive", _UNPACK)),
    (b"\xfd7zXZ", Kind("an xz archive", _UNPACK)),
    (b"\x28\xb5\x2f\xfd", Kind("a Zstandard archive", _UNPACK)),
    (b"7z\xbc\xaf", Kind("a 7-Zip archive", _UNPACK)),
    (b"Rar!", Kind("a RAR archive", _UNPACK)),
    (b"SQLite format 3", Kind("a database of SQLite")),
    (b"\x7fELF", Kind("a program for Linux")),
    (b"MZ", Kind("a program for Windows")),
    (b"\x00\x00\x00\x0cJXL ", Kind("a JPEG XL image")),
    (b"version https://git-lfs", Kind("a pointer to a file in Git LFS", "fetch the file itself: git lfs pull")),
)
_INSIDE: Sequence[tuple[int, bytes, Kind]] = (
    (4, b"TFL3", Kind("a TensorFlow Lite model", _ORIGINAL)),
    (4, b"ET12", Kind("a program of ExecuTorch", _ORIGINAL)),
    (8, b"WEBP", Kind("a WebP image")),
    (4, b"ftyp", Kind("a video, or an image in HEIF or AVIF")),
)


def kind_of_file(path: Path) -> Kind:
    """What a file is that is none of PyTorch's. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[:4] == b"PK\x03\x04":
        return _kind_of_archive(path)
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    for place, mark, kind in _INSIDE:
        if head[place : place + len(mark)] == mark:
            return kind
    if _is_onnx(head):
        return Kind("an ONNX model", _ORIGINAL)
    if is_text(head):
        return _kind_of_text(head, path)
    if path.suffix == ".distcp":
        return _DISTRIBUTED
    if path.suffix == ".pb":
        return Kind("a graph of TensorFlow", _ORIGINAL)
    if path.suffix == ".mlmodel":
        return Kind("a model of Core ML", _ORIGINAL)
    return UNKNOWN


def _is_onnx(head: bytes) -> bool:
    """Field 1, the version, is a small number; field 2, the producer, is a short word. Nothing else in it is fixed."""
    if len(head) < 8 or head[0] != 0x08 or not 0 < head[1] < 64:
        return False
    if head[2] == 0x12 and 0 < head[3] <= 40:
        return head[4 : 4 + head[3]].isascii() and head[4 : 4 + head[3]].decode("ascii").isprintable()
    return head[2] == 0x3A  # without a producer the graph itself follows


def is_text(head: bytes) -> bool:
    """Whether the beginning of a file reads as text."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # a character that was cut in two is no objection
            return False
        text = head[: error.start].decode("utf-8")
    return bool(text.strip()) and all(letter.isprintable() or letter in "\t\r\n\f\ufeff" for letter in text)


def _kind_of_text(head: bytes, path: Path) -> Kind:
    text = head.decode("utf-8", "ignore").lstrip("\ufeff \t\r\n")
    low = text[:500].lower()
    if low.startswith(("<!doctype html", "<html", "<!doctype")):
        return Kind("an HTML page", _AGAIN)
    if low.startswith("<?xml") and "accessdenied" in low.replace(" ", ""):
        return Kind("a refusal in XML", _AGAIN)
    if low.startswith("<?xml") or low.startswith("<net"):
        return Kind("an XML file, as OpenVINO writes models" if "<net" in text else "an XML file", _ORIGINAL)
    if text[:1] in "{[":
        return _kind_of_json(path)
    if path.suffix == ".py" or any(word in text for word in ("import torch", "\nclass ", "\ndef ")):
        return Kind("Python source", "give the weights as the model, and the code as --arch package.module:callable")
    return Kind("a text file")


def _kind_of_json(path: Path) -> Kind:
    try:
        told = json.loads(path.read_bytes()) if path.stat().st_size < 2**25 else {}
    except (ValueError, RecursionError):
        return Kind("a text file")
    if isinstance(told, dict) and ("architectures" in told or "architecture" in told or "model_type" in told):
        return Kind("the configuration of a model, without its weights", "give the folder that it lies in")
    return Kind("a JSON file")


def directory_size(path: Path) -> int | None:
    """Bytes of a zip archive's directory, read before anything of it; None where there is none. Raises what zipfile
    makes of a damaged end.
    """
    with path.open("rb") as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    return int(end[zipfile._ECD_SIZE]) if end else None  # type: ignore[attr-defined]


def names_in_archive(path: Path) -> list[str] | None:
    """Names of the records of a zip archive; None for a damaged one, one of absurdly many, and what is none."""
    try:
        size = directory_size(path)
        if size is None or size > MOST_DIRECTORY:
            return None
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # whatever a damaged directory makes of zipfile
        return None


def program_among(names: Iterable[str]) -> str | None:
    """``torchscript`` or ``exported`` by the names of the records, None for anything else."""
    inside = {name.partition("/")[2] or name for name in names}
    if not any(name.startswith(_PROGRAM) for name in inside):
        return None
    return "torchscript" if "constants.pkl" in inside else "exported"


def program_of(path: Path) -> str | None:
    """``torchscript`` or ``exported`` for a file that is a program, None for anything else."""
    names = names_in_archive(path)
    return None if names is None else program_among(names)


def _kind_of_archive(path: Path) -> Kind:
    names = names_in_archive(path)
    if names is None:
        return Kind("a damaged zip archive", "get the file again")
    inside = set(names)
    if {"config.json", "metadata.json"} <= inside and any(name.endswith(".h5") for name in names):
        return Kind("a model of Keras", _ORIGINAL)
    if "[Content_Types].xml" in inside:
        return Kind("an Office document")
    if "MAR-INF/MANIFEST.json" in inside:
        return Kind("an archive of TorchServe", _UNPACK)
    if any("com.apple.CoreML" in name for name in names):
        return Kind("a package of Core ML", _ORIGINAL)
    if "META-INF/MANIFEST.MF" in inside:
        return Kind("a Java archive or an app for Android")
    if names and all(name.endswith(".npy") for name in names):
        return Kind("an archive of NumPy arrays", "save them as a state dict: torch.save or safetensors")
    weights = [name for name in names if name.endswith(_WEIGHTS) and not name.endswith("data.pkl")]
    if weights:
        return Kind(f"a zip archive that holds {weights[0].rpartition('/')[2]!r}", _UNPACK)
    return Kind("a zip archive without weights of PyTorch")


# folders
# ---------------------------------------------------------------------------------------------------------------

_DISTRIBUTED = Kind(
    "part of a distributed checkpoint",
    "join it first: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt",
)


def kind_of_folder(path: Path) -> Kind | None:
    """What a folder is that holds no weights in one file; None where nothing tells."""
    names = {file.name for file in path.iterdir()}
    if ".metadata" in names and any(name.endswith(".distcp") for name in names):
        return Kind("a distributed checkpoint", _DISTRIBUTED.remedy)
    if "zero_to_fp32.py" in names:
        return Kind("a checkpoint of DeepSpeed", "join it first with the zero_to_fp32.py in it")
    if "saved_model.pb" in names:
        return Kind("a SavedModel of TensorFlow", _ORIGINAL)
    if "Manifest.json" in names and path.suffix == ".mlpackage":
        return Kind("a package of Core ML", _ORIGINAL)
    if {"data.pkl", "version"} <= names:
        return Kind("an unpacked file of torch.save", "give the file itself, before it was unpacked")
    if any(name.endswith(".onnx") for name in names):
        return Kind("a folder with an ONNX model", _ORIGINAL)
    return None
