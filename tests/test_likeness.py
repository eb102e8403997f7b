"""Copies are found however they were saved; different images, and images of little, are not taken for copies."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from sklearn.datasets import load_digits

from reportgen.likeness import by_digest, counterparts, features, groups
from reportgen.subject.look import SIDE, look_of, look_of_values


def scene(seed: int) -> Image.Image:
    """Smooth patches and a few shapes, different for every seed."""
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize(
        (200, 160), Image.Resampling.BICUBIC
    )
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y, side = (int(value) for value in random.integers(10, 120, 3))
        draw.rectangle((x, y, x + side // 2, y + side // 3), fill=tuple(int(v) for v in random.integers(0, 256, 3)))
    return image


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "compressed": lambda image: jpeg(image, 40),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "another format": lambda image: image.resize((120, 120), Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "paler": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "grey": lambda image: image.convert("L"),
}


def looks(images: list[Image.Image]) -> np.ndarray:  # type: ignore[type-arg]
    return np.stack([look_of(image) for image in images])


@pytest.mark.parametrize("how", COPIES)
def test_copies_are_found(how: str) -> None:
    originals = [scene(seed) for seed in range(12)]
    copies = [COPIES[how](image) for image in originals]
    assert groups(looks([*originals, *copies])) == [(place, place + 12) for place in range(12)]
    assert counterparts(looks(copies), looks(originals)) == [(place, place) for place in range(12)]


def test_other_images_are_not() -> None:
    assert groups(looks([scene(seed) for seed in range(400)])) == []
    turned = [scene(seed).transpose(Image.Transpose.FLIP_LEFT_RIGHT) for seed in range(40)]
    assert counterparts(looks(turned), looks([scene(seed) for seed in range(40)])) == []


def test_handwritten_digits_are_hardly_ever_taken_for_one_another() -> None:
    """Rows of the data set repeat no picture; of their 1.6 million pairs the closest two are at the border."""
    pictures = [Image.fromarray((one * 15.9).astype(np.uint8)).resize((64, 64), 3) for one in load_digits().images]
    assert sum(len(group) for group in groups(looks(pictures))) <= 4


def spot(x: int, y: int, shape: str, side: int) -> Image.Image:
    image = Image.new("RGB", (224, 224), "white")
    box = (x - side, y - side, x + side, y + side)
    getattr(ImageDraw.Draw(image), shape)(box, fill="black")
    return image


def test_images_of_little_are_not_compared() -> None:
    random = np.random.default_rng(1)
    flat = [Image.new("RGB", (60, 60), (level,) * 3) for level in (0, 1, 120, 121, 255)]
    noisy = [Image.fromarray(random.normal(128, 4, (224, 224)).clip(0, 255).astype(np.uint8)) for _ in range(20)]
    ramps = [Image.fromarray(np.tile(np.linspace(0, top, 224).astype(np.uint8), (224, 1))) for top in (100, 180, 255)]
    spots = [spot(112, 112, shape, side) for shape in ("ellipse", "rectangle") for side in (4, 6, 8)]
    rows, columns = np.mgrid[:224, :224]
    shade = 220 - 80 * ((rows - 112) ** 2 + (columns - 112) ** 2) / 112**2
    vignettes = [
        Image.fromarray((shade + random.normal(0, 3, shade.shape)).clip(0, 255).astype(np.uint8)) for _ in range(9)
    ]
    for some in (flat, noisy, ramps, spots, vignettes):
        assert groups(looks(some)) == []
        assert not features(looks(some))[1].any()
    assert features(looks([scene(0)]))[1].all()


def test_shapes_on_a_plain_ground_are_told_apart() -> None:
    different = [spot(112, 112, "ellipse", 50), spot(112, 112, "rectangle", 50), spot(90, 112, "ellipse", 50)]
    assert groups(looks(different)) == []
    assert groups(looks([*different, jpeg(different[0], 50)])) == [(0, 3)]


def test_a_chain_is_one_group_and_many_equal_ones_hide_nothing() -> None:
    first = scene(3)
    chain = [first, jpeg(first, 60), jpeg(first, 30), *[first] * 40, scene(4), scene(4).convert("L")]
    assert groups(looks(chain)) == [tuple(range(43)), (43, 44)]


def test_files_that_are_the_same() -> None:
    assert by_digest(["b", "a", "b", "c", "a", "b"]) == [(0, 2, 5), (1, 4)]


def test_a_look_is_made_of_means() -> None:
    pixels = np.arange(32 * 64, dtype=np.float64).reshape(32, 64) % 200
    expected = pixels.reshape(SIDE, 2, SIDE, 4).mean(axis=(1, 3))
    found = look_of(Image.fromarray(pixels.astype(np.uint8)))
    assert np.abs(found - expected).max() <= 0.5
    values = np.stack([pixels, pixels, pixels]).astype(np.float32)
    stretched = 255 * (expected - expected.min()) / (expected.max() - expected.min())
    assert np.abs(look_of_values(values) - stretched).max() <= 0.5
    assert (look_of_values(np.ones((3, 20, 20), np.float32)) == 0).all()
