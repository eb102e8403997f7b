"""Copies among the images, and from a reference set, are told with their names; without any nothing is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import reportgen
from reportgen.engine.shards import Shards
from tests.test_likeness import scene

PLAIN: dict[str, Any] = {"preset": "quick", "only": ["duplicates"], "input_size": "16", "mean": (0.5,), "std": (0.5,)}


class Counted(nn.Module):
    """A small classifier that counts the images it is given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(4, 3)
        self.seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        scores: torch.Tensor = self.linear(self.conv(x).relu().mean((2, 3)))
        return scores


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "images"
    for seed in range(8):
        place = made / f"class {seed % 3}"
        place.mkdir(parents=True, exist_ok=True)
        scene(seed).save(place / f"{seed}.png")
    return made


def audited(folder: Path, model: nn.Module | None = None, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Results, and findings by rule."""
    report = reportgen.audit(model or Counted(), folder, **{**PLAIN, **options})
    assert report.facts["techniques"]["duplicates"]["status"] == "complete"
    findings = {one["rule"]: one for one in report.facts["findings"] if one["rule"].startswith("duplicates.")}
    return report.facts["techniques"]["duplicates"]["results"], findings


def test_a_set_without_copies_gives_no_cause(folder: Path) -> None:
    results, findings = audited(folder)
    assert findings == {}
    assert (results["images"], results["compared"], results["reference"]) == (8, 8, None)


def test_copies_are_told_as_what_they_are(folder: Path) -> None:
    shutil.copy(folder / "class 0" / "0.png", folder / "class 0" / "copy.png")
    scene(1).save(folder / "class 1" / "compressed.jpg", quality=50)
    results, findings = audited(folder)
    assert results["exact"] == {"images": 1, "groups": [["class 0/0.png", "class 0/copy.png"]]}
    assert results["near"] == {"images": 1, "groups": [["class 1/1.png", "class 1/compressed.jpg"]]}
    assert set(findings) == {"duplicates.exact", "duplicates.near"}
    assert (findings["duplicates.exact"]["value"], findings["duplicates.exact"]["n"]) == (1, 10)
    assert "class 1/1.png = class 1/compressed.jpg" in findings["duplicates.near"]["detail"]
    quiet = {"findings": {"duplicates.exact": 2, "duplicates.near": 2}}
    assert audited(folder, **quiet)[1] == {}


def test_one_image_under_two_classes(folder: Path) -> None:
    (folder.parent / "labels.txt").write_text("class 0\nclass 1\nclass 2\n")
    labels = {"labels": folder.parent / "labels.txt"}
    shutil.copy(folder / "class 0" / "0.png", folder / "class 0" / "again.png")
    assert "duplicates.contradicting" not in audited(folder, **labels)[1]
    shutil.copy(folder / "class 0" / "0.png", folder / "class 2" / "other.png")
    results, findings = audited(folder, **labels)
    assert results["contradicting"] == [["class 0/0.png", "class 0/again.png", "class 2/other.png"]]
    assert findings["duplicates.contradicting"]["severity"] == "warning"


def test_what_the_reference_set_has_too(folder: Path, tmp_path: Path) -> None:
    training = tmp_path / "training"
    training.mkdir()
    shutil.copy(folder / "class 2" / "2.png", training / "same file.png")
    scene(4).resize((100, 80)).convert("L").save(training / "small and grey.png")
    for seed in range(100, 104):
        scene(seed).save(training / f"{seed}.png")
    (training / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    model = Counted()
    results, findings = audited(folder, model, model_id="one", reference=training)
    reference = results["reference"]
    assert (reference["images"], reference["exact"], reference["near"]) == (6, 1, 1)
    assert reference["pairs"] == [["class 2/2.png", "same file.png"], ["class 1/4.png", "small and grey.png"]]
    assert findings["duplicates.leaked"]["value"] == 2
    assert findings["duplicates.leaked"]["severity"] == "warning"
    # what is only compared is not put into the model; and a second run neither decodes nor draws
    seen = model.seen
    assert seen == 2 + 8  # the look at the layers, and the images
    audited(folder, model, model_id="one", reference=training)
    assert model.seen == seen
    for name in ("same file.png", "small and grey.png"):
        (training / name).unlink()
    results, findings = audited(folder, model, model_id="one", reference=training)
    assert (results["reference"]["images"], findings) == (4, {})


def test_another_model_sees_the_looks_that_are_stored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _findings = audited(folder, model_id="one")

    def refuse(self: Shards, digest: str, row: Any) -> None:
        assert self.planned.name != "duplicates", "looked at again"
        put(self, digest, row)

    put = Shards.put
    monkeypatch.setattr(Shards, "put", refuse)
    second, _findings = audited(folder, model_id="two")
    assert second == first


def test_names_are_withheld_from_pairs_too(folder: Path, tmp_path: Path) -> None:
    training = tmp_path / "jane"
    training.mkdir()
    shutil.copy(folder / "class 2" / "2.png", training / "jane.png")
    results, findings = audited(folder, reference=training, names="hash")
    assert "jane" not in str(results) + str(findings)
    assert results["reference"]["exact"] == 1


def test_ready_tensors_are_compared_too() -> None:
    torch.manual_seed(0)
    rough = nn.functional.interpolate(torch.rand(6, 3, 16, 16), size=(64, 64), mode="bilinear")
    items = [*rough, rough[2] + 0.001]
    results, _findings = audited(items)  # type: ignore[arg-type]
    assert results["near"]["groups"] == [["image-0002", "image-0006"]]
