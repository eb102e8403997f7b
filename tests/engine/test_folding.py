"""Folded batch normalisations: the same function, forwards to rounding or to the bit, and the model untouched."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from reportgen.engine.folding import Folding, Successions
from reportgen.engine.passes import Passes
from reportgen.engine.requests import INPUT, Rule
from reportgen.engine.resolution import Fold, Resolution
from reportgen.engine.resolve import resolve
from reportgen.engine.trace import Counts
from tests.networks import enlivened, lively, noise

SIZE = 96
RULES: tuple[Rule, ...] = ("gradient", "guided", "deconvnet")
# network: how many of its batch normalisations stand right behind a convolution of their own
NETWORKS = {
    "resnet18": 20,
    "densenet121": 59,
    "googlenet": 57,
    "mobilenet_v3_small": 34,
    "shufflenet_v2_x0_5": 56,
    "vgg11_bn": 8,
    "convnext_tiny": 0,
}


def network(name: str) -> nn.Module:
    if name != "tf_efficientnet_lite0":  # padded convolutions; normalisation and activation in one module
        return lively(name, size=SIZE)
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return enlivened(timm.create_model(name), size=SIZE)


def resolved(model: nn.Module) -> Resolution:
    pipeline = {"size": (SIZE, SIZE), "channels": 3}
    return resolve(
        model,
        facts={},
        pipeline=pipeline,
        labels=(),
        output_kind="auto",
        device="cpu",
        batch_size=2,
        counts=Counts(),
    )


def passes(model: nn.Module, *, folded: bool) -> Passes:
    resolution = resolved(model)
    folding = Folding(model, resolution.folds) if folded else None
    return Passes(model.requires_grad_(False), resolution, torch.device("cpu"), Counts(), folding=folding)


def close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return float((one - other).abs().max()) <= tolerance * float(other.abs().max())


@pytest.mark.parametrize(("name", "folds"), [*NETWORKS.items(), ("tf_efficientnet_lite0", 49)])
def test_what_is_folded_computes_the_same(name: str, folds: int) -> None:
    model = network(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    plain, folded = passes(model, folded=False), passes(model, folded=True)
    assert len(folded.resolution.folds) == folds
    x = noise(2, SIZE, seed=3)
    taps = plain.resolution.defaults

    # maps: the forward has the same bits, and what comes back is the same to rounding, whatever the rule
    traces = [one.forward(x.clone(), 2, taps=taps, wrt=(*taps, INPUT), rules=True) for one in (plain, folded)]
    assert traces[0].scores is not None
    assert traces[1].scores is not None
    assert torch.equal(traces[0].scores, traces[1].scores)
    for tap in taps:
        assert torch.equal(traces[0].activation(tap), traces[1].activation(tap))
    for rule in RULES:
        for trace in traces:
            trace.backward(0, [1, 2], (*taps, INPUT), keep=True, rule=rule)
        for what in (*taps, INPUT):
            mine, theirs = (trace.gradient(0, what, rule) for trace in reversed(traces))
            assert close(mine, theirs, 1e-5), (rule, what)

    # ascents: the forward is folded, too
    with torch.no_grad():
        for mine, theirs in zip(folded.reach(x, taps, 2), plain.reach(x, taps, 2), strict=True):
            assert close(mine, theirs, 1e-4)

    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_units_come_back_through_folded_weights() -> None:
    model = lively("resnet18", size=SIZE)
    x = noise(1, SIZE, seed=3)
    found = []
    for folded in (False, True):
        one = passes(model, folded=folded)
        trace = one.forward(x.clone(), 1, taps=("layer2",), scores=False, wrt=(INPUT,), rules=True)
        channels, positions = torch.tensor([3, 5]), torch.tensor([[1, 2], [6, 6]])
        found.append(torch.stack([trace.project("layer2", channels, positions, rule) for rule in RULES]))
    assert close(found[1], found[0], 1e-5)


class Odd(nn.Module):
    """Convolutions of which only the first may take over a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.good, self.good_bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.twice, self.twice_bn = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)  # its output is used beside the norm, too
        self.shared = nn.BatchNorm2d(4)  # behind two convolutions
        self.one, self.two = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.fickle = nn.Conv2d(4, 4, 1)  # called before one norm, then before another
        self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.alone = nn.BatchNorm2d(4)  # behind no convolution
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.good_bn(self.good(x)).relu()
        made = self.twice(x)
        x = self.twice_bn(made) + made
        x = self.shared(self.one(x)).relu() + self.shared(self.two(x))
        x = self.first(self.fickle(x)).relu() + self.second(self.fickle(x))
        return self.head(self.alone(x).mean(dim=(2, 3)))


def folds_of(model: nn.Module, x: Tensor) -> Sequence[Fold]:
    watch = Successions(model)
    with torch.no_grad(), watch:
        model(x)
    return watch.folds()


def test_only_what_nobody_else_reads_is_folded() -> None:
    torch.manual_seed(0)
    model = enlivened(Odd(), size=12)
    folds = folds_of(model, noise(2, 12))
    assert [fold.weight for fold in folds] == ["good.weight"]
    x = noise(2, 12, seed=2)
    with torch.no_grad():
        plain = model(x)
        with Folding(model, folds).folded("whole"):
            assert close(model(x), plain, 1e-5)


def test_a_scale_without_parameters_and_a_bias_are_folded() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, groups=1, bias=True), nn.BatchNorm2d(4, affine=False), nn.ReLU())
    norm = model[1]
    norm.running_mean.copy_(torch.tensor([0.0, 1.0, -2.0, 3.0]))
    norm.running_var.copy_(torch.tensor([1.0, 4.0, 0.25, 9.0]))
    model.eval()
    x = noise(1, 8)
    with torch.no_grad():
        plain = model(x)
        with Folding(model, folds_of(model, x)).folded("whole"):
            assert close(model(x), plain, 1e-6)


def test_what_a_tap_asks_for_is_not_folded_away() -> None:
    model = lively("resnet18", size=SIZE)
    one = passes(model, folded=True)
    x = noise(1, SIZE, seed=5)
    with torch.no_grad():
        (maps,) = one.reach(x, ["layer1.0.conv1"], 1)
        expected = model.layer1[0].conv1(model.maxpool(model.relu(model.bn1(model.conv1(x)))))
        plain = model(x)
    assert close(maps, expected, 1e-5)
    only = Folding(model, [fold for fold in one.resolution.folds if fold.weight == "layer1.0.conv1.weight"])
    with torch.no_grad(), only.folded("whole", ["layer1.0.conv1"]):
        assert torch.equal(model(x), plain)
    with torch.no_grad(), only.folded("whole"):
        assert not torch.equal(model(x), plain)


def test_a_normalisation_that_is_trained_is_not_folded() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert folds_of(model.train(), noise(2, 8)) == ()
