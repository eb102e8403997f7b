"""A mistake's two maps stand on one scale, and their difference is theirs."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import reportgen
from reportgen.figures.colour import table
from reportgen.techniques.contrast import contrast, mistaken
from reportgen.techniques.technique import Case, Evidence
from tests.networks import noise

PREDICTED, TRUE = 3, 1


class Labels:
    """What the caption asks of a resolution."""

    def label(self, index: int) -> str:
        return f"class {index}"


def evidence() -> Evidence:
    blank = np.zeros((64, 64, 3), np.uint8)
    return Evidence(Labels(), (), lambda case: {}, lambda case: blank, originals=False)  # type: ignore[arg-type]


def colours(picture: Any) -> np.ndarray[Any, Any]:
    """(2, 2, 3) the colour of each cell of a 2 × 2 map."""
    with Image.open(io.BytesIO(picture.data)) as image:
        pixels = np.asarray(image.convert("RGB"))
    half, inner = pixels.shape[0] // 2, pixels.shape[0] // 8
    cells = [[(down * half + inner, across * half + inner) for across in (0, 1)] for down in (0, 1)]
    # stripes mark what is negative, and cover less than half of it
    parts = [[pixels[y : y + 2 * inner, x : x + 2 * inner].reshape(-1, 3) for y, x in row] for row in cells]
    return np.array([[np.median(part, axis=0) for part in row] for row in parts])


def test_both_maps_reach_to_the_greater_maximum_and_the_difference_has_a_middle() -> None:
    case = Case("a.png", "0" * 64, (PREDICTED, TRUE), ("predicted", "true"), 0)
    maps = {
        f"cam/deep/{PREDICTED}": np.array([[4.0, 1.0], [0.0, -9.0]]),
        f"cam/deep/{TRUE}": np.array([[0.0, 1.0], [2.0, 0.0]]),
    }
    figure = contrast("class_activation", "cam", "CAM", evidence(), case, maps, ["deep"])
    assert figure is not None
    predicted, true, difference = (colours(panel.picture) for panel in figure.rows[0].panels if panel is not None)
    scale, diverging = table("inferno").astype(int), table("RdBu_r").astype(int)

    def place(colour: Any, among: Any) -> int:
        return int(np.abs(among - colour.astype(int)).sum(axis=1).argmin())

    # on a scale from zero to 4, the greater maximum of the two; what is negative counts as zero
    for found, expected in ((predicted, [[255, 64], [0, 0]]), (true, [[0, 64], [128, 0]])):
        assert [[place(one, scale) for one in row] for row in found] == [
            [pytest.approx(value, abs=2) for value in row] for row in expected
        ]
    # from -4 to 4: red where the predicted class is spoken for, blue for the true one, the middle where both alike are
    assert [[place(one, diverging) for one in row] for row in difference] == [
        [pytest.approx(255, abs=2), pytest.approx(128, abs=2)],
        [pytest.approx(64, abs=2), pytest.approx(128, abs=2)],
    ]


def test_only_a_mistake_is_compared() -> None:
    right = Case("a.png", "0" * 64, (2,), ("predicted",), 0, None)
    other = Case("a.png", "0" * 64, (2, 0), ("predicted", "dog"), 0)
    assert mistaken(right) is None
    assert mistaken(other) is None
    assert contrast("class_activation", "cam", "CAM", evidence(), right, {}, ["deep"]) is None


def test_mistakes_come_first_among_the_exhibits_and_are_compared() -> None:
    """A quarter of the exhibits are the most confident mistakes, and the pages of each hold the comparison."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()
    inputs = noise(12, 24)
    with torch.no_grad():
        answers = model(inputs).softmax(1)
    wrong = {3, 5, 8}
    items = [
        (x, (int(one.argmax()) + (place in wrong)) % 4, f"{place:02}")
        for place, (x, one) in enumerate(zip(inputs, answers, strict=True))
    ]
    report = reportgen.audit(model, items, preset="quick", exhibits=8, only=["predictions", "class_activation"])
    surest = sorted(wrong, key=lambda place: -float(answers[place].max()))[:2]
    chosen = report.facts["images"]["exhibits"]
    assert [one for one in chosen if one["why"] == "mistake"] == [
        {"image": f"{place:02}", "why": "mistake"} for place in surest
    ]
    compared = {figure.exhibit for figure in report.document.sections[1].figures if figure.id.endswith("-contrast")}
    assert {f"{place:02}" for place in surest} <= compared <= {f"{place:02}" for place in wrong}
