"""What is this file? Of everything that is opened, and of everything that is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import nn

from reportgen.cli import main
from reportgen.errors import ModelFileError
from reportgen.inspection import inspect, inspect_file, words
from tests.networks import lively, noise


def zipped(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x")


def pictured(kind: str) -> Callable[[Path], object]:
    return lambda path: Image.new("RGB", (8, 8)).save(path, kind)


def written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


GIVE = "give a .pt"
MADE = "give the PyTorch model that it was made from"
REFUSED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "nothing": (written(b""), "'model.pt' is empty", "get the file again"),
    "JPEG": (pictured("JPEG"), "a JPEG image", GIVE),
    "PNG": (pictured("PNG"), "a PNG image", GIVE),
    "WebP": (pictured("WEBP"), "a WebP image", GIVE),
    "GIF": (pictured("GIF"), "a GIF image", GIVE),
    "TIFF": (pictured("TIFF"), "a TIFF image", GIVE),
    "PDF": (written(b"%PDF-1.7\n"), "a PDF document", GIVE),
    "ONNX": (written(b"\x08\x08\x12\x07pytorch\x1a\x052.4.0:\xf0\x01\n\x1b"), "an ONNX model", MADE),
    "ONNX without its producer": (written(b"\x08\x0a:\xc4\x02\n\x05\n\x01x\x12\x01y"), "an ONNX model", MADE),
    "Keras, HDF5": (written(b"\x89HDF\r\n\x1a\n" + bytes(40)), "an HDF5 file, as Keras writes models", MADE),
    "Keras": (lambda p: zipped(p, "metadata.json", "config.json", "model.weights.h5"), "a model of Keras", MADE),
    "TFLite": (written(b"\x1c\0\0\0TFL3" + bytes(40)), "a TensorFlow Lite model", MADE),
    "ExecuTorch": (written(b"\x1c\0\0\0ET12" + bytes(40)), "a program of ExecuTorch", MADE),
    "GGUF": (written(b"GGUF\x03\0\0\0" + bytes(40)), "a GGUF file", "give an image classifier"),
    "NumPy": (lambda p: p.write_bytes(_numpy(np.save)), "an array of NumPy", GIVE),
    "NumPy, several": (lambda p: p.write_bytes(_numpy(np.savez)), "an archive of NumPy arrays", "safetensors"),
    "Office": (lambda p: zipped(p, "[Content_Types].xml", "word/document.xml"), "an Office document", GIVE),
    "Java": (lambda p: zipped(p, "META-INF/MANIFEST.MF", "A.class"), "a Java archive", GIVE),
    "TorchServe": (lambda p: zipped(p, "MAR-INF/MANIFEST.json", "m.pt"), "an archive of TorchServe", "unpack it"),
    "zipped model": (lambda p: zipped(p, "a/best.pth", "a/readme"), "a zip archive that holds 'best.pth'", "unpack it"),
    "zip": (lambda p: zipped(p, "a.txt"), "a zip archive without weights of PyTorch", GIVE),
    "gzip": (written(b"\x1f\x8b\x08" + bytes(40)), "a gzip archive", "unpack it"),
    "text": (written(b"class,count\ncat,3\n"), "a text file", GIVE),
    "text that begins as pickles do": (written(b"(see the notes)\n"), "a text file", GIVE),
    "HTML": (written(b"<!DOCTYPE html><html>404</html>"), "an HTML page", "what the server answered"),
    "Git LFS": (written(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "Git LFS", "git lfs pull"),
    "configuration": (written(b'{"architecture": "resnet18"}'), "the configuration of a model", "give the folder"),
    "JSON": (written(b'{"a": 1}'), "a JSON file", GIVE),
    "Python": (written(b"import torch\nclass Net: ...\n"), "Python source", "--arch package.module:callable"),
    "unknown": (written(bytes(range(1, 60)) * 3), "a file of an unknown format", GIVE),
    "pickle of another library": (
        lambda p: p.write_bytes(pickle.dumps(LogisticRegression())),
        "a pickle of sklearn.linear_model._logistic.LogisticRegression",
        GIVE,
    ),
    "pickled array": (lambda p: p.write_bytes(pickle.dumps(np.ones(3))), "a pickle of an array of NumPy", GIVE),
    "pickled words": (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "a plain pickle of a dict", "--trust-model"),
    "plain words in torch's own form": (lambda p: torch.save({"epoch": 3}, p), "there are no weights", "state dict"),
}  # fmt: skip


def _numpy(save: Callable[..., None]) -> bytes:
    held = io.BytesIO()
    save(held, np.ones(3))
    return held.getvalue()


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_named_with_what_to_do(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, what, remedy = REFUSED[kind]
    path = tmp_path / "model.pt"
    make(path)
    found = inspect(path)
    assert what in found["error"]
    assert remedy in found["remedy"]
    assert "\n" not in found["error"] + found["remedy"]
    assert found["size"] == path.stat().st_size
    assert len(found["sha256"]) == 64
    assert "architecture" not in found
    assert main(["inspect", str(path)]) == 1
    assert found["error"] in capsys.readouterr().out
    # and an audit says the same
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert main([str(path), str(tmp_path / "a.png"), "-o", str(tmp_path / "x.json"), "-q"]) == 1
    assert json.loads((tmp_path / "x.json").read_text())["refused"]["reason"] == found["error"]


FOLDERS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "distributed": ((".metadata", "__0_0.distcp"), "a distributed checkpoint", "dcp_to_torch"),
    "DeepSpeed": (("zero_to_fp32.py", "latest"), "a checkpoint of DeepSpeed", "zero_to_fp32.py"),
    "TensorFlow": (("saved_model.pb",), "a SavedModel of TensorFlow", MADE),
    "unpacked": (("data.pkl", "version"), "an unpacked file of torch.save", "give the file itself"),
    "ONNX": (("model.onnx",), "a folder with an ONNX model", MADE),
    "anything": (("notes.txt",), "holds no weights", "give a model file"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_what_is_refused_of_folders(kind: str, tmp_path: Path) -> None:
    names, what, remedy = FOLDERS[kind]
    (tmp_path / "m").mkdir()
    for name in names:
        (tmp_path / "m" / name).write_text("x")
    found = inspect(tmp_path / "m")
    assert what in found["error"]
    assert remedy in found["remedy"]


def test_a_part_of_a_distributed_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "__0_0.distcp").write_bytes(bytes(range(200, 250)))
    found = inspect(tmp_path / "__0_0.distcp")
    assert found["what"] == "part of a distributed checkpoint"
    assert "dcp_to_torch" in found["remedy"]


def test_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = lively("squeezenet1_1", classes=3)
    whole = {"epoch": 7, "arch": "squeezenet1_1", "version": 2, "args": {}, "best_acc1": 71.5}
    state = {"module." + key: value for key, value in model.state_dict().items()}
    torch.save({**whole, "state_dict": state, "state_dict_ema": state}, tmp_path / "m.pth")
    found = inspect(tmp_path / "m.pth")
    assert "error" not in found
    expected = {
        "what": "a checkpoint of timm", "format": "checkpoint", "container": "zip", "safe": True, "framework": "timm",
        "entry": "state_dict_ema", "weights": "ema", "weights_there": ["ema", "raw"], "not_run": [],
        "beside": {"epoch": 7, "version": 2, "best_acc1": 71.5}, "named": "squeezenet1_1",
        "architecture": "torchvision:squeezenet1_1", "how": "checkpoint", "prefix": "module.", "num_classes": 3,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert main(["inspect", str(tmp_path / "m.pth"), "-o", str(tmp_path / "x.json")]) == 0
    told = json.loads((tmp_path / "x.json").read_text())
    assert {key: told[key] for key in expected} == expected
    capsys.readouterr()
    assert "weights there   ema, raw" in words(found)
    assert "beside          epoch=7, best_acc1=71.5, version=2" in words(found)
    marked = [line.split()[1] for line in words(found).splitlines() if line.startswith("  * ") and " × " in line]
    assert sorted(marked) == sorted(found["default_layers"])


def test_long_lists_are_cut_on_the_terminal() -> None:
    assert words({"size": 44796235}) == "size            44,796,235 bytes"
    assert words({"input": {"mean": (0.5, 0.4), "bgr": False}}) == "input           mean=0.5 0.4, bgr=False"
    assert words({"labels": list("abcdefgh")}) == "labels          a, b, c, d, e, f, g, h"
    assert words({"labels": list("abcdefghi")}) == "labels          a, b, c, d, e, f, g, h, … (9)"


def test_weights_in_several_files_are_told_as_one_model(tmp_path: Path) -> None:
    state = lively("squeezenet1_1", classes=3).state_dict()
    half = len(state) // 2
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    for name, part in zip(names, (list(state)[:half], list(state)[half:]), strict=True):
        save_file({key: state[key] for key in part}, tmp_path / name)
    placed = {key: names[number >= half] for number, key in enumerate(state)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    found = inspect_file(tmp_path)
    assert set(found["files"]) == {*names, "model.safetensors.index.json"}
    assert found["size"] == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert found["architecture"] == "torchvision:squeezenet1_1"


def test_candidates_where_the_weights_do_not_tell(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    save_file(timm.create_model("efficientnet_lite0").state_dict(), tmp_path / "m.safetensors")
    found = inspect(tmp_path / "m.safetensors")
    assert "architectures that compute different things" in found["error"]
    assert set(found["candidates"]) == {"timm:efficientnet_lite0", "timm:tf_efficientnet_lite0"}
    assert (found["what"], found["safe"]) == ("weights in safetensors", True)


def test_programs(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    torch.export.save(torch.export.export(model, (noise(2, 16),)), tmp_path / "m.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripts are announced to go
        torch.jit.save(torch.jit.script(model), tmp_path / "m.pt")
    for name, what in (("m.pt2", "a program of torch.export"), ("m.pt", "a TorchScript program")):
        found = inspect(tmp_path / name)
        assert (found["what"], found["safe"]) == (what, False)
        assert "--trust-model" in found["remedy"]
        found = inspect(tmp_path / name, trust=True)
        assert "error" not in found
        assert (found["what"], found["safe"], found["classes"]) == (what, False, 3)


def test_what_trusted_pickles_hold(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(model))
    found = inspect(tmp_path / "m.pkl")
    assert "a plain pickle with tensors in it" in found["error"]
    found = inspect(tmp_path / "m.pkl", trust=True)
    assert (found["what"], found["classes"]) == ("a whole pickled module", 3)


def test_what_is_not_there_or_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="there is no model file"):
        inspect(tmp_path / "m.pt")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.index.json")
        with pytest.raises(ModelFileError, match="no file but a pipe"):
            inspect(tmp_path / "pipe.index.json")


def test_an_archive_with_an_endless_directory(tmp_path: Path) -> None:
    zipped(tmp_path / "m.pt", *(f"{number:0200d}" for number in range(35_000)))
    found = inspect(tmp_path / "m.pt")
    assert "directory is larger than any of weights" in found["error"]


def test_what_a_file_names_is_told_and_not_run(tmp_path: Path) -> None:
    class Settings:
        pass

    made: Any = Settings()
    Settings.__module__, Settings.__qualname__ = __name__, "Settings"
    globals()["Settings"] = Settings
    try:
        torch.save({"state_dict": lively("squeezenet1_1").state_dict(), "settings": made}, tmp_path / "m.pt")
    finally:
        del globals()["Settings"]
    found = inspect(tmp_path / "m.pt")
    assert found["what"] == "a checkpoint"
    assert found["not_run"] == [f"{__name__}.Settings"]
    assert found["safe"]
