"""Colour tables agree with matplotlib's, keep their order in grey print, and colours are exact."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from reportgen.errors import UsageError
from reportgen.figures.colour import (
    DIVERGING,
    MID_GREY,
    NAMES,
    SEQUENTIAL,
    UNIFORM,
    colourise,
    gradient_png,
    levels,
    table,
    unit_range,
)

PERCEPTUAL = ("inferno", "viridis", "magma", "cividis", "grey")


def lightness(colours: np.ndarray) -> np.ndarray:
    """CIE 1976 L* (D65) of sRGB colours (n, 3) uint8."""
    encoded = colours / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    y = linear @ (0.2126, 0.7152, 0.0722)
    return np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, y * (29 / 3) ** 3)


@pytest.mark.parametrize("name", NAMES)
def test_tables_agree_with_matplotlib(name: str) -> None:
    from matplotlib import colormaps

    theirs = colormaps["gray" if name == "grey" else name](np.arange(256), bytes=True)[:, :3]
    # matplotlib truncates to bytes where we round what is interpolated.
    allowed = 1 if name in (*DIVERGING, "grey", "jet") else 0
    assert np.abs(table(name).astype(int) - theirs.astype(int)).max() <= allowed


@pytest.mark.parametrize("name", PERCEPTUAL)
def test_perceptual_tables_are_monotone_in_lightness(name: str) -> None:
    steps = np.diff(lightness(table(name)))
    # Eight bits round each step of about 0.3; none may turn back by more than that rounding.
    assert steps.min() > -0.2
    assert np.all(np.diff(lightness(table(name))[::4]) > 0)


def test_diverging_tables_are_lightest_in_the_middle() -> None:
    light = lightness(table("RdBu"))
    assert np.argmax(light) in (127, 128)
    assert np.all(np.diff(light[:128:4]) > 0)
    assert np.all(np.diff(light[128::4]) < 0)


def test_reversed_diverging_table_is_red_at_the_top() -> None:
    assert np.array_equal(table("RdBu_r"), table("RdBu")[::-1])
    assert table("RdBu_r")[255].tolist() == [103, 0, 31]


def test_tables_cannot_be_written() -> None:
    for name in NAMES:
        with pytest.raises(ValueError, match="read-only"):
            table(name)[0] = 0


def test_unknown_table_names_those_there_are() -> None:
    with pytest.raises(UsageError) as error:
        table("rainbow")
    assert "rainbow" in error.value.thing
    assert all(name in error.value.remedy for name in NAMES)


def test_ends_and_middle_are_exact() -> None:
    colours = colourise(np.array([[-2.0, 0.0, 1.0, 2.0, 9.0, -9.0]]), low=-2, high=2, name="grey")
    assert colours[0, :, 0].tolist() == [0, 128, 191, 255, 255, 0]
    for name in NAMES:
        ends = colourise(np.array([[3.0, 5.0]]), low=3, high=5, name=name)
        assert np.array_equal(ends[0], table(name)[[0, 255]])


@pytest.mark.parametrize("high", [1.0, 0.5])
def test_an_empty_range_takes_the_lowest_colour(high: float) -> None:
    colours = colourise(np.array([[0.0, 1.0, 7.0]]), low=1, high=high, name="viridis")
    assert np.array_equal(colours[0], table("viridis")[[0, 0, 0]])


def test_what_is_not_a_number_is_grey_and_infinities_are_ends() -> None:
    values = np.array([[np.nan, np.inf, -np.inf]])
    colours = colourise(values, low=0, high=1, name="inferno")
    assert colours[0, 0].tolist() == [MID_GREY] * 3
    assert np.array_equal(colours[0, 1:], table("inferno")[[255, 0]])
    assert colourise(values[:, :1], low=0, high=0, name="inferno")[0, 0].tolist() == [MID_GREY] * 3


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (np.array([0, 1e-42, 2e-42], dtype=np.float32), 0.0, float(np.float32(2e-42))),
        (np.array([-1.7e308, 0, 1.7e308]), -1.7e308, 1.7e308),
        (np.array([-6e4, 0, 6e4], dtype=np.float16), -6e4, 6e4),
        (np.array([0, 1, 2], dtype=np.uint8), 0.0, 2.0),
    ],
    ids=["subnormal", "huge", "half", "integers"],
)
def test_range_of_any_magnitude_and_type(values: np.ndarray, low: float, high: float) -> None:
    assert unit_range(values, low=low, high=high) == pytest.approx([0, 0.5, 1], abs=1e-3)


def test_outliers_do_not_overflow() -> None:
    unit = unit_range(np.array([1e300, -1e300]), low=0, high=1e-300)
    assert np.isfinite(unit).all()
    assert levels(unit).tolist() == [255, 0]


@pytest.mark.parametrize(("low", "high"), [(0.0, np.inf), (np.nan, 1.0)])
def test_a_range_that_is_not_finite_is_an_error(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        unit_range(np.zeros(1), low=low, high=high)


@pytest.mark.parametrize("name", NAMES)
def test_colour_bar_holds_the_table(name: str) -> None:
    picture = gradient_png(name)
    with Image.open(io.BytesIO(picture.data)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (256, 1))
        assert np.array_equal(np.array(image)[0], table(name))
    assert (picture.width, picture.height, picture.media) == (256, 1, "image/png")


def test_uniform_tables_grow_lighter_evenly_and_jet_does_not() -> None:
    def lightness(name: str) -> np.ndarray:
        """CIE L*, of sRGB."""
        unit = table(name) / 255
        linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
        y = linear @ np.array([0.2126, 0.7152, 0.0722])
        return np.asarray(np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y))

    for name in UNIFORM:
        steps = np.diff(lightness(name)[::15])
        assert (steps > 0).all()
        assert steps.max() < 4 * np.median(steps)
    assert (np.diff(lightness("jet")[::15]) < 0).any()
    assert set(SEQUENTIAL) - set(UNIFORM) == {"jet"}
