"""Activation maximisation through the whole audit, and against Lucent on a trained network."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import reportgen
from reportgen.engine.ascent import Ascents
from reportgen.engine.passes import Passes
from reportgen.engine.requests import Ascent
from reportgen.engine.resolution import Resolution
from reportgen.engine.resolve import resolve
from reportgen.engine.trace import Counts
from reportgen.findings import Finding
from reportgen.job import Job
from reportgen.store import Store
from reportgen.techniques import chosen
from reportgen.techniques.max_activation import MaxActivation
from reportgen.techniques.max_activation_rules import concluded
from tests.networks import lively

OPTIONS = {"only": "max_activation", "input_size": "48", "batch_size": 2, "model_id": "one"}
SMALL = {"layers": "layer1,layer2", "channels": "even:4", "steps": 4, "size": 32}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.effect_noise((48, 48), 60).convert("RGB").save(folder / "a.png")
    return folder


@pytest.fixture
def network() -> nn.Module:
    return lively("resnet18", classes=10, size=48)


@pytest.fixture
def calls(network: nn.Module) -> list[int]:
    seen: list[int] = []
    network.register_forward_pre_hook(lambda _m, args: seen.append(len(args[0])))
    return seen


def audit(network: nn.Module, images: Path, **changed: Any) -> Any:
    return reportgen.audit(network, images, techniques={"max_activation": {**SMALL, **changed}}, **OPTIONS)


def test_what_is_stored_and_told(network: nn.Module, images: Path, tmp_path: Path) -> None:
    report = audit(network, images)
    stored = report.tensors("max_activation")
    for layer, count in (("layer1.1.conv2", 64), ("layer2.1.conv2", 128)):
        assert stored[f"channels/{layer}"].tolist() == [i * count // 4 for i in range(4)]
        for method in ("plain", "robust"):
            assert stored[f"{method}/{layer}"].shape == (4, 3, 32, 32)
            assert 0 <= float(stored[f"{method}/{layer}"].min()) < float(stored[f"{method}/{layer}"].max()) <= 1
            assert stored[f"objective/{method}/{layer}"].shape == (4, 4)
            assert stored[f"responses/{method}/{layer}"].shape == (4, count)
            assert stored[f"features/{method}/{layer}"].shape == (4, 512)
    told = report.facts["techniques"]["max_activation"]
    assert told["status"] == "complete"
    jsonschema.validate(told["results"], MaxActivation.results_schema)
    plain = told["results"]["layers"]["layer1.1.conv2"]["methods"]["plain"]
    assert plain["final"] == pytest.approx(stored["final/plain/layer1.1.conv2"].tolist())
    unit = nn.functional.normalize(stored["features/plain/layer1.1.conv2"], dim=1)
    pairs = [1 - float(unit[i] @ unit[j]) for i in range(4) for j in range(i)]
    assert plain["distance"] == pytest.approx(sum(pairs) / 6, abs=1e-5)
    report.write(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "Inputs that excite channels of layer" in page
    assert "the model&#39;s own are 48 × 48" in page
    assert told["figures"] == [
        "max_activation-objective",
        "max_activation-layer1.1.conv2",
        "max_activation-layer2.1.conv2",
    ]


def test_only_what_is_missing_is_computed(network: nn.Module, images: Path, calls: list[int]) -> None:
    first = audit(network, images)
    ascending = 2 * 2 * (1 + 4 + 1)  # layers, methods, all four channels together; the start, the steps, the result
    tries = 2 * 2
    assert calls.count(4) == ascending
    assert calls.count(2) == 2  # the look at the layers and the scan
    assert calls.count(1) == tries
    calls.clear()
    again = audit(network, images)
    assert calls == []
    name = "robust/layer2.1.conv2"
    assert torch.equal(first.tensors("max_activation")[name], again.tensors("max_activation")[name])
    more = audit(network, images, channels="0,96,33", layers="layer2", methods="robust")
    assert calls == [1, *[4] * 6]  # channel 33 alone
    assert torch.equal(more.tensors("max_activation")[name][:2], first.tensors("max_activation")[name][[0, 3]])


def test_a_dead_channel_is_a_finding_and_no_result(network: nn.Module, images: Path) -> None:
    with torch.no_grad():
        network.layer2[1].conv2.weight[32] = 0  # type: ignore[index,union-attr]
    report = audit(network, images, layers="layer2", steps=8)
    (finding,) = [f for f in report.facts["findings"] if f["rule"].startswith("max_activation")]
    assert (finding["rule"], finding["about"], finding["severity"]) == ("max_activation.inert", "model", "notice")
    assert finding["subject"] == "layer2.1.conv2"
    assert finding["value"] == 1
    assert "(layer2.1.conv2: 32)" in finding["detail"]
    told = report.facts["techniques"]["max_activation"]["results"]["layers"]["layer2.1.conv2"]
    assert told["inert"] == [32]
    assert [one["never_rose"] for one in told["methods"].values()] == [[32], [32]]
    section = next(one for one in report.document.sections if one.name == "max_activation")
    plate = next(figure for figure in section.figures if figure.id == finding["figures"][0])
    labels = [[str(panel.label) for panel in row.panels if panel] for row in plate.rows]
    assert [["never rose" in label for label in row] for row in labels] == [[False, True, False, False]] * 2
    assert "Struck through" in str(plate.caption)
    shown = [np.asarray(Image.open(io.BytesIO(p.picture.data)).convert("L")) for p in plate.rows[0].panels if p]
    assert shown[1].mean() > 1.2 * shown[0].mean()  # faded


def test_channels_that_an_ascent_fails_at_speak_of_the_method() -> None:
    """Nothing says that no input moves them: another picture did. One finding a rule, however many layers."""
    methods = {
        "plain": {"never_rose": [1], "broke_down": [7]},
        "robust": {"never_rose": [1, 3], "broke_down": []},
    }
    layers = {
        "one": {"channels": [1, 3, 7], "inert": [], "methods": methods},
        "two": {"channels": [3, 5], "inert": [5], "methods": {"plain": {"never_rose": [3, 5], "broke_down": []}}},
    }

    def found(limits: dict[str, float]) -> dict[str, Finding]:
        return {one.rule: one for one in concluded(layers, limits, "max_activation-{}".format)}

    findings = found({})
    assert {name: (one.about, one.value, one.n, one.subject) for name, one in findings.items()} == {
        "max_activation.inert": ("model", 1, 5, "two"),
        "max_activation.never_rose": ("method", 3, 5, "one, two"),
        "max_activation.broke_down": ("method", 1, 5, "one"),
    }
    assert "one: 1, 3; two: 3" in str(findings["max_activation.never_rose"].detail)
    assert findings["max_activation.never_rose"].figures == ("max_activation-one", "max_activation-two")
    assert list(found({"max_activation.never_rose": 4, "max_activation.broke_down": 2})) == ["max_activation.inert"]


def test_presets_and_targets(network: nn.Module) -> None:
    resolution = resolved(network, 64)
    assert resolution.defaults == ("relu", "layer1", "layer2", "layer3", "layer4")
    expected = {
        "quick": (("layer4.1.conv2",), 4, 64, 64),
        "standard": (("layer1.1.conv2", "layer3.1.conv2", "layer4.1.conv2"), 16, 128, 64),
        "full": (("conv1", *(f"layer{i}.1.conv2" for i in (1, 2, 3, 4))), 32, 512, 64),
    }
    for preset, (layers, channels, steps, size) in expected.items():
        (technique,) = chosen(Job.from_options({"only": "max_activation", "preset": preset, "seed": 5}))
        technique = technique.settled(resolution)
        assert technique.settled(resolution) == technique
        needs = technique.needs(resolution)
        assert {(r.steps, r.size, r.seed, len(r.channels)) for r in needs} == {(steps, size, 5, channels)}
        assert [(r.layer, r.method) for r in needs] == [(x, m) for x in layers for m in ("plain", "robust")]
    (technique,) = chosen(Job.from_options({"only": "max_activation", "layers": "layer2", "channels": "top:8"}))
    assert len(technique.settled(resolution).needs(resolution)[0].channels) == 8
    for wrong in ({"steps": "0"}, {"methods": "gentle"}, {"methods": []}, {"size": "-1"}):
        with pytest.raises(reportgen.errors.UsageError, match=r"max_activation\."):
            chosen(Job.from_options({"techniques": {"max_activation": wrong}}))


RUN = """
import sys, json, reportgen
report = reportgen.audit(sys.argv[1], sys.argv[2], only="max_activation", input_size="64", batch_size=2,
    techniques={"max_activation": {"layers": "layer2", "channels": "even:12", "steps": 24, "methods": "plain"}})
print(json.dumps([report.facts["passes"], report.facts["techniques"]["max_activation"]["results"]]))
"""


def test_killed_in_the_middle_and_run_again(network: nn.Module, images: Path, tmp_path: Path, cache_dir: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "m.pt")
    command = [sys.executable, "-c", RUN, str(tmp_path / "m.pt"), str(images)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while Store(cache_dir).info()["kinds"].get("ascent", {"entries": 0})["entries"] < 4:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = Store(cache_dir).info()["kinds"]["ascent"]["entries"] // 2
    passes, results = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert passes["backward"]["batches"] == 24 * (6 - finished)
    assert 0 < finished < 6
    for name in cache_dir.rglob("*.safetensors"):
        name.unlink()
    _passes, anew = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert results == anew


# on a trained network
# ----------------------------------------------------------------------------------------------------------------

LAYER, CHANNELS, STEPS, SIZE = "blocks.4.2.conv_pwl", tuple(range(0, 112, 14)), 48, 96
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def resolved(model: nn.Module, size: int) -> Resolution:
    pipeline = {"size": (size, size), "channels": 3, "mean": MEAN, "std": STD, "bgr": False}
    return resolve(
        model,
        facts={"architecture": "test"},
        pipeline=pipeline,
        labels=(),
        output_kind="logits",
        device="cpu",
        batch_size=4,
        counts=Counts(),
    )


@pytest.fixture(scope="module")
def trained() -> Iterator[nn.Module]:
    """The demo's network, on one thread: threads that wait for each other on a busy machine take minutes."""
    timm = pytest.importorskip("timm")
    from reportgen.demo import ARCHITECTURE, checkpoint

    model = timm.create_model(ARCHITECTURE, pretrained=False).eval()
    model.load_state_dict(torch.load(io.BytesIO(checkpoint()), weights_only=True)["state_dict"])
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield model
    torch.set_num_threads(threads)


def normalised(pictures: Tensor) -> Tensor:
    return (pictures - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def objective(model: nn.Module, pictures: Tensor) -> Tensor:
    kept: list[Tensor] = []
    handle = model.get_submodule(LAYER).register_forward_hook(lambda _m, _a, output: kept.append(output))
    with torch.no_grad():
        model(normalised(pictures))
    handle.remove()
    return kept[0].mean(dim=(2, 3))[torch.arange(len(CHANNELS)), list(CHANNELS)]


def difference(model: Any, pictures: Tensor) -> float:
    """Mean cosine distance of the features before the classifier, over all pairs."""
    with torch.no_grad():
        features = model.forward_head(model.forward_features(normalised(pictures)), pre_logits=True)
    likeness = nn.functional.cosine_similarity(features[:, None], features[None], dim=2)
    n = len(pictures)
    return float(1 - (likeness.sum() - n) / (n * (n - 1)))


def lucent(model: nn.Module, channel: int, seen: int) -> Tensor:
    """(1, 3, SIZE, SIZE) by Lucent's defaults, but for the size at which the network sees it (224 otherwise)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies script functions when they are imported
        from lucent.optvis import objectives, param, render

        torch.manual_seed(channel)
        np.random.seed(channel)
        (picture,) = render.render_vis(
            model,
            objectives.channel(LAYER.replace(".", "_"), channel),
            param_f=lambda: param.image(SIZE),
            thresholds=(STEPS,),
            progress=False,
            show_image=False,
            fixed_image_size=seen,
        )
    return torch.from_numpy(picture).permute(0, 3, 1, 2)


def test_robust_pictures_differ_more_than_plain_ones_and_reach_what_lucent_reaches(trained: nn.Module) -> None:
    resolution = resolved(trained, 224)
    basis = {"model": {}, "pipeline": {}, "numerics": {}}
    runner = Ascents(Passes(trained, resolution, torch.device("cpu"), Counts()), Store(None), 4, basis, {})
    found = {m: runner.run(Ascent(LAYER, CHANNELS, m, STEPS, SIZE)) for m in ("plain", "robust")}
    for method, one in found.items():
        assert torch.allclose(objective(trained, one.images), one.final, atol=1e-2), method
        assert bool((one.final > one.start).all()), method
        told = nn.functional.cosine_similarity(one.features[:, None], one.features[None], dim=2)
        pairs = len(CHANNELS) * (len(CHANNELS) - 1)
        assert difference(trained, one.images) == pytest.approx(
            float(1 - (told.sum() - len(CHANNELS)) / pairs), abs=1e-3
        )
    assert difference(trained, found["robust"].images) > difference(trained, found["plain"].images)
    reached = float(found["robust"].final.mean())
    # the padded picture shrunk to equal size, and at its own scale
    for seen in (SIZE, SIZE + 24):
        theirs = torch.cat([lucent(trained, channel, seen) for channel in CHANNELS])
        assert reached >= float(objective(trained, theirs).mean()), seen
