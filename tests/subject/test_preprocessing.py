"""Our preprocessing against torchvision's and timm's evaluation transforms, bit for bit."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image
from pydantic import TypeAdapter
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from reportgen.errors import UsageError
from reportgen.subject.architectures import Published, published
from reportgen.subject.images import ImageError, ImageRef, live_images
from reportgen.subject.preprocessing import (
    FILTERS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Pipeline,
    prepare,
    read_size,
    resolve_pipeline,
)

SIZES = [(500, 375), (375, 500), (224, 224), (256, 256), (1, 1), (37, 640), (100, 99), (2000, 31)]


def photograph(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    generator = np.random.default_rng(size[0] * 7 + size[1])
    coarse = Image.fromarray(generator.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b0", "vit_b_16", "inception_v3"])
def test_equals_torchvision(name: str, size: tuple[int, int]) -> None:
    pipeline = resolve_pipeline(published(f"torchvision:{name}"), channels_in=3)
    reference = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    image = photograph(size)
    assert np.abs(pipeline(image) - reference(image).numpy()).max() <= 1e-6


@pytest.mark.parametrize("size", SIZES[:4])
@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "vit_base_patch16_224", "mixer_b16_224", "convnext_tiny", "beit_base_patch16_224"]
)
def test_equals_timm(name: str, size: tuple[int, int]) -> None:
    timm = pytest.importorskip("timm")
    cfg = timm.get_pretrained_cfg(name)
    reference = timm.data.create_transform(
        input_size=cfg.input_size,
        is_training=False,
        interpolation=cfg.interpolation,
        mean=cfg.mean,
        std=cfg.std,
        crop_pct=cfg.crop_pct,
        crop_mode=cfg.crop_mode,
    )
    pipeline = resolve_pipeline(published(f"timm:{name}"), channels_in=3)
    image = photograph(size)
    assert np.abs(pipeline(image) - reference(image).numpy()).max() <= 1e-6


def test_grey_and_what_is_usual() -> None:
    pipeline = resolve_pipeline(None, channels_in=1)
    reference = ImageClassification(
        crop_size=224,
        resize_size=256,
        mean=(sum(IMAGENET_MEAN) / 3,),
        std=(sum(IMAGENET_STD) / 3,),
        interpolation=InterpolationMode.BILINEAR,
    )
    assert pipeline.assumed == ("size", "resize", "interpolation", "mean", "std")
    image = photograph((300, 200))
    assert np.abs(pipeline(image) - reference(image.convert("L")).numpy()).max() <= 1e-6


def test_where_nothing_is_resampled_nothing_is_assumed_of_how() -> None:
    given = {"input_size": "64", "mean": (0.5,), "std": (0.5,)}
    assert resolve_pipeline(None, channels_in=3, resize="none", **given).assumed == ()
    assert resolve_pipeline(None, channels_in=3, resize="squash", **given).assumed == ("interpolation",)


def test_what_the_user_says_is_not_assumed() -> None:
    pipeline = resolve_pipeline(
        None, channels_in=3, input_size="64", resize="squash", interpolation="nearest", mean=(0.5,), std=(0.5,)
    )
    assert pipeline.assumed == ()
    assert (pipeline.mean, pipeline.std) == ((0.5,) * 3, (0.5,) * 3)
    fitted = pipeline.fit(photograph((10, 20)))
    assert fitted.shape == (64, 64, 3)
    assert np.allclose(pipeline.normalise(fitted), np.moveaxis(fitted / 127.5 - 1, -1, 0), atol=1e-6)


def test_bgr_turns_the_channels_round() -> None:
    options = {"channels_in": 3, "input_size": "8", "resize": "squash", "mean": (0.0,), "std": (1.0,)}
    image = photograph((8, 8))
    assert np.array_equal(
        resolve_pipeline(None, bgr=True, **options)(image), resolve_pipeline(None, **options)(image)[::-1]
    )


def test_pad_keeps_the_whole_image() -> None:
    pipeline = resolve_pipeline(None, channels_in=3, input_size="32", resize="pad", mean=(0.5,), std=(0.5,))
    fitted = pipeline.fit(Image.new("RGB", (64, 32), "red"))
    assert fitted[16, 16].tolist() == [255, 0, 0]
    assert fitted[0, 0].tolist() == [128, 128, 128]


def test_none_refuses_other_sizes() -> None:
    pipeline = resolve_pipeline(None, channels_in=3, input_size="32", resize="none")
    with pytest.raises(ImageError, match="needs 32 × 32"):
        pipeline.fit(photograph((33, 32)))


def test_visible_undoes_normalisation() -> None:
    pipeline = resolve_pipeline(None, channels_in=3, input_size="16", resize="squash")
    fitted = pipeline.fit(photograph((16, 16)))
    assert np.array_equal(pipeline.visible(pipeline.normalise(fitted)), fitted)


@pytest.mark.parametrize("words", ["", "x", "0", "10x", "1x2x3", "-5", "9000", "axb"])
def test_bad_sizes(words: str) -> None:
    with pytest.raises(UsageError):
        read_size(words)


def test_wrong_number_of_means() -> None:
    with pytest.raises(UsageError, match="--mean has 2 values for 3 channels"):
        resolve_pipeline(None, channels_in=3, mean=(0.1, 0.2))


def test_published_facts() -> None:
    facts = published("torchvision:resnet50")
    assert isinstance(facts, Published)
    assert (facts.input_size, facts.resize, facts.classes) == ((3, 224, 224), 232, 1000)


# crop modes, sizes and filters -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """What `Published` says of some weights."""

    input_size: tuple[int, int, int]
    crop_pct: float | None = None
    crop_mode: str | None = "center"
    interpolation: str = "bicubic"
    resize: int | None = None
    mean: tuple[float, ...] = (0.48, 0.46, 0.41)
    std: tuple[float, ...] = (0.27, 0.26, 0.28)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(64, 64), (48, 96), (97, 60), (7, 33)])
@pytest.mark.parametrize("share", [None, 0.875, 0.95, 1.0])
def test_every_crop_mode_of_timm(mode: str, size: tuple[int, int], share: float | None) -> None:
    factory = pytest.importorskip("timm.data.transforms_factory")
    facts = Facts((3, *size), share, mode)
    pipeline = resolve_pipeline(facts, channels_in=3)
    reference = factory.transforms_imagenet_eval(
        img_size=size, crop_pct=share, crop_mode=mode, interpolation="bicubic", mean=facts.mean, std=facts.std
    )
    for shape in [(80, 60), (60, 80), (64, 64), (31, 33), (200, 25), (30, 50), (500, 377)]:
        image = photograph(shape)
        expected = reference(image).numpy()
        assert expected.shape == (3, *size)
        assert np.abs(pipeline(image) - expected).max() <= 1e-6, shape


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK"])
def test_every_filter_and_mode_agrees_with_torchvision(name: str, mode: str) -> None:
    channels = len(Image.new(mode, (1, 1)).getbands())
    image = photograph((90, 70), mode)
    reference = transforms.Compose(
        [
            transforms.Resize(40, InterpolationMode(name)),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize((0.4,) * channels, (0.3,) * channels),
        ]
    )
    pipeline = Pipeline((32, 32), channels, "crop", 40, name, (0.4,) * channels, (0.3,) * channels)
    assert np.abs(pipeline(image) - reference(image).numpy()).max() <= 1e-6


def test_random_shapes_agree_with_torchvision() -> None:
    rng = np.random.default_rng(3)
    for _ in range(150):
        width, height, size, to = (int(value) for value in rng.integers(1, 120, 4))
        pipeline = Pipeline((size, size), 3, "crop", to, "bilinear", IMAGENET_MEAN, IMAGENET_STD)
        reference = ImageClassification(crop_size=size, resize_size=to)
        image = photograph((width, height))
        assert np.abs(pipeline(image) - reference(image).numpy()).max() <= 1e-6, (width, height, size, to)


def test_another_size_keeps_the_published_proportion() -> None:
    facts = Facts((3, 224, 224), resize=256)
    assert resolve_pipeline(facts, channels_in=3).resize_to == 256
    assert resolve_pipeline(facts, channels_in=3, input_size="448").resize_to == 512
    assert resolve_pipeline(facts, channels_in=3, input_size="112x224").resize_to == (128, 256)
    assert resolve_pipeline(facts, channels_in=3, resize="squash").resize_to is None
    assert resolve_pipeline(Facts((3, 90, 90), 0.9, "squash"), channels_in=3).resize_to == (100, 100)
    # the user asks for a crop of weights that were not cropped
    assert resolve_pipeline(Facts((3, 70, 70), 1.0, "squash"), channels_in=3, resize="crop").resize_to == 80


def test_a_portrait_covers_a_landscape_input() -> None:
    pipeline = resolve_pipeline(None, channels_in=3, input_size="60x120")
    assert pipeline.fit(Image.new("RGB", (50, 200), "white")).min() == 255


# which part is seen -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", ["crop", "squash", "pad", "none"])
def test_the_box_is_what_the_network_sees(resize: str) -> None:
    """A ramp tells by its value where in the original a pixel of the input came from."""
    width, height = 300, 200
    size = (height, width) if resize == "none" else (64, 96)
    pipeline = resolve_pipeline(
        None, channels_in=3, input_size=f"{size[0]}x{size[1]}", resize=resize, mean=(0.0,), std=(1.0,)
    )
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0] = (np.arange(width) * 250 / width)[None, :]
    ramp[..., 1] = (np.arange(height) * 250 / height)[:, None]
    left, top, right, bottom = pipeline.box((width, height))
    fitted = pipeline.fit(Image.fromarray(ramp)).astype(float)
    rows, columns = size
    for row, column in [(rows // 2, columns // 2), (rows // 4, columns // 4), (3 * rows // 4, 3 * columns // 4)]:
        x = left + (column + 0.5) / columns * (right - left)
        y = top + (row + 0.5) / rows * (bottom - top)
        assert fitted[row, column, 0] * width / 250 == pytest.approx(x - 0.5, abs=2.5)
        assert fitted[row, column, 1] * height / 250 == pytest.approx(y - 0.5, abs=2.5)


def test_the_box_by_hand() -> None:
    crop = Pipeline((224, 224), 3, "crop", 256, "bilinear", (0.0,) * 3, (1.0,) * 3)
    assert crop.box((512, 512)) == (32.0, 32.0, 480.0, 480.0)
    assert crop.box((1024, 512)) == (288.0, 32.0, 736.0, 480.0)
    pad = Pipeline((100, 100), 3, "pad", None, "bilinear", (0.0,) * 3, (1.0,) * 3)
    assert pad.box((200, 100)) == (0.0, -50.0, 200.0, 150.0)
    squash = Pipeline((100, 100), 3, "squash", None, "bilinear", (0.0,) * 3, (1.0,) * 3)
    assert squash.box((200, 100)) == (0.0, 0.0, 200.0, 100.0)


# channels -----------------------------------------------------------------------------------------------------------


def test_published_statistics_turn_round_with_the_channels() -> None:
    facts = Facts((3, 8, 8), 1.0)
    plain = resolve_pipeline(facts, channels_in=3)
    turned = resolve_pipeline(facts, channels_in=3, bgr=True)
    image = photograph((8, 8))
    np.testing.assert_array_equal(turned(image), plain(image)[::-1])
    np.testing.assert_array_equal(turned.visible(turned(image)), turned.fit(image))
    # what the user says is in the order of the model's channels, as Caffe's means are
    told = resolve_pipeline(facts, channels_in=3, bgr=True, mean=(0.1, 0.2, 0.3), std=(1.0,))
    assert told(image)[0] == pytest.approx(np.asarray(image)[..., 2] / 255 - 0.1, abs=1e-6)


def test_the_border_is_the_mean_whatever_the_order() -> None:
    for options in ({}, {"bgr": True}):
        pipeline = resolve_pipeline(Facts((3, 30, 30), 1.0, "border"), channels_in=3, **options)
        border = pipeline(photograph((60, 20)))[:, 0, 0]
        assert np.abs(border).max() < 0.01


def test_transparency_is_dropped_as_by_the_loaders_of_torchvision() -> None:
    image = photograph((50, 40)).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((50, 40)))
    pipeline = resolve_pipeline(None, channels_in=3)
    np.testing.assert_array_equal(pipeline(image), pipeline(image.convert("RGB")))


def test_four_channels_need_four_bands(tmp_path: Path) -> None:
    pipeline = resolve_pipeline(None, channels_in=4, input_size="16")
    assert pipeline.mean == (pytest.approx(sum(IMAGENET_MEAN) / 3),) * 4
    photograph((20, 20), "RGBA").save(tmp_path / "four.png")
    photograph((20, 20)).save(tmp_path / "three.png")
    assert prepare(ImageRef("four.png", tmp_path / "four.png"), pipeline).shape == (4, 16, 16)
    with pytest.raises(ImageError, match="3 channels, and the model takes 4"):
        prepare(ImageRef("three.png", tmp_path / "three.png"), pipeline)


def test_grey_images_serve_colour_models() -> None:
    pipeline = resolve_pipeline(None, channels_in=3)
    grey = photograph((30, 30), "L")
    np.testing.assert_array_equal(pipeline(grey), pipeline(grey.convert("RGB")))


# extremes -----------------------------------------------------------------------------------------------------------


def test_elongated_images_are_refused_before_they_fill_the_memory() -> None:
    pipeline = resolve_pipeline(None, channels_in=3)
    begin = time.perf_counter()
    for size in ((30_000, 1), (1, 30_000)):
        with pytest.raises(ImageError, match="too elongated"):
            pipeline(Image.new("RGB", size))
    assert time.perf_counter() - begin < 0.5
    pad = resolve_pipeline(None, channels_in=3, resize="pad")
    assert pad.fit(Image.new("RGB", (30_000, 1))).shape == (224, 224, 3)


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_one_pixel_is_enough(resize: str) -> None:
    pipeline = resolve_pipeline(None, channels_in=3, resize=resize)
    assert np.isfinite(pipeline(Image.new("RGB", (1, 1), "red"))).all()


# ready inputs and own code --------------------------------------------------------------------------------------------


def test_ready_inputs_go_in_as_they_are() -> None:
    torch = pytest.importorskip("torch")
    values = torch.randn(3, 20, 24)
    ref = live_images([(values, 1)]).images[0]
    pipeline = resolve_pipeline(None, channels_in=3, fixed_size=(20, 24))
    assert pipeline.assumed == ()
    np.testing.assert_array_equal(prepare(ref, pipeline), values.numpy())
    with pytest.raises(ImageError, match=r"the input has the shape \(3, 20, 24\), not \(3, 20, 20\)"):
        prepare(ref, resolve_pipeline(None, channels_in=3, fixed_size=(20, 20)))
    with pytest.raises(ImageError, match="not finite"):
        pipeline.ready(values.numpy() * np.inf)


OWN = """
import numpy, torch
seen = []
def good(image):
    seen.append(image.mode)
    return torch.from_numpy(numpy.asarray(image.resize((8, 8)), numpy.float32) / 255 * 2 - 1).permute(2, 0, 1)
def array(image):
    return numpy.zeros((3, 8, 8))
def wrong(image):
    return torch.zeros(3, 9, 8)
def raising(image):
    raise RuntimeError("no")
class Kind:
    @staticmethod
    def method(image):
        return torch.ones(3, 8, 8)
number = 3
"""


def test_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_transforms.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)

    def made(name: str) -> Pipeline:
        return resolve_pipeline(None, channels_in=3, input_size="8", transform=f"own_transforms:{name}")

    pipeline = made("good")
    assert pipeline.assumed == ()
    assert pipeline(photograph((20, 20), "L")).shape == (3, 8, 8)
    assert importlib.import_module("own_transforms").seen == ["RGB"]
    assert pipeline.fit(photograph((20, 20))).dtype == np.uint8
    assert pipeline.box((20, 30)) == (0.0, 0.0, 20.0, 30.0)
    assert made("array")(photograph((9, 9))).dtype == np.float32
    assert made("Kind.method")(photograph((9, 9))).min() == 1
    with pytest.raises(ImageError, match=r"--transform made the shape \(3, 9, 8\), not \(3, 8, 8\)"):
        made("wrong")(photograph((9, 9)))
    with pytest.raises(ImageError, match="--transform raised RuntimeError: no"):
        made("raising")(photograph((9, 9)))
    with pytest.raises(UsageError, match="cannot be called"):
        made("number")(photograph((9, 9)))
    with pytest.raises(UsageError, match="cannot be imported"):
        made("gone")(photograph((9, 9)))


@pytest.mark.parametrize("words", ["module", ":f", "module:", ""])
def test_a_transform_needs_module_and_name(words: str) -> None:
    with pytest.raises(UsageError, match="names no callable"):
        resolve_pipeline(None, channels_in=3, transform=words)


# refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"std": (0.0,)}, "--std"),
        ({"std": (0.2, -0.1, 0.2)}, "--std"),
        ({"std": (float("nan"),)}, "--std"),
        ({"mean": (float("inf"),)}, "--mean"),
        ({"mean": ()}, "--mean has 0 values"),
        ({"mean": (123.7, 116.3, 103.5)}, "means are of values in 0..1"),
        ({"std": (0.1, 0.2)}, "--std has 2 values for 3 channels"),
        ({"resize": "stretch"}, "--resize"),
        ({"interpolation": "cubic"}, "--interpolation"),
        ({"input_size": "8193"}, "out of range"),
        ({"bgr": True, "channels_in": 1}, "--bgr"),
    ],
)
def test_impossible_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolve_pipeline(None, **{"channels_in": 3, **options})


def test_unknown_published_words_are_not_believed() -> None:
    pipeline = resolve_pipeline(Facts((3, 32, 32), interpolation="random", crop_mode="odd"), channels_in=3)
    assert (pipeline.interpolation, pipeline.resize) == ("bilinear", "crop")


def test_a_pipeline_travels_as_json() -> None:
    for published_facts, options in ((None, {}), (Facts((3, 48, 96), 0.9, "squash"), {"bgr": True})):
        pipeline = resolve_pipeline(published_facts, channels_in=3, **options)
        back = TypeAdapter(Pipeline).validate_python(json.loads(json.dumps(asdict(pipeline))))
        assert back == pipeline
        assert hash(back) == hash(pipeline)


def test_nothing_here_imports_torch() -> None:
    modules = "images, preprocessing, truth, digests, decoding"
    listed = "[name for name in ('torch', 'torchvision', 'timm') if name in sys.modules]"
    code = f"import sys; from reportgen.subject import {modules}; print({listed})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
