"""Files made to do harm: nothing of them runs, nothing hangs or fills memory, and every refusal is two lines."""

from __future__ import annotations

import contextlib
import io
import pickle
import random
import struct
import tarfile
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from reportgen.errors import ModelFileError, ReportgenError, UnsafeModelError
from reportgen.subject import modules
from reportgen.subject.containers import open_container
from reportgen.subject.contents import read_contents
from reportgen.subject.model_file import open_model
from tests.networks import lively

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


def legacy(path: Path, pickled: bytes, **storages: bytes) -> Path:
    """The same in the form that torch wrote before 2020: pickles one after another, then the bytes of float32."""
    head = b"".join(pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    tail = b"".join(struct.pack("<q", len(data) // 4) + data for data in storages.values())
    path.write_bytes(head + pickled + pickle.dumps(list(storages), 2) + tail)
    return path


FORMS = {"zip": zipped, "legacy": legacy}


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
    "protocol 2": b"\x80\x02" + name("os", "system") + TOUCH + b"\x85R.",
    "a call of what a call gave": name("functools", "partial") + name("builtins", "exec") + TOUCH + b"\x86R)R.",
    "within a dictionary": b"}" + text("state_dict") + b"}" + text("w") + name("os", "system") + TOUCH + b"\x85Rss.",
    "as the key of a dictionary": b"}" + name("os", "system") + TOUCH + b"\x85RK\x01s.",
    "as a state": name("torch.nn", "Module") + b")\x81}" + text("forward") + name("os", "system") + b"sb.",
    "through a tensor's class": (
        name("torch._tensor", "_rebuild_from_type_v2") + b"(" + name("os", "system") + b"N" + TOUCH + b"\x85NtR."
    ),
    "as a storage": b"(" + text("storage") + name("os", "system") + TOUCH + text("cpu") + b"K\x01tQ.",
    "in Lightning's hyper-parameters": (
        b"}" + text("hyper_parameters") + b"}" + text("activation") + name("os", "system") + b"ss."
    ),
}


def marked(words: bytes, mark: Path) -> bytes:
    """A pickle that would make the file `mark`."""
    return words.replace(TOUCH, text(f"touch {mark}"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("call", CALLS)
def test_no_call_is_made(call: str, form: str, tmp_path: Path) -> None:
    mark = tmp_path / "done"
    path = FORMS[form](tmp_path / "m.pt", marked(CALLS[call], mark))
    with pytest.raises(UnsafeModelError) as caught:
        read_contents(path, "m.pt")
    assert len(str(caught.value).splitlines()) == 2
    assert "--trust-model" in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("form", FORMS)
def test_what_other_packages_name_is_not_called_either(form: str, tmp_path: Path) -> None:
    """A checkpoint may name what nobody here has: an inert stand-in takes its place, and it is told."""
    mark = tmp_path / "done"
    called = b"}" + text("hparams_type") + name("pytorch_lightning", "run") + TOUCH + b"\x85Rs."
    path = FORMS[form](tmp_path / "m.pt", marked(called, mark))
    assert open_container(path, "m.pt").foreign == ("pytorch_lightning.run",)
    with pytest.raises(ModelFileError, match="there are no weights"):
        read_contents(path, "m.pt")
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
PAIRS = b"]q\x01(" + b"K\x01K\x02\x86q\x02" + b"h\x02" * 200_000 + b"e0"
COPY = name("torch._tensor", "_rebuild_from_type_v2") + b"(" + name("collections", "OrderedDict") + b"Nh\x01\x85NtR0"
COLLIDING = b"".join(b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"K\x01" for n in range(1, 20_000))
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
    "a memo beyond counting": b"\x80\x02}p" + b"9" * 4000 + b"\n.",
    "a list copied again and again": b"\x80\x02" + PAIRS + COPY * 100 + b"}.",
    "numbers that look alike as keys": b"\x80\x02}(" + COLLIDING + b"u.",
    "a number of a million digits as a key": b"\x80\x02}I0x" + b"f" * 1_000_000 + b"\nK\x01s.",
    "more keys than classes": b"\x80\x02}("
    + b"".join(b"J" + struct.pack("<i", n) + b"N" for n in range(150_000))
    + b"u.",
    "a shape of a thousand sides": name("torch", "Size") + b"(" + number(2**40) * 1000 + b"t\x85R.",
    "a shape beyond counting": name("torch", "Size") + b"(" + b"\x8a\xff" + b"\x7f" * 255 + b"t\x85R.",
    "a list of a billion": name("builtins", "list") + name("builtins", "range") + number(2**40) + b"\x85R\x85R.",
    "a billion bytes": name("builtins", "bytearray") + number(2**40) + b"\x85R.",
    "an array of a billion": (
        name("numpy.core.multiarray", "_reconstruct") + name("numpy", "ndarray") + number(2**40) + b"\x85C\x01b\x87R."
    ),
    "no end": b"\x80\x02}",
    "no pickle": b"\x00\x01\x02",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", ABSURD)
def test_absurd_sizes_are_refused_at_once(what: str, form: str, tmp_path: Path) -> None:
    path = FORMS[form](tmp_path / "m.pt", ABSURD[what], **{"0": bytes(16)})
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


def archive(path: Path) -> bytearray:
    """A sound file of one weight of four numbers, in bytes."""
    return bytearray(zipped(path, b"}" + text("w") + tensor(4, 1) + b"s.", **{"0": bytes(16)}).read_bytes())


def patched(data: bytearray, mark: bytes, place: int, value: bytes, which: int = 0) -> bytearray:
    """Bytes exchanged in the header that begins with a mark; ``which`` counts such headers."""
    at = -1
    for _header in range(which + 1):
        at = data.index(mark, at + 1)
    data[at + place : at + place + len(value)] = value
    return data


LOCAL, CENTRAL, END, VAST = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"\xfe\xff\xff\xff"
TRICKS = {
    "a wrong checksum of the pickle": lambda data: patched(data, CENTRAL, 16, b"abcd"),
    "a record of four gigabytes": lambda data: patched(data, CENTRAL, 20, VAST * 2, 2),
    "a compressed record of four gigabytes": lambda data: patched(
        patched(data, CENTRAL, 24, VAST, 2), CENTRAL, 10, b"\x08\x00", 2
    ),
    "a pickle of four gigabytes": lambda data: patched(data, CENTRAL, 20, VAST * 2),
    "a directory of four gigabytes": lambda data: patched(data, END, 12, VAST),
    "a directory beyond the file": lambda data: patched(data, END, 16, VAST),
    "a record beyond the file": lambda data: patched(data, CENTRAL, 42, VAST),
    "a record in the place of another": lambda data: patched(data, CENTRAL, 42, bytes(4), 2),
    "another name in the record than in the directory": lambda data: patched(data, LOCAL, 30, b"x/"),
    "an encrypted record": lambda data: patched(data, CENTRAL, 8, b"\x01\x00", 2),
    "an unknown compression": lambda data: patched(data, CENTRAL, 10, b"\x0e\x00", 2),
    "sixty-four bits, and nothing there": lambda data: patched(data, CENTRAL, 20, b"\xff" * 8, 2),
    "names that lead elsewhere": lambda data: data.replace(b"m/data", b"/../../"[:6]),
    "absolute names": lambda data: data.replace(b"m/data.pkl", b"/etc/a.pkl"),
    "a name that is no text": lambda data: data.replace(b"m/data.pkl", b"m/data\xff\xfe\x00l"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_with_archives(trick: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(TRICKS[trick](archive(path)))
    with modest(), pytest.raises(ModelFileError) as caught:
        read_contents(path, "m.pt")
    assert len(str(caught.value).splitlines()) == 2


def test_an_archive_without_tricks_is_read(tmp_path: Path) -> None:
    """So that what is refused above is refused for the trick."""
    archive(tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match="it holds w"):
        read_contents(tmp_path / "m.pt", "m.pt")


def test_a_wrong_checksum_of_weights_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    torch.save(model, tmp_path / "m.pt")
    data = bytearray((tmp_path / "m.pt").read_bytes())
    (tmp_path / "m.pt").write_bytes(patched(data, CENTRAL, 16, b"abcd", 4))
    with pytest.raises(ModelFileError, match="Bad CRC"):
        open_model(tmp_path / "m.pt", sha256="")


def test_a_directory_of_a_million_records_is_not_read(tmp_path: Path) -> None:
    directory = (CENTRAL + bytes(42)) * 200_000
    end = END + struct.pack("<4xHHIIH", 3392, 3392, len(directory), len(LOCAL), 0)
    (tmp_path / "m.pt").write_bytes(LOCAL + directory + end)
    with modest(), pytest.raises(ModelFileError, match="its directory is larger"):
        read_contents(tmp_path / "m.pt", "m.pt")


def test_what_was_torch_once_is_called_by_its_name(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "m.pt", "w") as made:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(CALLS["os.system"])
            made.addfile(entry, io.BytesIO(CALLS["os.system"]))
    with pytest.raises(ModelFileError, match="is a tar archive"):
        read_contents(tmp_path / "m.pt", "m.pt")


HEADERS = {
    "longer than the file": struct.pack("<Q", 2**62) + b"{}",
    "four gigabytes": struct.pack("<Q", 2**32) + b"{}",
    "no JSON": struct.pack("<Q", 4) + b"nope",
    "offsets beyond the file": b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16000000000]}}',
    "offsets backwards": b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}',
    "a shape that overflows": b'{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}}',
    "one on top of the other": (
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    ),
    "bytes that belong to none": b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    "more sides than bytes": b'{"w":{"dtype":"F32","shape":[' + b"1," * 100_000 + b'4],"data_offsets":[0,16]}}',
    "negative offsets": b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[-16,0]}}',
    "a nest without end": b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
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


def test_an_instance_with_nothing_exchanged_runs(tmp_path: Path) -> None:
    """What a file may name at all is not what is refused below."""
    module, _facts = open_model(exchanged(tmp_path, of_no_use=nn.functional.relu), sha256="")
    assert module(torch.zeros(1, 3, 8, 8)).shape == (1, 2)


@pytest.mark.parametrize(
    "name",
    [
        "forward",
        "_conv_forward",
        "half",
        "_call_impl",
        "__call__",
        "__class__",
        "__deepcopy__",
        "__reduce__",
        "__torch_function__",
    ],
)
@pytest.mark.parametrize("function", [nn.functional.relu, nn.Identity, 5])
def test_instances_whose_methods_are_exchanged_do_not_run(name: str, function: Any, tmp_path: Path) -> None:
    path = exchanged(tmp_path, **{name: function})
    with pytest.raises(UnsafeModelError, match=f"whose {name} is exchanged"):
        open_model(path, sha256="")


@pytest.mark.parametrize("hooks", modules._HOOKS)
def test_instances_with_hooks_do_not_run(hooks: str, tmp_path: Path) -> None:
    path = exchanged(tmp_path, **{hooks: OrderedDict({0: nn.functional.relu})})
    with pytest.raises(UnsafeModelError, match="with hooks"):
        open_model(path, sha256="")


@pytest.mark.parametrize(
    "path",
    [
        "torchvision.models.feature_extraction.DualGraphModule",
        "torch.nn.parallel.distributed.DistributedDataParallel",
        "torch.nn.functional.relu",
        "torch.nn.Parameter",
        "torch.nn.modules.module.torch.os",
        "timm.layers.nothing",
    ],
)
def test_classes_that_are_no_parts_of_networks_are_not_made(path: str, tmp_path: Path) -> None:
    module, _dot, qualname = path.rpartition(".")
    parts = b"".join(text(part) + b"}" for part in ("_parameters", "_buffers", "_modules"))
    weights = text("a") + tensor(4, 1) + text("b") + tensor(4, 1)
    parts = parts.replace(b"}", b"}(" + weights + b"u", 1)
    words = name(module, qualname) + b")\x81}(" + parts + b"ub."
    with pytest.raises(ReportgenError) as caught:
        open_model(zipped(tmp_path / "m.pt", words, **{"0": bytes(16)}), sha256="")
    assert path in str(caught.value)


def test_functions_kept_as_attributes_are_those_of_arithmetic() -> None:
    kept = ("torch.nn.functional.relu", "torch.nn.functional.max_pool2d", "torch.sigmoid", "torch._C._nn.gelu")
    assert all(modules._function(path) is not None for path in kept)
    helpers = ("handle_torch_function", "boolean_dispatch", "_verify_batch_size", "importlib", "warnings")
    assert not any(modules._function(f"torch.nn.functional.{name}") for name in helpers)
    assert not any(modules._function(path) for path in ("os.system", "torch.hub.load", "torch.nn.functional.os.system"))


def test_callables_among_settings_are_left_where_they_are(tmp_path: Path) -> None:
    """Lightning keeps hyper-parameters beside the weights: what a file may name is not called either."""
    settings = {"activation": nn.functional.relu, "layer": nn.Identity, "norm": partial(nn.functional.relu, 1)}
    model = lively("resnet18", classes=7, size=64)
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": settings}, tmp_path / "m.ckpt")
    module, facts = open_model(tmp_path / "m.ckpt", sha256="")
    assert (facts.architecture, facts.safe, type(module).__name__) == ("torchvision:resnet18", True, "ResNet")


def test_buffers_that_are_not_saved_claim_no_memory_either(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    for number in range(200):
        vast = torch.zeros(1, dtype=torch.float64).expand(2**20)
        model[0].register_buffer(f"b{number}", vast, persistent=False)
    torch.save(model, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match="claim more than its bytes"):
        open_model(tmp_path / "m.pt", sha256="")


def test_one_module_in_many_places_is_not_counted_without_end(tmp_path: Path) -> None:
    model: nn.Module = nn.Conv2d(3, 4, 3)
    for _level in range(18):
        model = nn.ModuleDict({"a": nn.Sequential(model), "b": nn.Sequential(model)})
    torch.save(model, tmp_path / "m.pt")
    with modest(), pytest.raises(ModelFileError, match="have no end"):
        open_model(tmp_path / "m.pt", sha256="")


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
