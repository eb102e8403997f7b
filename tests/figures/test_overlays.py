"""Overlays place, colour and weigh a map as documented; an empty one leaves the photograph alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from reportgen.errors import UsageError
from reportgen.figures.colour import colourise, table
from reportgen.figures.figure import Picture
from reportgen.figures.overlays import heat_map, map_alone, resize_map
from reportgen.figures.tiles import COARSE, coarse


def decoded(picture: Picture) -> np.ndarray:
    with Image.open(io.BytesIO(picture.data)) as image:
        assert image.format == {"image/jpeg": "JPEG", "image/png": "PNG"}[picture.media]
        assert image.size == (picture.width, picture.height)
        return np.array(image.convert("RGB")).astype(int)


def flat(level: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, dtype=np.uint8)


def bicubic(row: np.ndarray, width: int) -> np.ndarray:
    """Slow re-derivation: Keys' kernel with a = -0.5, support widened when reducing, weights renormalised at edges."""

    def weight(t: float) -> float:
        t, a = abs(t), -0.5
        if t < 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0

    scale = len(row) / width
    stretch = max(1.0, scale)
    out = []
    for x in range(width):
        centre = (x + 0.5) * scale
        weights = np.array([weight((i + 0.5 - centre) / stretch) for i in range(len(row))])
        out.append(float(weights @ row / weights.sum()))
    return np.array(out)


@pytest.mark.parametrize(("cells", "width"), [(7, 224), (7, 30), (3, 8), (40, 11), (1, 5), (5, 1)])
def test_resizing_agrees_with_a_derivation_by_hand(cells: int, width: int) -> None:
    row = np.random.default_rng(cells).normal(size=cells)
    column = np.array([1.0, -2.0, 0.5])
    resized = resize_map(np.outer(column, row), (9, width))
    assert resized.shape == (9, width)
    assert resized == pytest.approx(np.outer(bicubic(column, 9), bicubic(row, width)), abs=1e-5)


def test_a_cell_lies_over_its_own_rectangle() -> None:
    values = np.zeros((10, 12))
    values[4, 7] = 1
    resized = resize_map(values, (100, 180))
    down, across = np.mgrid[:100, :180] + 0.5
    assert (resized * down).sum() / resized.sum() == pytest.approx(4.5 * 10, abs=1e-3)
    assert (resized * across).sum() / resized.sum() == pytest.approx(7.5 * 15, abs=1e-3)


def test_what_is_not_finite_does_not_spread() -> None:
    values = np.ones((4, 4), dtype=np.float16)
    values[0, 0], values[3, 3] = np.nan, np.inf
    resized = resize_map(values, (16, 16))
    unknown = np.zeros((16, 16), dtype=bool)
    unknown[:4, :4] = unknown[12:, 12:] = True
    assert np.array_equal(np.isnan(resized), unknown)
    assert resized.dtype == np.float32


def test_constant_maps_stay_constant() -> None:
    assert resize_map(np.full((1, 1), 0.25), (3, 5)) == pytest.approx(np.full((3, 5), 0.25))
    assert resize_map(np.full((9, 7), 0.25), (3, 5)) == pytest.approx(np.full((3, 5), 0.25))


@pytest.mark.parametrize("colormap", ["inferno", "viridis", "jet", "grey"])
def test_full_strength_is_the_documented_mixture(colormap: str) -> None:
    pixels = decoded(heat_map(flat(100), np.array([[2.0]]), low=0, high=2, colormap=colormap, opacity=0.6, size=64))
    expected = 0.4 * (100 * 0.8 + 12) + 0.6 * table(colormap)[255]
    assert np.abs(pixels - expected).max() <= 4


def test_opacity_follows_the_smooth_step() -> None:
    # At a quarter of the range the step 3t² - 2t³ stands at t = 0.5: half of the opacity.
    pixels = decoded(heat_map(flat(100), np.array([[0.25]]), low=0, high=1, opacity=0.6, size=64))
    expected = 0.7 * (100 * 0.8 + 12) + 0.3 * table("inferno")[64]
    assert np.abs(pixels - expected).max() <= 4


def test_weak_evidence_leaves_the_photograph_visible() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::16] = stripes[:, 1::16] = stripes[:, 2::16] = stripes[:, 3::16] = 255

    def contrast(value: float) -> float:
        values = np.array([[value, 1.0]])
        pixels = decoded(heat_map(stripes, values, low=0, high=1, size=64))[:, :8]
        return float(pixels[:, 1:3].mean() - pixels[:, 6:8].mean())

    assert contrast(0.0) > 190 > contrast(0.4) > contrast(1.0) > 60


def test_the_photograph_is_partly_drained_of_colour() -> None:
    red = flat(0)
    red[..., 0] = 200
    pixels = decoded(heat_map(red, np.array([[0.0, 0.0, 0.0, 1.0]]), low=0, high=1, size=64))[32, 4]
    assert 20 < pixels[0] - pixels[1] < 80


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (np.zeros((7, 7)), 0.0, 0.0),
        (np.zeros((7, 7)), 0.0, 5.0),
        (np.full((2, 2), -3.0), 0.0, 5.0),
        (np.ones((2, 2)), 1.0, 1.0),
        (np.ones((2, 2)), 1.0, 0.0),
    ],
    ids=["zero", "zero on a shared scale", "negative", "constant", "reversed"],
)
def test_an_empty_map_leaves_the_picture_plain(values: np.ndarray, low: float, high: float) -> None:
    photo = flat(180)
    photo[..., 2] = 90
    assert np.abs(decoded(heat_map(photo, values, low=low, high=high, size=64)) - photo).max() <= 4


def test_diverging_tables_show_nothing_in_their_middle() -> None:
    empty = decoded(heat_map(flat(100), np.zeros((3, 3)), low=-1, high=1, colormap="RdBu_r", size=64))
    assert np.abs(empty - 100).max() <= 4
    signed = decoded(heat_map(flat(100), np.array([[-1.0, 0, 0, 0, 1.0]]), low=-1, high=1, colormap="RdBu_r", size=64))
    left, middle, right = signed[32, 2], signed[32, 32], signed[32, 61]
    assert left[2] > left[0] + 30
    assert np.ptp(middle) <= 8
    assert right[0] > right[2] + 30


def test_the_line_runs_at_half_of_the_range() -> None:
    ramp = np.array([[0.0, 1.0]])
    picture = decoded(heat_map(flat(0), ramp, low=0, high=1, colormap="grey", opacity=0.0, size=128))
    brightness = picture.mean(axis=(0, 2))
    assert set(np.flatnonzero(brightness > 120)) <= {62, 63, 64, 65}
    assert brightness[63:65].max() > 120


def test_fine_maps_have_no_line() -> None:
    values = np.kron(np.eye(2), np.ones((8, 8)))
    coarse = decoded(heat_map(flat(0), values, low=0, high=1, opacity=0.0, size=96))
    fine = decoded(heat_map(flat(0), values, low=0, high=1, opacity=0.0, size=95))
    assert coarse.max() > 120
    assert fine.max() < 40


def test_holes_are_mid_grey_and_infinities_are_ends() -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 0.0]])
    pixels = decoded(heat_map(flat(0), values, low=0, high=1, opacity=1.0, size=128))[16]
    assert np.abs(pixels[8] - 128).max() <= 6
    assert np.abs(pixels[48] - table("inferno")[255]).max() <= 12
    assert pixels[112].max() <= 24


def test_a_map_of_nothing_but_holes_is_not_drawn_empty() -> None:
    pixels = decoded(heat_map(flat(0), np.full((2, 2), np.nan), low=0, high=1, opacity=1.0, size=64))
    assert np.abs(pixels - 128).max() <= 4


@pytest.mark.parametrize(
    ("photo", "shape"),
    [
        (flat(50, 30, 90), (1, 1)),
        (flat(50, 90, 30), (7, 3)),
        (flat(50, 8, 8), (50, 70)),
        (flat(50, 1, 1), (3, 3)),
        (flat(50, 1, 400), (2, 2)),
        (flat(50, 12, 12)[..., 0], (3, 3)),
    ],
    ids=["1x1 map", "upright", "map finer than picture", "1x1 picture", "line", "grey picture"],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_shapes_and_types(photo: np.ndarray, shape: tuple[int, int], dtype: type) -> None:
    values = np.arange(1, 1 + shape[0] * shape[1]).reshape(shape).astype(dtype)
    picture = heat_map(photo, values, low=0, high=float(values.max()), size=112)
    assert max(picture.width, picture.height) == 112
    assert decoded(picture).shape[2] == 3


def test_few_pixels_are_enlarged_as_pixels() -> None:
    board = (np.indices((8, 8)).sum(axis=0) % 2 * 255).astype(np.uint8)
    pixels = decoded(heat_map(board, np.zeros((2, 2)), low=0, high=1, size=128))
    assert np.abs(pixels[..., 0] - board.repeat(16, 0).repeat(16, 1)).max() <= 12


def test_errors() -> None:
    with pytest.raises(UsageError, match="rainbow"):
        heat_map(flat(0), np.zeros((2, 2)), low=0, high=1, colormap="rainbow")
    for wrong in (np.zeros(3), np.zeros((1, 3, 3)), np.zeros((0, 3))):
        with pytest.raises(ValueError, match="two dimensions"):
            heat_map(flat(0), wrong, low=0, high=1)
    with pytest.raises(ValueError, match="finite"):
        heat_map(flat(0), np.ones((2, 2)), low=0, high=np.inf)
    with pytest.raises(ValueError, match="uint8"):
        heat_map(np.zeros((3, 3, 3)), np.ones((2, 2)), low=0, high=1)


def test_inputs_are_untouched_and_bytes_repeat() -> None:
    random = np.random.default_rng(0)
    photo, values = random.integers(0, 256, (50, 40, 3)).astype(np.uint8), random.normal(size=(7, 5))
    photo.setflags(write=False)
    values.setflags(write=False)
    first = heat_map(photo, values, low=0, high=2)
    assert first == heat_map(photo.copy(), values.copy(), low=0, high=2)
    assert (first.width, first.height) == (179, 224)


def test_a_map_alone_has_the_colours_of_its_cells() -> None:
    values = np.array([[0.0, 1.0], [2.0, 4.0]])
    made = decoded(map_alone((60, 120, 3), values, low=0, high=4, colormap="viridis", size=120))
    assert made.shape == (60, 120, 3)
    expected = colourise(values, low=0, high=4, name="viridis")
    for row in (0, 1):
        for column in (0, 1):
            cell = made[30 * row : 30 * row + 30, 60 * column : 60 * column + 60]
            assert (cell == expected[row, column]).all()


def test_a_fine_map_alone_is_coarse() -> None:
    values = np.random.default_rng(0).random((96, 48))
    made = decoded(map_alone((96, 48), values, low=0, high=1))
    cells = coarse(values)
    assert cells.shape == (COARSE, COARSE // 2)
    assert cells[1, 2] == pytest.approx(values[8:16, 16:24].mean(), abs=1e-5)
    assert len(np.unique(made.reshape(-1, 3), axis=0)) <= COARSE * COARSE // 2
    assert map_alone((8, 8), np.zeros((2, 2)), low=0, high=0).media == "image/png"
    assert coarse(np.ones((3, 4, 5))).shape == (3, 4, 5)
    assert coarse(np.ones((3, 24, 12))).shape == (3, 12, 6)


@pytest.mark.parametrize("size", [64, 224])
def test_the_sign_of_a_difference_shows_in_grey(size: int) -> None:
    """Both ends of a diverging table are dark alike: stripes tell one from the other."""
    values = np.array([[-1.0, -1.0, 0.0, 0.0, 1.0, 1.0]])
    for made in (
        heat_map(flat(120), values, low=-1, high=1, colormap="RdBu_r", size=size),
        map_alone((64, 64, 3), values, low=-1, high=1, colormap="RdBu_r", size=size),
    ):
        grey = decoded(made).astype(float).mean(axis=2)
        third = size // 3
        parts = [grey[:, k * third + 4 : (k + 1) * third - 4] for k in range(3)]
        against, nothing, in_favour = (float(part[8:-8].std()) for part in parts)
        assert against > 2 * max(nothing, in_favour)


def test_what_has_one_sign_is_not_striped() -> None:
    made = map_alone((64, 64, 3), np.zeros((1, 2)), low=0, high=1, size=64)
    assert np.ptp(decoded(made).reshape(-1, 3), axis=0).max() == 0
