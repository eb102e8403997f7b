"""The check is silent where images arrive as in training and speaks where they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import reportgen
from tests import planted

RIGHT = {"mean": (planted.MEAN,), "std": (planted.STD,)}
WRONG = [
    {"mean": (0.0,), "std": (1.0,)},
    {"mean": (planted.MEAN,), "std": (2.2 * planted.STD,)},
    {"mean": (planted.MEAN,), "std": (planted.STD / 2.2,)},
]


@pytest.fixture(scope="module", params=[(12, True), (24, False)], ids=["narrow", "wide"])
def trained(request: pytest.FixtureRequest) -> nn.Module:
    width, mark = request.param
    return planted.trained(mark=mark, width=width)


def checked(model: nn.Module, images: Path, **options: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Results, and the finding if there is one."""
    size = {"input_size": str(planted.SIZE), "resize": "none"}
    report = reportgen.audit(model, images, only="preprocessing", **{**size, **options})
    told = report.facts["techniques"]["preprocessing"]
    assert told["status"] == "complete"
    found = [
        one for one in report.facts["findings"] if one["rule"] in ("preprocessing.mismatch", "preprocessing.shifted")
    ]
    assert len(found) <= 1
    return told["results"], found[0] if found else None


def test_silent_with_the_right_preprocessing(tmp_path: Path, trained: nn.Module) -> None:
    results, finding = checked(trained, planted.folder(tmp_path / "i", 20, mark=False), **RIGHT)
    assert finding is None
    assert results["layers"]["1"]["log_ratio"] < 0.4
    assert results["implied_std"] == pytest.approx(planted.STD, rel=0.2)


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_speaks_with_the_wrong_one(tmp_path: Path, trained: nn.Module, wrong: dict[str, Any]) -> None:
    results, finding = checked(trained, planted.folder(tmp_path / "i", 20, mark=False), **wrong)
    assert finding is not None
    assert finding["rule"] == "preprocessing.mismatch"
    assert finding["interval"][0] < finding["value"] < finding["interval"][1]
    assert (finding["about"], finding["severity"], finding["subject"]) == ("model", "warning", "1")
    assert finding["value"] >= finding["threshold"]
    assert finding["n"] == 20
    assert results["implied_std"] == pytest.approx(planted.STD, rel=0.2)


def test_speaks_where_only_the_mean_is_wrong(tmp_path: Path, trained: nn.Module) -> None:
    _results, finding = checked(
        trained, planted.folder(tmp_path / "i", 20, mark=False), mean=(-0.5,), std=(planted.STD,)
    )
    assert finding is not None
    # zeros in the padding lie elsewhere then, which widens the variances too
    assert finding["rule"] in ("preprocessing.shifted", "preprocessing.mismatch")


def test_few_images_say_nothing(tmp_path: Path, trained: nn.Module) -> None:
    _results, finding = checked(trained, planted.folder(tmp_path / "i", 4, mark=False), **WRONG[0])
    assert finding is None


def test_one_image_many_times_says_nothing(tmp_path: Path, trained: nn.Module) -> None:
    pixels = Image.fromarray(planted.example(10_000, 0, mark=False))
    for number in range(12):
        pixels.save(tmp_path / f"{number}.png", dpi=(70 + number // 2, 70))
    results, finding = checked(trained, tmp_path, **WRONG[0])
    assert (results["images"], finding) == (6, None)


def test_statistics_that_training_never_touched_say_nothing(tmp_path: Path) -> None:
    results, finding = checked(planted.network().eval(), planted.folder(tmp_path / "i", 8, mark=False), **WRONG[1])
    assert results["layers"]["1"]["log_ratio"] > results["thresholds"]["log_ratio"]
    assert results["layers"]["1"]["untouched"]
    assert finding is None


def test_thresholds_are_the_users(tmp_path: Path, trained: nn.Module) -> None:
    images = planted.folder(tmp_path / "i", 20, mark=False)
    higher = {"preprocessing.mismatch": 3, "preprocessing.shifted": 5}
    assert checked(trained, images, **WRONG[1], findings=higher)[1] is None
    lower = {"preprocessing.mismatch": 0.01}
    assert checked(trained, images, **RIGHT, findings=lower)[1] is not None


def test_statistics_are_those_of_numpy(tmp_path: Path, trained: nn.Module) -> None:
    images = planted.folder(tmp_path / "i", 9, mark=False)
    results, _finding = checked(trained, images, **RIGHT)
    x = torch.cat([planted.normalised(file) for file in sorted(images.rglob("*.png"))])
    with torch.no_grad():
        maps = trained[0](x).double().numpy().transpose(1, 0, 2, 3)
    flat = maps.reshape(len(maps), -1)
    stored = trained[1].running_mean.double().numpy(), trained[1].running_var.double().numpy()
    ratio = np.log(flat.var(axis=1) / stored[1])
    shift = (flat.mean(axis=1) - stored[0]) / np.sqrt(stored[1])
    told = results["layers"]["1"]
    assert told["log_ratio"] == pytest.approx(np.median(np.abs(ratio)), abs=1e-4)
    assert told["signed"] == pytest.approx(np.median(ratio), abs=1e-4)
    assert told["shift"] == pytest.approx(np.median(np.abs(shift)), abs=1e-4)
    assert list(results["layers"]) == ["1", "4", "7"]


def test_a_network_without_normalisation_says_why(tmp_path: Path) -> None:
    images = planted.folder(tmp_path / "i", 2, mark=False)
    model = planted.network(normalised=False).eval()
    report = reportgen.audit(model, images, only="preprocessing", **planted.OPTIONS)
    assert report.facts["techniques"]["preprocessing"]["status"] == "not_applicable"
