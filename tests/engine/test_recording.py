"""One recorded forward against torchinfo, against receptive fields derived by hand, and left as it was."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from reportgen.engine.recording import record
from reportgen.engine.structure import ModuleRecord, Recording
from reportgen.errors import PassError
from tests.networks import lively, noise


def by_name(recording: Recording) -> dict[str, ModuleRecord]:
    return {module["name"]: module for module in recording["modules"]}


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 64), ("densenet121", 64), ("googlenet", 64), ("mobilenet_v3_small", 64), ("regnet_x_400mf", 64)],
)
def test_parameters_shapes_and_products_are_those_of_torchinfo(name: str, size: int) -> None:
    torchinfo = pytest.importorskip("torchinfo")
    model = lively(name, size=size)
    recording = record(model, noise(1, size))
    summary = torchinfo.summary(model, input_data=noise(1, size), verbose=0, depth=99)
    assert recording["parameters"] == summary.total_params
    # torchinfo multiplies every parameter of a convolution by the positions, biases too: it is compared without them
    expected = 0
    for layer in summary.summary_list:
        if isinstance(layer.module, nn.Conv2d):
            expected += layer.module.weight.numel() * layer.output_size[2] * layer.output_size[3]
        elif isinstance(layer.module, nn.Linear):
            expected += layer.module.weight.numel()
    assert recording["macs"] == expected
    modules = by_name(recording)
    names = {part: part_name for part_name, part in model.named_modules()}
    for layer in summary.summary_list:
        if names.get(layer.module) and layer.output_size:
            assert modules[names[layer.module]]["output"] == list(layer.output_size[1:]), names[layer.module]


def test_products_of_attention_are_counted() -> None:
    """ViT-B/16 at 224: 12 blocks of 197 tokens of width 768 with an inner width of 3072."""
    recording = record(lively("vit_b_16", size=224), noise(1, 224))
    n, d = 197, 768
    block = n * d * 3 * d + 2 * n * n * d + n * d * d + 2 * n * d * 4 * d
    assert recording["macs"] == 196 * d * 768 + 12 * block + d * 1000


def test_receptive_fields_derived_by_hand() -> None:
    """r grows by (kernel - 1) times the product of the strides before (Araujo et al. 2019, eq. 2)."""
    modules = by_name(record(lively("vgg16", size=64), noise(1, 64)))
    assert modules["features.30"]["field"] == [212, 212]
    assert modules["features.30"]["stride"] == [32, 32]
    modules = by_name(record(lively("resnet18", size=64), noise(1, 64)))
    assert modules["conv1"]["field"] == [7, 7]
    assert modules["maxpool"]["field"] == [11, 11]
    assert modules["layer1"]["field"] == [11 + 4 * 2 * 4] * 2
    assert modules["layer4"]["field"] == [435, 435]
    assert modules["avgpool"]["whole"]


class Wild(nn.Module):
    """Control flow, an operation in place, a module called twice, an output in a dictionary."""

    def __init__(self, fail: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.fc = nn.Linear(3, 2)
        self.fail = fail

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        for _ in range(2):
            x = self.conv(x)
            x += 1
        if self.fail:
            raise ValueError("planted")
        return {"logits": self.fc(x.mean(dim=(2, 3)))}


def test_control_flow_and_modules_called_twice() -> None:
    recording = record(Wild().eval(), noise(1, 8))
    modules = by_name(recording)
    assert modules["conv"]["calls"] == 2
    assert modules["conv"]["macs"] == 2 * 81 * 64
    assert modules["conv"]["field"] == [5, 5]
    assert recording["operations"][-1]["kind"] == "output"
    assert recording["operations"][-1]["shape"] == [2]


@pytest.mark.parametrize("fail", [False, True])
def test_the_module_is_left_as_it_was(fail: bool) -> None:
    model, x = Wild(fail).eval(), noise(1, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kept = x.clone()
    if fail:
        with pytest.raises(PassError, match="planted"):
            record(model, x)
    else:
        record(model, x)
    assert torch.equal(x, kept)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_scripted_models_say_why_not() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 2, 3)))
    with pytest.raises(PassError, match="takes no hooks"):
        record(scripted, noise(1, 8))


def test_where_positions_look() -> None:
    """Every position's box is exactly the pixels whose change moves it: weights of 1 let nothing cancel."""
    model = nn.Sequential(
        nn.ZeroPad2d((0, 1, 0, 1)),  # as TensorFlow pads for a stride
        nn.Conv2d(1, 1, 3, stride=2),
        nn.Conv2d(1, 1, 3, padding=1),
        nn.AvgPool2d(3, 2, padding=1),
        nn.Conv2d(1, 1, 2, dilation=2),
        nn.ConvTranspose2d(1, 1, 2, stride=2),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
    modules = by_name(record(model, torch.ones(1, 1, 40, 48)))
    for place in range(1, 5):
        x = torch.ones(1, 1, 40, 48, requires_grad=True)
        maps = model[: place + 1](x)[0, 0]
        told = modules[str(place)]
        assert told["field"]
        assert told["stride"]
        assert told["start"]
        for row in range(maps.shape[0]):
            for column in range(maps.shape[1]):
                (seen,) = torch.autograd.grad(maps[row, column], x, retain_graph=True)
                for axis, position, length in ((0, row, 40), (1, column, 48)):
                    centre = told["start"][axis] + position * told["stride"][axis]
                    begin, end = centre - told["field"][axis] / 2, centre + told["field"][axis] / 2
                    touched = seen[0, 0].any(dim=1 - axis).nonzero()
                    assert (int(touched.min()), int(touched.max()) + 1) == (max(begin, 0), min(end, length))
    assert modules["5"]["start"] == [told["start"][0] - 0.5 * 2, told["start"][1] - 0.5 * 2]
