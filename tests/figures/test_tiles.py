"""Tiles hold the exact levels; enlarging invents nothing; photographs keep their colours and lose their metadata."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from reportgen.figures.figure import Picture
from reportgen.figures.tiles import fitted, grey_tile, jpeg, kernel_tile, photograph, signed_tile


def decoded(picture: Picture) -> np.ndarray:
    with Image.open(io.BytesIO(picture.data)) as image:
        assert image.size == (picture.width, picture.height)
        assert f"image/{image.format.lower()}" == picture.media
        return np.array(image)


def test_each_value_becomes_a_square_of_its_level() -> None:
    picture = grey_tile(np.array([[0.0, 1.0], [2.0, 4.0]]), low=0, high=4, size=6)
    expected = np.array([[0, 64], [128, 255]], dtype=np.uint8).repeat(3, 0).repeat(3, 1)
    assert np.array_equal(decoded(picture), expected)
    assert picture.pixelated


def test_enlarging_is_by_the_next_whole_factor_of_the_longer_side() -> None:
    picture = grey_tile(np.zeros((3, 5)), low=0, high=1, size=112)
    assert (picture.width, picture.height) == (115, 69)


@pytest.mark.parametrize("side", [112, 150, 224])
def test_sizes_up_to_twice_are_left_alone(side: int) -> None:
    values = np.arange(side * side).reshape(side, side) % 256
    picture = grey_tile(values, low=0, high=255)
    assert np.array_equal(decoded(picture), values)
    assert not picture.pixelated


def test_reducing_takes_the_mean_over_areas() -> None:
    values = np.random.default_rng(0).integers(0, 256, (24, 16)).astype(float)
    picture = grey_tile(values, low=0, high=255, size=3)
    means = values.reshape(6, 4, 4, 4).mean(axis=(1, 3))
    assert np.abs(decoded(picture) - means).max() <= 0.5 + 1e-3


def test_an_outlier_does_not_bleach_its_neighbours_when_reduced() -> None:
    values = np.zeros((8, 8))
    values[0, 0] = np.inf
    assert decoded(grey_tile(values, low=0, high=1, size=2))[0].tolist() == [64, 0, 0, 0]


def test_edge_values() -> None:
    values = np.array([[np.nan, np.inf, -np.inf, -5, 5]])
    assert decoded(grey_tile(values, low=-1, high=1, size=5))[0].tolist() == [128, 255, 0, 0, 255]
    assert decoded(grey_tile(np.full((2, 2), 3.0), low=3, high=3, size=2)).max() == 0
    half = np.array([[0, 0.5, 1]], dtype=np.float16)
    assert decoded(grey_tile(half, low=0, high=1, size=3))[0].tolist() == [0, 128, 255]


def test_kernel_of_three_channels_is_coloured() -> None:
    kernel = np.zeros((3, 1, 2))
    kernel[0, 0, 0], kernel[2, 0, 1] = 1, -1
    pixels = decoded(kernel_tile(kernel, low=-1, high=1, size=2))
    assert pixels[0].tolist() == [[255, 128, 128], [128, 128, 0]]


def test_kernel_of_one_channel_is_grey() -> None:
    picture = kernel_tile(np.array([[[-2.0, 0.0, 2.0]]]), low=-2, high=2, size=64)
    pixels = decoded(picture)
    assert pixels.shape == (22, 66)
    assert pixels[0, ::22].tolist() == [0, 128, 255]


@pytest.mark.parametrize("shape", [(2, 3, 3), (64, 3, 3), (3, 3), (0, 3, 3), (3, 0, 3)])
def test_other_kernels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="1 or 3 channels"):
        kernel_tile(np.zeros(shape), low=-1, high=1)


@pytest.mark.parametrize("shape", [(3,), (1, 3, 3), (0, 3), (3, 0)])
def test_other_maps_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        grey_tile(np.zeros(shape), low=-1, high=1)


def test_signed_tile_is_grey_where_nothing_flows() -> None:
    values = np.zeros((3, 2, 2))
    values[1, 0, 0] = -3
    assert decoded(signed_tile(values, limit=3, size=4))[0, ::2].tolist() == [[128, 0, 128], [128, 128, 128]]
    assert np.all(decoded(signed_tile(values, limit=0, size=224)) == 128)


def test_large_signed_tile_is_a_jpeg_true_to_the_channels() -> None:
    values = np.zeros((3, 64, 64))
    values[0, :, :32] = 1
    picture = signed_tile(values, limit=2, size=64)
    assert picture.media == "image/jpeg"
    pixels = decoded(picture).astype(int)
    assert np.abs(pixels[:, :31] - (191, 128, 128)).max() <= 4
    assert np.abs(pixels[:, 33:] - 128).max() <= 4


def test_photograph_in_colour_and_grey() -> None:
    colour = np.zeros((30, 40, 3), dtype=np.uint8)
    colour[..., 0], colour[..., 2] = 200, 60
    pixels = decoded(photograph(colour)).astype(int)
    assert np.abs(pixels - (200, 0, 60)).max() <= 4
    grey = np.tile(np.arange(200, dtype=np.uint8), (10, 1))
    picture = photograph(grey)
    assert decoded(picture).shape == (10, 200)
    assert np.abs(decoded(picture).astype(int) - grey).max() <= 4
    assert not picture.pixelated
    assert photograph(colour).pixelated


def test_photograph_is_reduced_never_enlarged() -> None:
    wide = photograph(np.zeros((30, 3000, 3), dtype=np.uint8), longest=600)
    assert (wide.width, wide.height) == (600, 6)
    assert (photograph(np.zeros((2, 3), dtype=np.uint8)).width) == 3
    assert fitted(1, 10_000, 100) == (1, 100)


def test_photograph_accepts_a_view() -> None:
    pixels = np.zeros((3, 8, 8), dtype=np.uint8)
    assert photograph(pixels.transpose(1, 2, 0)[:, ::-1]).width == 8


def test_jpeg_carries_no_metadata() -> None:
    with Image.open(io.BytesIO(photograph(np.zeros((8, 8, 3), dtype=np.uint8)).data)) as image:
        assert not image.getexif()
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4), np.uint8), np.zeros(4, np.uint8)],
    ids=["alpha", "float", "empty", "line"],
)
def test_other_photographs_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        photograph(pixels)


@pytest.mark.parametrize(
    "draw",
    [
        lambda v: grey_tile(v[0], low=-1, high=1),
        lambda v: kernel_tile(v, low=-1, high=1),
        lambda v: signed_tile(v, limit=1, size=20),
        lambda v: photograph((v.transpose(1, 2, 0) * 40 + 120).clip(0, 255).astype(np.uint8)),
    ],
    ids=["grey", "kernel", "signed", "photograph"],
)
def test_same_bytes_twice(draw: Callable[[np.ndarray], Picture]) -> None:
    values = np.random.default_rng(1).normal(size=(3, 20, 20))
    assert draw(values) == draw(values.copy())


@pytest.mark.parametrize("side", [300, 700])
def test_noise_takes_more_than_a_byte_a_pixel(side: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Pillow's buffer for optimised tables is too small for it."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
    made = jpeg(noise, quality=92, subsampling="4:4:4")
    assert len(made.data) > side * side
    with Image.open(io.BytesIO(made.data)) as opened:
        opened.load()
        assert opened.size == (side, side)
    assert capfd.readouterr() == ("", "")  # libjpeg prints its own errors
