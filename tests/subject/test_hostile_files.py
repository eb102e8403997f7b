"""Files made to do harm: nothing of them runs, nothing hangs or fills memory, and every refusal is two lines."""

from __future__ import annotations

import contextlib
import io
import pickle
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from reportgen.errors import ModelFileError, ReportgenError, UnsafeModelError
from reportgen.subject.contents import read_contents
from reportgen.subject.model_file import open_model

MOST_MEMORY = 300_000_000
"""Bytes that refusing one of these small files may take."""


@contextlib.contextmanager
def modest() -> Iterator[None]:
    """Python's memory stays within bounds."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


def zipped(path: Path, pickled: bytes, **records: bytes) -> Path:
    """A file in the form of torch.save around a pickle of one's own."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickled)
        archive.writestr("m/version", "3\n")
        for key, data in records.items():
            archive.writestr(f"m/data/{key}", data)
    return path


def name(module: str, qualname: str) -> bytes:
    return b"c" + module.encode() + b"\n" + qualname.encode() + b"\n"


def text(words: str) -> bytes:
    return b"X" + struct.pack("<I", len(words.encode())) + words.encode()


TOUCH = text("touch {}")
CALLS = {
    "os.system": name("os", "system") + TOUCH + b"\x85R.",
    "posix.system": name("posix", "system") + TOUCH + b"\x85R.",
    "builtins.eval": name("builtins", "eval") + text("__import__('os').system('touch {}')") + b"\x85R.",
    "subprocess.Popen": name("subprocess", "Popen") + TOUCH + b"\x85R.",
    "runpy": name("runpy", "run_path") + TOUCH + b"\x85R.",
    "partial": name("functools", "partial") + name("os", "system") + TOUCH + b"\x86R)R.",
    "attrgetter": name("operator", "attrgetter") + text("system") + b"\x85R" + name("os", "path") + b"\x85R.",
    "importlib": name("importlib", "import_module") + text("os") + b"\x85R.",
    "through torch": name("torch.serialization", "os.system") + TOUCH + b"\x85R.",
    "getattr": name("builtins", "getattr") + name("os", "path") + text("os") + b"\x86R.",
    "getattr of a library": name("builtins", "getattr") + name("torch.nn", "Module") + text("__init__") + b"\x86R.",
    "getattr of a list": name("builtins", "getattr") + b"]" + text("append") + b"\x86R.",
    "marshal": name("marshal", "loads") + text("x") + b"\x85R.",
    "ctypes": name("ctypes", "CDLL") + text("libc.so.6") + b"\x85R.",
    "pty": name("pty", "spawn") + TOUCH + b"\x85R.",
    "INST": b"(" + TOUCH + b"ios\nsystem\n.",
    "OBJ": b"(" + name("os", "system") + TOUCH + b"o.",
    "NEWOBJ": name("subprocess", "Popen") + TOUCH + b"\x85\x81.",
    "STACK_GLOBAL": b"\x80\x04" + text("os") + text("system") + b"\x93" + TOUCH + b"\x85R.",
    "EXT": b"\x82\x01.",
}


@pytest.mark.parametrize("call", CALLS)
def test_no_call_is_made(call: str, tmp_path: Path) -> None:
    mark = tmp_path / "done"
    words = CALLS[call]
    if TOUCH in words:
        words = words.replace(TOUCH, text(f"touch {mark}"))
    path = zipped(tmp_path / "m.pt", words)
    with pytest.raises(UnsafeModelError) as caught:
        read_contents(path, "m.pt")
    assert len(str(caught.value).splitlines()) == 2
    assert "--trust-model" in str(caught.value)
    assert not mark.exists()


def test_a_dotted_name_within_a_library_stays_a_name(tmp_path: Path) -> None:
    mark = tmp_path / "done"
    words = name("torch.nn.modules.module", "torch.os.system") + text(f"touch {mark}") + b"\x85R."
    with pytest.raises(ModelFileError, match="there are no weights"):
        read_contents(zipped(tmp_path / "m.pt", words), "m.pt")
    assert not mark.exists()


def storage(key: str, count: int) -> bytes:
    """A persistent id: ('storage', FloatStorage, key, 'cpu', count)."""
    return (
        b"(" + text("storage") + name("torch", "FloatStorage") + text(key) + text("cpu")
        + b"\x8a\x08" + struct.pack("<q", count) + b"tQ"
    )  # fmt: skip


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def tensor(size: int, stride: int, count: int = 4) -> bytes:
    """A pickled tensor of one dimension over four numbers."""
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    shape = number(size) + b"\x85" + number(stride) + b"\x85"
    return (
        rebuild + b"(" + storage("0", count) + b"K\x00" + shape + b"\x89" + name("collections", "OrderedDict") + b")RtR"
    )


DEEP = b"\x80\x02" + b")" + b"\x85" * 200_000 + b"."
WIDE = b"\x80\x02" + b"]q\x00" + b"(" + b"h\x00" * 50 + b"e" + b"."
ABSURD = {
    "a tensor beyond its bytes": b"}" + text("w") + tensor(2**40, 1) + b"s.",
    "one number four billion times": b"}" + text("w") + tensor(2**32, 0) + b"s.",
    "a storage beyond its record": b"}" + text("w") + tensor(4, 1, 2**40) + b"s.",
    "a negative size": b"}" + text("w") + tensor(-4, 1) + b"s.",
    "a number without end": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "bytes without end": b"\x80\x05\x8e" + struct.pack("<Q", 2**60) + b"x.",
    "a string without end": b"\x80\x04\x8d" + struct.pack("<Q", 2**50) + b"x.",
    "a deep tuple": DEEP,
    "a deep tuple as a key": b"\x80\x02}" + b")" + b"\x85" * 5_000 + b"K\x01s.",
    "a list in itself": WIDE,
    "a memo far away": b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".",
    "no end": b"\x80\x02}",
    "no pickle": b"\x00\x01\x02",
}


@pytest.mark.parametrize("form", ABSURD)
def test_absurd_sizes_are_refused_at_once(form: str, tmp_path: Path) -> None:
    path = zipped(tmp_path / "m.pt", ABSURD[form], **{"0": bytes(16)})
    with modest(), pytest.raises(ReportgenError) as caught:
        read_contents(path, "m.pt")
    assert len(str(caught.value).splitlines()) == 2


def test_a_compressed_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", b"}.")
        archive.writestr("m/data/0", bytes(400_000_000))
    with modest(), pytest.raises(ModelFileError, match="expands to many times its size"):
        read_contents(tmp_path / "m.pt", "m.pt")


def test_records_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("m/data.pkl", b"}.")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("m/data.pkl", CALLS["os.system"])
    with pytest.raises(ModelFileError, match="two records of one name"):
        read_contents(tmp_path / "m.pt", "m.pt")


HEADERS = {
    "longer than the file": struct.pack("<Q", 2**62) + b"{}",
    "four gigabytes": struct.pack("<Q", 2**32) + b"{}",
    "no JSON": struct.pack("<Q", 4) + b"nope",
    "offsets beyond the file": b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16000000000]}}',
    "offsets backwards": b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}',
    "a shape that overflows": b'{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}}',
    "an unknown type": b'{"w":{"dtype":"F99","shape":[4],"data_offsets":[0,16]}}',
}


@pytest.mark.parametrize("form", HEADERS)
def test_safetensors_headers(form: str, tmp_path: Path) -> None:
    head = HEADERS[form]
    data = head if head[:1] != b"{" else struct.pack("<Q", len(head)) + head + bytes(16)
    (tmp_path / "m.safetensors").write_bytes(data)
    with modest(), pytest.raises(ModelFileError) as caught:
        read_contents(tmp_path / "m.safetensors", "m.safetensors")
    assert len(str(caught.value).splitlines()) == 2


def exchanged(tmp_path: Path, **own: Any) -> Path:
    """A pickled network in whose instance dictionary something stands that no constructor puts there."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model[0].__dict__.update(own)
    torch.save(model, tmp_path / "m.pt")
    return tmp_path / "m.pt"


@pytest.mark.parametrize("what", [{"forward": len}, {"_forward_hooks": {0: print}}, {"__call__": print}, {"half": max}])
def test_instances_whose_methods_are_exchanged_do_not_run(what: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ReportgenError):
        open_model(exchanged(tmp_path, **what), sha256="")


def test_an_attribute_that_was_not_read_stops_the_network_that_uses_it(tmp_path: Path) -> None:

    def ran() -> Any:
        module, _facts = open_model(exchanged(tmp_path, padding=pickle.PickleBuffer), sha256="")
        return module(torch.zeros(1, 3, 8, 8))

    with pytest.raises(ReportgenError):
        ran()


def test_damage_of_single_bytes_and_truncation_is_survived(tmp_path: Path) -> None:
    """Whatever became of the file: it opens, or it is refused as damaged."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    files: dict[str, bytes] = {}
    for suffix, value, legacy in (("zip", model, False), ("old", model, True), ("state", model.state_dict(), False)):
        held = io.BytesIO()
        torch.save(value, held, _use_new_zipfile_serialization=not legacy)
        files[f"{suffix}.pt"] = held.getvalue()
    files["s.safetensors"] = safetensors.torch.save(dict(model.state_dict()))
    chance = random.Random(0)
    for file, whole in files.items():
        for attempt in range(60):
            damaged = bytearray(whole)
            if attempt % 3:
                damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            else:
                del damaged[chance.randrange(len(damaged)) :]
            (tmp_path / file).write_bytes(damaged)
            with contextlib.suppress(ReportgenError):
                open_model(tmp_path / file, sha256="")
