"""Faithfulness against torch-cam's metrics, by hand, and on networks that do and do not look where their maps say."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import sobel
from torch import Tensor, nn
from torchcam.metrics import ClassificationMetric, DeletionInsertionMetric

import reportgen
from reportgen.engine.fading import BLUR, blurred
from reportgen.techniques.faithfulness import area, centre, edges
from tests.trained import SIDE, patches, trained_network


def audited(model: nn.Module, images: Tensor, **options: Any) -> reportgen.Report:
    items = [(image, None, f"{place:02}") for place, image in enumerate(images)]
    only = {"faithfulness": {"images": 0, **options}}
    return reportgen.audit(model, items, only=["faithfulness"], techniques=only)


def positive() -> nn.Module:
    """A network whose Grad-CAM is above zero everywhere and as fine as the input, so that no two pixels are equal."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Softplus(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Softplus(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    with torch.no_grad():
        model[-1].weight.abs_().mul_(6)
    return model.eval()


class Given:
    """Stands for an extractor of torch-cam with maps that are made; its own would differentiate the probability."""

    def __init__(self, model: nn.Module, maps: Tensor) -> None:
        self.model = model
        self._maps = maps

    def __call__(self, *_target: object, **_options: object) -> list[Tensor]:
        low, high = (edge[:, None, None] for edge in (self._maps.flatten(1).amin(1), self._maps.flatten(1).amax(1)))
        return [(self._maps - low) / (high - low)]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]

    def _hooks_off(self) -> AbstractContextManager[None]:
        return nullcontext()


def test_agrees_with_torch_cam() -> None:
    model = positive()
    images = torch.randn(3, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    images -= images.mean(dim=(2, 3), keepdim=True)  # its mean colour is then torch-cam's zero
    options = {"faithfulness": {"layers": ["3"], "methods": ["grad_cam"]}, "class_activation": {"layers": ["3"]}}
    items = [(image, None, f"{place:02}") for place, image in enumerate(images)]
    report = reportgen.audit(model, items, only=["class_activation", "faithfulness"], techniques=options)
    told = report.facts["techniques"]["faithfulness"]["results"]["maps"]["grad_cam/3"]
    softmax = partial(torch.softmax, dim=-1)
    index = [int(one["top"][0]["index"]) for one in report.facts["predictions"]]
    maps = [report.tensors("class_activation", f"{i:02}")[f"grad_cam/3/{c}"] for i, c in enumerate(index)]
    extractor = Given(model, torch.stack(maps))
    gone = DeletionInsertionMetric(extractor, softmax, steps=10)
    come = DeletionInsertionMetric(extractor, softmax, steps=10, baseline=lambda x: blurred(x, BLUR * 40))
    seen = ClassificationMetric(extractor, softmax)
    for metric in (gone, come, seen):
        metric.update(images)
    assert told["deletion"]["value"] == pytest.approx(gone.summary()["deletion_auc"], abs=1e-5)
    assert told["insertion"]["value"] == pytest.approx(come.summary()["insertion_auc"], abs=1e-5)
    assert told["drop"]["value"] == pytest.approx(seen.summary()["avg_drop"], abs=1e-5)
    assert told["increase"]["value"] == pytest.approx(seen.summary()["conf_increase"])
    assert told["drop"]["value"] + told["increase"]["value"] > 0


class Quarter(nn.Module):
    """Says class 0 the surer, the higher its first channel is in the upper left quarter."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(1, 1, 2, stride=2, bias=False)
        nn.init.constant_(self.maps.weight, 0.25)

    def forward(self, x: Tensor) -> Tensor:
        score = self.maps(x)[:, :, 0, 0] * 2
        return torch.cat((score, -score), dim=1)


def test_curves_of_a_mini_network_by_hand() -> None:
    # the mean is 1; of class 0 Grad-CAM is the map of means (4, 0, 0, 0) times a positive weight
    image = torch.zeros(1, 4, 4)
    image[:, :2, :2] = 4.0
    report = audited(Quarter(), image[None], layers=["maps"], methods=["layer_cam"], steps=4)
    stored = report.tensors("faithfulness", "00")

    def sure(mean: float) -> float:
        return float(torch.tensor([2.0 * mean, -2.0 * mean]).softmax(0)[0])

    # LayerCAM is (4 · G, 0, 0, 0), enlarged bilinearly: the highest four pixels of sixteen are the quarter itself
    assert stored["deletion/layer_cam/maps"].tolist() == pytest.approx([sure(4), *[sure(1)] * 4], abs=1e-6)
    assert float(stored["probability"]) == pytest.approx(sure(4), abs=1e-6)
    assert stored["insertion/layer_cam/maps"][1:].tolist() == pytest.approx([sure(4)] * 4, abs=1e-6)
    # the mask is 1 at the corner, 3/4 beside it and 9/16 across, over a mean of 1
    expected = 1 + 3 * (1 + 0.75 + 0.75 + 0.5625) / 4
    assert float(stored["masked/layer_cam/maps"]) == pytest.approx(sure(expected), abs=1e-6)
    assert area(np.array([1.0, 0.5, 0.5, 0.0])) == pytest.approx((0.75 + 0.5 + 0.25) / 3)


def test_maps_of_a_trained_network_beat_maps_that_know_nothing_of_it() -> None:
    images, _classes, _corners = patches(16, seed=5)
    report = audited(trained_network(), images)
    results = report.facts["techniques"]["faithfulness"]["results"]
    assert results["n"] == 16
    for method in ("grad_cam", "grad_cam_pp", "layer_cam"):
        against = results["maps"][f"{method}/3"]["against"]
        assert set(against) == {"random", "edges", "centre"}
        assert against["random"]["interval"][0] > 0
        assert against[results["best_baseline"]]["interval"][0] > 0
    assert "faithfulness.no_better_than_baseline" not in {one["rule"] for one in report.facts["findings"]}


class Aside(nn.Module):
    """Answers by the mean brightness; the layer that maps are made of has next to no say."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        bright = 20 * x.mean(dim=(1, 2, 3))
        return 1e-4 * self.inner(x) + torch.stack((bright, -bright, 0 * bright, 0 * bright), dim=1)


def test_maps_that_do_not_show_what_decides_are_named() -> None:
    images, _classes, _corners = patches(16, seed=5)
    report = audited(Aside(trained_network()), images)
    (finding,) = (one for one in report.facts["findings"] if one["rule"] == "faithfulness.no_better_than_baseline")
    assert (finding["about"], finding["n"], finding["threshold"]) == ("method", 16, 0)
    assert finding["interval"][0] <= 0
    assert finding["figures"] == ["faithfulness-curves"]


def test_baselines() -> None:
    image = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    grey = image[0].mean(dim=0).numpy()
    strength = np.hypot(*(sobel(grey, axis=axis, mode="nearest") for axis in (0, 1)))
    expected = strength.reshape(6, 4, 6, 4).mean(axis=(1, 3))
    assert edges(image, 6, 6)[0].numpy() == pytest.approx(expected, rel=1e-4)
    spot = centre(5, 9)
    assert float(spot.max()) == float(spot[2, 4]) == 1
    assert torch.allclose(spot, spot.flip(0).flip(1))


def test_random_values_depend_on_the_image_and_not_on_its_neighbours() -> None:
    images, _classes, _corners = patches(3, seed=8)
    together, alone = (audited(trained_network(), part) for part in (images, images[:1]))
    one, other = (report.tensors("faithfulness", "00") for report in (together, alone))
    assert torch.allclose(one["deletion/random"], other["deletion/random"], atol=1e-5)
    assert images.shape[-1] == SIDE


def test_options_are_checked() -> None:
    with pytest.raises(reportgen.errors.UsageError, match="no method"):
        audited(trained_network(), patches(1, seed=0)[0], methods=["cam"])
    with pytest.raises(reportgen.errors.UsageError, match="steps"):
        audited(trained_network(), patches(1, seed=0)[0], steps=1)
