"""Units sent back through windows of the image: the same as through the whole of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reportgen.engine.folding import Folding
from reportgen.engine.passes import Passes
from reportgen.engine.requests import INPUT, Rule, Units
from reportgen.engine.resolve import resolve
from reportgen.engine.trace import Counts, Trace
from reportgen.engine.windows import Projector, Window, window_of
from tests.networks import enlivened, lively, noise

RULES: tuple[Rule, ...] = ("gradient", "guided", "deconvnet")


def passes(model: nn.Module, height: int, width: int) -> Passes:
    resolution = resolve(
        model.requires_grad_(False),
        facts={},
        pipeline={"size": (height, width), "channels": 3},
        labels=(),
        output_kind="logits",
        device="cpu",
        batch_size=2,
        counts=Counts(),
    )
    return Passes(model, resolution, torch.device("cpu"), Counts(), folding=Folding(model, resolution.folds))


def traced(one: Passes, image: Tensor, layer: str) -> Trace:
    return one.forward(image.clone(), 1, taps=(layer,), scores=False, wrt=(INPUT,), rules=True)


@pytest.mark.parametrize(
    ("name", "layer", "side"),
    [
        ("resnet18", "relu", (14, 14)),
        ("resnet18", "layer1", (56, 56)),
        ("googlenet", "inception3b", (88, 88)),
        ("densenet121", "features.denseblock1", (72, 72)),
        ("vgg11_bn", "features.20", (88, 88)),
        ("mobilenet_v2", "features.6", (88, 88)),
    ],
)
def test_windows_show_units_the_same(name: str, layer: str, side: tuple[int, int]) -> None:
    model = lively(name, size=160)
    one = passes(model, 160, 192)
    image = torch.nn.functional.interpolate(noise(1, 192, seed=4), (160, 192))
    # in the corners of the image, too, where padding comes in
    image[..., :8, :8] *= 6
    image[..., -8:, -8:] *= 6
    trace = traced(one, image, layer)
    units = Units(layer, tuple(range(0, one.resolution.layer(layer).shape[0], 4))[:6], 6, 1)
    before = one.counts.forward_samples
    projector = Projector(one, image, trace, 100)
    for rule in RULES:
        with torch.no_grad():  # as techniques compute
            channels, positions, activations, found = projector.project(units, rule)
        expected = trace.project(layer, channels, positions, rule)
        assert found.shape == expected.shape == (6, 3, 160, 192)
        limit = expected.abs().amax(dim=(1, 2, 3), keepdim=True)
        assert bool(limit.any())
        assert bool(((found - expected).abs() <= 1e-5 * limit).all()), rule
        assert torch.equal(trace.activation(layer)[0, channels, positions[:, 0], positions[:, 1]], activations)
    # one recording, and one forward of all windows for the three rules
    assert one.counts.forward_samples == before + 1 + 6
    window = window_of(next(m for m in one.recorded()["modules"] if m["name"] == layer), (160, 192))
    assert window is not None
    assert window.side == side


@pytest.mark.parametrize(
    ("field", "stride", "whole", "calls"),
    [
        ([400, 400], [8.0, 8.0], False, 1),
        ([20, 20], [8.0, 8.0], True, 1),
        (None, None, False, 1),
        ([20, 20], [4.5, 4.5], False, 1),
        ([20, 20], [8.0, 8.0], False, 2),
        ([200, 200], [2.0, 2.0], False, 1),
    ],
)
def test_units_that_see_too_much_have_no_window(field: Any, stride: Any, whole: bool, calls: int) -> None:
    assert window_of({"field": field, "stride": stride, "whole": whole, "calls": calls}, (224, 224)) is None


def test_windows_stay_inside_and_end_with_the_image() -> None:
    window = window_of({"field": [35, 35], "stride": [4.0, 4.0], "whole": False, "calls": 1}, (225, 226))
    assert window == Window((49, 50), (4, 4))  # whole strides are left: 225 − 49 = 44 · 4
    corners = window.corners(torch.tensor([[0, 0], [30, 30], [56, 56]]), (225, 226))
    assert corners.tolist() == [[0, 0], [24, 24], [44, 44]]


class Growing(nn.Module):
    """Its shift depends on the size of its input: no window shows a unit what the whole image shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.early, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.early(x + x.shape[2] / 100).relu().mean(dim=(2, 3)))


class Sized(nn.Module):
    """Takes images of one size alone, as transformers with a table of positions do."""

    def __init__(self) -> None:
        super().__init__()
        self.early, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2:] == (64, 64), "another size"
        return self.head(self.early(x).relu().mean(dim=(2, 3)))


@pytest.mark.parametrize("network", [Growing, Sized])
def test_windows_that_show_something_else_are_not_used(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    one = passes(enlivened(network(), size=64), 64, 64)
    image = noise(1, 64)
    trace = traced(one, image, "early")
    channels, positions, _activations, found = Projector(one, image, trace, 100).project(
        Units("early", (0, 1), 2, 1), "guided"
    )
    assert torch.equal(found, trace.project("early", channels, positions, "guided"))


def test_too_many_windows_are_not_used() -> None:
    one = passes(lively("resnet18", size=96), 96, 96)
    image = noise(1, 96)
    trace = traced(one, image, "layer1")
    before = one.counts.forward_samples
    Projector(one, image, trace, 1).project(Units("layer1", tuple(range(12)), 12, 1), "guided")
    assert one.counts.forward_samples == before + 1  # the recording
