"""Gradient, deconvolutional network and guided backpropagation as an audit stores and shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reportgen
from reportgen.errors import UsageError
from reportgen.techniques.input_space import window
from tests.networks import lively, noise

FOUR = [(image, None, f"image-{i}") for i, image in enumerate(noise(4, 64))]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return lively("resnet18", classes=10, size=64)


def audited(model: nn.Module, only: list[str], **options: Any) -> reportgen.Report:
    return reportgen.audit(model, FOUR, only=only, **{"batch_size": 4, **options})


def test_names_and_shapes_of_what_is_stored(network: nn.Module) -> None:
    report = audited(network, ["gradient", "deconvnet", "guided_backprop"], layers=["layer2", "layer4"])
    first, *others = [exhibit["image"] for exhibit in report.facts["images"]["exhibits"]]
    predicted = {one["image"]: one["top"][0]["index"] for one in report.facts["predictions"]}
    assert set(report.tensors("gradient", first)) == {f"class/{predicted[first]}"}
    for technique in ("deconvnet", "guided_backprop"):
        stored = report.tensors(technique, first)
        units = [name for name in stored if name.startswith("unit/")]
        assert len(units) == 8
        assert {name.split("/")[1] for name in units} == {"layer2", "layer4"}
        assert {tuple(stored[name].shape) for name in units} == {(3, 64, 64)}
        for name in units:
            layer, channel = name.split("/")[1:]
            assert int(channel) % (8 if layer == "layer2" else 32) == 0  # 16 channels spread over 128 and 512
            assert stored[f"position/{layer}/{channel}"].shape == (2,)
            assert stored[f"activation/{layer}/{channel}"].shape == ()
        assert [any(n.startswith("unit/") for n in report.tensors(technique, name)) for name in others] == [1, 0, 0]
        assert report.facts["techniques"][technique]["results"]["rectifiers"] == 17


def test_class_and_unit_are_the_derivatives(network: nn.Module) -> None:
    report = audited(network, ["gradient", "guided_backprop"], layers=["layer3"], exhibits=2)
    image = report.facts["images"]["exhibits"][0]["image"]
    x = report.input(image)[None].requires_grad_(True)
    (stored,) = report.tensors("gradient", image).items()
    (expected,) = torch.autograd.grad(network(x)[0, int(stored[0].removeprefix("class/"))], x)
    assert torch.allclose(stored[1], expected[0], atol=1e-5 * float(expected.abs().max()))

    kept: list[Tensor] = []
    handle = network.layer3.register_forward_hook(lambda _m, _a, output: kept.append(output.detach()))  # type: ignore[union-attr]
    network(x.detach())
    handle.remove()
    tensors = report.tensors("guided_backprop", image)
    for name in [name for name in tensors if name.startswith("activation/")]:
        channel = int(name.rsplit("/", 1)[1])
        row, column = tensors[f"position/layer3/{channel}"].tolist()
        assert float(tensors[name]) == pytest.approx(float(kept[0][0, channel].max()))
        assert float(kept[0][0, channel, row, column]) == pytest.approx(float(kept[0][0, channel].max()))


def test_own_channels_are_all_projected_on_as_many_exhibits_as_asked(network: nn.Module) -> None:
    options = {"channels": "0,3,5,9,11,20", "exhibits": 1, "layers": "layer2"}
    report = audited(network, ["deconvnet"], techniques={"deconvnet": options})
    units = report.facts["techniques"]["deconvnet"]["results"]["units"]
    assert list(units) == [report.facts["images"]["exhibits"][0]["image"]]
    assert sorted(next(iter(units.values()))["layer2"]) == [0, 3, 5, 9, 11, 20]

    top = audited(network, ["deconvnet"], layers=["layer2"], techniques={"deconvnet": {"channels": "top:5"}})
    image = next(iter(top.facts["techniques"]["deconvnet"]["results"]["units"]))
    x = top.input(image)[None]
    kept: list[Tensor] = []
    handle = network.layer2.register_forward_hook(lambda _m, _a, output: kept.append(output.detach()))  # type: ignore[union-attr]
    network(x)
    handle.remove()
    strongest = kept[0][0].amax(dim=(1, 2)).topk(5).indices.tolist()
    assert top.facts["techniques"]["deconvnet"]["results"]["units"][image]["layer2"] == strongest


def test_one_forward_serves_the_rules_and_the_gradient_costs_no_backward(network: nn.Module) -> None:
    plain = audited(network, ["class_activation"], layers=["layer4"]).facts["passes"]
    more = audited(network, ["class_activation", "gradient"], layers=["layer4"]).facts["passes"]
    assert more == plain
    both = audited(network, ["deconvnet", "guided_backprop", "gradient"], layers=["layer2", "layer4"]).facts["passes"]
    # look at the layers, scan, exhibits, one forward for the units of each of two images, and one of noise to learn how
    # much of them units see: here too much for windows
    assert both["forward"]["batches"] == 3 + 2 + 1
    # three rules for the classes; two rules, two layers, two images for the units, four at once
    assert both["backward"] == {"batches": 3 + 8, "samples": 12 + 32}


def test_units_of_another_exhibit_leave_the_rest_alone(network: nn.Module) -> None:
    options: dict[str, Any] = {"model_id": "one", "layers": ["layer2"], "exhibits": 3}
    audited(network, ["deconvnet"], **options)
    report = audited(network, ["deconvnet"], **options, exhibit=["image-3"])
    assert report.facts["images"]["exhibits"][0]["image"] == "image-3"
    passes = report.facts["passes"]
    # at most the class of the new exhibit, the units of it, and how much they see; the old ones are stored
    assert passes["forward"]["batches"] <= 3
    assert passes["backward"]["batches"] <= 2


def test_scripted_models_have_a_gradient_and_no_other_rule() -> None:
    with pytest.warns(FutureWarning, match="torch.jit.script"):
        model = torch.jit.script(lively("squeezenet1_1", classes=10, size=64))
    report = audited(model, ["gradient", "deconvnet", "guided_backprop"])
    status = {name: one["status"] for name, one in report.facts["techniques"].items()}
    assert status == {"gradient": "complete", "deconvnet": "not_applicable", "guided_backprop": "not_applicable"}


def test_other_activations_are_told_as_an_extension(tmp_path: Path) -> None:
    report = audited(lively("mobilenet_v3_small", classes=10, size=64), ["guided_backprop"], layers=["features.4"])
    results = report.facts["techniques"]["guided_backprop"]["results"]
    assert (results["rectifiers"], results["extended"], results["escaped"]) == (14, 19, 0)
    report.write(tmp_path / "report.html")
    assert b"an extension of ours is used" in (tmp_path / "report.html").read_bytes()


def test_window_holds_what_is_seen_and_is_square() -> None:
    values = np.zeros((3, 100, 80))
    values[1, 40:50, 60:63] = 1
    values[0, 0, 0] = 0.01  # below two percent
    top, bottom, left, right = window(values)
    assert (bottom - top, right - left) == (24, 24)
    assert top <= 40
    assert bottom >= 50
    assert left <= 60
    assert 63 <= right <= 80
    assert window(np.zeros((1, 7, 9))) == (0, 7, 0, 9)


def test_counts_below_zero_are_refused(network: nn.Module) -> None:
    with pytest.raises(UsageError, match="units and exhibits are counts"):
        audited(network, ["deconvnet"], techniques={"deconvnet": {"units": -1}})


@pytest.mark.parametrize(
    ("channels", "gradient", "guided"),
    [
        (1, "The magnitude, in grey", "in the colours of the input"),
        (3, "The largest magnitude over the channels of the input, in grey", "in the colours of the input"),
        (5, "The largest magnitude over the channels of the input, in grey", "the mean over the channels of the input"),
    ],
)
def test_captions_say_what_is_drawn_of_the_channels(channels: int, gradient: str, guided: str) -> None:
    model = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    inputs = list(torch.rand(2, channels, 12, 12, generator=torch.Generator().manual_seed(0)))
    report = reportgen.audit(model.eval(), inputs, only=["gradient", "guided_backprop"], exhibits=1)
    for section, words in zip(report.document.sections, (gradient, guided), strict=True):
        assert all(words in str(figure.caption) for figure in section.figures)
