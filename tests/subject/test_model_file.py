"""Model files in every form a user has them: opened without running them, recognised, and equal to what was saved."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from reportgen.errors import ArchitectureError, ModelFileError, ReportgenError, UnsafeModelError
from reportgen.inspection import inspect_file
from reportgen.subject.architectures import torchvision_names
from reportgen.subject.contents import read_contents
from reportgen.subject.live import size_of
from reportgen.subject.model_facts import ModelFacts
from reportgen.subject.model_file import open_model
from reportgen.subject.recognition import catalogue
from tests.networks import enlivened, lively, noise

NAMES = (
    "resnet18",
    "squeezenet1_1",
    "mobilenet_v3_small",
    "mnasnet0_5",
    "shufflenet_v2_x0_5",
    "efficientnet_b0",
    "googlenet",
)


def opened(path: Path, **options: Any) -> tuple[nn.Module, ModelFacts]:
    return open_model(path, sha256="", **options)


def equal(one: nn.Module, other: nn.Module, x: Tensor) -> bool:
    with torch.no_grad():
        expected, found = one(x), other(x)
    return bool((expected - found).abs().max() <= 1e-5 * expected.abs().max()) and bool(expected.abs().max() > 0)


FORMS: dict[str, Callable[[nn.Module, Path], None]] = {
    "state-dict": lambda m, p: torch.save(m.state_dict(), p),
    "legacy": lambda m, p: torch.save(m.state_dict(), p, _use_new_zipfile_serialization=False),
    "checkpoint": lambda m, p: torch.save(
        {"state_dict": {f"module.{k}": v for k, v in m.state_dict().items()}, "epoch": 3}, p
    ),
    "compiled": lambda m, p: torch.save({"model": {f"module._orig_mod.{k}": v for k, v in m.state_dict().items()}}, p),
    "lightning": lambda m, p: torch.save(
        {"state_dict": {**{f"model.{k}": v for k, v in m.state_dict().items()}, "loss.weight": torch.ones(3)}}, p
    ),
    "safetensors": lambda m, p: save_file({k: v.contiguous() for k, v in m.state_dict().items()}, p),
    "module": lambda m, p: torch.save(m, p),
    "module, legacy": lambda m, p: torch.save(m, p, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_recognised_loaded_equal(name: str, form: str, tmp_path: Path) -> None:
    model = lively(name, classes=7)
    FORMS[form](model, tmp_path / "m.bin")
    found, facts = opened(tmp_path / "m.bin")
    assert facts.architecture == f"torchvision:{name}"
    assert (facts.num_classes, facts.channels_in, facts.safe) == (7, 3, True)
    assert facts.how == ("class" if form.startswith("module") else "recognised")
    assert facts.stray == (("loss.weight",) if form == "lightning" else ())
    assert equal(model, found, noise(2, 96))
    assert not found.training


@pytest.mark.parametrize(
    "build", [lambda n: nn.Linear(n, 5), lambda n: nn.Sequential(nn.Dropout(0.3), nn.Linear(n, 5))]
)
@pytest.mark.parametrize(
    ("name", "head"), [("resnet18", "fc"), ("mobilenet_v2", "classifier"), ("densenet121", "classifier")]
)
def test_heads_of_other_structure(name: str, head: str, build: Callable[[int], nn.Module], tmp_path: Path) -> None:
    model = lively(name)
    inputs = next(part.in_features for part in getattr(model, head).modules() if isinstance(part, nn.Linear))
    setattr(model, head, build(inputs))
    model.eval()
    torch.save(model.state_dict(), tmp_path / "m.pt")
    found, facts = opened(tmp_path / "m.pt")
    assert (facts.architecture, facts.num_classes) == (f"torchvision:{name}", 5)
    assert equal(model, found, noise(2, 96))


@pytest.mark.parametrize("channels", [1, 4])
def test_other_stem_channels(channels: int, tmp_path: Path) -> None:
    model = lively("resnet18", classes=3)
    model.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    found, facts = opened(tmp_path / "m.pt")
    assert facts.channels_in == channels
    assert equal(model, found, noise(1, 96, channels=channels))


def test_moving_average_is_preferred_and_raw_can_be_asked_for(tmp_path: Path) -> None:
    raw, average = lively("resnet18", classes=3, seed=1), lively("resnet18", classes=3, seed=2)
    torch.save({"state_dict": raw.state_dict(), "state_dict_ema": average.state_dict()}, tmp_path / "m.pt")
    found, facts = opened(tmp_path / "m.pt")
    assert facts.weights == "ema"
    assert equal(average, found, noise(1, 96))
    found, facts = opened(tmp_path / "m.pt", weights="raw")
    assert facts.weights == "raw"
    assert equal(raw, found, noise(1, 96))
    torch.save({"state_dict": raw.state_dict()}, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match="holds no ema weights"):
        opened(tmp_path / "m.pt", weights="ema")


def test_precedence_and_candidates(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.save(lively("resnet50", classes=3).state_dict(), tmp_path / "m.pt")
    _model, facts = opened(tmp_path / "m.pt")
    assert facts.architecture == "torchvision:resnet50"
    assert {"timm:resnet50", "timm:resnetaa50", "timm:resnetblur50"} <= set(facts.candidates)
    own = enlivened(timm.create_model("efficientnet_lite0", num_classes=3))
    torch.save(own.state_dict(), tmp_path / "m.pt")
    with pytest.raises(ArchitectureError, match="fit 2 architectures that compute different things") as caught:
        opened(tmp_path / "m.pt")
    assert "--arch" in caught.value.remedy
    torch.save({"architecture": "efficientnet_lite0", "state_dict": own.state_dict()}, tmp_path / "m.pt")
    found, facts = opened(tmp_path / "m.pt")
    assert (facts.architecture, facts.how) == ("timm:efficientnet_lite0", "checkpoint")
    assert equal(own, found, noise(1, 96))
    vit = timm.create_model("deit_tiny_patch16_224", num_classes=3)
    torch.save(vit.state_dict(), tmp_path / "m.pt")
    found, facts = opened(tmp_path / "m.pt")
    assert facts.architecture in ("timm:vit_tiny_patch16_224", "timm:deit_tiny_patch16_224")
    assert len(facts.candidates) == 1
    nn.init.normal_(vit.head.weight)
    torch.save(vit, tmp_path / "m.pt")
    found, _facts = opened(tmp_path / "m.pt")
    assert equal(vit.eval(), found, noise(1, 224))


def test_transformers_of_timm_made_for_another_size(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    vit = enlivened(timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=96), size=96)
    for saved, options in (
        (vit.state_dict(), {}),
        (vit.state_dict(), {"arch": "timm:vit_tiny_patch16_224"}),
        ({"arch": "vit_tiny_patch16_224", "state_dict": vit.state_dict()}, {}),
    ):
        torch.save(saved, tmp_path / "m.pt")
        found, facts = opened(tmp_path / "m.pt", **options)
        assert facts.architecture in ("timm:vit_tiny_patch16_224", "timm:deit_tiny_patch16_224")
        assert size_of(found) == (96, 96)
        assert equal(vit, found, noise(1, 96))


def test_parts_of_a_head_tell_architectures_apart(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    for name in ("iformer_m", "iformer_m_distilled"):
        torch.save(timm.create_model(name, num_classes=3).state_dict(), tmp_path / "m.pt")
        _found, facts = opened(tmp_path / "m.pt")
        assert (facts.architecture, facts.how) == (f"timm:{name}", "recognised")


def test_members_of_enumerations_as_older_pythons_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11.0 to 3.11.3: ``getattr(Format, "NCHW")`` in place of ``Format("NCHW")``."""
    timm = pytest.importorskip("timm")
    from timm.layers.format import Format

    monkeypatch.setattr(Format, "__reduce_ex__", lambda self, _protocol: (getattr, (type(self), self._name_)))
    vit = timm.create_model("deit_tiny_patch16_224", num_classes=3)
    nn.init.normal_(vit.head.weight)
    torch.save(vit, tmp_path / "m.pt")
    found, _facts = opened(tmp_path / "m.pt")
    assert equal(vit.eval(), found, noise(1, 224))
    assert found.patch_embed.output_fmt is vit.patch_embed.output_fmt


def test_every_torchvision_classifier_is_known() -> None:
    known = {one.name for one in catalogue()[0]}
    assert {f"torchvision:{name}" for name in torchvision_names()} <= known
    assert len(known) > 1400


def test_plain_module_trees(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    torch.save(model, tmp_path / "m.pt")
    found, facts = opened(tmp_path / "m.pt")
    assert facts.architecture == "torch.nn.modules.container.Sequential"
    assert equal(model.eval(), found, noise(1, 32))


def test_changed_strides_of_a_pickled_module_are_kept(tmp_path: Path) -> None:
    model = lively("resnet18", classes=3)
    model.layer4[0].conv1.stride = (1, 1)
    model.layer4[0].downsample[0].stride = (1, 1)
    torch.save(model, tmp_path / "m.pt")
    found, _facts = opened(tmp_path / "m.pt")
    assert equal(model, found, noise(1, 96))


class Own(nn.Module):
    """A class that only this file has."""


def test_own_classes_hooks_and_exchanged_methods_are_refused(tmp_path: Path) -> None:
    for make in (
        lambda m: setattr(m, "fc", Own()),
        lambda m: m.fc.register_forward_hook(_hook),
        lambda m: setattr(m, "forward", _hook),
    ):
        model = lively("resnet18", classes=3)
        make(model)
        torch.save(model, tmp_path / "m.pt")
        with pytest.raises(UnsafeModelError) as caught:
            opened(tmp_path / "m.pt")
        assert "--trust-model" in caught.value.remedy


def _hook(*_args: object) -> None:
    raise AssertionError("code of the file was run")


def test_hostile_pickles_in_every_form(tmp_path: Path) -> None:
    done = tmp_path / "done"

    class Reduce:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {done}",)

    class Build:
        def __reduce__(self) -> Any:
            return eval, (f"open({str(done)!r}, 'w')",)

    for protocol in (2, 4):
        for legacy in (False, True):
            for evil, named in ((Reduce(), "system"), (Build(), "eval")):
                torch.save(
                    {"state_dict": lively("resnet18").state_dict(), "x": evil},
                    tmp_path / "m.pt",
                    pickle_protocol=protocol,
                    _use_new_zipfile_serialization=not legacy,
                )
                with pytest.raises(UnsafeModelError) as caught:
                    opened(tmp_path / "m.pt")
                assert named in caught.value.thing
        (tmp_path / "m.pt").write_bytes(pickle.dumps(Reduce(), protocol=protocol))
        with pytest.raises(UnsafeModelError, match="system"):
            opened(tmp_path / "m.pt")
    # INST and OBJ, which pickle no longer writes; EXT, which looks up a registry
    for opcodes in (b"(S'touch x'\nios\nsystem\n.", b"(cos\nsystem\nS'touch x'\no.", b"\x82\x01."):
        (tmp_path / "m.pt").write_bytes(b"\x80\x02" + opcodes)
        with pytest.raises(UnsafeModelError):
            opened(tmp_path / "m.pt")
    assert not done.exists()


def test_programs_are_refused_and_trusted(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    exported = torch.export.export(model, (noise(2, 16),))
    torch.export.save(exported, tmp_path / "m.pt2")
    with pytest.raises(UnsafeModelError, match="exported program"):
        opened(tmp_path / "m.pt2")
    model = lively("resnet18", classes=3)
    model.fc = Own()
    torch.save(model, tmp_path / "m.pt")
    _found, facts = opened(tmp_path / "m.pt", trust=True)
    assert (facts.safe, facts.format) == (False, "module")


def test_a_tensor_that_reaches_beyond_its_bytes(tmp_path: Path) -> None:
    state = lively("resnet18", classes=3).state_dict()
    torch.save(state, tmp_path / "m.pt")
    with zipfile.ZipFile(tmp_path / "m.pt") as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    root = next(name for name in parts if name.endswith("data.pkl"))
    # fc.weight is 3 × 512: claim 9 × 512 over the same storage
    parts[root] = parts[root].replace(b"K\x03M\x00\x02\x86", b"K\x09M\x00\x02\x86")
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(ModelFileError, match="reaches beyond its bytes"):
        read_contents(tmp_path / "m.pt", "m.pt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "a JPEG image, not a PyTorch model"),
        (b"PK\x03\x04" + bytes(100), "damaged archive"),
        (b"\x80\x02}q\x00", "damaged"),
        (b"hello world, this is a text", "is a text file"),
        ((64).to_bytes(8, "little") + b'{"a":' + bytes(80), "damaged"),
    ],
)
def test_broken_files(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(ModelFileError, match=words) as caught:
        opened(tmp_path / "m.pt")
    assert len(str(caught.value).splitlines()) == 2
    told = inspect_file(tmp_path / "m.pt")
    assert told["error"] == caught.value.thing


def test_truncation_and_damage_are_errors_of_two_lines(tmp_path: Path) -> None:
    torch.save(lively("squeezenet1_1", classes=3).state_dict(), tmp_path / "m.pt")
    whole = (tmp_path / "m.pt").read_bytes()
    for length in (10, 1000, len(whole) // 2, len(whole) - 30):
        (tmp_path / "m.pt").write_bytes(whole[:length])
        with pytest.raises(ReportgenError) as caught:
            opened(tmp_path / "m.pt")
        assert len(str(caught.value).splitlines()) <= 2


def test_what_is_no_classifier(tmp_path: Path) -> None:
    for content, words in (
        ({"epoch": 3}, "there are no weights"),
        ([1, 2], "it holds a list"),
        ({"a.weight": torch.ones(2, 2), "b.weight": torch.ones(3)}, "no known architecture"),
    ):
        torch.save(content, tmp_path / "m.pt")
        with pytest.raises(ReportgenError, match=words):
            opened(tmp_path / "m.pt")
    odd = {**lively("resnet34", classes=3).state_dict(), "conv1.weight": torch.ones(1, 3, 7, 7)}
    torch.save(odd, tmp_path / "m.pt")
    with pytest.raises(ArchitectureError, match="do not fit torchvision:resnet18"):
        opened(tmp_path / "m.pt", arch="resnet18")
    with pytest.raises(ArchitectureError, match="there is no architecture 'resnet19'") as caught:
        opened(tmp_path / "m.pt", arch="resnet19")
    assert "resnet1" in caught.value.remedy


def test_own_architecture_by_its_dotted_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n"
        "def make(width=4, classes=3):\n"
        "    parts = nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)\n"
        "    return nn.Sequential(*parts)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    torch.save(model.state_dict(), tmp_path / "m.pt")
    found, facts = opened(tmp_path / "m.pt", arch="mynet:make", arch_args={"width": "8"})
    assert facts.how == "given"
    assert equal(model, found, noise(1, 32))
