"""What is measured on the sample: planned as it runs, once, on the images it was asked for, and of nobody's batch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reportgen
from reportgen.errors import UsageError
from reportgen.job import Job
from reportgen.pipeline import foresee
from reportgen.techniques import chosen
from tests.networks import lively
from tests.trained import patches, trained_network

MEASURED = ("faithfulness", "sanity", "robustness")
OPTIONS: dict[str, Any] = {"only": MEASURED, "batch_size": 4, "sample": 6, "exhibits": 1}
FEW = {"faithfulness": {"images": 3, "steps": 4}, "sanity": {"images": 2}}


class Counting(nn.Module):
    """Counts its calls, and those of its copies."""

    calls = 0

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        Counting.calls += 1
        found: Tensor = self.inner(x)
        return found


@pytest.fixture
def items() -> list[Any]:
    images, classes, _corners = patches(8, seed=3)
    return [
        (image, int(label), f"{place:02}") for place, (image, label) in enumerate(zip(images, classes, strict=True))
    ]


def test_runs_as_planned_and_only_once(tmp_path: Path, items: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORTGEN_CACHE_DIR", str(tmp_path))
    model = Counting(trained_network())
    report = reportgen.audit(model, items, model_id="one", **{**OPTIONS, "only": ("predictions",)})
    job = Job.from_options({**OPTIONS, "techniques": FEW, "cache_dir": tmp_path, "no_cache": False})
    (line,) = (line for line in _foreseen(model, items, job) if line.startswith("4 measure"))
    found = re.fullmatch(
        r"4 measure  (\d+) results about the sample, 0 stored: (\d+) forward of (\d+) images, (\d+) backward", line
    )
    assert found is not None, line
    results, batches, samples, backwards = map(int, found.groups())
    assert results == 3 + 2 + 6
    Counting.calls = 0
    report = reportgen.audit(model, items, model_id="one", techniques=FEW, **OPTIONS)
    passes = report.facts["passes"]
    assert {one["status"] for one in report.facts["techniques"].values()} == {"complete"}
    assert Counting.calls == passes["forward"]["batches"] == batches
    assert passes["forward"]["samples"] == samples
    assert passes["backward"]["batches"] == backwards
    Counting.calls = 0
    again = reportgen.audit(model, items, model_id="one", techniques=FEW, **OPTIONS)
    assert Counting.calls == 0
    assert [one["cached"] for one in again.facts["techniques"].values()] == [True] * 3
    for name in MEASURED:
        assert again.facts["techniques"][name]["results"] == report.facts["techniques"][name]["results"]


def _foreseen(model: nn.Module, items: list[Any], job: Job) -> list[str]:
    import reportgen.pipeline as pipeline

    loaded = pipeline.load
    with pytest.MonkeyPatch.context() as patch:
        # a plan is for files; a live module needs its name to find what is stored
        patch.setattr(pipeline, "load", lambda *words: loaded(*words, "one"))
        return foresee(model, items, job).splitlines()


def test_each_technique_has_its_part_of_the_sample(items: list[Any]) -> None:
    report = reportgen.audit(trained_network(), items, techniques=FEW, **OPTIONS)
    sample = report.facts["images"]["sample"]
    assert len(set(sample)) == 6
    taken = {name: report.facts["techniques"][name]["results"]["n"] for name in MEASURED}
    assert taken == {"faithfulness": 3, "sanity": 2, "robustness": 6}
    assert report.tensors("sanity", sample[1])
    with pytest.raises(UsageError, match="was not measured on"):
        report.tensors("sanity", sample[2])


def test_results_do_not_depend_on_who_else_is_in_the_sample(items: list[Any]) -> None:
    many = reportgen.audit(trained_network(), items, techniques=FEW, **OPTIONS)
    name = many.facts["images"]["sample"][0]
    (alone,) = ([item] for item in items if item[2] == name)
    one = reportgen.audit(trained_network(), alone, techniques=FEW, **OPTIONS)
    for technique in MEASURED:
        found, expected = (report.tensors(technique, name) for report in (one, many))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key].nan_to_num(7), expected[key].nan_to_num(7)) for key in found)


def test_quick_measures_nothing_unless_a_sample_is_asked_for() -> None:
    names = {preset: {one.name for one in chosen(Job.from_options({"preset": preset}))} for preset in ("quick", "full")}
    assert names["full"] - names["quick"] == set(MEASURED)
    asked = chosen(Job.from_options({"preset": "quick", "sample": 8}))
    assert set(MEASURED) <= {one.name for one in asked}
    with pytest.raises(UsageError, match="'sanity' is measured on a sample"):
        chosen(Job.from_options({"preset": "quick", "only": "sanity"}))
    assert not {one.name for one in chosen(Job.from_options({"sample": 0}))} & set(MEASURED)


def test_one_image_and_one_logit_suffice(items: list[Any]) -> None:
    model = lively("resnet18", classes=1, size=64)
    with torch.inference_mode():
        report = reportgen.audit(model, items[:1], techniques=FEW, **OPTIONS)
    assert {one["status"] for one in report.facts["techniques"].values()} == {"complete"}
    results = {name: report.facts["techniques"][name]["results"] for name in MEASURED}
    assert results["faithfulness"]["maps"]["random"]["score"]["interval"] is None
    assert not [one for one in report.facts["findings"] if one["rule"].split(".")[0] in MEASURED]
    assert b"sanity-curves" in report.rendered(".html")


class Forked(nn.Module):
    """Fails where its graph is wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.body = trained_network()

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            raise ValueError("planted")
        found: Tensor = self.body(x)
        return found


def test_what_fails_fails_alone(items: list[Any]) -> None:
    report = reportgen.audit(Forked(), items, techniques=FEW, **OPTIONS)
    status = {name: report.facts["techniques"][name]["status"] for name in MEASURED}
    # derivatives by the input are wanted by sanity alone
    assert status == {"faithfulness": "complete", "sanity": "failed", "robustness": "complete"}
    assert "planted" in report.facts["techniques"]["sanity"]["reason"]
