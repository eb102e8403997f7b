"""Kernels as they are, and what is counted about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reportgen
from tests.networks import lively, noise


class Small(nn.Module):
    """Three convolutions; the second has a dead kernel and two that point the same way, the third is depthwise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 6, 3, stride=2)
        self.second = nn.Conv2d(6, 12, 3, stride=2)
        self.third = nn.Conv2d(12, 12, 3, groups=12)
        self.fc = nn.Linear(12, 4)
        with torch.no_grad():
            self.second.weight[4] *= 1e-5
            self.second.weight[7] = 3 * self.second.weight[2]
            self.second.weight[9] = -self.second.weight[2]

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.third(torch.relu(self.second(torch.relu(self.first(x))))))
        return self.fc(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def audited(model: nn.Module, **options: Any) -> reportgen.Report:
    return reportgen.audit(model, [(noise(1, 64)[0], 0)], only=["filters"], **options)


def test_statistics_are_those_of_the_weights() -> None:
    model = Small()
    report = audited(model, layers=["second", "third"], techniques={"filters": {"layers": "first,second,third"}})
    layers = report.facts["techniques"]["filters"]["results"]["layers"]
    assert list(layers) == ["first", "second", "third"]
    second = layers["second"]
    assert second["near_zero"] == [4]
    assert second["pairs"] == [[2, 7]]  # the opposite direction is not the same one
    assert second["near_identical"] == 1
    norms = model.second.weight.detach().flatten(1).norm(dim=1)
    assert second["norm"]["largest"] == pytest.approx(float(norms.max()))
    assert second["norm"]["median"] == pytest.approx(float(np.median(norms.numpy())))


def test_stored_kernels_are_the_weights() -> None:
    model = Small()
    tensors = audited(model, techniques={"filters": {"layers": "first,second", "channels": "1,4,5"}}).tensors("filters")
    assert tensors["channels/second"].tolist() == [1, 4, 5]
    assert torch.equal(tensors["kernels/second"], model.second.weight.detach()[[1, 4, 5]])
    assert torch.equal(tensors["kernels/first"], model.first.weight.detach()[[1, 4, 5]])


def test_deeper_layers_are_drawn_as_slices_the_strongest_first() -> None:
    model = Small()
    report = audited(model, techniques={"filters": {"layers": "first,second,third"}})
    (section,) = report.document.sections
    first, second, third = section.figures
    assert sum(len(row.panels) for row in first.rows) == 6
    assert sum(len(row.panels) for row in third.rows) == 12
    assert len(second.rows) == 8
    order = model.second.weight.detach()[0].square().sum(dim=(1, 2)).argsort(descending=True)
    assert [str(panel.label) for panel in second.rows[0].panels if panel] == [str(int(i)) for i in order]


def test_defaults_on_a_real_network(tmp_path: Path) -> None:
    report = audited(lively("resnet18", classes=10, size=64))
    layers = report.facts["techniques"]["filters"]["results"]["layers"]
    assert list(layers) == ["conv1", "layer1.1.conv2", "layer2.1.conv2", "layer3.1.conv2", "layer4.1.conv2"]
    report.write(tmp_path / "report.html")
    assert b"Pairs alike" in (tmp_path / "report.html").read_bytes()
