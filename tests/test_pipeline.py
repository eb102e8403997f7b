"""The whole way, shown from outside: what is computed, what is not computed again, and what is left as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import reportgen
import reportgen.errors
from reportgen.errors import ImagesError, LabelsError, UsageError
from reportgen.techniques import registry
from tests.networks import lively

SHARED = ["predictions", "class_activation", "feature_maps", "filters"]
"""Techniques that one forward and one backward of a batch serve."""
QUICK: dict[str, Any] = {"preset": "quick", "input_size": "64", "batch_size": 4, "only": SHARED}


class Counting(nn.Module):
    """Counts its calls: whether a pass was run is not a matter of what the report says."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        return self.inner(x)  # type: ignore[no-any-return]


def photographs(folder: Path, count: int, *, start: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(start, start + count):
        coarse = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((80, 70), Image.Resampling.BICUBIC).save(folder / f"{number:03}.png")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("REPORTGEN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return lively("resnet18", classes=10, size=64)


def snapshot(model: nn.Module) -> dict[str, Any]:
    return {
        "state": {key: value.clone() for key, value in model.state_dict().items()},
        "flags": {key: value.requires_grad for key, value in model.named_parameters()},
        "modes": {key: part.training for key, part in model.named_modules()},
        "hooks": {key: len(part._forward_hooks) + len(part._forward_pre_hooks) for key, part in model.named_modules()},
        "random": torch.get_rng_state().clone(),
        "grad": torch.is_grad_enabled(),
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    tensors = all(torch.equal(one["state"][key], other["state"][key]) for key in one["state"])
    plain = all(one[name] == other[name] for name in ("flags", "modes", "hooks", "grad"))
    return tensors and plain and torch.equal(one["random"], other["random"])


def test_second_run_calls_nothing_and_draws_the_same(tmp_path: Path, network: nn.Module) -> None:
    photographs(tmp_path / "images", 5)
    model = Counting(network)
    first = reportgen.audit(model, tmp_path / "images", model_id="one", **QUICK)
    # the look at the layers (2), the scan (5 in batches of 4), four exhibits in one batch
    assert model.calls == [2, 4, 4, 4]
    assert first.facts["passes"] == {"forward": {"batches": 4, "samples": 11}, "backward": {"batches": 1, "samples": 4}}
    model.calls.clear()
    second = reportgen.audit(model, tmp_path / "images", model_id="one", **QUICK)
    assert model.calls == []
    assert second.facts["passes"]["forward"]["batches"] == 0
    pictures = [
        [p.picture.digest for s in r.document.sections for f in s.figures for row in f.rows for p in row.panels if p]
        for r in (first, second)
    ]
    assert pictures[0] == pictures[1]
    assert pictures[0]
    for name in ("results", "figures", "status"):
        assert [one[name] for one in first.facts["techniques"].values()] == [
            one[name] for one in second.facts["techniques"].values()
        ]


def test_second_run_draws_nothing(tmp_path: Path, network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds for every technique: what it puts into figures can be kept."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    photographs(tmp_path / "images", 3)
    few = {"max_activation": {"steps": 2}, "occlusion": {"grid": 2}}
    options = {**QUICK, "only": list(registry()), "techniques": few, "model_id": "one", "sample": 2}
    first = reportgen.audit(network, tmp_path / "images", **options)
    assert {one["status"] for one in first.facts["techniques"].values()} == {"complete"}
    written = [first.rendered(suffix) for suffix in (".html", ".json", ".pdf")]

    def refuse(*_words: object, **_options: object) -> None:
        raise AssertionError("drawn again")

    drawing = ("reportgen.drawing._drawn", "reportgen.drawing.photograph", "reportgen.album.formula_svg")
    for place in (*drawing, "weasyprint.HTML"):
        monkeypatch.setattr(place, refuse)
    second = reportgen.audit(network, tmp_path / "images", **options)
    assert [second.rendered(suffix) for suffix in (".html", ".json", ".pdf")] == written
    assert isinstance(second.facts["predictions"], list)


def test_adding_an_image_computes_that_image_only(tmp_path: Path, network: nn.Module, cache: Path) -> None:
    photographs(tmp_path / "images", 5)
    model = Counting(network)
    options = {**QUICK, "exhibits": 20}
    reportgen.audit(model, tmp_path / "images", model_id="one", **options)
    before = {path: path.stat().st_ino for path in cache.rglob("*.safetensors")}
    photographs(tmp_path / "images", 1, start=77)
    model.calls.clear()
    report = reportgen.audit(model, tmp_path / "images", model_id="one", **options)
    assert report.facts["passes"]["forward"] == {"batches": 2, "samples": 2}  # one for the scan, one as an exhibit
    assert len(model.calls) == 2
    after = {path: path.stat().st_ino for path in cache.rglob("*.safetensors")}
    rewritten = [path for path in before if after.get(path) != before[path]]
    assert len(rewritten) <= 1  # its scan bucket, if another image shares it
    assert len(report.facts["images"]["exhibits"]) == 6


def test_a_title_computes_nothing(tmp_path: Path, network: nn.Module) -> None:
    photographs(tmp_path / "images", 3)
    model = Counting(network)
    reportgen.audit(model, tmp_path / "images", model_id="one", **QUICK)
    model.calls.clear()
    report = reportgen.audit(
        model, tmp_path / "images", model_id="one", title="Other", author="Nobody", paper="letter", **QUICK
    )
    assert model.calls == []
    assert report.document.style.title == "Other"


def test_other_settings_are_other_results(tmp_path: Path, network: nn.Module) -> None:
    photographs(tmp_path / "images", 2)
    model = Counting(network)
    reportgen.audit(model, tmp_path / "images", model_id="one", **QUICK)
    for changed in ({"mean": (0.5,)}, {"input_size": "96"}, {"batch_size": 2}):
        model.calls.clear()
        reportgen.audit(model, tmp_path / "images", model_id="one", **{**QUICK, **changed})
        assert model.calls
    model.calls.clear()
    reportgen.audit(model, tmp_path / "images", model_id="two", **QUICK)
    assert model.calls
    model.calls.clear()
    reportgen.audit(model, tmp_path / "images", **QUICK)  # nobody vouches: nothing is kept
    reportgen.audit(model, tmp_path / "images", **QUICK)
    assert len(model.calls) == 6


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precision_is_lowered_for_the_scan_and_for_ascents_alone(
    tmp_path: Path, network: nn.Module, precision: str
) -> None:
    photographs(tmp_path / "images", 2)
    options = {**QUICK, "only": ["predictions", "class_activation", "max_activation", "gradient"], "target": ("1",)}
    ascent = {"max_activation": {"steps": 6, "layers": ["layer2"]}}
    plain = reportgen.audit(network, tmp_path / "images", **options, techniques=ascent)
    lower = reportgen.audit(network, tmp_path / "images", **options, techniques=ascent, precision=precision)
    assert lower.facts["environment"]["precision"] == precision
    for technique in ("class_activation", "gradient"):
        one, other = (report.tensors(technique, image="000.png") for report in (plain, lower))
        assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = (report.tensors("predictions", image="000.png") for report in (plain, lower))
    assert not torch.equal(one["logits"], other["logits"])
    assert torch.allclose(one["logits"], other["logits"], atol=0.05 * float(one["logits"].abs().max()))
    (name,) = (name for name in lower.tensors("max_activation") if name == "final/robust/layer2.1.conv2")
    final, start = (lower.tensors("max_activation")[name.replace("final", what)] for what in ("final", "start"))
    assert bool((final > start).all())


def test_the_module_is_left_as_it_was(tmp_path: Path, network: nn.Module) -> None:
    photographs(tmp_path / "images", 2)
    network.train()
    network.layer1.eval()
    network.fc.weight.requires_grad_(False)
    before = snapshot(network)
    reportgen.audit(network, tmp_path / "images", **QUICK)
    assert same(before, snapshot(network))
    with torch.inference_mode():
        reportgen.audit(network, tmp_path / "images", **QUICK)
    with torch.no_grad():
        reportgen.audit(network, tmp_path / "images", **QUICK)

    def broken(_module: nn.Module, args: tuple[Tensor, ...], _output: Tensor) -> None:
        if len(args[0]) > 2:
            raise ValueError("this layer does not like images")

    handle = network.layer3.register_forward_hook(broken)
    during = snapshot(network)
    with pytest.raises(reportgen.errors.PassError, match="this layer does not like images"):
        reportgen.audit(network, tmp_path / "images", **QUICK)
    assert same(during, snapshot(network))
    handle.remove()
    network.fc.weight.requires_grad_(True)
    network.eval()


def test_every_technique_leaves_the_module_as_it_was(tmp_path: Path, network: nn.Module) -> None:
    photographs(tmp_path / "images", 3)
    network.fc.weight.requires_grad_(False)
    network.layer2.train()
    before = snapshot(network)
    few = {"max_activation": {"steps": 2}, "occlusion": {"grid": 2}}
    report = reportgen.audit(network, tmp_path / "images", techniques=few, sample=2, **{**QUICK, "only": ()})
    assert {one["status"] for one in report.facts["techniques"].values()} == {"complete"}
    assert same(before, snapshot(network))

    def tired(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled():  # a forward whose graph is kept: the scan has none
            raise ValueError("planted")

    handle = network.layer3.register_forward_pre_hook(tired)
    before = snapshot(network)
    report = reportgen.audit(network, tmp_path / "images", techniques=few, sample=2, **{**QUICK, "only": ()})
    status = {name: one["status"] for name, one in report.facts["techniques"].items()}
    assert {status[name] for name in ("class_activation", "gradient", "deconvnet", "max_activation")} == {"failed"}
    assert {status[name] for name in ("faithfulness", "sanity", "robustness")} == {"failed"}
    assert {status[name] for name in ("predictions", "occlusion", "feature_maps", "filters", "architecture")} == {
        "complete"
    }
    assert "planted" in report.facts["techniques"]["deconvnet"]["reason"]
    assert same(before, snapshot(network))
    handle.remove()
    network.fc.weight.requires_grad_(True)
    network.eval()


def test_stored_logits_are_those_of_a_plain_forward(tmp_path: Path) -> None:
    model = lively("mobilenet_v3_small", classes=7)
    torch.save({"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, tmp_path / "m.pt")
    photographs(tmp_path / "images", 3)
    report = reportgen.audit(tmp_path / "m.pt", tmp_path / "images", preset="quick", only=SHARED)
    for name in ("000.png", "001.png", "002.png"):
        x = report.input(name)
        assert x.shape == (3, 224, 224)
        with torch.no_grad():
            expected = model(x[None])[0]
        stored = report.tensors("predictions", image=name)
        assert torch.allclose(stored["logits"], expected[stored["index"]], atol=1e-5 * float(expected.abs().max()))
        assert torch.allclose(stored["probability"], expected.softmax(0)[stored["index"]], atol=1e-5)
        maps = report.tensors("class_activation", image=name)
        layer = report.facts["model"]["default_layers"][-1]
        assert f"grad_cam/{layer}/{int(stored['index'][0])}" in maps
    assert report.tensors("filters")[f"kernels/{'features.0.0'}"].equal(model.features[0][0].weight)
    assert report.facts["model"]["architecture"] == "torchvision:mobilenet_v3_small"
    assert "preprocessing.assumed" in {finding["rule"] for finding in report.facts["findings"]}


def test_feature_maps_are_the_channels_they_say(tmp_path: Path, network: nn.Module) -> None:
    photographs(tmp_path / "images", 1)
    report = reportgen.audit(
        network, tmp_path / "images", layers="layer2", channels="0,5,127", **{**QUICK, "only": "feature_maps"}
    )
    stored = report.tensors("feature_maps", image="000.png")
    kept: list[Tensor] = []
    handle = network.layer2.register_forward_hook(lambda _m, _a, output: kept.append(output.detach()))
    with torch.no_grad():
        network(report.input("000.png")[None])
    handle.remove()
    assert stored["channels/layer2"].tolist() == [0, 5, 127]
    assert torch.allclose(stored["maps/layer2"], kept[0][0, [0, 5, 127]], atol=1e-5)
    assert list(report.facts["techniques"]) == ["feature_maps"]
    assert report.facts["passes"]["backward"]["batches"] == 0


def test_truth_makes_mistakes_exhibits_with_two_classes(tmp_path: Path, network: nn.Module) -> None:
    photographs(tmp_path / "images", 6)
    first = reportgen.audit(network, tmp_path / "images", **QUICK)
    predicted = {one["image"]: one["top"][0]["index"] for one in first.facts["predictions"]}
    rows = [f"{name},{(index + 1) % 10 if name == '003.png' else index}" for name, index in predicted.items()]
    (tmp_path / "truth.csv").write_text("image,label\n" + "\n".join(rows))
    report = reportgen.audit(network, tmp_path / "images", truth=tmp_path / "truth.csv", **QUICK)
    assert report.facts["metrics"]["accuracy"]["value"] == pytest.approx(5 / 6)
    assert report.facts["images"]["exhibits"][0] == {"image": "003.png", "why": "mistake"}
    maps = report.tensors("class_activation", image="003.png")
    assert {name.rpartition("/")[2] for name in maps} == {
        str(predicted["003.png"]),
        str((predicted["003.png"] + 1) % 10),
    }
    # one backward for the predicted classes of the batch, one for the true class of the mistake
    assert report.facts["passes"]["backward"] == {"batches": 2, "samples": 5}


def test_truth_that_does_not_fit_is_told_before_the_work(tmp_path: Path, network: nn.Module) -> None:
    photographs(tmp_path / "images", 3)
    (tmp_path / "truth.csv").write_text("image,label\n000.png,dragon\n")
    model = Counting(network)
    with pytest.raises(LabelsError, match="dragon"):
        reportgen.audit(model, tmp_path / "images", truth=tmp_path / "truth.csv", **QUICK)
    assert model.calls == [2]  # the look at the layers


def test_a_folder_of_whatever(tmp_path: Path, network: nn.Module) -> None:
    folder = tmp_path / "images"
    photographs(folder, 2)
    Image.new("RGB", (1, 1), "red").save(folder / "dot.png")
    whole = (folder / "000.png").read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("no image")
    (folder / "empty.jpg").touch()
    (folder / "notes.txt").write_text("x")
    photographs(tmp_path / "other", 1)
    os.rename(tmp_path / "other" / "000.png", folder / '"><script>alert(1)<.png')
    report = reportgen.audit(network, folder, **QUICK)
    images = report.facts["images"]
    assert (images["used"], images["count"]) == (4, 8)
    assert {one["file"] for one in images["skipped"]} == {"half.png", "text.jpg", "empty.jpg", "notes.txt"}
    # the copy of 000.png is the same image under another name: counted twice, computed once
    assert report.facts["passes"]["forward"]["samples"] == 2 + 3 + 4
    with pytest.raises(ImagesError, match="no usable image among 1 file"):
        reportgen.audit(network, folder / "text.jpg", **QUICK)


def test_live_images_and_datasets(network: nn.Module) -> None:
    pictures = [Image.new("RGB", (30, 40), colour) for colour in ("red", "green")]
    report = reportgen.audit(network, pictures, **QUICK)
    assert [one["image"] for one in report.facts["predictions"]] == ["image-0000", "image-0001"]
    tensors = [(torch.randn(3, 48, 72), 4, "mine"), (torch.randn(3, 48, 72), 2, "yours")]
    report = reportgen.audit(network, tensors, only=SHARED)
    assert torch.equal(report.input("mine"), tensors[0][0])
    assert report.facts["predictions"][0]["truth"]["index"] == 4


def test_unknown_names_are_refused(tmp_path: Path, network: nn.Module) -> None:
    photographs(tmp_path / "images", 1)
    for options in (
        {"layers": "layer9"},
        {"channels": "0,99999", "layers": "layer1"},
        {"target": "dragon"},
        {"exhibit": "x.png"},
    ):
        with pytest.raises(reportgen.errors.ReportgenError) as caught:
            reportgen.audit(network, tmp_path / "images", **{**QUICK, **options})
        assert len(str(caught.value).splitlines()) <= 2
    report = reportgen.audit(network, tmp_path / "images", **QUICK)
    with pytest.raises(UsageError):
        report.tensors("no_such")
    with pytest.raises(UsageError):
        report.write("report.docx")


def test_memory_that_runs_out_halves_the_batch(tmp_path: Path, network: nn.Module) -> None:
    photographs(tmp_path / "images", 3)
    seen: list[int] = []

    def small(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(len(args[0]))
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("simulated")

    handle = network.register_forward_pre_hook(small)
    report = reportgen.audit(network, tmp_path / "images", model_id="small", **{**QUICK, "batch_size": 8})
    assert report.facts["environment"]["batch"] == 2
    assert seen == [2, 8, 4, 2, 2, 2, 2]
    seen.clear()
    reportgen.audit(network, tmp_path / "images", model_id="small", **{**QUICK, "batch_size": 8})
    assert seen == []
    handle.remove()


def test_a_damaged_entry_is_computed_again(tmp_path: Path, network: nn.Module, cache: Path) -> None:
    photographs(tmp_path / "images", 2)
    first = reportgen.audit(network, tmp_path / "images", model_id="one", **QUICK)
    for path in cache.rglob("*.safetensors"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
    second = reportgen.audit(network, tmp_path / "images", model_id="one", **QUICK)
    assert second.facts["passes"]["forward"]["batches"] == first.facts["passes"]["forward"]["batches"]
    assert second.facts["predictions"] == first.facts["predictions"]


RUN = f"""
import sys, json, reportgen
only = {[*SHARED, "duplicates", "hygiene"]}
report = reportgen.audit(sys.argv[1], sys.argv[2], preset="quick", exhibits=12, batch_size=2, only=only)
report.write(sys.argv[2] + ".html")
heavy = ("torch", "torchvision", "matplotlib", "weasyprint")
imported = [name for name in heavy if name in sys.modules]
told = {{"imported": imported, **{{name: report.facts[name] for name in ("passes", "techniques")}}}}
print(json.dumps(told))
"""


def run(model: Path, images: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(model), str(images)], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def test_killed_in_the_middle_and_run_again(tmp_path: Path, cache: Path) -> None:
    model = lively("resnet18", classes=10)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    photographs(tmp_path / "images", 12)
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path / "m.pt"), str(tmp_path / "images")])
    deadline = time.monotonic() + 120
    while len(list(cache.rglob("*.safetensors"))) < 8 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = len(list(cache.rglob("*.safetensors")))
    resumed = run(tmp_path / "m.pt", tmp_path / "images")
    whole = 2 + 12 + 12 + 1  # the look at the layers, the scan, the exhibits, the state of the weights
    assert finished >= 8
    assert 0 < resumed["passes"]["forward"]["samples"] < whole
    warm = run(tmp_path / "m.pt", tmp_path / "images")
    assert warm["imported"] == []
    assert warm["passes"]["forward"]["batches"] == 0
    assert [one["results"] for one in warm["techniques"].values()] == [
        one["results"] for one in resumed["techniques"].values()
    ]
