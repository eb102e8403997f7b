"""Sanity of maps on a trained network: who is flagged, who is cleared, and that the network stays as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import reportgen
from reportgen.engine.cascade import Twin
from reportgen.engine.requests import Randomised
from reportgen.similarity import rank_correlation
from reportgen.techniques.sanity import _little
from tests.engine.test_cascade import resolved
from tests.trained import patches, trained_network


def audited(model: nn.Module, count: int = 8, **options: Any) -> reportgen.Report:
    images, _classes, _corners = patches(count, seed=5)
    items = [(image, None, f"{place:02}") for place, image in enumerate(images)]
    return reportgen.audit(model, items, only=["sanity"], techniques={"sanity": options})


@pytest.fixture(scope="module")
def report() -> reportgen.Report:
    return audited(trained_network())


def test_flags_guided_backpropagation_and_deconvnet_and_clears_grad_cam(report: reportgen.Report) -> None:
    methods = report.facts["techniques"]["sanity"]["results"]["methods"]
    assert {name: one["changes_little"] for name, one in methods.items()} == {
        "gradient": False,
        "guided_backprop": True,
        "deconvnet": True,
        "grad_cam": False,
    }
    for name in ("guided_backprop", "deconvnet"):
        assert methods[name]["rank_correlation"][0]["interval"][0] > 0.5
    for name in ("gradient", "grad_cam"):
        assert methods[name]["rank_correlation"][0]["value"] < 0.3
    (finding,) = (one for one in report.facts["findings"] if one["rule"] == "sanity.changes_little")
    assert (finding["about"], finding["subject"], finding["n"]) == ("method", "guided_backprop", 8)
    assert "Sixt et al. 2020" in finding["detail"]
    assert "Deconvolutional network" in finding["detail"]
    assert "Grad-CAM" not in finding["detail"]


@pytest.mark.parametrize("seed", [1, 2])
def test_verdicts_do_not_hang_on_the_weights_that_were_drawn(seed: int) -> None:
    told = audited(trained_network(), seed=seed)
    methods = told.facts["techniques"]["sanity"]["results"]["methods"]
    flagged = {name for name, one in methods.items() if one["changes_little"]}
    assert flagged == {"guided_backprop", "deconvnet"}


@pytest.mark.parametrize(
    ("value", "interval", "decided"),
    [(0.9, (0.8, 0.95), True), (0.3, (0.0, 0.6), False), (0.6, (0.4, 0.7), None), (0.9, None, None)],
)
def test_what_lies_about_the_threshold_is_not_decided(value: float, interval: Any, decided: bool | None) -> None:
    assert _little({"value": value, "interval": interval, "n": 8}, 0.5) is decided
    assert _little(None, 0.5) is None


def test_methods_that_change_are_no_finding() -> None:
    report = audited(trained_network(), methods=["gradient", "grad_cam"])
    assert not [one for one in report.facts["findings"] if one["rule"].startswith("sanity")]


def test_levels_reach_ever_more_weights(report: reportgen.Report) -> None:
    # behind 0.2, the rectifier of the first block, runs what runs behind the block: one level for both
    assert report.facts["techniques"]["sanity"]["results"]["levels"] == ["3", "0", ""]
    stored = report.tensors("sanity", "00")
    assert stored["rank/gradient"].shape == stored["ssim/grad_cam"].shape == (3,)
    assert stored["map/gradient"].shape == (4, 48, 48)


def test_equals_a_gradient_of_the_copy() -> None:
    report = audited(trained_network(), draws=1)
    model = trained_network()
    twin = Twin(model, resolved(model, 48)).under(Randomised("3"))
    case = next(one for one in report.facts["predictions"] if one["image"] == "00")
    maps = []
    for network in (model, twin):
        x = patches(8, seed=5)[0][:1].clone().requires_grad_(True)
        network(x)[0, case["top"][0]["index"]].backward()
        assert x.grad is not None
        maps.append(x.grad[0].mean(dim=0).double().numpy())
    found = float(report.tensors("sanity", "00")["rank/gradient"][0])
    assert found == pytest.approx(rank_correlation(*maps), abs=1e-3)


def test_the_network_is_left_as_it_was() -> None:
    model = trained_network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    identities = {name: id(tensor) for name, tensor in model.named_parameters()}
    audited(model, 2)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert identities == {name: id(tensor) for name, tensor in model.named_parameters()}
    assert not any(part._forward_hooks for part in model.modules())


def test_scripted_models_are_compared_by_what_they_allow() -> None:
    with pytest.warns(FutureWarning, match="torch.jit.script"):
        model = torch.jit.script(trained_network())
    report = audited(model, 2)
    told = report.facts["techniques"]["sanity"]
    assert told["status"] == "complete", told
    assert list(told["results"]["methods"]) == ["gradient"]
    assert np.isfinite(told["results"]["methods"]["gradient"]["rank_correlation"][0]["value"])
    assert told["results"]["methods"]["gradient"]["changes_little"] is None  # of two images nothing is decided
    assert not [one for one in report.facts["findings"] if one["rule"].startswith("sanity")]
