"""The Python interface: its page, progress, the view in a notebook, and what is left behind."""

from __future__ import annotations

import doctest
import html
import random
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import reportgen
from reportgen.progress import Event, Progress
from reportgen.report.document import Document
from reportgen.report.notebook import notebook_view

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
FEW: dict[str, Any] = {"preset": "quick", "input_size": 24, "only": ["predictions", "class_activation", "feature_maps"]}


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(), nn.Conv2d(6, 8, 3),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (30, 34, 3), dtype=np.uint8)) for _ in range(3)]


@pytest.fixture(scope="module")
def report() -> reportgen.Report:
    return reportgen.audit(small(), pictures(), no_cache=True, **FEW)


def test_the_examples_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text("utf-8")
    blocks = re.findall(r"```pycon\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 10
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, PAGE.name, str(PAGE), 0)
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF)
    failed, tried = runner.run(test, out=told.append)
    assert not failed, "".join(told)
    assert tried >= 30
    assert (tmp_path / "report.html").is_file()


def test_events_are_told_in_order() -> None:
    seen: list[Event] = []
    reportgen.audit(small(), pictures(), no_cache=True, progress=seen.append, batch_size=2, **FEW)
    steps = [event.step for event in seen]
    assert steps == sorted(steps)
    assert set(steps) == {1, 2, 3, 4, 5}
    counted = [(event.done, event.total) for event in seen if event.name == "scan" and event.total is not None]
    assert counted == [(2, 3), (3, 3)]
    assert all(event.words for event in seen)


def test_writing_is_an_event(tmp_path: Path, report: reportgen.Report) -> None:
    seen: list[Event] = []
    replace(report, _progress=Progress(listener=seen.append)).write(tmp_path / "r.json")
    assert seen == [Event(6, "write", "r.json")]


@pytest.mark.parametrize("step", ["load", "scan", "examine", "draw"])
def test_what_progress_raises_ends_the_audit_and_the_module_is_as_before(step: str) -> None:
    model = small()
    before = state_of(model)

    def stop(event: Event) -> None:
        if event.name == step:
            raise RuntimeError(f"enough at {step}")

    with pytest.raises(RuntimeError, match=f"enough at {step}"):
        reportgen.audit(model, pictures(), no_cache=True, progress=stop, **FEW)
    assert same(before, state_of(model))


def test_what_progress_raises_in_an_ascent_ends_the_audit_too() -> None:
    def stop(event: Event) -> None:
        if event.name == "examine" and event.done:
            raise RuntimeError("enough")

    ascent = {"max_activation": {"steps": 4, "size": 16}}
    with pytest.raises(RuntimeError, match="enough"):
        reportgen.audit(
            small(), pictures(), input_size=24, preset="quick", only="max_activation", techniques=ascent, progress=stop
        )


def test_true_tells_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    reportgen.audit(small(), pictures(), no_cache=True, progress=True, **{**FEW, "only": "predictions"})
    told = capsys.readouterr()
    assert told.out == ""
    assert [line[:1] for line in told.err.splitlines() if line[:1] != " "] == ["1", "2", "3", "4", "5"]


def state_of(model: nn.Module) -> dict[str, Any]:
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "flags": [(name, one.requires_grad, one.dtype, one.device) for name, one in model.named_parameters()],
        "modes": [part.training for part in model.modules()],
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()],
        "torch": torch.get_rng_state().clone(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "globals": (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.mha.get_fastpath_enabled(),
            torch.get_num_threads(),
            Image.MAX_IMAGE_PIXELS,
            len(warnings.filters),
        ),
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    weights = all(torch.equal(value, other["weights"][name]) for name, value in one["weights"].items())
    rest = all(one[name] == other[name] for name in ("flags", "modes", "hooks", "numpy", "python", "globals"))
    return weights and rest and torch.equal(one["torch"], other["torch"])


def test_a_module_in_training_with_frozen_parts_is_left_so() -> None:
    model = small().train()
    model[1].eval()
    model[4].weight.requires_grad_(False)
    before = state_of(model)
    report = reportgen.audit(model, pictures(), no_cache=True, **{**FEW, "only": ["predictions", "gradient"]})
    assert report.complete
    assert same(before, state_of(model))


def test_the_view_in_a_notebook(report: reportgen.Report) -> None:
    view = report._repr_html_()
    found = re.fullmatch(r'<iframe title="([^"]*)" srcdoc="([^"]*)" ([^>]*)></iframe>', view, re.DOTALL)
    assert found is not None
    assert html.unescape(found[2]) == report.rendered(".html").decode()
    assert 'sandbox="allow-scripts"' in found[3]
    assert "allow-same-origin" not in view
    assert repr(report) == "<Report on 3 images, 3 techniques>"


def test_the_view_in_a_notebook_is_bounded(report: reportgen.Report) -> None:
    from reportgen.report.html import render_html

    document = report.document
    sizes: list[int] = []

    def rendered(shorter: Document) -> bytes:
        page = render_html(shorter)
        sizes.append(len(page))
        return page

    assert len(notebook_view(document, rendered, most=1)) < 1000
    whole, few, bare, least = sizes
    assert whole > few > bare > least
    for most, words in (
        (few, "Without the pages of exhibits"),
        (bare, "Without figures"),
        (least, "The summary alone"),
    ):
        view = notebook_view(document, rendered, most=most)
        assert view.startswith(f"<p>{words}; report.write(&#x27;report.html&#x27;) writes the whole report.</p><iframe")
    zh = replace(document, style=replace(document.style, lang="zh"))
    assert "report.write" in notebook_view(zh, lambda _document: bytes(2), most=1)


def test_names_cannot_leave_the_frame() -> None:
    title = '"></iframe><script>alert(1)</script>'
    report = reportgen.audit(small(), pictures(), no_cache=True, title=title, **{**FEW, "only": "predictions"})
    view = report._repr_html_()
    assert view.count("<") == 2
    assert "<script" not in view


def test_tensors_are_those_of_a_plain_forward(report: reportgen.Report) -> None:
    model = small().eval()
    for name in ("image-0000", "image-0001"):
        kept: list[Tensor] = []
        handle = model[2].register_forward_hook(lambda _m, _a, out, kept=kept: kept.append(out.clone()))
        with torch.no_grad():
            scores = model(report.input(name)[None])[0]
        handle.remove()
        stored = report.tensors("predictions", image=name)
        assert torch.allclose(stored["logits"], scores[stored["index"].long()], atol=1e-5)
        maps = report.tensors("feature_maps", image=name)
        shown = [values for key, values in maps.items() if values.shape[-2:] == kept[0].shape[-2:]]
        assert shown
        stored["logits"] += 1  # a copy: what is stored is nobody's to change
        assert not torch.equal(report.tensors("predictions", image=name)["logits"], stored["logits"])
