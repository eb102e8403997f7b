"""Weights that are no known classifier's: two lines that say what they are and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from reportgen.errors import ArchitectureError, ModelFileError, ReportgenError
from reportgen.subject.model_file import open_model
from tests.networks import lively


def refused(weights: dict[str, Tensor], folder: Path, **options: Any) -> list[str]:
    """The lines with which a state dict is refused."""
    torch.save(weights, folder / "model.pt")
    with pytest.raises(ArchitectureError) as caught:
        open_model(folder / "model.pt", sha256="", **options)
    return str(caught.value).splitlines()


def test_half_a_checkpoint(tmp_path: Path) -> None:
    state = lively("resnet18", classes=3).state_dict()
    half = {key: value for key, value in state.items() if not key.startswith(("layer3", "layer4", "fc"))}
    half["bn1.weight"] = torch.ones(3)
    what, remedy = refused(half, tmp_path)
    assert what.startswith("the weights in 'model.pt' are those of no known architecture; to be torchvision:resnet18, ")
    assert "52 are missing (layer3.0.conv1.weight, layer3.0.bn1.weight, …)" in what
    assert "1 are of another shape (bn1.weight: (3,), not (64,))" in what
    assert "get the whole file again" in remedy


def test_half_a_checkpoint_that_says_what_it_is(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    state = lively("resnet18", classes=3).state_dict()
    half = {key: value for key, value in state.items() if not key.startswith("layer4")}
    torch.save({"arch": "resnet18", "state_dict": half}, tmp_path / "model.pt")
    with pytest.raises(ArchitectureError, match="resnet18, which it is said to be: 25 are missing"):
        open_model(tmp_path / "model.pt", sha256="")


def test_a_backbone_without_its_head(tmp_path: Path) -> None:
    state = lively("resnet18", classes=3).state_dict()
    what, remedy = refused({key: value for key, value in state.items() if not key.startswith("fc")}, tmp_path)
    assert what == "the weights in 'model.pt' are those of torchvision:resnet18 without its head (fc)"
    assert "whole classifier" in remedy


def test_the_wrong_architecture(tmp_path: Path) -> None:
    state = lively("squeezenet1_1", classes=3).state_dict()
    what, remedy = refused(dict(state), tmp_path, arch="resnet18")
    assert what.startswith("the weights in 'model.pt' do not fit torchvision:resnet18: 102 are missing (conv1.weight, ")
    assert "are unknown to it (features.0.weight, " in what
    assert remedy == "they fit torchvision:squeezenet1_1: leave out --arch, or give the one of these weights"


def test_a_detector(tmp_path: Path) -> None:
    model = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    state = {key: value.half() for key, value in model.state_dict().items()}
    what, remedy = refused(state, tmp_path)
    assert "are those of a detector (it has rpn.head." in what
    assert "not of an image classifier" in what
    assert remedy.startswith("give a classifier")


def test_a_language_model(tmp_path: Path) -> None:
    state = {"transformer.wte.weight": torch.ones(50, 8), "transformer.wpe.weight": torch.ones(16, 8)}
    for block in range(2):
        state |= {f"transformer.h.{block}.attn.c_attn.weight": torch.ones(8, 24)}
        state |= {f"transformer.h.{block}.mlp.c_fc.weight": torch.ones(8, 32)}
    what, _remedy = refused(state, tmp_path)
    assert "are those of a language model (it has transformer.wte.weight), not of an image classifier" in what


def test_a_photograph_called_model(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "model.pt", "JPEG")
    with pytest.raises(ModelFileError) as caught:
        open_model(tmp_path / "model.pt", sha256="")
    assert str(caught.value).splitlines() == [
        "'model.pt' is a JPEG image, not a PyTorch model",
        "give a .pt, .pth, .ckpt or .safetensors file",
    ]


OWN = """
from torch import nn
def net(width, sides=(3,), bias=True):
    return nn.Sequential(*(nn.Conv2d(3, int(width), side, bias=bias) for side in sides))
"""


def test_own_code_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_net_for_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    state = {**nn.Sequential(nn.Conv2d(3, 4, 5)).state_dict(), "head.weight": torch.ones(2, 4)}
    arch = "own_net_for_test:net"
    what, remedy = refused(dict(state), tmp_path, arch=arch, arch_args={"width": "8", "sides": "[5, 3]"})
    assert what == (
        "the weights in 'model.pt' do not fit own_net_for_test:net: 2 are missing (1.weight, 1.bias); "
        "2 are of another shape (0.weight: (4, 3, 5, 5), not (8, 3, 5, 5)); 1 are unknown to it (head.weight)"
    )
    assert remedy == "give the right --arch, with --arch-arg where it was built with arguments"
    _found, facts = open_model(
        tmp_path / "model.pt", sha256="", arch=arch, arch_args={"width": "4", "sides": "[5]", "bias": "true"}
    )
    assert facts.stray == ("head.weight",)


HERE = "give its folder as --pythonpath, the working directory as --pythonpath ."
LACKING = "install what its module imports, or give the folder of that as --pythonpath too"
CALLED = "name a class or a function of it behind the colon"


@pytest.mark.parametrize(
    ("arch", "remedy"),
    [("no_such_module:net", HERE), ("needs_more_for_test:net", LACKING), ("own_net_for_test3:gone", CALLED)],
)
def test_own_code_that_is_not_there(arch: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "needs_more_for_test.py").write_text("import no_such_library_for_test\n")
    (tmp_path / "own_net_for_test3.py").write_text("")
    torch.save(lively("resnet18", classes=3).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ReportgenError, match="cannot be imported") as caught:
        open_model(tmp_path / "model.pt", sha256="", arch=arch)
    assert caught.value.remedy == remedy
