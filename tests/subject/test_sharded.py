"""Weights spread over several files with an index: opened as one, and refused helpfully where a part is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from reportgen.errors import ModelFileError, UnsafeModelError
from reportgen.inspection import inspect_file
from reportgen.subject.digests import sha256_of
from reportgen.subject.model_file import open_model
from reportgen.subject.sharded import digest_of_model
from tests.networks import lively, noise

Save = Callable[[dict[str, Tensor], Path], None]
FORMS: dict[str, tuple[str, Save]] = {
    "safetensors": ("model-{:05d}-of-{:05d}.safetensors", save_file),
    "bin": ("pytorch_model-{:05d}-of-{:05d}.bin", torch.save),
    "bin, legacy": (
        "pytorch_model-{:05d}-of-{:05d}.bin",
        lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    ),
}


def sharded(folder: Path, form: str, state: dict[str, Tensor], count: int = 3) -> Path:
    """The index of a state dict that was spread over several files."""
    pattern, save = FORMS[form]
    table: dict[str, str] = {}
    keys = list(state)
    for place in range(count):
        name = pattern.format(place + 1, count)
        own = keys[place * len(keys) // count : (place + 1) * len(keys) // count]
        save({key: state[key].contiguous() for key in own}, folder / name)
        table |= dict.fromkeys(own, name)
    stem, _dash, suffix = pattern.partition("-{:05d}-of-{:05d}")
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": table}))
    return index


@pytest.mark.parametrize("form", FORMS)
def test_the_files_of_an_index_are_opened_as_one(form: str, tmp_path: Path) -> None:
    model = lively("resnet18", classes=7)
    index = sharded(tmp_path, form, model.state_dict())
    found, facts = open_model(index, sha256="")
    assert (facts.architecture, facts.num_classes, facts.safe) == ("torchvision:resnet18", 7, True)
    assert facts.size > sum(value.numel() for value in model.state_dict().values())
    x = noise(2, 96)
    with torch.no_grad():
        torch.testing.assert_close(found(x), model(x))


def test_tied_weights_lie_in_one_storage_each(tmp_path: Path) -> None:
    state = lively("resnet18", classes=3).state_dict()
    both = torch.stack((state["bn1.weight"], state["bn1.bias"]))
    state["bn1.weight"], state["bn1.bias"] = both[0], both[1]
    index = sharded(tmp_path, "bin", state)
    found, _facts = open_model(index, sha256="")
    assert torch.equal(found.state_dict()["bn1.bias"], both[1])


def test_the_digest_is_that_of_all_files(tmp_path: Path) -> None:
    state = lively("resnet18", classes=7).state_dict()
    index = sharded(tmp_path, "safetensors", state)
    before = digest_of_model(index, sha256_of)
    assert before != sha256_of(index)
    save_file({"fc.bias": state["fc.bias"] + 1}, tmp_path / "model-00003-of-00003.safetensors")
    assert digest_of_model(index, sha256_of) != before
    assert digest_of_model(tmp_path / "model-00001-of-00003.safetensors", sha256_of) == sha256_of(
        tmp_path / "model-00001-of-00003.safetensors"
    )


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    index = sharded(tmp_path, "safetensors", lively("resnet18", classes=7).state_dict())
    part = tmp_path / "model-00002-of-00003.safetensors"
    with pytest.raises(ModelFileError, match="one part of a model") as caught:
        open_model(part, sha256="")
    assert index.name in caught.value.remedy
    whole = part.read_bytes()
    save_file({"other": torch.ones(1)}, part)
    with pytest.raises(ModelFileError, match="lacks 'layer"):
        open_model(index, sha256="")
    part.unlink()
    with pytest.raises(ModelFileError, match="needs 'model-00002-of-00003") as caught:
        open_model(index, sha256="")
    assert "3 files" in caught.value.remedy
    part.write_bytes(whole)
    assert open_model(index, sha256="")[1].num_classes == 7


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", "nonsense", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": "../up.safetensors"}}', '{"weight_map": {"a": "/etc/passwd"}}',
        '{"weight_map": {"a": ".."}}', '{"weight_map": {"a": "m.index.json"}}', "[" * 100_000,
    ],
)  # fmt: skip
def test_damaged_indices(content: str, tmp_path: Path) -> None:
    (tmp_path / "m.index.json").write_text(content)
    with pytest.raises(ModelFileError, match="no index") as caught:
        open_model(tmp_path / "m.index.json", sha256="")
    assert len(str(caught.value).splitlines()) == 2
    assert inspect_file(tmp_path / "m.index.json")["error"] == caught.value.thing


class _Evil:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit",)


def test_a_part_that_could_run_code_is_refused(tmp_path: Path) -> None:
    index = sharded(tmp_path, "bin", lively("resnet18", classes=7).state_dict())
    torch.save({"layer4.1.bn2.bias": _Evil()}, tmp_path / "pytorch_model-00003-of-00003.bin")
    with pytest.raises(UnsafeModelError, match=r"\.exec, which is not needed"):
        open_model(index, sha256="")
