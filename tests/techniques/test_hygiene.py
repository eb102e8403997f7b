"""Faults planted in the weights are told by name; sound networks give no cause."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reportgen
from reportgen.engine.upkeep import state_of
from tests.networks import lively, noise

ONLY: dict[str, Any] = {"preset": "quick", "only": ["hygiene"]}


@pytest.fixture(scope="module")
def sound() -> nn.Module:
    return lively("resnet18", classes=5, size=64)


def findings(model: nn.Module, size: int = 64, **options: Any) -> dict[str, dict[str, Any]]:
    images = [(one, None, None) for one in noise(2, size)]
    report = reportgen.audit(model, images, **{**ONLY, **options})
    section = report.facts["techniques"]["hygiene"]
    assert section["status"] == "complete", section
    return {one["rule"]: one for one in report.facts["findings"] if one["rule"].startswith("hygiene.")}


def test_a_sound_network_gives_no_cause(sound: nn.Module) -> None:
    assert findings(sound) == {}


@pytest.mark.parametrize(
    ("name", "size"), [("mobilenet_v3_small", 64), ("squeezenet1_1", 64), ("densenet121", 64), ("vit_b_32", 224)]
)
def test_every_parameter_of_these_is_read(name: str, size: int) -> None:
    found = state_of(lively(name, classes=4, size=size), noise(1, size))
    assert (found["unread"], found["broken"], found["untouched"]) == ([], [], [])


def test_weights_that_are_no_numbers(sound: nn.Module) -> None:
    model = copy.deepcopy(sound)
    with torch.no_grad():
        model.layer2[0].conv1.weight[3, 1] = torch.nan
        model.layer4[1].bn2.running_var[7] = torch.inf
    found = findings(model)["hygiene.not_finite"]
    assert (found["value"], found["severity"], found["subject"]) == (2, "critical", "layer2.0.conv1.weight")
    assert "layer2.0.conv1.weight (9 / 73728), layer4.1.bn2.running_var (1 / 512)" in found["detail"]


def test_statistics_that_training_has_not_touched(sound: nn.Module) -> None:
    import torchvision

    fresh = torchvision.models.resnet18(num_classes=5).eval()
    found = findings(fresh)["hygiene.untouched_statistics"]
    assert (found["value"], found["n"], found["subject"]) == (1.0, 20, "bn1")
    one = copy.deepcopy(sound)
    one.layer1[0].bn1.reset_running_stats()
    assert "hygiene.untouched_statistics" not in findings(one)
    strict = findings(one, findings={"hygiene.untouched_statistics": 0.01})
    assert strict["hygiene.untouched_statistics"]["subject"] == "layer1.0.bn1"


class Idle(nn.Module):
    """Holds a head that is never called, a parameter that nothing reads, and weights used without their module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.used = nn.Linear(8, 4)
        self.aux = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
        self.lost = nn.Parameter(torch.ones(7))
        self.scale = nn.Parameter(torch.ones(2, 8))

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.conv(x).relu().mean((2, 3)) * self.scale[1]
        return nn.functional.linear(pooled, self.used.weight.clone(), self.used.bias)


def test_parameters_that_nothing_reads() -> None:
    model = Idle()
    found = state_of(model, noise(1, 16))
    assert found["unread"] == [{"name": "lost", "parameters": 7}, {"name": "aux", "parameters": 212}]
    told = findings(model, 16)["hygiene.unread_parameters"]
    assert told["value"] == pytest.approx(219 / sum(one.numel() for one in model.parameters()))
    model.aux = nn.Identity()  # seven of hundreds are left
    assert "hygiene.unread_parameters" not in findings(model, 16, findings={"hygiene.unread_parameters": 0.1})


def test_a_softmax_at_the_end() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    assert findings(plain, 16) == {}
    once = nn.Sequential(*plain, nn.Softmax(1))
    assert set(findings(once, 16)) == {"hygiene.softmax_inside"}
    assert findings(nn.Sequential(*plain, nn.LogSoftmax(1)), 16) == {}


def test_a_softmax_too_many() -> None:
    """In the model itself, or here because the user says that it returns logits. Of many classes too."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 300))
    once = nn.Sequential(*plain, nn.Softmax(1))
    twice = nn.Sequential(*once, nn.Softmax(1))
    assert set(findings(twice, 16)) == {"hygiene.softmax_twice"}
    assert set(findings(once, 16, output_kind="logits")) == {"hygiene.softmax_twice"}
    assert findings(plain, 16, output_kind="logits") == {}
    binary = nn.Sequential(*plain[:-1], nn.Linear(8, 1), nn.Sigmoid())
    assert findings(binary, 16) == {}
