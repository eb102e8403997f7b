"""Evidence over all images: a planted shortcut is exposed, its absence too; sums are those of plain NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import t
from torch import Tensor, nn

import reportgen
from reportgen.errors import UsageError
from reportgen.findings import Finding
from reportgen.techniques.population_rules import concluded
from reportgen.techniques.regions import Share, corner_cells, frame, surely
from tests import planted
from tests.networks import enlivened, noise

ONLY = ["population", "exemplars"]


@pytest.fixture(scope="module")
def trained() -> dict[bool, nn.Module]:
    return {mark: planted.trained(mark=mark) for mark in (True, False)}


def audited(model: nn.Module, images: Path, **options: Any) -> reportgen.Report:
    labels = images.parent / "labels.txt"
    labels.write_text("\n".join(planted.CLASSES))
    return reportgen.audit(model, images, labels=labels, **{"only": ONLY, **planted.OPTIONS, **options})


def rules(report: reportgen.Report) -> set[str]:
    return {finding["rule"] for finding in report.facts["findings"] if finding["rule"].startswith("population")}


def test_a_planted_shortcut_is_exposed(tmp_path: Path, trained: dict[bool, nn.Module]) -> None:
    report = audited(trained[True], planted.folder(tmp_path / "images", 24, mark=True))
    (finding,) = (one for one in report.facts["findings"] if one["rule"] == "population.corner")
    assert (finding["about"], finding["severity"]) == ("model", "warning")
    assert finding["subject"] == planted.CLASSES[1]
    assert "top left" in finding["detail"]
    assert finding["value"] > finding["threshold"]
    assert finding["n"] >= 10
    assert finding["figures"] == ["population-classes"]
    assert finding["interval"][0] < finding["value"] < finding["interval"][1]
    assert cornered(report) >= 6


def cornered(report: reportgen.Report) -> int:
    """Channels of the last layer that are shown by nothing but the corner of marked images."""
    examples = report.facts["techniques"]["exemplars"]["results"]["layers"]["6"]["channels"].values()
    marked = [
        [one["image"].startswith(planted.CLASSES[1]) and max(one["position"]) <= 2 for one in shown]
        for shown in examples
    ]
    return sum(len(shown) == 3 and all(shown) for shown in marked)


def test_without_the_mark_nothing_is_told(tmp_path: Path, trained: dict[bool, nn.Module]) -> None:
    report = audited(trained[False], planted.folder(tmp_path / "images", 24, mark=False))
    assert rules(report) == set()
    assert cornered(report) == 0
    assert report.facts["metrics"]["accuracy"]["value"] > 0.7
    classes = report.facts["techniques"]["population"]["results"]["classes"]
    assert all(one["corner"]["share"] < 0.1 for one in classes)


def test_sums_are_those_of_numpy(tmp_path: Path) -> None:
    model = planted.network()
    torch.manual_seed(1)
    images = planted.folder(tmp_path / "images", 12, mark=True)
    report = audited(model, images, exhibits=12)
    x = torch.stack([report.input(one["image"]) for one in report.facts["predictions"]])
    model.eval()
    with torch.no_grad():
        maps, scores = model[:9](x).double().numpy(), model(x).double().numpy()
    weight = model[-1].weight.detach().double().numpy()
    predicted = scores.argmax(axis=1)
    found = np.maximum((weight[predicted][:, :, None, None] * maps).sum(axis=1), 0)
    results = report.facts["techniques"]["population"]["results"]
    assert sum(one["images"] for one in results["classes"]) == 12
    for one in results["classes"]:
        own = found[predicted == one["index"]]
        own = own[own.sum(axis=(1, 2)) > 0]
        assert (len(own) + one["empty"], one["label"]) == (one["images"], planted.CLASSES[one["index"]])
        unit = own / own.sum(axis=(1, 2), keepdims=True)
        assert np.allclose(unit.mean(axis=0), one["map"], atol=1e-4)
        border = unit.sum(axis=(1, 2)) - unit[:, 1:-1, 1:-1].sum(axis=(1, 2))
        assert np.isclose(border.mean(), one["border"]["share"], atol=1e-4)
        corners = [unit[:, :2, :2], unit[:, :2, -2:], unit[:, -2:, :2], unit[:, -2:, -2:]]
        shares = [corner.sum(axis=(1, 2)).mean() for corner in corners]
        assert np.isclose(max(shares), one["corner"]["share"], atol=1e-4)
    stored = report.tensors("population", image=report.facts["predictions"][0]["image"])
    assert np.allclose(stored["map"].numpy(), found[0], atol=1e-4)


def test_regions() -> None:
    assert [int(cells.sum()) for cells in corner_cells(7, 7)] == [4] * 4
    assert corner_cells(8, 4)[1].nonzero()[0].tolist() == [0, 1]
    assert corner_cells(8, 4)[1].nonzero()[1].tolist() == [3, 3]
    assert int(frame(7, 7).sum()) == 24
    assert bool(frame(2, 2).all())
    share = Share()
    for value in (0.2, 0.3, 0.4):
        share.add(value)
    told = share.told()
    assert np.allclose(told["interval"], 0.3 + np.array([-1, 1]) * t.ppf(0.975, 2) * 0.1 / np.sqrt(3))
    assert surely(told, 0.1, 0.19, 0.05)  # 3.5 standard errors above
    assert not surely(told, 0.1, 0.19, 0.025)
    assert not surely(told, 0.1, 0.21, 0.05)
    assert Share().told()["interval"] is None


@pytest.mark.parametrize("inside", [True, False])
def test_masks(tmp_path: Path, trained: dict[bool, nn.Module], inside: bool) -> None:
    images = planted.folder(tmp_path / "images", 24, mark=True)
    for file in (images / planted.CLASSES[1]).iterdir():
        mask = np.zeros((planted.SIZE, planted.SIZE), np.uint8)
        mask[:16, :16] = 1  # whatever is not black is inside
        target = tmp_path / "masks" / file.parent.name / f"{file.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask if inside else 255 * (1 - mask)).save(target)
    report = audited(trained[True], images, only="population", masks=tmp_path / "masks")
    results = report.facts["techniques"]["population"]["results"]
    told = {one["label"]: one.get("inside") for one in results["classes"]}
    assert results["masked"] == told["square"]["n"] == 12
    assert told["disc"] is None
    assert told["square"]["area"] == (0.25 if inside else 0.75)
    assert (told["square"]["share"] > 0.5) == inside
    assert ("population.outside_masks" in rules(report)) == (not inside)
    assert report.facts["generator"]["job"]["masks"] == "masks"
    plain = audited(trained[True], images, only="population").facts["techniques"]["population"]["results"]
    assert plain["masked"] == 0
    assert [one["map"] for one in plain["classes"]] == [one["map"] for one in results["classes"]]


def test_masks_lie_where_the_network_saw_the_image(tmp_path: Path) -> None:
    """A photograph twice as wide as high is cut; the left half of what is left lies inside."""
    wide = np.zeros((40, 80), np.uint8)
    wide[:, :40] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(wide).save(tmp_path / "masks" / "a.jpg.png")
    (tmp_path / "images").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 80, 3), dtype=np.uint8)).save(
        tmp_path / "images" / "a.jpg"
    )
    report = audited(planted.network().eval(), tmp_path / "images", masks=tmp_path / "masks", resize="crop")
    (one,) = report.facts["techniques"]["population"]["results"]["classes"]
    if "inside" in one:
        assert one["inside"]["area"] == pytest.approx(0.5, abs=0.02)
    mask = report._pictures.mask(report.facts["predictions"][0]["sha256"])
    assert mask is not None
    assert mask[:, : planted.SIZE // 2 - 1].min() == 1
    assert mask[:, planted.SIZE // 2 + 1 :].max() == 0


def test_masks_that_belong_to_nothing_are_refused(tmp_path: Path) -> None:
    images = planted.folder(tmp_path / "images", 2, mark=True)
    (tmp_path / "masks").mkdir()
    with pytest.raises(UsageError, match="--masks"):
        audited(planted.network().eval(), images, masks=tmp_path / "masks")
    Image.new("L", (8, 8)).save(tmp_path / "masks" / "other.png")
    with pytest.raises(UsageError, match="none of 1 masks in 'masks'"):
        audited(planted.network().eval(), images, masks=tmp_path / "masks")


def test_elsewhere_maps_are_those_of_grad_cam(tmp_path: Path) -> None:
    """Captum's own, of the positive part, on a network that ends in two linear layers; the rest shares the forward."""
    captum = pytest.importorskip("captum.attr")
    model = nn.Sequential(*planted.network()[:9], nn.Flatten(), nn.Linear(12 * 64, 8), nn.ReLU(), nn.Linear(8, 4))
    model = enlivened(model, size=planted.SIZE)
    items = [(image, None, f"{number}") for number, image in enumerate(noise(5, planted.SIZE))]
    only = ["population", "class_activation", "predictions"]
    report = reportgen.audit(model, items, only=only, batch_size=4)
    told = report.facts["techniques"]["population"]
    assert (told["status"], told["results"]["method"]) == ("complete", "grad_cam")
    layer = told["results"]["layer"]
    peer = captum.LayerGradCam(model, model.get_submodule(layer))
    for name in ("0", "4"):
        stored = report.tensors("population", image=name)
        found = peer.attribute(report.input(name)[None], target=int(stored["index"]), relu_attributions=True)
        expected = found.detach()[0, 0]
        assert torch.allclose(stored["map"], expected, atol=1e-4 * float(expected.abs().max()))
    alone = reportgen.audit(model, items, only="predictions", batch_size=4)
    assert alone.facts["predictions"] == report.facts["predictions"]
    assert alone.facts["passes"]["backward"] == {"batches": 0, "samples": 0}


class Hidden(nn.Module):
    """The same function with its head written out, so that nobody sees that it is one linear layer."""

    def __init__(self, plain: nn.Sequential) -> None:
        super().__init__()
        self.body = plain[:9]
        self.weight, self.bias = plain[-1].weight, plain[-1].bias

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mean(dim=(2, 3)) @ self.weight.T + self.bias


def test_where_one_linear_layer_follows_both_are_the_same() -> None:
    model = planted.network().eval()
    items = [(image, None, f"{number}") for number, image in enumerate(noise(6, planted.SIZE))]
    told = [
        reportgen.audit(one, items, only="population").facts["techniques"]["population"]["results"]
        for one in (model, Hidden(model).eval())
    ]
    assert [one["method"] for one in told] == ["cam", "grad_cam"]
    for one, other in zip(told[0]["classes"], told[1]["classes"], strict=True):
        assert np.allclose(one["map"], other["map"], atol=2e-5)
        assert {name: one[name] for name in ("index", "images", "empty", "examples")} == {
            name: other[name] for name in ("index", "images", "empty", "examples")
        }


def test_what_has_no_maps_says_why() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 2)).eval()
    items = [(noise(1, 4)[0], None, "a")]
    told = reportgen.audit(model, items, only="population").facts["techniques"]["population"]
    assert told["status"] == "not_applicable"


# rules
# ----------------------------------------------------------------------------------------------------------------


def told_of(share: float, n: int, *, spread: float = 0.1) -> dict[str, Any]:
    """What `Share` tells of values that lie half `spread` below and half above `share`."""
    one = Share()
    for number in range(n):
        one.add(share + (spread if number % 2 else -spread))
    return one.told()


def concluding(*classes: dict[str, Any], grid: tuple[int, int] = (8, 8), **limits: float) -> dict[str, Finding]:
    even = {
        "images": 40,
        "empty": 0,
        "alike": False,
        "border": told_of(0.44, 40),
        "corner": {**told_of(0.0625, 40), "place": "top left", "ahead": told_of(0.0, 40)},
    }
    results = {
        "grid": grid,
        "chance": {"corner": 0.0625, "border": 0.4375},
        "classes": [{**even, "label": f"class {number}", **one} for number, one in enumerate(classes)],
    }
    return {one.rule.partition(".")[2]: one for one in concluded(results, limits, ())}


def cornering(share: float, ahead: float, n: int = 40) -> dict[str, Any]:
    return {"corner": {**told_of(share, n), "place": "top left", "ahead": told_of(ahead, n)}, "images": n}


def test_evidence_that_is_spread_gives_no_cause() -> None:
    assert concluding({}, {}) == {}


def test_a_corner_counts_above_chance_and_above_the_one_across() -> None:
    found = concluding({}, cornering(0.3, 0.25), cornering(0.4, 0.3))["corner"]
    assert (found.subject, found.value, found.threshold, found.n) == ("class 1, class 2", 0.3375, 0.1, 40)
    assert found.interval is not None
    assert found.interval[0] < 0.3375 < found.interval[1]
    assert "40%" in str(found.detail)
    assert concluding(cornering(0.3, 0.02)) == {}  # padding does the same across
    assert concluding(cornering(0.15, 0.25)) == {}  # little above chance
    assert concluding(cornering(0.3, 0.25, n=4)) == {}
    assert concluding({**cornering(0.3, 0.25), "alike": True}) == {}  # one image, many times
    assert concluding(cornering(0.3, 0.25), grid=(3, 8)) == {}
    assert concluding(cornering(0.3, 0.25), **{"population.corner": 0.24}) == {}
    assert "corner" in concluding(cornering(0.3, 0.25), **{"population.corner": 0.23})


def test_the_border() -> None:
    found = concluding({}, {"border": told_of(0.8, 40)})["border"]
    assert (found.subject, found.severity, found.value) == ("class 1", "notice", 0.3625)
    assert concluding({"border": told_of(0.65, 40)}) == {}
    assert concluding({"border": told_of(0.8, 6, spread=0.4), "images": 6}) == {}  # by chance
    assert concluding({"border": told_of(0.8, 40)}, **{"population.border": 0.4}) == {}


def masking(gain: float, n: int = 40, spread: float = 0.1) -> dict[str, Any]:
    return {"inside": {**told_of(0.3 + gain, n), "area": 0.3, "gain": told_of(gain, n, spread=spread)}}


def test_masks_that_evidence_avoids_among_many_classes() -> None:
    found = concluding(masking(-0.2))["outside_masks"]
    assert (found.value, found.threshold, found.n) == (0.2, 0, 40)
    assert found.interval is not None
    assert 0 < found.interval[0] < 0.2 < found.interval[1]
    assert concluding(masking(0.1)) == {}
    # 2.2 standard errors below: something for one class, nothing for one of fifty
    doubtful = masking(-0.035)
    assert "outside_masks" in concluding(doubtful)
    assert concluding(doubtful, *[masking(0.1)] * 49) == {}
    assert concluding(masking(-0.2), **{"population.outside_masks": 0.3}) == {}


def test_one_image_many_times_is_no_habit(tmp_path: Path, trained: dict[bool, nn.Module]) -> None:
    """Copies count once; and what differs in its bytes alone says no more."""
    folder = tmp_path / "images"
    folder.mkdir()
    marked = Image.fromarray(planted.example(10_001, 1, mark=True))
    for number in range(8):
        marked.save(folder / f"copy-{number}.png")
    for number in range(8):
        marked.save(folder / f"other-{number}.png", dpi=(70 + number, 70))
    report = audited(trained[True], folder)
    results = report.facts["techniques"]["population"]["results"]
    assert (results["images"], report.facts["images"]["used"]) == (9, 16)
    assert rules(report) == set()
