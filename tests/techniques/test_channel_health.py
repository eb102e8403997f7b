"""Statistics of channels are those of plain NumPy; what is zeroed and copied is found, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import reportgen
from reportgen.techniques.channel_health import directions
from tests import planted
from tests.networks import enlivened, noise


def health(model: nn.Module, images: Tensor, **options: Any) -> reportgen.Report:
    items = [(image, None, f"{number:05}") for number, image in enumerate(images)]
    return reportgen.audit(model, items, only="channel_health", **options)


def results(report: reportgen.Report) -> dict[str, Any]:
    told = report.facts["techniques"]["channel_health"]
    assert told["status"] == "complete", told
    return dict(told["results"])


def sick() -> nn.Sequential:
    """Six channels: two as they are, a dead one, one always on, a scaled copy of the first, a shifted one of it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    with torch.no_grad():
        convolution = model[0]
        convolution.weight[4] = 2.5 * convolution.weight[0]
        convolution.bias[0] = 0.4
        convolution.bias[4] = 2.5 * convolution.bias[0]
        convolution.weight[5] = convolution.weight[0]
        convolution.bias[5] = 0.38
        convolution.bias[2] = -100
        convolution.bias[3] = 100
    return model.eval()


@pytest.mark.parametrize("count", [10, 10_000])
def test_statistics_are_those_of_numpy(count: int) -> None:
    model, images = sick(), torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))
    told = results(report := health(model, images, layers="1", batch_size=256))
    with torch.no_grad():
        maps = model[:2](images).double().numpy()
    flat = maps.transpose(1, 0, 2, 3).reshape(6, -1)
    statistics = told["statistics"]["1"]
    assert told["images"] == count
    assert np.allclose(statistics["maximum"], flat.max(axis=1), rtol=1e-5)
    assert np.allclose(statistics["mean"], flat.mean(axis=1), rtol=1e-5)
    assert np.allclose(statistics["fires"], (flat > 0).mean(axis=1), rtol=1e-5)
    assert np.allclose(statistics["images"], (maps > 0).any(axis=(2, 3)).mean(axis=0), rtol=1e-5)
    correlation = np.corrcoef(np.delete(flat, 2, axis=0))
    kept = [0, 1, 3, 4, 5]
    pairs = [[kept[a], kept[b]] for a, b in zip(*np.nonzero(np.triu(correlation > 0.99, 1)), strict=True)]
    assert pairs == [[0, 4], [0, 5], [4, 5]]
    assert told["layers"] == {"1": {"dead": [2], "always_on": [3], "duplicates": pairs}}
    stored = report.tensors("channel_health", image="00003")
    assert np.allclose(stored["maximum/1"].numpy(), maps[3].max(axis=(1, 2)), atol=1e-5)


def test_sketches_hold_the_covariance() -> None:
    """Over many maps, products of sketches come to products of maps."""
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((4000, 2, 25)) @ np.diag(np.linspace(1, 3, 25))
    maps[:, 1] += 0.5 * maps[:, 0]
    maps -= maps.mean(axis=2, keepdims=True)
    sketch = maps @ directions(25).astype(np.float64)
    exact = np.einsum("nap,nbp->ab", maps, maps) / 25
    assert np.allclose(np.einsum("nar,nbr->ab", sketch, sketch), exact, rtol=0.2)


def test_what_is_zeroed_and_copied_is_added_and_nothing_else() -> None:
    torch.manual_seed(3)
    model = enlivened(planted.network(width=64), size=planted.SIZE)
    images = noise(12, planted.SIZE, seed=5)
    before = results(health(model, images, layers="5"))["layers"]["5"]
    zeroed, copied = [3, 5, 8, 13, 21, 34, 40, 47, 55, 63], {1: 30, 17: 2, 50: 51}
    convolution, normalisation = model[3], model[4]
    with torch.no_grad():
        for channel in zeroed:
            for tensor in (convolution.weight, normalisation.weight, normalisation.bias):
                tensor[channel] = 0
        for source, target in copied.items():
            held = ("weight", "bias", "running_mean", "running_var")
            for tensor in (convolution.weight, *(getattr(normalisation, name) for name in held)):
                tensor[target] = tensor[source]
    report = health(model, images, layers="5")
    after = results(report)["layers"]["5"]
    assert before["dead"] == before["duplicates"] == []
    assert after["dead"] == zeroed
    assert after["duplicates"] == sorted(sorted(pair) for pair in copied.items())
    assert after["always_on"] == [channel for channel in before["always_on"] if channel not in zeroed]
    rules = {one["rule"]: one for one in report.facts["findings"]}
    assert rules["channel_health.dead"]["value"] == pytest.approx(10 / 64, abs=1e-4)
    assert "5 10/64" in rules["channel_health.dead"]["detail"]
    assert rules["channel_health.duplicates"]["value"] == pytest.approx(3 / 64, abs=1e-4)
    assert {rules[name]["severity"] for name in rules if name.startswith("channel_health")} == {"info"}  # few images


def test_findings_grow_with_the_number_of_images() -> None:
    report = health(sick(), torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0)), layers="1")
    rules = {one["rule"]: (one["about"], one["severity"], one["n"]) for one in report.facts["findings"]}
    assert rules["channel_health.dead"] == ("model", "warning", 40)
    assert rules["channel_health.duplicates"] == ("model", "warning", 40)


def test_a_healthy_network_is_not_blamed() -> None:
    torch.manual_seed(3)
    model = enlivened(planted.network(width=24), size=planted.SIZE)
    report = health(model, noise(40, planted.SIZE, seed=5), layers="2,5")
    assert not [one for one in report.facts["findings"] if one["rule"].startswith("channel_health")]


def test_what_one_image_excites_alike_is_no_duplicate() -> None:
    """Two channels that both answer to one image and to nothing else cannot be told from chance."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 2.0])[:, None, None, None])
        model[0].bias.copy_(torch.tensor([-1.0, -2.0]))
    images = torch.zeros(6, 1, 8, 8)
    images[:, 0, 0, 0] = torch.linspace(0, 0.9, 6)
    images[2, 0, 3, 4] = 5
    assert results(health(model.eval(), images, layers="1"))["layers"]["1"]["duplicates"] == []
    images[:, 0, 3, 4] = torch.linspace(4, 5, 6)
    assert results(health(model.eval(), images, layers="1"))["layers"]["1"]["duplicates"] == [[0, 1]]


def rules(report: reportgen.Report) -> set[str]:
    return {one["rule"] for one in report.facts["findings"] if one["rule"].startswith("channel_health")}


def test_a_handful_of_images_says_nothing_of_channels() -> None:
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert rules(health(sick(), images[:4], layers="1")) == set()
    report = health(sick(), images, layers="1")
    assert rules(report) == {"channel_health.dead", "channel_health.duplicates"}
    assert "Look at more images" in report.facts["findings"][0]["detail"]
    settled = {"findings": {"channel_health.dead": 0.2, "channel_health.duplicates": 0.4}}
    assert rules(health(sick(), images, layers="1", **settled)) == set()


def test_images_that_are_all_alike_say_nothing_of_channels(tmp_path: Path) -> None:
    """Black ones, say, each in a file of its own: every channel is silent then."""
    for number in range(32):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{number}.png", dpi=(70 + number, 70))
    model = planted.trained(mark=False, steps=1)
    report = reportgen.audit(model, tmp_path, only="channel_health", input_size="16", resize="none")
    dead = [one["dead"] for one in report.facts["techniques"]["channel_health"]["results"]["layers"].values()]
    assert any(dead)
    assert rules(report) == set()


def test_a_layer_that_died_altogether_is_told() -> None:
    model = enlivened(planted.network(), size=planted.SIZE)
    with torch.no_grad():
        model[7].weight.zero_()
        model[7].bias.fill_(-1)
    report = health(model, noise(32, planted.SIZE), layers="5,8")
    (finding,) = (one for one in report.facts["findings"] if one["rule"] == "channel_health.dead")
    assert (finding["value"], finding["severity"], finding["subject"]) == (1.0, "warning", "8")
