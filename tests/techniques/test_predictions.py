"""What is concluded from answers: each rule speaks of a fault that was made, and not where none was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reportgen
from reportgen.metrics import wilson
from reportgen.techniques.predictions import Predictions

SIDE = 8
CLASSES = 4
EXACT: dict[str, Any] = {"preset": "quick", "only": ["predictions"]}


class Reads(nn.Module):
    """Scores are the means of the quarters of the first channel; images say there which class they show."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.pool(x)[:, 0].flatten(1)


class Wrapped(nn.Module):
    """`how` after `inner`."""

    def __init__(self, inner: nn.Module, how: Any) -> None:
        super().__init__()
        self.inner = inner
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.how(self.inner(x))
        return answer


def images(n: int = 60, *, wrong: float = 0.1, strength: float = 3.0, seed: int = 0) -> list[tuple[Tensor, int, str]]:
    """(input, class, id): most show their class in a quarter of the first channel, some another."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(n):
        truth = number % CLASSES
        shown = truth if number >= wrong * n else (truth + 1 + number) % CLASSES
        x = 0.3 * torch.randn(3, SIDE, SIDE, generator=generator)
        row, column = divmod(shown, 2)
        x[0, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] += strength
        made.append((x, truth, f"{number:03}"))
    return made


def rules(model: nn.Module, items: Any, **options: Any) -> dict[str, dict[str, Any]]:
    report = reportgen.audit(model, items, **{**EXACT, **options})
    section = report.facts["techniques"]["predictions"]
    assert section["status"] == "complete", section["reason"]
    return {one["rule"]: one for one in report.facts["findings"] if one["rule"].startswith("predictions.")}


def test_a_sound_network_gives_no_cause() -> None:
    assert rules(Reads(), images()) == {}


def test_metrics_of_report_json_are_those_of_the_answers() -> None:
    items = images(40)
    report = reportgen.audit(Reads(), items, **EXACT)
    scores = torch.stack([Reads()(x[None])[0] for x, _truth, _name in items]).detach()
    truth = torch.tensor([one for _x, one, _name in items])
    metrics = report.facts["metrics"]
    assert set(metrics) == {"accuracy", "balanced_accuracy", "auroc", "ece", "per_class"}
    assert metrics["accuracy"]["value"] == pytest.approx((scores.argmax(1) == truth).float().mean().item())
    assert metrics["accuracy"]["n"] == 40
    from sklearn.metrics import roc_auc_score

    expected = roc_auc_score(truth, scores.double().softmax(1), multi_class="ovr")
    assert metrics["auroc"]["value"] == pytest.approx(expected, abs=1e-6)
    assert [one["label"] for one in metrics["per_class"]] == [f"class {n}" for n in range(CLASSES)]
    figures = report.facts["techniques"]["predictions"]["figures"]
    assert figures == ["predictions-reliability", "predictions-confusion"]
    assert "metrics" not in report.facts["techniques"]["predictions"]["results"]


def test_scores_that_are_no_numbers() -> None:
    def broken(scores: Tensor) -> Tensor:
        return torch.where(scores.max(1, keepdim=True).values > 2.5, scores / 0, scores)

    found = rules(Wrapped(Reads(), broken), images())
    assert list(found) == ["predictions.not_finite"]
    assert found["predictions.not_finite"]["severity"] == "critical"


def test_an_answer_that_does_not_depend_on_the_image() -> None:
    found = rules(Reads(gain=0.0), images())
    assert found["predictions.constant"]["n"] == 60
    assert len(found) == 1  # that it names one class for all follows


def test_images_that_are_all_alike_are_answered_alike(tmp_path: Any) -> None:
    from PIL import Image

    for number in range(30):
        Image.new("RGB", (SIDE, SIDE), (90, 20, 30)).save(tmp_path / f"{number}.png", dpi=(70 + number, 70))
    assert rules(Reads(), tmp_path, input_size=str(SIDE), resize="none") == {}


def test_copies_and_groups_are_one_witness(tmp_path: Any) -> None:
    """Of one image under forty names, and of forty images of one patient, no habit can be told."""
    from PIL import Image

    (tmp_path / "images").mkdir()
    rows = ["image,label,group,slice"]
    for number in range(80):
        pixels = np.random.default_rng(number % 40).integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number:02}.png")
        rows.append(f"{number:02}.png,{number % 2},{'one' if number < 40 else ''},{'a' if number < 40 else 'b'}")
    (tmp_path / "truth.csv").write_text("\n".join(rows))
    plain = {"input_size": str(SIDE), "resize": "none", "truth": tmp_path / "truth.csv"}
    report = reportgen.audit(Reads(), tmp_path / "images", **plain, **EXACT)
    assert report.facts["techniques"]["predictions"]["results"]["groups"] == 41
    assert "predictions.weak_slice" not in {one["rule"] for one in report.facts["findings"]}
    (tmp_path / "truth.csv").write_text("\n".join(f"{row.rsplit(',', 2)[0]}" for row in rows))
    report = reportgen.audit(Reads(), tmp_path / "images", **plain, **EXACT)
    told, accuracy = report.facts["techniques"]["predictions"]["results"], report.facts["metrics"]["accuracy"]
    assert told["groups"] is None
    assert accuracy["n"] == 80
    low, high = wilson(40 * accuracy["value"], 40)
    assert accuracy["interval"][0] <= low + 1e-3
    assert accuracy["interval"][1] >= high - 1e-3


def test_one_class_for_all() -> None:
    shifted = Wrapped(Reads(), lambda scores: scores + torch.tensor([0.0, 0, 9, 0]))
    found = rules(shifted, images())
    assert found["predictions.one_class"]["subject"] == "class 2"
    assert found["predictions.one_class"]["value"] == 1.0
    only_that = [one for one in images(100) if one[1] == 2]
    assert "predictions.one_class" not in rules(shifted, only_that)
    other = [one for one in images(100) if one[1] == 1]
    assert "predictions.one_class" not in rules(shifted, other)  # wrong throughout, but whether always so?


def test_saturated_answers() -> None:
    found = rules(Reads(gain=100.0), images(wrong=0.0))
    assert found["predictions.saturated"]["value"] == 1.0
    quiet = {"findings": {"predictions.saturated": 1.1}}
    assert "predictions.saturated" not in rules(Reads(gain=100.0), images(wrong=0.0), **quiet)


def test_worse_than_one_name_for_all() -> None:
    """Nine in ten images are of one class, and the network guesses."""
    mostly = [(x, 0 if number % 10 else 1, name) for number, (x, _truth, name) in enumerate(images(60))]
    found = rules(Reads(), mostly)["predictions.below_majority"]
    assert found["threshold"] == 0.9
    assert found["interval"][1] < 0.9


def test_confidence_that_is_not_deserved() -> None:
    sure = images(200, wrong=0.4)
    found = rules(Reads(gain=4.0), sure)["predictions.calibration"]
    assert found["interval"][0] <= found["value"] <= found["interval"][1]
    assert "surer than it is right" in found["detail"]
    honest = rules(Reads(gain=0.8), images(200, wrong=0.25))
    assert "predictions.calibration" not in honest


def test_names_in_another_order() -> None:
    found = rules(Reads(), [(x, (truth + 1) % CLASSES, name) for x, truth, name in images()])
    told = found["predictions.labels_permuted"]
    assert told["severity"] == "critical"
    assert "class 0 → class 1" in told["detail"]
    assert "All are shifted by 1." in told["detail"]


def test_channels_in_another_order(tmp_path: Any) -> None:
    """The class stands in the first channel that the network gets; images that hold it in blue are the other order."""
    items = [(x.flip(0), truth, name) for x, truth, name in images()]
    found = rules(Reads(), items)["predictions.channels_swapped"]
    assert found["severity"] == "critical"
    assert found["n"] == 60
    assert found["value"] > 0.5
    assert "predictions.channels_swapped" not in rules(Reads(), images())
    few = rules(Reads(), items[:19])
    assert "predictions.channels_swapped" not in few


def test_the_trial_of_channels_is_bounded_and_kept() -> None:
    seen: list[int] = []

    def counted(scores: Tensor) -> Tensor:
        seen.append(len(scores))
        return scores

    options = {**EXACT, "batch_size": 8, "model_id": "one"}
    first = reportgen.audit(Wrapped(Reads(), counted), images(200), **options)
    assert sum(seen) == 2 + 200 + 128
    assert first.facts["techniques"]["predictions"]["results"]["channels"]["n"] == 128
    seen.clear()
    second = reportgen.audit(Wrapped(Reads(), counted), images(200), **options)
    assert seen == []
    assert second.facts["metrics"] == first.facts["metrics"]
    seen.clear()
    unlabelled = [x for x, _truth, _name in images(60)]
    reportgen.audit(Wrapped(Reads(), counted), unlabelled, **{**options, "model_id": "two"})
    assert sum(seen) == 2 + 64  # 60 in batches of 8


def test_parts_of_the_data(tmp_path: Any) -> None:
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    rows = ["image,label,group,slice"]
    for number in range(120):
        night = number % 3 == 0
        shown = (number + (night and number % 2)) % CLASSES
        pixels = np.full((SIDE, SIDE, 3), 60, np.uint8) + np.random.default_rng(number).integers(0, 9, (SIDE, SIDE, 3))
        row, column = divmod(shown, 2)
        pixels[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4, 0] = 200
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03}.png")
        rows.append(f"{number:03}.png,{number % CLASSES},camera-{number // 2},{'night' if night else 'day'}")
    (tmp_path / "truth.csv").write_text("\n".join(rows))
    plain = {"input_size": str(SIDE), "resize": "none", "mean": (0.5,), "std": (0.25,)}
    report = reportgen.audit(Reads(), folder, truth=tmp_path / "truth.csv", **plain, **EXACT)
    told = {one["slice"]: one["accuracy"] for one in report.facts["metrics"]["per_slice"]}
    assert {name: (one["value"], one["n"]) for name, one in told.items()} == {"day": (1.0, 80), "night": (0.5, 40)}
    (found,) = (one for one in report.facts["findings"] if one["rule"] == "predictions.weak_slice")
    assert (found["subject"], found["value"], found["n"]) == ("night", 0.5, 40)
    assert found["interval"][0] > 0
    assert report.facts["techniques"]["predictions"]["results"]["groups"] == 60
    assert report.facts["predictions"][0]["slice"] == "night"
    # mistakes and parts that have nothing to do with one another
    halves = [f"{row.rpartition(',')[0]},{'dusk' if int(row[:3]) % 4 > 1 else 'dawn'}" for row in rows[1:]]
    (tmp_path / "truth.csv").write_text("\n".join([rows[0], *halves]))
    report = reportgen.audit(Reads(), folder, truth=tmp_path / "truth.csv", **plain, **EXACT)
    assert not [one for one in report.facts["findings"] if one["rule"] == "predictions.weak_slice"]


def test_every_rule_has_a_name_of_its_own() -> None:
    names = [rule.name for rule in Predictions.rules]
    assert len(set(names)) == len(names)
    assert all(name.startswith("predictions.") for name in names)
