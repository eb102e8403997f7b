"""The command line as a user meets it, end to end on a small network."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from reportgen.cli import main
from tests.networks import lively

SCRIPT = '"><script>alert(1)<.png'


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORTGEN_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with m.pt (a state dict of seven classes) and images/."""
    folder = tmp_path_factory.mktemp("subject")
    torch.save(lively("resnet18", classes=7).state_dict(), folder / "m.pt")
    (folder / "images").mkdir()
    for number in range(3):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((90, 80), Image.Resampling.BICUBIC).save(folder / "images" / f"{number}.png")
    shutil.copy(folder / "images" / "0.png", folder / "images" / SCRIPT)
    (folder / "images" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a JPEG")
    return folder


SHARED = ("--only", "predictions,class_activation,feature_maps,filters")
"""Techniques that one forward and one backward of a batch serve."""
EVERYTHING = ("--set", "max_activation.steps=2", "--set", "occlusion.grid=2")
"""All techniques, those that take many passes with few."""


def run(subject: Path, *words: str) -> int:
    chosen = () if "--only" in words or EVERYTHING[1] in words else SHARED
    quick = ("--preset", "quick", "--input-size", "64")
    return main([str(subject / "m.pt"), str(subject / "images"), *quick, *chosen, *words])


def test_three_documents(subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = [tmp_path / f"r.{suffix}" for suffix in ("html", "pdf", "json")]
    code = run(subject, *EVERYTHING, *(word for target in outputs for word in ("-o", str(target))))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert captured.out.split() == [str(target) for target in outputs]
    facts = json.loads(outputs[2].read_text())
    jsonschema.validate(facts, schema(capsys))
    assert facts["model"]["architecture"] == "torchvision:resnet18"
    assert facts["model"]["assumed"] is True
    assert [one["file"] for one in facts["images"]["skipped"]] == ["broken.jpg"]
    assert facts["images"]["sizes"] == {"height": [80, 80], "width": [90, 90]}
    warned = {one["rule"]: one["severity"] for one in facts["findings"]}
    assert warned["preprocessing.assumed"] == "warning"
    page = outputs[0].read_text()
    assert "<script>alert(1)" not in page
    assert "&#34;&gt;" in page
    assert page.count("<script") == 2
    assert outputs[1].read_bytes().startswith(b"%PDF-")
    for output in outputs:
        assert str(tmp_path).encode() not in output.read_bytes()
        assert os.uname().nodename.encode() not in output.read_bytes() or len(os.uname().nodename) < 4


def schema(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["schema"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_same_bytes_cold_and_warm(subject: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    written: list[list[bytes]] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        outputs = [tmp_path / name / f"r.{suffix}" for suffix in ("html", "pdf", "json")]
        assert run(subject, "-q", *EVERYTHING, *(word for target in outputs for word in ("-o", str(target)))) == 0
        written.append([target.read_bytes() for target in outputs])
    assert written[0] == written[1]
    assert b"2023-11-14" in written[0][0]


def test_plan_agrees_with_the_run(subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(subject, "--plan") == 0
    plan = capsys.readouterr().out
    # five files: two have the same bytes, one is broken, which only decoding tells
    assert "3 scan     4 images, 0 stored: 1 forward of 4 images" in plan
    assert "at most 1 forward of 4 images, 1 backward" in plan
    assert plan.rstrip().endswith("1 forward of 2 images of noise, run to learn the layers and stored")
    assert run(subject, "-q", "-o", str(tmp_path / "r.json")) == 0
    passes = json.loads((tmp_path / "r.json").read_text())["passes"]
    assert passes == {"forward": {"batches": 2, "samples": 7}, "backward": {"batches": 1, "samples": 4}}
    capsys.readouterr()
    assert run(subject, "--plan") == 0
    plan = capsys.readouterr().out
    assert "3 scan     4 images, 4 stored: no pass" in plan
    assert "8 results about exhibits, 8 stored: no pass, 0 backward" in plan


def test_plan_agrees_with_the_run_on_images_alone(
    subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only = ("--only", "occlusion,deconvnet,guided_backprop")
    assert run(subject, "-q", *SHARED, "-o", str(tmp_path / "r.json")) == 0  # the scan settles the exhibits
    capsys.readouterr()
    assert run(subject, *only, "--plan") == 0
    plan = capsys.readouterr().out
    assert run(subject, "-q", *only, "-o", str(tmp_path / "r.json")) == 0
    passes = json.loads((tmp_path / "r.json").read_text())["passes"]
    forward, backward = passes["forward"], passes["backward"]["batches"]
    # two rules for all classes at once; four exhibits under 50 inputs each; units of two layers of two exhibits, and
    # noise that tells how much they see
    assert (backward, forward["samples"]) == (2 + 8, 4 + 200 + 2 + 1)
    assert f": {forward['batches']} forward of {forward['samples']} images, {backward} backward" in plan


def test_strict_speaks_of_model_and_data(subject: Path, tmp_path: Path) -> None:
    assert run(subject, "-q", "--strict", "-o", str(tmp_path / "r.json")) == 4
    settled = ["--resize", "squash", "--interpolation", "bilinear", "--mean", "0.5", "--std", "0.5"]
    assert run(subject, "-q", "--strict", *settled, "-o", str(tmp_path / "r.json")) == 0


def test_strict_passes_over_what_is_waived(subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waiver = "[[waivers]]\nrule = 'preprocessing.assumed'\nreason = 'asked the people who trained it'\n"
    (tmp_path / "known.toml").write_text(waiver)
    words = ("-q", "--strict", "--config", str(tmp_path / "known.toml"), "-o", str(tmp_path / "r.json"))
    assert run(subject, *words) == 0
    capsys.readouterr()
    facts = json.loads((tmp_path / "r.json").read_text())
    jsonschema.validate(facts, schema(capsys))
    (found,) = (one for one in facts["findings"] if "waived" in one)
    assert (found["rule"], found["waived"]) == (
        "preprocessing.assumed",
        {"reason": "asked the people who trained it"},
    )
    (tmp_path / "known.toml").write_text(waiver + "until = 2020-01-01\n")
    assert run(subject, *words) == 4
    rules = [one["rule"] for one in json.loads((tmp_path / "r.json").read_text())["findings"]]
    assert "waiver.ended" in rules
    (tmp_path / "known.toml").write_text("[findings]\nduplicates.exakt = 3\n")
    assert run(subject, *words) == 2
    assert "did you mean 'duplicates.exact'?" in capsys.readouterr().err


def test_a_hostile_pickle_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], subject: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'done'}",)

    for name, legacy in (("zip.pt", False), ("legacy.pt", True)):
        torch.save({"state_dict": {}, "extra": Evil()}, tmp_path / name, _use_new_zipfile_serialization=not legacy)
        assert main([str(tmp_path / name), str(subject / "images"), "-q", "-o", str(tmp_path / "r.json")]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert "system" in lines[0]
        assert "--trust-model" in lines[1]
        assert json.loads((tmp_path / "r.json").read_text())["refused"]["error"] == "UnsafeModelError"
    assert not (tmp_path / "done").exists()


def test_lines_of_a_run_count_in_english(subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only = ("--preset", "quick", "--input-size", "64", "--only", "predictions", "-o", str(tmp_path / "r.json"))
    assert main([str(subject / "m.pt"), str(subject / "images" / "0.png"), *only]) == 0
    told = capsys.readouterr().err
    for words in ("m.pt; 1 image, 0 skipped", "; 1 technique\n", "1 image, 1 of them new", "4 examine  1 exhibit: "):
        assert words in told
    assert main([str(subject / "m.pt"), str(subject / "images"), *only]) == 0
    told = capsys.readouterr().err
    assert "5 images, 0 skipped" in told
    assert "  1 image could not be used; the report says why\n" in told


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--truth", "table.csv"), 1),
        (("--target", "whale"), 2),
        (("--exhibit", "nowhere.png"), 2),
    ],
)
def test_what_is_not_there_is_told_before_the_scan(
    subject: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("table.csv").write_text("image,label\nnowhere.png,0\n", encoding="utf-8")
    assert run(subject, *words, "-o", "r.json") == code
    told = capsys.readouterr().err
    assert "2 plan" in told
    assert "3 scan" not in told


def test_inspect(subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(subject / "m.pt")]) == 0
    told = capsys.readouterr().out
    for words in ("torchvision:resnet18", "recognised", "state-dict", "layer4", "512 × 7 × 7"):
        assert words in told
    assert main(["inspect", str(subject / "m.pt"), "-o", str(tmp_path / "x.json")]) == 0
    assert json.loads((tmp_path / "x.json").read_text())["num_classes"] == 7
    assert main(["inspect", str(subject / "images" / "0.png")]) == 1
    assert "a PNG image" in capsys.readouterr().out


def test_cache_commands(subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(subject, "-q", "-o", str(tmp_path / "r.json")) == 0
    capsys.readouterr()
    assert main(["cache", "info"]) == 0
    assert "class_activation" in capsys.readouterr().out
    assert main(["cache", "verify"]) == 0
    assert ", 0 were removed" in capsys.readouterr().out
    assert main(["cache", "prune"]) == 0
    assert main(["cache", "info"]) == 0
    assert "0 entries" in capsys.readouterr().out


def test_the_old_report_survives_a_failure(subject: Path, tmp_path: Path) -> None:
    target = tmp_path / "r.html"
    target.write_text("the old one")
    assert run(subject, "-q", "--layers", "nowhere", "-o", str(target)) == 1
    assert target.read_text() == "the old one"
    assert run(subject, "-q", "-o", str(tmp_path / "no" / "r.html")) == 1
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_help_is_quick_and_does_not_import_torch() -> None:
    code = "import sys; sys.argv = ['reportgen', '--help']\nfrom reportgen.cli import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "MODEL IMAGES" in done.stdout


def test_own_architecture_and_own_preprocessing(subject: Path, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "mine_for_test.py").write_text(
        "import numpy as np\n"
        "from torch import nn\n"
        "def net(width):\n"
        "    parts = nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)\n"
        "    return nn.Sequential(*parts)\n"
        "def prepare(image):\n"
        "    return np.asarray(image.convert('RGB').resize((24, 16)), np.float32).transpose(2, 0, 1) / 255\n"
    )
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    torch.save(nn.Sequential(*parts).state_dict(), tmp_path / "own.pt")
    words = ["--arch", "mine_for_test:net", "--arch-arg", "width=6", "--transform", "mine_for_test:prepare"]
    words += ["--pythonpath", str(code), "--input-size", "16x24", "-q", *SHARED, "-o", str(tmp_path / "r.json")]
    assert main([str(tmp_path / "own.pt"), str(subject / "images"), *words]) == 0
    facts = json.loads((tmp_path / "r.json").read_text())
    assert facts["model"]["input"]["size"] == [16, 24]
    assert facts["model"]["input"]["assumed"] == []
    assert facts["techniques"]["class_activation"]["status"] == "complete"
    assert str(code) not in sys.path
    assert main([str(tmp_path / "own.pt"), str(subject / "images"), "-q", "--arch", "mine_for_test:nothing"]) == 1


def test_own_code_is_found_where_it_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``python -m`` puts the working directory in front of the path: taken away, it is importable when asked for."""
    (tmp_path / "net_of_cwd_for_test.py").write_text("from torch import nn\ndef net():\n    return nn.Linear(2, 3)\n")
    torch.save({"weight": torch.ones(3, 2), "bias": torch.ones(3)}, tmp_path / "m.pt")
    monkeypatch.chdir(tmp_path)
    words = ["inspect", "m.pt", "--arch", "net_of_cwd_for_test:net", "-o", "m.json"]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "argv", ["reportgen", *words])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("reportgen", run_name="__main__", alter_sys=True)
    assert caught.value.code == 1
    assert str(tmp_path) not in sys.path
    assert "cannot be imported" in json.loads((tmp_path / "m.json").read_text())["error"]
    assert main([*words, "--pythonpath", "."]) == 1  # found, and no network for images
    assert "cannot be imported" not in json.loads((tmp_path / "m.json").read_text())["error"]
