"""Backward rules against the network derived by hand, against Captum, and however a rectifier is called."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reportgen.engine.passes import Passes
from reportgen.engine.requests import INPUT, Rule, Units
from reportgen.engine.resolve import resolve
from reportgen.engine.rules import Followed
from reportgen.engine.trace import Counts, Trace
from tests.networks import lively, noise

RULES: tuple[Rule, ...] = ("gradient", "deconvnet", "guided")


def passes_of(model: nn.Module, x: Tensor) -> Passes:
    """What it takes to call a model on such inputs."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.eval()
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
    return Passes(model, resolution, torch.device("cpu"), Counts())


def traced(model: nn.Module, x: Tensor, layers: tuple[str, ...] = ()) -> Trace:
    """One forward that caught its rectifiers; it stops behind the last of `layers` if there are any."""
    passes = passes_of(model, x)
    return passes.forward(x.clone(), len(x), taps=layers, scores=not layers, wrt=(INPUT,), rules=True)


def projected(model: nn.Module, x: Tensor, index: int) -> dict[str, Tensor]:
    """The three rules' derivatives of one class score with respect to the input, from one forward."""
    trace = traced(model, x)
    for rule in RULES:
        trace.backward(0, [index] * len(x), (INPUT,), keep=rule != "guided", rule=rule)
    assert (trace.counts.forward_batches, trace.counts.backward_batches) == (1, 3)
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


def captum() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("captum.attr")


def close(found: Tensor, expected: Tensor) -> bool:
    """Within 1e-4 of the largest magnitude."""
    return float((found - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


# networks whose rectifiers are all nn.ReLU modules: of others Captum sees a part and is silently wrong
SEEN_BY_CAPTUM = ["alexnet", "resnet18", "squeezenet1_1", "vgg11_bn", "regnet_x_400mf", "wide_resnet50_2"]


@pytest.mark.parametrize("name", SEEN_BY_CAPTUM)
def test_classes_agree_with_captum(name: str) -> None:
    attr = captum()
    x = noise(2, 64)
    found = projected(lively(name, size=64), x, 5)
    model = lively(name, size=64)
    for part in model.modules():
        if hasattr(part, "inplace"):
            part.inplace = False
    peers = {"gradient": attr.Saliency(model), "deconvnet": attr.Deconvolution(model)}
    peers["guided"] = attr.GuidedBackprop(model)
    for rule, peer in peers.items():
        options = {"abs": False} if rule == "gradient" else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it sets hooks
            expected = peer.attribute(x.clone().requires_grad_(True), target=5, **options)
        assert close(found[rule], expected), rule
    assert not close(found["guided"], found["gradient"])


@pytest.mark.parametrize(
    ("name", "layer"),
    [("resnet18", "layer2"), ("resnet18", "layer4"), ("vgg11_bn", "features.11"), ("alexnet", "features.8")],
)
def test_units_agree_with_captum(name: str, layer: str) -> None:
    attr = captum()
    x = noise(1, 64)
    trace = traced(lively(name, size=64), x, layers=(layer,))
    units = Units(layer, (3, 8, 21, 30), 3, 1)
    channels, positions, activations = trace.strongest(units)
    maps = trace.activation(layer)[0]
    strengths = maps[[3, 8, 21, 30]].amax(dim=(1, 2))
    assert activations.tolist() == strengths.sort(descending=True).values[:3].tolist()
    model = lively(name, size=64)
    for part in model.modules():
        if hasattr(part, "inplace"):
            part.inplace = False
    peers = {"deconvnet": attr.NeuronDeconvolution, "guided": attr.NeuronGuidedBackprop}
    peers["gradient"] = attr.NeuronGradient
    for rule in RULES:
        found = trace.project(layer, channels, positions, rule)
        for row, (channel, (y, z)) in enumerate(zip(channels.tolist(), positions.tolist(), strict=True)):
            assert float(maps[channel, y, z]) == float(activations[row])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                peer = peers[rule](model, model.get_submodule(layer))
                expected = peer.attribute(x.clone().requires_grad_(True), (channel, y, z))
            assert expected.any()
            assert close(found[row], expected[0]), (rule, channel)
    assert trace.counts.backward_batches == 3  # one a rule, for all units at once


def by_hooks(monkeypatch: pytest.MonkeyPatch, rule: Rule, model: nn.Module, x: Tensor, index: int) -> Tensor:
    """The rule written once more, by hooks on tensors: every rectifier and activation of the functional interface."""

    def rectifier(plain: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        def call(x: Tensor, *_args: object, **_named: object) -> Tensor:
            y = plain(x)
            if rule == "deconvnet":  # the value of the rectifier, the derivative of the identity
                y = y.detach() + (x - x.detach())
            if rule != "gradient":
                y.register_hook(lambda g: g.clamp(min=0))
            return y

        return call

    def other(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(x: Tensor, *args: Any, **named: Any) -> Tensor:
            named.pop("inplace", None)
            before = x * 1
            if rule != "gradient":
                before.register_hook(lambda g: g.clamp(min=0))
            return plain(before, *args, **named)

        return call

    with monkeypatch.context() as patch:
        relu, relu6 = (lambda x: x.clamp(min=0)), (lambda x: x.clamp(min=0, max=6))
        patch.setattr(functional, "relu", rectifier(relu))
        patch.setattr(functional, "relu6", rectifier(relu6))
        patch.setattr(functional, "hardtanh", rectifier(relu6))
        for name in ("silu", "gelu", "hardswish"):
            patch.setattr(functional, name, other(getattr(functional, name)))
        x = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(model(x)[:, index].sum(), x)
        return gradient


# functional, capped, shared and in-place rectifiers, auxiliary heads, and activations that are no rectifiers
OTHERS = {
    "densenet121": 64,
    "googlenet": 64,
    "inception_v3": 299,
    "mobilenet_v2": 64,
    "mnasnet0_5": 64,
    "shufflenet_v2_x0_5": 64,
    "mobilenet_v3_small": 64,
    "efficientnet_b0": 64,
    "convnext_tiny": 64,
    "swin_t": 64,
}


@pytest.mark.parametrize("name", OTHERS)
def test_functional_rectifiers_and_other_activations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = noise(1, OTHERS[name])
    found = projected(lively(name, size=OTHERS[name]), x, 5)
    model = lively(name, size=OTHERS[name])
    for rule in RULES:
        expected = by_hooks(monkeypatch, rule, model, x, 5)
        assert expected.any()
        assert close(found[rule], expected), rule
    assert not close(found["guided"], found["gradient"])


class Hidden(nn.Module):
    """Calls an activation where it cannot be caught."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.seen = nn.SiLU(inplace=True)
        self.scripted = torch.jit.script(Squared())

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.scripted(self.seen(self.conv(x)))
        return maps.mean(dim=(2, 3))


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) ** 2


def test_what_escapes_is_told() -> None:
    assert traced(lively("resnet18"), noise(1, 64)).followed == Followed(17, 0, 0)
    assert traced(lively("mobilenet_v3_small"), noise(1, 64)).followed == Followed(14, 19, 0)
    with pytest.warns(FutureWarning, match="torch.jit.script"):
        model = Hidden()
    assert traced(model, noise(1, 64)).followed == Followed(0, 1, 1)


class Pooled(nn.Module):
    """Convolution, rectifier, max-pooling, convolution."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.pool, self.second = nn.Conv2d(3, 4, 3, padding=1), pool, nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.pool(torch.relu(self.first(x)))).mean(dim=(2, 3))


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2, 2), nn.MaxPool2d(3, 2, 1)], ids=["apart", "overlapping"])
def test_pooling_is_undone_at_the_recorded_switches(pool: nn.MaxPool2d) -> None:
    """The projection of one unit of the second convolution, made step by step as Zeiler and Fergus describe it."""
    model, x = Pooled(pool).eval(), noise(1, 16)
    trace = traced(model, x, layers=("second",))
    channels, positions, _values = trace.strongest(Units("second", (0, 1), 1, 1))
    found = trace.project("second", channels, positions, "deconvnet")
    with torch.no_grad():
        before = torch.relu(model.first(x))
        pooled, switches = functional.max_pool2d(
            before, pool.kernel_size, pool.stride, pool.padding, return_indices=True
        )
        signal = torch.zeros(1, 2, *pooled.shape[2:])
        signal[0, channels[0], positions[0, 0], positions[0, 1]] = 1
        signal = functional.conv_transpose2d(signal, model.second.weight, padding=1)
        if pool.kernel_size == pool.stride:
            unpooled = nn.MaxUnpool2d(2, 2)(signal, switches, output_size=before.shape)
        else:  # a position that is the maximum of several windows gets the sum of what they send back
            unpooled = torch.zeros_like(before).flatten(2)
            unpooled = unpooled.scatter_add(2, switches.flatten(2), signal.flatten(2)).reshape(before.shape)
        expected = functional.conv_transpose2d(torch.relu(unpooled), model.first.weight, padding=1)
    assert expected.any()
    assert torch.allclose(found, expected, atol=1e-6)


def test_units_of_tokens_are_those_of_their_maps() -> None:
    x = noise(1, 224)
    layer = "encoder.layers.encoder_layer_3"
    trace = traced(lively("vit_b_16", size=224), x, layers=(layer,))
    channels, positions, _values = trace.strongest(Units(layer, (5, 700), 2, 1))
    with torch.no_grad():  # techniques compute without a graph of their own
        found = trace.project(layer, channels, positions, "gradient")
    model = lively("vit_b_16", size=224)
    kept: list[Tensor] = []
    model.get_submodule(layer).register_forward_hook(lambda _m, _a, output: kept.append(output))
    x.requires_grad_(True)
    model(x)
    for row, (channel, (y, z)) in enumerate(zip(channels.tolist(), positions.tolist(), strict=True)):
        (expected,) = torch.autograd.grad(kept[0][0, 1 + 14 * y + z, channel], x, retain_graph=True)
        assert close(found[row], expected[0])
