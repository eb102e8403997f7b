"""Charts about predictions hold what they are given, within what a page can show."""

from __future__ import annotations

import re

import pytest

from reportgen.figures.metric_charts import MOST_CLASSES, confusion_chart, reliability_chart

WORDS = {"true": "true", "predicted": "predicted"}


def cells(svg: bytes) -> list[tuple[str, float]]:
    """Colour and opacity of the filled cells, in the order they were drawn."""
    paths = [dict(re.findall(r'([\w-]+)="([^"]*)"', tag)) for tag in re.findall(r"<path[^>]*>", svg.decode())]
    filled = [path for path in paths if path.get("fill", "").startswith("#")]
    return [(path["fill"], float(path.get("opacity", path.get("fill-opacity", 1)))) for path in filled]


def test_a_cell_for_each_pair_as_strong_as_its_share() -> None:
    picture = confusion_chart({(0, 0): 3, (0, 1): 1, (1, 1): 5}, ["cat", "dog"], **WORDS)
    drawn = cells(picture.data)
    assert [colour for colour, _opacity in drawn] == ["#2f74b5", "#c96a1b", "#2f74b5"]
    strengths = [opacity for _colour, opacity in drawn]
    assert strengths == pytest.approx([0.6 * (0.12 + 0.88 * share) for share in (0.75, 0.25, 1.0)], abs=1e-4)


def test_as_many_classes_as_a_page_can_show() -> None:
    names = [f"a class with a rather long name, number {n}" for n in range(MOST_CLASSES)]
    counts = {(row, column): 1 + row for row in range(MOST_CLASSES) for column in range(MOST_CLASSES)}
    picture = confusion_chart(counts, names, **WORDS)
    assert len(cells(picture.data)) == MOST_CLASSES**2
    assert len(picture.data) < 1_000_000
    assert picture.height < 560  # points: of A4's 842, with caption and margins


def test_reliability_has_a_point_and_a_bar_for_each_bin_that_holds_images() -> None:
    def made(low: int) -> dict[str, object]:
        share = {"value": 0.5, "n": 10 * (low + 1), "interval": [0.3, 0.7]}
        return {"low": low / 15, "high": (low + 1) / 15, "confidence": (low + 0.5) / 15, "accuracy": share}

    words = {"confidence": "confidence", "accuracy": "accuracy", "images": "images"}
    few, more = (reliability_chart([made(low) for low in range(n)], **words) for n in (2, 7))
    marks = [len(re.findall(rb"<use[^>]*#2f74b5", one.data)) for one in (few, more)]
    bars = [len(re.findall(rb'<path[^>]*opacity="0.8"', one.data)) for one in (few, more)]
    assert bars == [2, 7]
    assert marks == [2, 7]
