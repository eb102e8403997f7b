"""Whatever a classifier takes and returns: channels, sizes, heads, wrappings, through all techniques to a document."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import reportgen
from reportgen.engine.nested import exchanged, first_tensor
from reportgen.engine.outputs import as_matrix
from reportgen.errors import PassError
from reportgen.subject import arrays

SMALL: dict[str, Any] = {
    "preset": "quick",
    "input_size": "16",
    "batch_size": 2,
    "exhibits": 1,
    "sample": 1,
    "techniques": {"max_activation": {"steps": 2, "size": 16}, "sanity": {"draws": 1}},
}


class Tiny(nn.Module):
    """Three convolutions, pooling and one linear layer; what they give may be wrapped."""

    def __init__(self, channels: int = 3, classes: int = 4, wrap: Callable[[Tensor], object] = lambda s: s) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.third = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(12, classes)
        self.temperature = nn.Parameter(torch.tensor(1.7))
        self.wrap = wrap

    def scores(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.third(self.second(self.first(x))).mean(dim=(2, 3)))
        return scores

    def forward(self, x: Tensor) -> object:
        return self.wrap(self.scores(x))


@dataclass(frozen=True)
class Frozen:
    loss: Tensor | None
    logits: Tensor


@dataclass
class ModelOutput(OrderedDict[str, Any]):
    """As in Hugging Face's transformers: a dataclass that is a mapping of those of its fields that are not None."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)


class Named(NamedTuple):
    logits: Tensor
    auxiliary: Tensor | None


class Plain:
    """No mapping, no sequence, no dataclass."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


WRAPPINGS: dict[str, Callable[[Tensor], object]] = {
    "tuple": lambda s: (s, 2 * s),
    "loss first": lambda s: (torch.zeros(()), s),
    "features first": lambda s: (s[:, :, None, None].expand(-1, -1, 4, 4), s),
    "list": lambda s: [s],
    "nested": lambda s: ((None, [s]),),
    "logits": lambda s: {"features": torch.zeros(len(s), 7), "logits": s},
    "out": lambda s: OrderedDict(aux=0 * s, out=s),
    "named tuple": lambda s: Named(s, None),
    "dataclass": lambda s: Frozen(None, s),
    "model output": lambda s: ModelOutput(logits=s, hidden_states=(s[:, :2],)),
    "object": Plain,
}


def photographs(count: int = 2) -> list[Image.Image]:
    coarse = [np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8) for number in range(count)]
    return [Image.fromarray(one).resize((40, 36), Image.Resampling.BICUBIC) for one in coarse]


def noise(count: int, *shape: int) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(3))


def audited(model: nn.Module, images: Any = None, **options: Any) -> reportgen.Report:
    """A report with every technique complete, written as HTML."""
    report = reportgen.audit(model.eval(), photographs() if images is None else images, **{**SMALL, **options})
    failed = {name: one for name, one in report.facts["techniques"].items() if one["status"] != "complete"}
    assert not failed
    page = report.rendered(".html").decode()
    assert all(f'id="{name}"' in page for name in report.facts["techniques"])
    return report


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_scores_are_found_in_any_wrapping(wrap: Callable[[Tensor], object]) -> None:
    scores = noise(2, 4)
    assert torch.equal(as_matrix(wrap(scores), 2), scores)


def test_what_holds_no_scores_is_said_to_hold_none() -> None:
    for output, words in (
        ({"boxes": noise(2, 5, 4)}, "5 × 4 values an image"),
        (Named(torch.zeros(2, 4, dtype=torch.int64), None), "Named, in which there are no class scores"),
        (noise(3, 4), "3 rows for 2 images"),
        ((torch.zeros(()), None), "one values an image"),
    ):
        with pytest.raises(PassError, match=words):
            as_matrix(output, 2)


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_a_tensor_is_exchanged_where_it_stood(wrap: Callable[[Tensor], object]) -> None:
    old, new = noise(2, 4), noise(2, 4)
    output = wrap(old)
    if isinstance(output, Plain):
        return  # what cannot be rebuilt is not tapped as a layer
    made = exchanged(output, old, new)
    assert type(made) is type(output)
    assert torch.equal(as_matrix(output, 2), old)
    assert as_matrix(made, 2) is new
    if isinstance(made, ModelOutput):
        assert made["logits"] is made.logits is new
        assert first_tensor(made) is new


class Inside(nn.Module):
    """A layer that wraps what it returns."""

    def __init__(self, inner: nn.Module, wrap: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.inner = inner
        self.wrap = wrap

    def forward(self, x: Tensor) -> object:
        return self.wrap(self.inner(x))


class Wrapping(Tiny):
    """Whose layers return a dataclass, a mapping, and nested tuples."""

    def __init__(self) -> None:
        super().__init__(wrap=lambda s: ModelOutput(logits=s))
        self.first: Any = Inside(self.first, lambda x: Frozen(None, x))
        self.second: Any = Inside(self.second, lambda x: ModelOutput(hidden_states=(x,)))
        self.third: Any = Inside(self.third, lambda x: ([x],))

    def scores(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).logits).hidden_states[0]
        return self.head(self.third(x)[0][0].mean(dim=(2, 3)))  # type: ignore[no-any-return]


def test_layers_and_models_that_wrap_what_they_return(tmp_path: Path) -> None:
    layers = ("first", "second", "third")
    wrapped = audited(Wrapping(), layers=layers, tensorboard=tmp_path / "logs")
    plain = audited(Tiny(), layers=layers, only=["class_activation", "predictions"])
    one, other = (report.tensors("class_activation", image=_exhibit(report)) for report in (wrapped, plain))
    assert len(one) == len(other) == 3 * 5 + 1
    for name, values in one.items():
        assert torch.allclose(values, other[name], atol=1e-6)
    assert any((tmp_path / "logs").iterdir())


def test_one_channel() -> None:
    report = audited(Tiny(1))
    assert report.input(_exhibit(report)).shape == (1, 16, 16)
    assert report.facts["model"]["input"]["channels"] == 1


def test_five_channels_and_another_shape_as_a_data_set() -> None:
    inputs = noise(3, 5, 16, 28)
    model = Tiny(5)
    report = audited(model, TensorDataset(inputs, torch.tensor([0, 1, 3])), input_size=None)
    assert torch.equal(report.input(_exhibit(report)), inputs[_shown(report)])
    assert report.facts["model"]["input"]["size"] == [16, 28]
    assert report.facts["model"]["input"]["assumed"] == []
    with torch.no_grad():
        expected = model.scores(inputs).softmax(1).max(1).values
    told = [one["top"][0]["probability"] for one in report.facts["predictions"]]
    assert told == pytest.approx(expected.tolist(), abs=1e-6)


def _exhibit(report: reportgen.Report) -> str:
    return str(report.facts["images"]["exhibits"][0]["image"])


def _shown(report: reportgen.Report) -> int:
    return int(_exhibit(report).removeprefix("image-"))


def test_arrays_in_files(tmp_path: Path) -> None:
    inputs = noise(2, 5, 16, 20).numpy()
    for number, values in enumerate(inputs):
        np.save(tmp_path / f"{number}.npy", values)
    np.save(tmp_path / "small.npy", inputs[0, :, :8])
    np.save(tmp_path / "objects.npy", np.array([object()]), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "1.npy").read_bytes()[:-100])
    (tmp_path / "text.npy").write_text("none")
    np.save(tmp_path / "-empty.npy", inputs[0, :0])
    for name, shape in (("long", (0, *(2**31 - 1,) * 4)), ("deep", (1,) * 70)):
        head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".encode()
        (tmp_path / f"{name}.npy").write_bytes(
            b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + b"\0" * 4
        )
    report = audited(Tiny(5), tmp_path, input_size=None, reference=tmp_path)
    assert [one["image"] for one in report.facts["predictions"]] == ["0.npy", "1.npy"]
    assert np.array_equal(report.input(_exhibit(report)).numpy(), inputs[int(_exhibit(report)[0])])
    skipped = {one["file"]: one["reason"] for one in report.facts["images"]["skipped"]}
    assert skipped["objects.npy"] == "an array of objects, not of numbers"
    assert skipped["cut.npy"] == "truncated"
    assert skipped["-empty.npy"] == skipped["long.npy"] == "an array without values"
    assert skipped["deep.npy"] == "an array of 70 dimensions"
    assert skipped["text.npy"] == "not a NumPy array, as its name says"
    assert "the shape (5, 8, 20), not (5, 16, 20)" in skipped["small.npy"]


def test_heads_are_taken_apart_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11.2 raises SystemError where a search for garbage lets another thread parse meanwhile."""
    file = tmp_path / "0.npy"
    np.save(file, np.zeros((2, 3), np.float32))
    at_once, most = 0, 0

    def parsed(text: str) -> Any:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.002)
        at_once -= 1
        return {"descr": "<f4", "fortran_order": False, "shape": (2, 3)}

    monkeypatch.setattr(arrays.ast, "literal_eval", parsed)
    with ThreadPoolExecutor(8) as pool:
        assert {shape for shape, _dtype in pool.map(arrays.head_of, [file] * 40)} == {(2, 3)}
    assert most == 1


def test_arrays_of_bytes_in_files_are_images(tmp_path: Path) -> None:
    for number, image in enumerate(photographs()):
        np.save(tmp_path / f"{number}.npy", np.asarray(image))
    few = {"only": ["predictions"], "input_size": "16"}
    report = audited(Tiny(), tmp_path, **few)
    live = audited(Tiny(), photographs(), **few)
    told = [[one["top"] for one in each.facts["predictions"]] for each in (report, live)]
    assert told[0] == told[1]


def test_arrays_in_memory_are_read_as_those_in_files() -> None:
    values = noise(1, 3, 16, 16).numpy()[0]
    report = audited(Tiny(), [values], only=["predictions"], input_size=None)
    assert np.array_equal(report.input(_exhibit(report)).numpy(), values)


def test_inputs_of_another_shape_are_another_resolution(tmp_path: Path) -> None:
    few = {"only": ["predictions"], "input_size": None, "model_id": "the same", "cache_dir": tmp_path}
    for side in (16, 24):
        report = audited(Tiny(), [noise(1, 3, side, side)[0]], **few)
        assert report.facts["model"]["input"]["size"] == [side, side]
        assert report.facts["images"]["used"] == 1


def test_the_size_that_a_model_states_is_taken() -> None:
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=3
    )
    report = audited(model, only=["predictions"], input_size=None)
    assert report.facts["model"]["input"]["size"] == [32, 32]
    assert "size" not in report.facts["model"]["input"]["assumed"]


def test_what_a_live_module_of_timm_expects_is_assumed() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=1, img_size=32)
    told = audited(model, only=["predictions"], input_size=None).facts["model"]
    assert (told["input"]["mean"], told["input"]["interpolation"]) == ([0.5, 0.5, 0.5], "bicubic")
    assert told["input"]["size"] == [32, 32]
    assert "mean" in told["input"]["assumed"]
    assert not told["input"]["head_published"]


def test_a_live_module_may_name_its_classes() -> None:
    model = Tiny()
    model.config: Any = SimpleNamespace(id2label={1: "dog", 0: "cat", 2: "hen", 3: "moped"})
    report = audited(model, only=["predictions"])
    names = {top["label"] for top in report.facts["predictions"][0]["top"]}
    assert names == {"cat", "dog", "hen", "moped"}
    model.config.id2label = {number: f"LABEL_{number}" for number in range(4)}
    report = audited(model, only=["predictions"])
    assert report.facts["predictions"][0]["top"][0]["label"].startswith("class ")


def test_own_normalisation() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    report = audited(Tiny(), only=["predictions"], mean=mean, std=std, resize="none", input_size="36x40")
    pixels = torch.from_numpy(np.array(photographs()[_shown(report)])).permute(2, 0, 1) / 255
    expected = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert torch.allclose(report.input(_exhibit(report)), expected, atol=1e-6)


def test_sizes_that_do_not_fit_name_the_option() -> None:
    with pytest.raises(reportgen.errors.ImagesError, match="--resize none needs 224 × 224") as refused:
        reportgen.audit(Tiny(), photographs(), resize="none")
    assert refused.value.remedy == "see the options named"


HEADS: dict[str, tuple[nn.Module, dict[str, Any], Callable[[Tensor], Tensor], str]] = {
    "one logit": (Tiny(classes=1), {}, lambda s: torch.cat((-s, s), 1).sigmoid(), "logits"),
    "one logit, squeezed": (
        Tiny(classes=1, wrap=lambda s: s.squeeze(1)),
        {},
        lambda s: torch.cat((-s, s), 1).sigmoid(),
        "logits",
    ),
    "one sigmoid": (
        Tiny(classes=1, wrap=torch.sigmoid),
        {"num_classes": 1},
        lambda s: torch.cat((-s, s), 1).sigmoid(),
        "sigmoid",
    ),
    "sigmoids": (Tiny(wrap=torch.sigmoid), {}, torch.sigmoid, "sigmoid"),
    "several labels": (Tiny(), {"output_kind": "multilabel"}, torch.sigmoid, "multilabel"),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_heads(head: tuple[nn.Module, dict[str, Any], Callable[[Tensor], Tensor], str]) -> None:
    model, options, probabilities, kind = head
    report = audited(model, **options)
    assert report.facts["model"]["output_kind"] == kind
    inputs = report.input(_exhibit(report))[None]
    with torch.no_grad():
        expected = probabilities(model.scores(inputs))[0]  # type: ignore[operator]
    top = report.facts["predictions"][_shown(report)]["top"][0]
    assert top["probability"] == pytest.approx(float(expected.max()), abs=1e-6)
    assert top["index"] == int(expected.argmax())
    identity = report.facts["techniques"]["class_activation"]["results"]["identity"]
    assert identity["largest_difference"] < 1e-6
    assert identity["scale"] == 1


class Calibrated(Tiny):
    def forward(self, x: Tensor) -> object:
        return (self.scores(x) / self.temperature).softmax(1)


def test_temperature_scales_class_activation_maps() -> None:
    model = Calibrated()
    report = audited(model)
    identity = report.facts["techniques"]["class_activation"]["results"]["identity"]
    assert identity["scale"] == pytest.approx(1 / 1.7, rel=1e-5)
    assert identity["largest_difference"] < 1e-5
    name = _exhibit(report)
    with torch.no_grad():
        maps = model.third(model.second(model.first(report.input(name)[None])))[0]
    target = report.facts["predictions"][_shown(report)]["top"][0]["index"]
    expected = torch.einsum("k,khw->hw", model.head.weight[target] / model.temperature, maps).detach()
    found = report.tensors("class_activation", image=name)[f"cam/third/{target}"]
    assert torch.allclose(found, expected, atol=1e-5)
    page = report.rendered(".html").decode()
    assert "The model multiplies what the linear layer gives by 0.5882" in page


def test_names_of_classes_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("cat\ndog\n")
    with pytest.raises(reportgen.errors.LabelsError, match=r"'few\.txt' has 2 class names, and the model 4 classes"):
        reportgen.audit(Tiny(), photographs(), labels=tmp_path / "few.txt", **SMALL)
    with pytest.raises(reportgen.errors.LabelsError, match="labels has 3 class names, and the model 2") as refused:
        reportgen.audit(Tiny(classes=1), photographs(), labels=["a", "b", "c"], **SMALL)
    assert "small outputs first" in refused.value.remedy


def test_names_of_classes_by_themselves() -> None:
    report = audited(Tiny(), labels=["cat", "dog", "hen, bird", "moped"], only=["predictions"])
    assert report.facts["predictions"][0]["top"][0]["label"] in ("cat", "dog", "hen, bird", "moped")
    one = audited(Tiny(classes=1), labels=["cat"], only=["predictions"])
    assert {top["label"] for top in one.facts["predictions"][0]["top"]} == {"not cat", "cat"}
