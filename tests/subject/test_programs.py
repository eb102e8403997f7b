"""Programs (TorchScript, `torch.export`): refused without the user's word, and then looked at as far as can be."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import reportgen
from reportgen.errors import ArchitectureError, ModelFileError, UnsafeModelError
from reportgen.subject.exported import FixedBatch
from reportgen.subject.model_facts import ModelFacts
from reportgen.subject.model_file import open_model
from tests.networks import enlivened, lively, noise


def opened(path: Path, **options: Any) -> tuple[nn.Module, ModelFacts]:
    return open_model(path, sha256="", trust=True, **options)


def small() -> nn.Module:
    """A network that no architecture is like, with two blocks, a rectifier in place and a head behind pooling."""
    torch.manual_seed(0)
    one = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    two = nn.Sequential(nn.Conv2d(4, 8, 3, padding="same", groups=2), nn.SiLU())
    return enlivened(nn.Sequential(one, two, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)), size=32)


def scripted(model: nn.Module, path: Path, *, traced: bool = False, frozen: bool = False) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their deprecation
        made = torch.jit.trace(model, noise(1, 32)) if traced else torch.jit.script(model)
        torch.jit.save(torch.jit.freeze(made) if frozen else made, path)
    return path


def exported(model: nn.Module, path: Path, *, batch: int | None = None) -> Path:
    """A program for `batch` images of 32 × 32 at once, or for any number."""
    free = None if batch else ({0: torch.export.Dim("n", min=1, max=64)},)
    torch.export.save(torch.export.export(model, (noise(batch or 2, 32),), dynamic_shapes=free), path)
    return path


def answers(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)  # type: ignore[no-any-return]


PROGRAMS = {
    "script": (scripted, {}),
    "trace": (scripted, {"traced": True}),
    "export": (exported, {}),
    "export of one image": (exported, {"batch": 1}),
    "export of three images": (exported, {"batch": 3}),
}


@pytest.mark.parametrize("form", PROGRAMS)
def test_programs_are_named_and_refused_without_the_users_word(form: str, tmp_path: Path) -> None:
    save, options = PROGRAMS[form]
    path = save(small(), tmp_path / "m.pt", **options)
    with pytest.raises(UnsafeModelError, match="TorchScript" if save is scripted else "exported program") as caught:
        open_model(path, sha256="")
    assert "--trust-model" in caught.value.remedy
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("form", PROGRAMS)
def test_a_known_architecture_that_answers_alike_takes_the_place_of_a_program(form: str, tmp_path: Path) -> None:
    model = lively("squeezenet1_1", classes=4)
    save, options = PROGRAMS[form]
    found, facts = opened(save(model, tmp_path / "m.pt", **options))
    assert (facts.architecture, facts.how, facts.safe) == ("torchvision:squeezenet1_1", "verified", False)
    assert facts.format == ("torchscript" if save is scripted else "exported")
    assert facts.num_classes == 4
    if save is exported:  # it was made for images of this size
        assert facts.published is not None
        assert (facts.published.input_size, facts.published.resize) == ((3, 32, 32), 37)
    torch.testing.assert_close(answers(found, noise(3, 64)), answers(model, noise(3, 64)))


def test_which_of_several_architectures_it_is_the_answers_tell(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = enlivened(timm.create_model("resnetblur18", num_classes=3))
    found, facts = opened(exported(model, tmp_path / "m.pt2"))
    assert (facts.architecture, facts.how) == ("timm:resnetblur18", "verified")
    torch.testing.assert_close(answers(found, noise(2, 64)), answers(model, noise(2, 64)))


def test_an_architecture_that_answers_otherwise_is_not_believed(tmp_path: Path) -> None:
    model = lively("resnet18", classes=3)
    model.layer4[1].relu = nn.Identity()  # as the weights do not tell
    path = exported(model, tmp_path / "m.pt2")
    _found, facts = opened(path)
    assert facts.how == "class"
    with pytest.raises(ArchitectureError, match="does not answer as the program does"):
        opened(path, arch="resnet18")
    with pytest.raises(ArchitectureError, match="do not fit"):
        opened(path, arch="resnet34")


@pytest.mark.parametrize("form", PROGRAMS)
def test_a_program_that_is_like_no_architecture_answers_for_any_number_of_images(form: str, tmp_path: Path) -> None:
    model = small()
    save, options = PROGRAMS[form]
    found, facts = opened(save(model, tmp_path / "m.pt", **options))
    for count in (1, 2, 5):
        torch.testing.assert_close(answers(found, noise(count, 32)), answers(model, noise(count, 32)))
    assert facts.channels_in == 3
    if save is exported:
        assert [type(part) for part in found.modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d | nn.Linear)] == [
            nn.Conv2d, nn.BatchNorm2d, nn.Conv2d, nn.Linear,
        ]  # fmt: skip
        assert dict(found.named_modules())["1.0"].groups == 2


def picture() -> Image.Image:
    return Image.fromarray((noise(1, 32)[0].permute(1, 2, 0) * 40 + 128).byte().numpy())


def audited(model: Any, **options: Any) -> Any:
    return reportgen.audit(model, [picture()], input_size="32", no_cache=True, preset="quick", **options)


@pytest.mark.parametrize("batch", [None, 1])
def test_maps_of_an_exported_program_are_those_of_the_model(batch: int | None, tmp_path: Path) -> None:
    only = ["predictions", "gradient", "guided_backprop", "deconvnet", "class_activation", "filters"]
    model = small()
    found = audited(exported(model, tmp_path / "m.pt2", batch=batch), only=only, layers=["1"], trust_model=True)
    expected = audited(model, only=only, layers=["1"])
    for name in only:
        assert found.facts["techniques"][name]["status"] == "complete"
        tensors = expected.tensors(name, image="image-0000") if name not in ("predictions", "filters") else {}
        for key, tensor in tensors.items():
            own = found.tensors(name, image="image-0000")[key]
            torch.testing.assert_close(own, tensor, atol=1e-5 * float(tensor.abs().max()), rtol=1e-5)
    assert (
        found.facts["techniques"]["guided_backprop"]["results"]
        == expected.facts["techniques"]["guided_backprop"]["results"]
    )
    assert "model.trusted" in [one["rule"] for one in found.facts["findings"]]


def test_what_cannot_be_had_of_a_script_is_told(tmp_path: Path) -> None:
    found = audited(scripted(small(), tmp_path / "m.pt", frozen=True), trust_model=True)
    told = found.facts["techniques"]
    for name in ("predictions", "gradient", "occlusion"):
        assert told[name]["status"] == "complete"
    for name in ("class_activation", "feature_maps", "max_activation"):
        assert (told[name]["status"], told[name]["reason"]) == (
            "not_applicable",
            "the layers of a scripted model cannot be looked at",
        )
    assert not [name for name, one in told.items() if one["status"] == "failed"]
    assert found.facts["model"]["architecture"] == "Sequential (TorchScript)"


def test_programs_for_something_else_than_images_are_refused(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(4, 2), (torch.ones(1, 4),)), tmp_path / "m.pt2")
    with pytest.raises(ModelFileError, match="does not take one batch of images") as caught:
        opened(tmp_path / "m.pt2")
    assert len(str(caught.value).splitlines()) == 2


def test_damaged_programs_are_refused_in_two_lines(tmp_path: Path) -> None:
    for save in (scripted, exported):
        path = save(small(), tmp_path / "m.pt")
        data = bytearray(path.read_bytes())
        for place in range(200, len(data) - 3000, 97):
            data[place] ^= 0xFF
        path.write_bytes(data)
        with pytest.raises(ModelFileError, match=r"cannot be opened even with|is a damaged archive") as caught:
            opened(path)
        assert len(str(caught.value).splitlines()) == 2


def test_pieces_of_a_fixed_number_of_images() -> None:
    class Counts(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Any]:
            assert len(x) == 3
            return {"logits": x * 2, "more": (x, [x + 1])}

    whole = FixedBatch(Counts(), 3)
    x = torch.arange(10.0).reshape(5, 2)
    made = whole(x)
    assert torch.equal(made["logits"], 2 * x)
    assert torch.equal(made["more"][1][0], x + 1)
