"""Backward rules against the network derived by hand, against Captum, and however a rectifier is called."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reportgen.engine.passes import Counts, Passes
from reportgen.engine.requests import INPUT, Rule
from reportgen.engine.resolve import resolve
from tests.networks import lively, noise

RULES: tuple[Rule, ...] = ("gradient", "deconvnet", "guided")


def projected(model: nn.Module, x: Tensor, index: int) -> dict[str, Tensor]:
    """The three rules' derivatives of one class score with respect to the input, from one forward."""
    resolution = resolve(
        model,
        facts={},
        pipeline={"size": tuple(x.shape[2:]), "channels": x.shape[1]},
        labels=(),
        output_kind="logits",
        device="cpu",
        batch_size=None,
        counts=Counts(),
    )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    counts = Counts()
    trace = Passes(model, resolution, torch.device("cpu"), counts).forward(x.clone(), len(x), wrt=(INPUT,), rules=True)
    for rule in RULES:
        trace.backward(0, [index] * len(x), (INPUT,), keep=rule != "guided", rule=rule)
    assert (counts.forward_batches, counts.backward_batches) == (1, 3)
    return {rule: trace.gradient(0, INPUT, rule) for rule in RULES}


class Mini(nn.Module):
    """Convolution, a rectifier called in some way, linear layer."""

    def __init__(self, rectify: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.fc = nn.Linear(8, 4)
        self.rectify = rectify
        with torch.no_grad():
            self.conv.weight.fill_(1.0)
            self.conv.bias.copy_(torch.tensor([-50.0, -75.0]))
            self.fc.weight.copy_(torch.tensor([1.0] * 5 + [-1.0] * 3).expand(4, -1))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rectify(self.conv(x)).flatten(1))


CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "function": functional.relu,
    "function in place": lambda x: functional.relu(x, inplace=True),
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
    "torch": torch.relu,
    "clamp": lambda x: x.clamp(min=0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "maximum": lambda x: torch.maximum(x, torch.zeros(())),
    "hardtanh": nn.Hardtanh(0.0, 1000.0),
}


@pytest.mark.parametrize("call", CALLS)
def test_mini_network_derived_by_hand(call: str) -> None:
    found = projected(Mini(CALLS[call]).eval(), torch.arange(16.0).reshape(1, 1, 4, 4), 0)
    assert found["guided"][0, 0].tolist() == [[0, 1, 1, 1], [1, 3, 3, 2], [1, 3, 3, 2], [1, 2, 2, 1]]
    assert found["deconvnet"][0, 0].tolist() == [[2, 3, 3, 1], [3, 5, 5, 2], [3, 5, 5, 2], [1, 2, 2, 1]]


def test_other_clamps_are_no_rectifiers() -> None:
    found = projected(Mini(lambda x: x.clamp(min=-1)).eval(), torch.arange(16.0).reshape(1, 1, 4, 4), 0)
    assert torch.equal(found["gradient"], found["deconvnet"])


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "squeezenet1_1", "mobilenet_v2"])
def test_agrees_with_captum(name: str) -> None:
    """Captum sees rectifiers that are nn.ReLU modules alone: of MobileNetV2 (ReLU6) only the gradient counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attr = pytest.importorskip("captum.attr")
    x = noise(2, 64)
    found = projected(lively(name), x, 5)
    model = lively(name)
    for part in model.modules():
        if hasattr(part, "inplace"):
            part.inplace = False
    peers = {"gradient": attr.Saliency(model), "deconvnet": attr.Deconvolution(model)}
    peers["guided"] = attr.GuidedBackprop(model)
    for rule, peer in peers.items():
        if name == "mobilenet_v2" and rule != "gradient":
            continue
        options = {"abs": False} if rule == "gradient" else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it sets hooks
            expected = peer.attribute(x.clone().requires_grad_(True), target=5, **options)
        assert float((found[rule] - expected).abs().max()) <= 1e-4 * float(expected.abs().max()), rule
    assert not torch.allclose(found["guided"], found["gradient"])
