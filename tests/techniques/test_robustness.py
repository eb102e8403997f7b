"""Robustness of a network that is fragile by construction, and of one that is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reportgen
from reportgen.engine.perturbations import perturbed
from reportgen.engine.requests import Perturbed
from tests.trained import patches, trained_network


def audited(model: nn.Module, items: list[Any], **options: Any) -> reportgen.Report:
    return reportgen.audit(model, items, only=["robustness"], techniques={"robustness": options})


def flagged(report: reportgen.Report) -> list[dict[str, Any]]:
    return [one for one in report.facts["findings"] if one["rule"] == "robustness.flips"]


class Threshold(nn.Module):
    """Answers whether the image is brighter than `at`."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 1, 3, padding=1, bias=False)
        nn.init.constant_(self.maps.weight, 1 / 27)
        self.at = at

    def forward(self, x: Tensor) -> Tensor:
        bright = self.maps(x)[:, :, 1:-1, 1:-1].mean(dim=(1, 2, 3)) - self.at
        return 40 * torch.stack((bright, -bright), dim=1)


def photographs(count: int) -> list[Any]:
    """Noise around mid grey; in the space of the network, whose pipeline moves and scales, the mean is about 0.2."""
    images = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    spread = torch.linspace(-0.05, 0.05, count)[:, None, None, None]
    moved = (images + spread).clamp(0, 1)
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return [((image - mean) / std, None, f"{place:02}") for place, image in enumerate(moved)]


def test_a_threshold_near_the_images_flips_and_one_far_from_them_does_not() -> None:
    items = photographs(24)
    middle = float(torch.stack([image for image, _label, _id in items]).mean())
    (finding,) = flagged(audited(Threshold(middle), items))
    assert (finding["about"], finding["severity"], finding["n"]) == ("model", "warning", 24)
    assert finding["subject"] in ("darker", "brighter")
    assert finding["interval"][0] > finding["threshold"] == 0.1
    assert flagged(audited(Threshold(middle - 3), items)) == []
    report = reportgen.audit(Threshold(middle), items, only=["robustness"], findings={"robustness.flips": 0.9})
    assert report.facts["techniques"]["robustness"]["results"]["threshold"] == 0.9
    assert flagged(report) == []


def test_of_a_handful_of_images_nothing_is_said() -> None:
    items = photographs(24)
    middle = float(torch.stack([image for image, _label, _id in items]).mean())
    report = audited(Threshold(middle), items[::4])
    flips = report.facts["techniques"]["robustness"]["results"]["changes"]["darker"]["flips"]
    assert flips["count"] > 0
    assert flagged(report) == []


def test_flips_accuracy_and_stability_equal_plain_forwards() -> None:
    model = trained_network()
    images, classes, _corners = patches(12, seed=9)
    items = [
        (image, int(label), f"{place:02}") for place, (image, label) in enumerate(zip(images, classes, strict=True))
    ]
    report = audited(model, items, noise=0.2, blur=0.03)
    results = report.facts["techniques"]["robustness"]["results"]
    pipeline = report.facts["model"]["input"]
    with torch.no_grad():
        before = model(images).argmax(dim=1)
        for name, change in {"noise": Perturbed("noise", 0.2), "blur": Perturbed("blur", 0.03)}.items():
            scores = model(perturbed(images, change, pipeline))
            told = results["changes"][name]
            assert told["flips"]["count"] == int((scores.argmax(dim=1) != before).sum())
            assert told["accuracy"]["value"] == pytest.approx(float((scores.argmax(dim=1) == classes).float().mean()))
            stored = report.tensors("robustness", "03")
            assert float(stored[f"probability/{name}"]) == pytest.approx(
                float(scores.softmax(dim=1)[3, before[3]]), abs=1e-5
            )
    side = min(images.shape[2:])
    assert results["changes"]["blur"]["pixels"] == pytest.approx(0.03 * side)
    assert results["changes"]["shift"]["pixels"] == max(1, round(0.02 * side))
    assert results["changes"]["noise"]["pixels"] is None
    assert results["accuracy"]["n"] == 12
    assert results["changes"]["noise"]["flips"]["count"] > 0
    assert results["changes"]["noise"]["stability"]["value"] < results["changes"]["shift"]["stability"]["value"]
    assert results["changes"]["shift"]["stability"]["value"] > 0.8


def test_amounts_are_checked() -> None:
    for wrong in ({"jpeg": 0}, {"noise": 0}):
        with pytest.raises(reportgen.errors.UsageError, match="amounts"):
            audited(trained_network(), photographs(1), **wrong)
