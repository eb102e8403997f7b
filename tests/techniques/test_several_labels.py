"""Predictions where an image shows several classes or none: what is told, what is not, and which images are shown."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pikepdf
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score

import reportgen
from reportgen.errors import LabelsError
from reportgen.exhibits import Seen, choose
from reportgen.report.facts import schema
from reportgen.report.html import render_html
from reportgen.report.pdf import render_pdf
from reportgen.techniques import registry
from tests.techniques.test_predictions import CLASSES, SIDE, Reads, Wrapped
from tests.test_translations import english_left, needs_han, visible

PLAIN: dict[str, Any] = {
    "input_size": str(SIDE),
    "resize": "none",
    "mean": (0.5,),
    "std": (0.25,),
    "preset": "quick",
    "only": ["predictions"],
}
NAMES = ["hen", "cat; or dog", "<b>moped", "sea|side"]


def network(gain: float = 3.0, threshold: float = 0.4) -> Wrapped:
    """Names a class where its quarter of the first channel is bright."""
    return Wrapped(Reads(gain), lambda scores: (scores - gain * threshold).sigmoid())


def pictures(folder: Path, n: int = 60, *, seed: int = 0) -> np.ndarray[Any, Any]:
    """Write images whose quarters are bright or not; (n, classes) which are."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    shown: np.ndarray[Any, Any] = random.random((n, CLASSES)) < (0.6, 0.4, 0.3, 0.15)
    for number, own in enumerate(shown):
        pixels = random.integers(60, 180, (SIDE, SIDE, 3))
        for row, column in (divmod(one, 2) for one in np.flatnonzero(own)):
            pixels[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4, 0] = random.integers(120, 256)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03}.png")
    return shown


def answer(file: Path) -> list[float]:
    """The probabilities that `network` gives an image."""
    pixels = torch.from_numpy(np.asarray(Image.open(file), np.float32)).permute(2, 0, 1)
    probabilities: list[float] = network()(((pixels / 255 - 0.5) / 0.25)[None])[0].tolist()
    return probabilities


def table(folder: Path, shown: np.ndarray[Any, Any], more: str = "") -> Path:
    """A truth table; `more` is what a group or a slice adds to the head and, by the number of the image, to rows."""
    rows = [
        f'{number:03}.png,"{";".join(NAMES[one] for one in np.flatnonzero(own))}"{more and more.format(number // 2)}'
        for number, own in enumerate(shown)
    ]
    (folder / "truth.csv").write_text("\n".join([f"image,labels{',group' if more else ''}", *rows]))
    return folder / "truth.csv"


def test_what_is_told(tmp_path: Path) -> None:
    shown = pictures(tmp_path / "images")
    truth = table(tmp_path, shown, ",patient {}")
    report = reportgen.audit(network(), tmp_path / "images", truth=truth, labels=NAMES, **PLAIN)
    facts = report.facts
    jsonschema.validate(json.loads(json.dumps(facts)), schema({n: c.results_schema for n, c in registry().items()}))
    names = {one["image"]: {c["label"] for c in one["named"]} for one in facts["predictions"]}
    named = np.array([[label in names[f"{number:03}.png"] for label in NAMES] for number in range(60)])
    assert (named == (np.array([answer(tmp_path / "images" / f"{n:03}.png") for n in range(60)]) >= 0.5)).all()
    told = [[c["index"] for c in one["truths"]] for one in facts["predictions"]]
    assert told == [np.flatnonzero(own).tolist() for own in shown]
    assert [] in told  # some show none
    metrics = facts["metrics"]
    assert set(metrics) == {
        "exact_match", "hamming_loss", "micro_f1", "macro_f1", "auroc", "mean_average_precision", "ece", "per_class",
    }  # fmt: skip
    assert metrics["macro_f1"]["value"] == pytest.approx(f1_score(shown, named, average="macro"))
    assert metrics["exact_match"]["value"] == pytest.approx((shown == named).all(1).mean())
    section = facts["techniques"]["predictions"]
    assert section["figures"] == ["predictions-reliability"]
    assert section["results"]["groups"] == 30
    assert (section["results"]["confused"], section["results"]["channels"]) == ([], None)
    assert facts["passes"]["forward"]["samples"] == 2 + 60  # nothing is tried with exchanged channels
    right = round(metrics["exact_match"]["value"] * 60)
    verdict = str(report.document.verdict)
    assert verdict.startswith(f"All classes are decided correctly for {right} of 60 labelled images")


def test_what_is_shown(tmp_path: Path) -> None:
    shown = pictures(tmp_path / "images")
    report = reportgen.audit(
        network(), tmp_path / "images", truth=table(tmp_path, shown), labels=NAMES, exhibits=8, **PLAIN
    )
    by_name = {one["image"]: one for one in report.facts["predictions"]}
    gravest: dict[str, float] = {}
    for name, one in by_name.items():
        decided = zip(answer(tmp_path / "images" / name), shown[int(name[:3])], strict=True)
        wrong = [max(p, 1 - p) for p, own in decided if (p >= 0.5) != bool(own)]
        gravest |= {name: max(wrong)} if wrong else {}
        assert bool(wrong) == ({c["index"] for c in one["named"]} != {c["index"] for c in one["truths"]})
    why = report.facts["images"]["exhibits"]
    assert [one["why"] for one in why] == ["mistake", "mistake", "undecided", "undecided", "typical", "typical"] + [
        "random"
    ] * 2
    worst = sorted(gravest, key=lambda name: -gravest[name])[:2]
    assert [one["image"] for one in why[:2]] == worst
    page = render_html(report.document).decode()
    assert "Missed:" in page or "Wrongly named:" in page
    assert "Macro F1" in page
    assert "&lt;b&gt;moped" in page
    assert "<b>moped" not in page
    assert "Balanced accuracy" not in page
    assert "Confusion" not in page


@needs_han
def test_a_chinese_report_of_it_is_wholly_chinese(tmp_path: Path) -> None:
    truth = table(tmp_path, pictures(tmp_path / "images"), ",patient {}")
    report = reportgen.audit(network(), tmp_path / "images", truth=truth, labels=NAMES, lang="zh", **PLAIN)
    seen = visible(render_html(report.document).decode())
    assert english_left(seen) == []
    assert "宏平均 F1" in seen
    with pikepdf.open(io.BytesIO(render_pdf(report.document))) as made:
        assert len(made.pages) > 4


def test_exhibits_where_every_class_is_decided_by_itself() -> None:
    seen = [
        Seen(name, name, first, probability, margin, mistake, several=True)
        for name, first, probability, margin, mistake in (
            ("certain miss", 0, 0.99, 0.9, 0.97),
            ("faint miss", 1, 0.9, 0.1, 0.55),
            ("right", 1, 0.99, 0.9, None),
            ("close", 0, 0.51, 0.02, None),
        )
    ]
    assert [(one.name, one.why) for one in choose(seen, 4)] == [
        ("certain miss", "mistake"),
        ("close", "undecided"),
        ("right", "typical"),
        ("faint miss", "random"),
    ]


def explained(tmp_path: Path, labels: str, **options: Any) -> dict[str, str]:
    """What is explained of an image in which the model names 0 and 1, the first most clearly."""
    pixels = np.full((SIDE, SIDE, 3), 60, np.uint8)
    pixels[:4, :4, 0], pixels[:4, 4:, 0] = 255, 220
    (tmp_path / "images").mkdir(exist_ok=True)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    (tmp_path / "truth.csv").write_text(f"image,labels\na.png,{labels}\n")
    report = reportgen.audit(network(), tmp_path / "images", truth=tmp_path / "truth.csv", **PLAIN, **options)
    (case,) = report._scanned.cases
    return {str(target): known for target, known in zip(case.targets, case.known, strict=True)}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("0;1", {"0": "predicted"}),
        ("0", {"0": "predicted", "1": "named"}),
        ("0;1;3", {"0": "predicted", "3": "missed"}),
        ("1", {"0": "predicted", "1": "true"}),
        ("2", {"0": "predicted", "2": "true"}),
        ("", {"0": "predicted"}),
    ],
)
def test_the_classes_that_are_explained(tmp_path: Path, labels: str, expected: dict[str, str]) -> None:
    assert explained(tmp_path, labels) == expected


def test_a_part_of_the_data_and_probabilities_that_are_off(tmp_path: Path) -> None:
    shown = pictures(tmp_path / "images", 150)
    night = np.arange(150) % 3 == 0
    told = shown.copy()
    told[night, 3] ^= True
    rows = [
        f'{number:03}.png,"{";".join(str(one) for one in np.flatnonzero(own))}",{"night" if night[number] else "day"}'
        for number, own in enumerate(told)
    ]
    (tmp_path / "truth.csv").write_text("\n".join(["image,labels,slice", *rows]))
    report = reportgen.audit(network(4.0, 0.3), tmp_path / "images", truth=tmp_path / "truth.csv", **PLAIN)
    found = {one["rule"]: one for one in report.facts["findings"] if one["rule"].startswith("predictions.")}
    assert set(found) == {"predictions.weak_slice"}
    assert found["predictions.weak_slice"]["subject"] == "night"
    assert "Exact-match ratio on night (50 images)" in found["predictions.weak_slice"]["detail"]
    slices = {one["slice"]: one for one in report.facts["metrics"]["per_slice"]}
    assert set(slices["night"]) == {"slice", "exact_match", "micro_f1"}
    saturated = reportgen.audit(network(200.0, 0.3), tmp_path / "images", truth=tmp_path / "truth.csv", **PLAIN)
    assert not [one for one in saturated.facts["findings"] if one["rule"] == "predictions.saturated"]
    sure = reportgen.audit(network(3.0, -0.6), tmp_path / "images", truth=tmp_path / "truth.csv", **PLAIN)
    (calibration,) = (one for one in sure.facts["findings"] if one["rule"] == "predictions.calibration")
    assert "too high" in calibration["detail"]


def test_one_label_an_image_stays_what_it_was(tmp_path: Path) -> None:
    shown = pictures(tmp_path / "images", 30)
    rows = [f"{number:03}.png,{int(own.argmax()) if own.any() else ''}" for number, own in enumerate(shown)]
    (tmp_path / "truth.csv").write_text("\n".join(["image,label", *rows]))
    report = reportgen.audit(network(), tmp_path / "images", truth=tmp_path / "truth.csv", **PLAIN)
    assert {"accuracy", "balanced_accuracy", "auroc", "ece"} < set(report.facts["metrics"])
    assert report.facts["images"]["labelled"] == shown.any(1).sum()
    assert "named" not in report.facts["predictions"][0]
    assert "predictions-confusion" in report.facts["techniques"]["predictions"]["figures"]


def test_more_classes_than_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = pictures(tmp_path / "images", 3)
    truth = table(tmp_path, shown)
    monkeypatch.setattr("reportgen.techniques.predictions.ALL_INDEPENDENT", 3)
    options = {**PLAIN, "truth": truth, "labels": NAMES}
    with pytest.raises(LabelsError, match=r"several of 4 classes, .* of 2 are kept\n--set predictions.top=4"):
        reportgen.audit(network(), tmp_path / "images", techniques={"predictions": {"top": 2}}, **options)
    report = reportgen.audit(network(), tmp_path / "images", techniques={"predictions": {"top": 4}}, **options)
    assert report.facts["metrics"]["exact_match"]["n"] == 3


def test_models_whose_classes_exclude_each_other_refuse_it(tmp_path: Path) -> None:
    truth = table(tmp_path, pictures(tmp_path / "images", 3))
    with pytest.raises(LabelsError, match="exclude each other"):
        reportgen.audit(Reads(), tmp_path / "images", truth=truth, labels=NAMES, **PLAIN)
    report = reportgen.audit(Reads(), tmp_path / "images", truth=truth, labels=NAMES, output_kind="multilabel", **PLAIN)
    assert "exact_match" in report.facts["metrics"]
