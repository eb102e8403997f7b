"""Occlusion against one forward at a time, and against a model whose answer is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reportgen
from reportgen.engine.derivations import square
from reportgen.engine.requests import Occlusion
from tests.networks import lively, noise


class Corner(nn.Module):
    """Looks at the mean of the upper left quarter and at nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2] // 2, x.shape[3] // 2
        seen = x[:, :, :height, :width].mean(dim=(1, 2, 3))
        return torch.stack((seen, -seen), dim=1)


def audited(model: nn.Module, images: list[Any], **options: Any) -> reportgen.Report:
    return reportgen.audit(model, images, only=["occlusion"], **options)


def test_equals_one_forward_a_square() -> None:
    model = lively("resnet18", classes=10, size=64)
    report = audited(model, [(noise(1, 64)[0], None, "one")], techniques={"occlusion": {"grid": 5, "side": 0.3}})
    stored = report.tensors("occlusion", "one")
    index = report.facts["predictions"][0]["top"][0]["index"]
    fall, x = stored[str(index)], report.input("one")[None]
    pipeline = report.facts["model"]["input"]
    grey = (0.5 - torch.tensor(pipeline["mean"])) / torch.tensor(pipeline["std"])
    with torch.no_grad():
        before = model(x).softmax(dim=1)[0, index]
        for row in range(5):
            for column in range(5):
                covered = x.clone()
                # the side is 0.3 · 64 = 19 pixels, centred on cells of 12.8
                top, left = round((row + 0.5) * 12.8 - 9.5), round((column + 0.5) * 12.8 - 9.5)
                covered[0, :, max(top, 0) : top + 19, max(left, 0) : left + 19] = grey[:, None, None]
                after = model(covered).softmax(dim=1)[0, index]
                assert float(fall[row, column]) == pytest.approx(float(before - after), abs=1e-5)
    assert float(stored[f"probability/{index}"]) == pytest.approx(float(before), abs=1e-5)
    assert report.facts["passes"]["forward"]["samples"] == 2 + 1 + 26


def test_only_what_the_model_looks_at_matters_and_inputs_need_not_be_square() -> None:
    image = torch.full((3, 32, 64), 2.0)
    report = audited(Corner(), [(image, None, "one")], techniques={"occlusion": {"grid": 8, "side": 0.1}})
    fall = report.tensors("occlusion", "one")["0"]
    assert fall.shape == (8, 16)
    assert bool((fall[:4, :8] > 0).all())
    assert not bool(fall[4:].any() or fall[:, 8:].any())


def test_serves_a_model_that_cannot_be_tapped() -> None:
    with pytest.warns(FutureWarning, match="torch.jit.script"):
        model = torch.jit.script(lively("squeezenet1_1", classes=10, size=64))
    report = audited(model, [(noise(1, 64)[0], None, "one")], preset="quick")
    assert report.facts["techniques"]["occlusion"]["status"] == "complete"
    assert report.tensors("occlusion", "one")[str(report.facts["predictions"][0]["top"][0]["index"])].shape == (7, 7)


def test_squares_are_centred_on_their_cells_and_cut_off_at_the_border() -> None:
    squares = Occlusion(rows=4, columns=4, side=6)
    assert square(squares, 0, 16, 16) == (0, 5, 0, 5)
    assert square(squares, 5, 16, 16) == (3, 9, 3, 9)
    assert square(squares, 15, 16, 16) == (11, 16, 11, 16)
