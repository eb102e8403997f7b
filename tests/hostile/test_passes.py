"""Models that fail, answer with nonsense, or at random, and techniques that raise: the rest is written all the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import reportgen
from reportgen.errors import PassError, ReportgenError
from reportgen.techniques import registry

OPTIONS: dict[str, Any] = {"preset": "quick", "batch_size": 2, "no_cache": True, "input_size": "32"}
FEW = ["predictions", "class_activation", "feature_maps", "gradient", "exemplars", "channel_health", "filters"]
BRIGHT = {"1.png", "3.png"}


class Moody(nn.Module):
    """A small classifier that treats bright images in a way of its own."""

    def __init__(self, mood: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.head = nn.Linear(16, 7)
        self.mood = mood

    def forward(self, x: Tensor) -> Tensor:
        bright = x.mean(dim=(1, 2, 3)) > 1
        scores = self.mood(self.head(self.features(x).flatten(1)), bright)
        assert isinstance(scores, Tensor)
        return scores


def refuses(scores: Tensor, bright: Tensor) -> Tensor:
    if bool(bright.any()):
        raise ValueError("too bright <b>for me</b>\nsecond line")
    return scores


def spoiled(value: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda scores, bright: scores.masked_fill(bright[:, None], value)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(5):
        low = 225 if f"{number}.png" in BRIGHT else 0
        pixels = np.random.default_rng(number).integers(low, low + 30, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_images_on_which_the_model_fails_are_left_out(images: Path, tmp_path: Path) -> None:
    report = reportgen.audit(Moody(refuses), images, only=FEW, **OPTIONS)
    told = report.facts
    reason = "the model failed in its forward: ValueError: too bright <b>for me</b>"
    assert {one["file"]: one["reason"] for one in told["images"]["skipped"]} == dict.fromkeys(BRIGHT, reason)
    assert told["images"]["used"] == 3
    assert {name: one["status"] for name, one in told["techniques"].items()} == dict.fromkeys(FEW, "complete")
    (finding,) = [one for one in told["findings"] if one["rule"] == "model.unanswered"]
    assert (finding["about"], finding["value"], finding["n"]) == ("model", 2, 5)
    report.write(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "<b>for me" not in page


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_no_numbers_are_told_and_not_shown_in_detail(
    value: float, images: Path, tmp_path: Path
) -> None:
    report = reportgen.audit(Moody(spoiled(value)), images, only=FEW, **OPTIONS)
    told = report.facts
    assert told["images"]["used"] == 5
    assert not BRIGHT & {one["image"] for one in told["images"]["exhibits"]}
    assert {name: one["status"] for name, one in told["techniques"].items()} == dict.fromkeys(FEW, "complete")
    (finding,) = [one for one in told["findings"] if one["rule"] == "predictions.not_finite"]
    assert (finding["about"], finding["value"], finding["n"]) == ("model", 2, 5)
    for kind in ("html", "pdf", "json"):
        report.write(tmp_path / f"r.{kind}")
    json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)


def test_gradients_that_are_not_finite_are_a_section_that_says_so(images: Path) -> None:
    """Scores are fine, and nothing is known of what they depend on."""

    def steep(scores: Tensor, _bright: Tensor) -> Tensor:
        return scores + (scores - scores).abs().sqrt()  # the derivative of the root at zero is infinite, times zero

    told = reportgen.audit(Moody(steep), images, only=FEW, **OPTIONS).facts["techniques"]
    assert {name: one["status"] for name, one in told.items() if one["status"] != "complete"} == {
        "class_activation": "failed",
        "gradient": "failed",
    }
    assert "not finite" in told["class_activation"]["reason"]


def test_an_image_may_be_answered_later(images: Path, tmp_path: Path) -> None:
    """A failure of the model is not kept: it may have been that of the machine."""
    cached = {**OPTIONS, "no_cache": False, "cache_dir": tmp_path / "cache", "only": FEW}
    failed = reportgen.audit(Moody(refuses), images, model_id="one", **cached)
    assert failed.facts["images"]["used"] == 3
    mended = reportgen.audit(Moody(lambda scores, _bright: scores), images, model_id="one", **cached)
    assert mended.facts["images"]["used"] == 5
    assert not [one for one in mended.facts["findings"] if one["rule"] == "model.unanswered"]


def test_a_model_that_fails_on_all_images_is_an_error(images: Path) -> None:
    def refuses_three(scores: Tensor, _bright: Tensor) -> Tensor:
        if len(scores) == 3:  # two are looked at first, for the layers
            raise ValueError("nothing for me")
        return scores

    with pytest.raises(PassError, match="nothing for me"):
        reportgen.audit(Moody(refuses_three), images, only=["predictions"], **{**OPTIONS, "batch_size": 3})


def test_a_model_without_any_number(images: Path, tmp_path: Path) -> None:
    """Weights that are no numbers: there is little to show, and that is what the report says."""
    report = reportgen.audit(Moody(spoiled_all), images, only=[*FEW, "hygiene"], **OPTIONS)
    assert {"predictions.not_finite"} <= {one["rule"] for one in report.facts["findings"]}
    for kind in ("html", "pdf", "json"):
        report.write(tmp_path / f"r.{kind}")


def spoiled_all(scores: Tensor, _bright: Tensor) -> Tensor:
    return scores * float("nan")


def test_classes_that_are_ruled_out_are_an_answer(images: Path) -> None:
    ruled = torch.zeros(7)
    ruled[3] = -torch.inf
    report = reportgen.audit(Moody(lambda scores, _bright: scores + ruled), images, only=["predictions"], **OPTIONS)
    assert report.facts["images"]["used"] == 5


@pytest.mark.parametrize(
    "mood",
    [
        lambda scores, _bright: nn.functional.dropout(scores, 0.5, training=True),
        lambda scores, _bright: scores + float(np.random.rand()),
    ],
    ids=["torch", "numpy"],
)
def test_a_model_that_draws_lots_is_told_and_repeated(
    mood: Callable[[Tensor, Tensor], Tensor], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first, second = (reportgen.audit(Moody(mood), images, only=FEW, **OPTIONS) for _run in range(2))
    assert [one["about"] for one in first.facts["findings"] if one["rule"] == "model.random"] == ["model"]
    assert first.rendered(".html") == second.rendered(".html")


def test_a_model_that_draws_none_is_not_accused(images: Path) -> None:
    report = reportgen.audit(Moody(lambda scores, _bright: scores), images, only=["predictions"], **OPTIONS)
    assert not {"model.random", "model.unanswered"} & {one["rule"] for one in report.facts["findings"]}


@pytest.mark.parametrize("method", ["compute", "results", "findings", "figures"])
@pytest.mark.parametrize("name", ["class_activation", "filters", "channel_health"])
def test_a_technique_that_raises_is_a_section_that_says_so(
    name: str, method: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_words: object) -> Any:
        raise ZeroDivisionError("<i>by nothing</i>")

    monkeypatch.setattr(registry()[name], method, broken)
    report = reportgen.audit(Moody(lambda scores, _bright: scores), images, only=FEW, **OPTIONS)
    told = report.facts["techniques"]
    assert {other for other in FEW if told[other]["status"] != "complete"} == {name}
    assert told[name]["status"] == "failed"
    assert told[name]["reason"] == "ZeroDivisionError: <i>by nothing</i>"
    for kind in ("html", "pdf", "json"):
        report.write(tmp_path / f"r.{kind}")
    assert "<i>by nothing" not in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize("size", [1, 2, 7, 640])
def test_sizes_of_the_input(size: int, images: Path) -> None:
    model = Moody(lambda scores, _bright: scores)
    report = reportgen.audit(model, images, only=FEW, **{**OPTIONS, "input_size": str(size)})
    states = {one["status"] for one in report.facts["techniques"].values()}
    assert states <= {"complete", "not_applicable"}


def test_a_model_that_takes_no_image(images: Path) -> None:
    """Two lines, no traceback."""
    with pytest.raises(ReportgenError) as caught:
        reportgen.audit(nn.Linear(3, 2), images, **OPTIONS)
    assert len(str(caught.value).splitlines()) == 2


class Blinking(Moody):
    """Activations inside are no numbers, and nothing that comes out of it depends on these."""

    def forward(self, x: Tensor) -> Tensor:
        first, rectifier, second, *rest = self.features
        inside = rectifier(first(x))
        inside = torch.where(torch.arange(8)[:, None, None] == 3, torch.nan, inside)
        made = second(self.spoiled(inside).nan_to_num(0))
        for part in rest:
            made = part(made)
        scores = self.head(made.flatten(1))
        assert isinstance(scores, Tensor)
        return scores

    def __init__(self) -> None:
        super().__init__(lambda scores, _bright: scores)
        self.spoiled = nn.Identity()


def test_activations_that_are_no_numbers(images: Path, tmp_path: Path) -> None:
    report = reportgen.audit(Blinking(), images, only=FEW, layers="features.2,spoiled", **OPTIONS)
    told = report.facts["techniques"]
    assert all(one["status"] == "complete" or "not finite" in one["reason"] for one in told.values()), told
    assert told["predictions"]["status"] == "complete"
    assert any(one["status"] == "failed" for one in told.values())
    for kind in ("html", "pdf", "json"):
        report.write(tmp_path / f"r.{kind}")
    json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)


def test_memory_that_never_suffices_is_an_error_of_two_lines(images: Path) -> None:
    def greedy(_scores: Tensor, _bright: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("simulated")

    with pytest.raises(ReportgenError, match="memory") as caught:
        reportgen.audit(Moody(greedy), images, only=FEW, **OPTIONS)
    assert len(str(caught.value).splitlines()) == 2


def test_memory_that_does_not_suffice_for_gradients_is_a_section_that_says_so(images: Path, tmp_path: Path) -> None:
    def greedy(scores: Tensor, _bright: Tensor) -> Tensor:
        if scores.requires_grad:
            raise torch.OutOfMemoryError("simulated")
        return scores

    report = reportgen.audit(Moody(greedy), images, only=[*FEW, "population", "sanity"], sample=3, **OPTIONS)
    told = report.facts["techniques"]
    assert {name for name, one in told.items() if one["status"] == "failed"} >= {"gradient", "class_activation"}
    assert {one["reason"] for one in told.values() if one["status"] == "failed"} == {
        "memory ran out even for a single image"
    }
    assert all(told[name]["status"] == "complete" for name in ("predictions", "filters", "channel_health"))
    for kind in ("html", "pdf", "json"):
        report.write(tmp_path / f"r.{kind}")


@pytest.mark.parametrize("when", ["first", "with a gradient"])
def test_images_that_vanish_during_the_run(when: str, images: Path, tmp_path: Path) -> None:
    gone: list[Path] = []

    def watching(scores: Tensor, _bright: Tensor) -> Tensor:
        if not gone and (when == "first" or scores.requires_grad):
            gone.extend(sorted(images.iterdir())[2:])
            for path in gone:
                path.unlink()
        return scores

    report = reportgen.audit(Moody(watching), images, only=FEW, **OPTIONS)
    assert gone
    told = report.facts["images"]
    assert told["used"] + len(told["skipped"]) == told["count"] == 5
    assert {one["reason"] for one in told["skipped"]} <= {"vanished during the run"}
    states = {name: one["status"] for name, one in report.facts["techniques"].items()}
    assert states["predictions"] == "complete"
    for kind in ("html", "pdf", "json"):
        report.write(tmp_path / f"r.{kind}")


def test_images_of_one_pixel_and_of_one_row(images: Path, tmp_path: Path) -> None:
    for number, size in enumerate([(1, 1), (1, 3000), (3000, 1), (2, 1), (1, 60_000)]):
        Image.new("RGB", size, (90, 20, 200)).save(images / f"odd{number}.png")
    report = reportgen.audit(Moody(lambda scores, _bright: scores), images, only=FEW, exhibits=10, **OPTIONS)
    told = report.facts["images"]
    assert told["used"] + len(told["skipped"]) == told["count"] == 10
    assert told["used"] >= 8
    for kind in ("html", "pdf", "json"):
        report.write(tmp_path / f"r.{kind}")
