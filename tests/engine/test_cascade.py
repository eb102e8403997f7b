"""A copy with other weights: which are drawn, how, and that the model stays as it is."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from reportgen.engine.cascade import Twin, randomised
from reportgen.engine.requests import Randomised
from reportgen.engine.resolution import Resolution
from reportgen.engine.resolve import resolve
from reportgen.engine.trace import Counts
from reportgen.errors import PassError
from tests.networks import lively
from tests.trained import trained_network


def resolved(model: nn.Module, side: int) -> Resolution:
    pipeline = {"size": (side, side), "channels": 3, "mean": [0.0] * 3, "std": [1.0] * 3, "bgr": False}
    return resolve(
        model,
        facts={"architecture": "own"},
        pipeline=pipeline,
        labels=(),
        output_kind="logits",
        device="cpu",
        batch_size=2,
        precision="fp32",
        counts=Counts(),
        num_classes=None,
    )


def weights(model: nn.Module) -> Mapping[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


def test_what_runs_behind_a_layer_is_drawn_anew_and_nothing_else() -> None:
    model = trained_network()
    resolution = resolved(model, 48)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    twin = Twin(model, resolution)
    own = weights(model)
    head = {"6.weight", "6.bias"}
    assert differing(own, weights(twin.under(Randomised("3")))) == head
    drawn = weights(twin.under(Randomised("2")))
    assert differing(own, drawn) == head | {"3.0.weight", "3.1.weight", "3.1.bias"}
    assert differing(own, weights(twin.under(Randomised(None)))) == set(own)
    # a cascade that reaches less far gives the rest back, and a layer is the same in each
    again = weights(twin.under(Randomised("2")))
    assert not differing(drawn, again)
    assert differing(drawn, weights(twin.under(Randomised("2", seed=1)))) == differing(own, drawn)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_new_weights_have_the_mean_and_the_spread_of_the_old() -> None:
    model = lively("resnet18", classes=10, size=64)
    twin = Twin(model, resolved(model, 64)).under(Randomised(None))
    for name in ("layer4.0.conv1.weight", "bn1.weight"):
        own, drawn = (one.get_parameter(name).detach() for one in (model, twin))
        margin = 4 * float(own.std()) / own.numel() ** 0.5
        assert float(drawn.mean()) == pytest.approx(float(own.mean()), abs=margin)
        assert float(drawn.std()) == pytest.approx(float(own.std()), rel=3 / own.numel() ** 0.5)
        assert abs(float(torch.corrcoef(torch.stack((own.flatten(), drawn.flatten())))[0, 1])) < 0.5


class Positioned(nn.Module):
    """Adds a weight of its own to what its first part makes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.position = nn.Parameter(torch.randn(4, 16, 16))
        self.last = nn.Conv2d(4, 5, 16)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last((self.first(x) + self.position).relu()).flatten(1)
        return found


def test_what_a_module_holds_besides_modules_goes_with_the_first_of_these() -> None:
    model = Positioned()
    resolution = resolved(model, 16)
    assert set(randomised(model, resolution, "first")) == {"last.weight", "last.bias"}
    assert "position" in set(randomised(model, resolution, None))


def test_a_model_that_cannot_be_copied_is_named_so() -> None:
    class Stubborn(nn.Sequential):
        def __deepcopy__(self, memo: object) -> Stubborn:
            raise TypeError("not me")

    model = Stubborn(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    with pytest.raises(PassError, match="cannot be copied"):
        Twin(model, resolved(model, 8)).under(Randomised(None))
