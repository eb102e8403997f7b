"""Rules about how the subject was opened and read: each speaks of what was made so, and not of what was not."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reportgen.findings import Finding
from reportgen.rules import subject_findings
from reportgen.subject.images import Skipped
from reportgen.subject.truth import Truth
from reportgen.summary import UNANSWERED, Predicted

SOUND: dict[str, Any] = {"architecture": "resnet18", "how": "given", "safe": True, "head_published": False}


def found(
    *,
    model: dict[str, Any] | None = None,
    assumed: tuple[str, ...] = (),
    random: bool = False,
    skipped: tuple[str, ...] = (),
    labelled: bool = True,
    outputs: int = 3,
    labels: tuple[str, ...] = (),
    kind: str = "logits",
    sizes: tuple[tuple[int, int], ...] = ((300, 400),) * 3,
    unmatched: tuple[str, ...] = (),
    colormap: str = "inferno",
    **limits: float,
) -> dict[str, Finding]:
    truth = Truth(0) if labelled else None
    used = [Predicted(f"{place}.png", str(place), {"size": np.array(size)}, truth) for place, size in enumerate(sizes)]
    left_out = [Skipped(f"x{number}.png", reason) for number, reason in enumerate(skipped)]
    resolution = SimpleNamespace(
        pipeline={"assumed": assumed, "size": (224, 224)},
        model={**SOUND, **(model or {})},
        random=random,
        outputs=outputs,
        labels=labels,
        output_kind=kind,
    )
    subject = SimpleNamespace(model_name="model.pt")
    thresholds = {name.replace("__", "."): value for name, value in limits.items()}
    told = subject_findings(subject, resolution, used, left_out, unmatched, colormap, thresholds)  # type: ignore[arg-type]
    assert len({one.rule for one in told}) == len(told)
    return {one.rule: one for one in told}


def test_a_sound_subject_gives_no_cause() -> None:
    assert found() == {}


@pytest.mark.parametrize(
    ("made", "rule", "about", "severity", "value"),
    [
        ({"colormap": "jet"}, "colormap.not_uniform", "method", "info", None),
        ({"assumed": ("mean", "std")}, "preprocessing.assumed", "model", "warning", 2),
        (
            {"assumed": ("mean",), "model": {"head_published": True}},
            "preprocessing.assumed",
            "model",
            "notice",
            1,
        ),
        ({"model": {"how": "recognised"}}, "model.recognised", "model", "info", 0),
        ({"model": {"how": "recognised", "candidates": ["resnetaa50"]}}, "model.recognised", "model", "notice", 1),
        ({"model": {"head": "head", "prefix": "backbone."}}, "model.joined", "model", "notice", None),
        ({"model": {"stray": ["a.weight", "b.weight"]}}, "model.stray_weights", "model", "notice", 2),
        ({"model": {"replaced": ["own.Net"]}}, "model.replaced_classes", "model", "warning", 1),
        ({"model": {"replaced": ["own.Net"], "how": "class"}}, "model.replaced_classes", "model", "info", 1),
        ({"random": True}, "model.random", "model", "warning", None),
        ({"model": {"safe": False}}, "model.trusted", "run", "notice", None),
        ({"skipped": (f"{UNANSWERED}: out of range",)}, "model.unanswered", "model", "warning", 1),
        ({"skipped": ("truncated", "truncated")}, "images.skipped", "data", "notice", 2),
        ({"labelled": False}, "images.unlabelled", "data", "info", None),
    ],
)
def test_what_was_made_so_is_told(made: dict[str, Any], rule: str, about: str, severity: str, value: Any) -> None:
    told = found(**made)
    assert set(told) == {rule}
    assert (told[rule].about, told[rule].severity, told[rule].value) == (about, severity, value)


def test_folders_that_are_called_like_no_class_are_counted() -> None:
    told = found(labelled=False, unmatched=("cats", "dogs"), labels=("cat", "dog"))["images.unlabelled"]
    assert "Folders that are called like no class: 2." in str(told.detail)
    assert "called like" not in str(found(labelled=False)["images.unlabelled"].detail)


def test_folders_of_a_model_without_class_names_ask_for_names() -> None:
    told = found(labelled=False, unmatched=("cats", "dogs"))["images.unlabelled"]
    assert "Folders hold the images: 2." in str(told.detail)
    assert "--labels" in str(told.detail)


def test_a_guessed_size_is_held_against_the_sizes_of_the_images() -> None:
    def told(*sizes: tuple[int, int]) -> str:
        return str(found(assumed=("size", "mean"), sizes=sizes)["preprocessing.assumed"].detail)

    assert "a shorter side of 48 pixels or less and are enlarged to 224 × 224" in told((48, 64), (90, 48), (300, 300))
    assert told((48, 64), (90, 48), (300, 300)).endswith("try --input-size 48 --resize squash.")
    assert "enlarged" not in told((113, 500), (300, 300), (300, 300))
    assert "enlarged" not in str(found(assumed=("mean",), sizes=((48, 48),))["preprocessing.assumed"].detail)


def test_one_value_may_be_no_class_unless_somebody_says_so() -> None:
    assert set(found(outputs=1, labelled=False)) == {"model.one_value", "images.unlabelled"}
    assert set(found(outputs=1)) == set()
    for said in ({"kind": "sigmoid"}, {"labels": ("healthy", "ill")}, {"outputs": 2}):
        assert set(found(**{"outputs": 1, "labelled": False, **said})) == {"images.unlabelled"}


def test_files_that_are_no_images_are_no_fault() -> None:
    assert found(skipped=("not an image file",)) == {}


def test_the_numbers_of_skipped_files_add_up_to_the_cover() -> None:
    mixed = ("truncated", "not an image file (.txt)", "not an image file (.db)")
    told = str(found(skipped=mixed)["images.skipped"].detail)
    assert re.match(r"Skipped: 1 of \d+ files, and 2 more that are no image files\.", told)


@pytest.mark.parametrize(
    ("made", "rule"),
    [
        ({"assumed": ("mean", "std")}, "preprocessing.assumed"),
        ({"model": {"stray": ["a.weight", "b.weight"]}}, "model.stray_weights"),
        ({"model": {"replaced": ["own.Net", "own.Head"]}}, "model.replaced_classes"),
        ({"skipped": ("truncated", "truncated")}, "images.skipped"),
        ({"skipped": (f"{UNANSWERED}: x",) * 2}, "model.unanswered"),
    ],
)
def test_thresholds_are_the_users(made: dict[str, Any], rule: str) -> None:
    assert found(**made, **{rule.replace(".", "__"): 2})[rule].threshold == 2
    assert found(**made, **{rule.replace(".", "__"): 3}) == {}
