"""The strongest images and places are those that plain NumPy finds, cut where the position looks."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import reportgen
from reportgen.figures.colour import MID_GREY
from reportgen.figures.figure import Figure, Panel
from reportgen.figures.patches import Place, patch, where
from tests import planted

OPTIONS = {**planted.OPTIONS, "only": "exemplars", "layers": ["2"], "channels": "all"}


def network() -> nn.Sequential:
    """Three by three weights of 1 on one colour each, then a stride: what excites them can be pointed at."""
    model = nn.Sequential(
        nn.Conv2d(3, 3, 3, 2, 1, groups=3), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(3, 2),
    )  # fmt: skip
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[0].bias.zero_()
        model[2].weight.copy_(torch.eye(3)[:, :, None, None])
        model[2].bias.zero_()
    return model.eval()


def results(report: reportgen.Report) -> dict[str, Any]:
    told = report.facts["techniques"]["exemplars"]
    assert told["status"] == "complete", told
    return dict(told["results"])


def figures(report: reportgen.Report) -> tuple[Figure, ...]:
    (section,) = (one for one in report.document.sections if one.name == "exemplars")
    return section.figures


def panels(figure: Figure) -> list[Panel | None]:
    return [panel for row in figure.rows for panel in row.panels]


def test_they_are_those_of_numpy(tmp_path: Path) -> None:
    images = planted.folder(tmp_path / "images", 30, mark=True)
    copy = images / planted.CLASSES[1] / "same.png"
    copy.write_bytes((images / planted.CLASSES[1] / "001.png").read_bytes())
    model = network()
    report = reportgen.audit(model, images, **OPTIONS)
    told = results(report)
    digests = {one["image"]: one["sha256"] for one in report.facts["predictions"]}
    x = torch.cat([planted.normalised(images / name) for name in digests])
    with torch.no_grad():
        maps = model[:3](x).numpy()
    assert told["images"] == 31
    for channel in range(3):
        order = sorted(range(31), key=lambda i: (-maps[i, channel].max(), list(digests.items())[i][::-1]))
        distinct = list({list(digests.values())[i]: i for i in reversed(order)}.values())[::-1]
        wanted = sorted(distinct, key=order.index)[:3]
        found = told["layers"]["2"]["channels"][str(channel)]
        assert [one["image"] for one in found] == [list(digests)[i] for i in wanted]
        for one, i in zip(found, wanted, strict=True):
            assert one["activation"] == pytest.approx(maps[i, channel].max(), abs=1e-5)
            row, column = np.unravel_index(maps[i, channel].argmax(), maps.shape[2:])
            assert one["position"] == [row, column]
            assert one["box"] == [2 * row - 1, 2 * column - 1, 2 * row + 2, 2 * column + 2]
    assert told["layers"]["2"]["field"] == [3, 3]
    assert report.tensors("exemplars")["field/2"].tolist() == [3, 3, 2, 2, 0.5, 0.5]
    # the picture is that part of the image
    first = told["layers"]["2"]["channels"]["0"][0]
    panel = panels(figures(report)[0])[0]
    assert panel is not None
    with Image.open(io.BytesIO(panel.picture.data)) as drawn, Image.open(images / first["image"]) as whole:
        top, left, bottom, right = first["box"]
        factor = drawn.width // 3
        shown = np.asarray(drawn)[factor // 2 :: factor, factor // 2 :: factor]
        assert np.array_equal(shown, np.asarray(whole)[top:bottom, left:right])


def live(*values: Tensor) -> list[tuple[Tensor, None, str]]:
    return [(value, None, f"{number}") for number, value in enumerate(values)]


def test_ties_do_not_depend_on_the_order_of_names() -> None:
    """All equal: the first position, and of the images those with the smallest digests."""
    ground = [torch.zeros(3, planted.SIZE, planted.SIZE) for _ in range(6)]
    for number, one in enumerate(ground):
        one[:, 10, 10] = one[:, 20, 20] = 1
        one[:, 30, 30] = -1 - number  # another image, and never the strongest place
    report = reportgen.audit(network(), live(*ground), only="exemplars", layers=["2"], channels="all")
    shown = results(report)["layers"]["2"]["channels"]["1"]
    digests = {one["image"]: one["sha256"] for one in report.facts["predictions"]}
    assert [one["image"] for one in shown] == sorted(digests, key=lambda name: digests[name])[:3]
    assert {tuple(one["position"]) for one in shown} == {(5, 5)}
    turned = reportgen.audit(network(), live(*ground[::-1]), only="exemplars", layers=["2"], channels="all")
    again = {one["image"]: one["sha256"] for one in turned.facts["predictions"]}
    later = results(turned)["layers"]["2"]["channels"]["1"]
    assert [again[one["image"]] for one in later] == [digests[one["image"]] for one in shown]


def test_a_channel_that_nothing_excites_shows_nothing() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight[1] = 0
    images = torch.rand(4, 3, planted.SIZE, planted.SIZE)
    report = reportgen.audit(model, live(*images), only="exemplars", layers=["2"], channels="all")
    told = results(report)["layers"]["2"]["channels"]
    assert told["1"] == []
    assert len(told["0"]) == len(told["2"]) == 3


def test_they_stand_beside_what_an_ascent_made(tmp_path: Path) -> None:
    images = planted.folder(tmp_path / "images", 6, mark=True)
    both = {**OPTIONS, "only": ["exemplars", "max_activation"], "channels": "0,2"}
    few = {"max_activation": {"steps": 2, "methods": "robust", "channels": "2"}}
    report = reportgen.audit(network(), images, techniques=few, **both)
    (plate,) = figures(report)
    shown = panels(plate)
    (own,) = (one for one in report.document.sections if one.name == "max_activation")
    pictures = [panel.picture.digest for panel in panels(own.figures[1]) if panel]
    assert plate.columns == 8
    assert [panel.name if panel else None for panel in shown] == [
        None,
        *(f"channel-0-{rank}" for rank in (1, 2, 3)),
        "channel-2-made",
        *(f"channel-2-{rank}" for rank in (1, 2, 3)),
    ]
    assert shown[4] is not None
    assert [shown[4].picture.digest] == pictures
    alone = reportgen.audit(network(), images, **OPTIONS)
    assert not [panel for panel in panels(figures(alone)[0]) if panel and panel.name.endswith("made")]


def test_without_originals_only_places_are_shown(tmp_path: Path) -> None:
    images = planted.folder(tmp_path / "images", 6, mark=True)
    report = reportgen.audit(network(), images, no_originals=True, **OPTIONS)
    shown = [panel for panel in panels(figures(report)[0]) if panel]
    assert len(shown) == 9
    for panel in shown:
        with Image.open(io.BytesIO(panel.picture.data)) as drawn:
            assert set(np.unique(np.asarray(drawn))) <= {MID_GREY, 200, 255}


def test_adding_an_image_looks_at_that_image_only(tmp_path: Path) -> None:
    images = planted.folder(tmp_path / "images", 12, mark=True)
    options = {**OPTIONS, "only": ["predictions", "population", "exemplars", "channel_health"], "model_id": "one"}
    options |= {"batch_size": 4, "exhibits": 1}
    first = reportgen.audit(network(), images, **options)
    # a look at the layers, twelve images, and one recording to learn where positions look
    assert first.facts["passes"]["forward"]["samples"] == 2 + 12 + 1
    planted.folder(images, 1, mark=True, start=77)
    (images / planted.CLASSES[0] / "000.png").rename(images / "new.png")
    planted.folder(images, 1, mark=True)
    second = reportgen.audit(network(), images, **options)
    assert second.facts["passes"]["forward"] == {"batches": 1, "samples": 1}
    assert results(second)["images"] == 13
    third = reportgen.audit(network(), images, **options)
    assert third.facts["passes"]["forward"]["samples"] == 0
    assert results(third) == results(second)


def test_patches() -> None:
    pixels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    with Image.open(io.BytesIO(patch(pixels, Place((-1, 2, 2, 5), (0, 3, 1, 4)), size=6).data)) as drawn:
        shown = np.asarray(drawn)[::2, ::2]
    assert (shown[0] == MID_GREY).all()
    framed = Place((0, 0, 6, 8), (2, 2, 3, 3))
    assert framed.large
    assert not Place((0, 0, 3, 3), (0, 0, 2, 3)).large
    with Image.open(io.BytesIO(where(pixels.shape, framed, size=64).data)) as drawn:
        assert drawn.size == (64, 48)
        assert set(np.unique(np.asarray(drawn))) == {MID_GREY, 200, 255}
