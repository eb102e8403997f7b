"""Pictures, steps and moves of an ascent against slow derivations from their formulas."""

from __future__ import annotations

import cmath
import math
from itertools import product

import pytest
import torch
from torch import Tensor

from reportgen.engine.parametrisation import (
    COLOURS,
    Pixels,
    Spectrum,
    affine,
    drawn_moves,
    moved,
    rate_of,
)

CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def synthesis(coefficients: Tensor, height: int, width: int) -> Tensor:
    """σ of the sum of waves, written out: every coefficient but those of a real column stands for its mirror too."""
    picture = torch.zeros(height, width, dtype=torch.float64)
    for u, v in product(range(height), range(width // 2 + 1)):
        down = (u if u < (height + 1) // 2 else u - height) / height
        frequency = max(math.hypot(down, v / width), 1 / max(height, width))
        twice = 1 if v == 0 or 2 * v == width else 2
        value = complex(*coefficients[u, v].tolist()) / (4 * frequency) * twice
        for p, q in product(range(height), range(width)):
            picture[p, q] += (value * cmath.exp(2j * math.pi * (u * p / height + v * q / width))).real
    return picture / math.sqrt(height * width)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 4), (3, 7)])
def test_spectrum_is_the_formula(height: int, width: int) -> None:
    for channels in (1, 3, 5):
        style = Spectrum((channels, height, width), CPU, 1)
        parameters = 50 * torch.stack([style.start(seeded(seed)) for seed in (1, 2)])
        pictures = style.pictures(parameters)
        assert pictures.shape == (2, channels, height, width)
        planes = torch.stack([synthesis(one, height, width) for one in parameters.flatten(0, 1)])
        planes = planes.reshape(2, channels, height, width)
        if channels == 3:
            root = torch.tensor(COLOURS, dtype=torch.float64)
            longest = max(math.sqrt(sum(float(x) ** 2 for x in column)) for column in root.T)
            mixed = torch.zeros_like(planes)
            for colour, coordinate in product(range(3), range(3)):
                mixed[:, colour] += float(root[colour, coordinate]) / longest * planes[:, coordinate]
            planes = mixed
        assert torch.allclose(pictures.double(), planes.sigmoid(), atol=1e-5)


def test_spectrum_steps_as_adam() -> None:
    style = Spectrum((3, 6, 8), CPU, 6)
    ours = torch.stack([style.start(seeded(seed)) for seed in (1, 2)])
    theirs = ours.clone().requires_grad_(True)
    adam = torch.optim.Adam([theirs], lr=0.1, betas=(0.5, 0.999))
    for step, rate in enumerate((0.1, 0.1, 0.1, 0.1, 0.2 / 3, 0.1 / 3)):
        adam.param_groups[0]["lr"] = rate
        gradient = torch.randn(ours.shape, generator=seeded(step))
        theirs.grad = -gradient
        adam.step()
        ours = style.climbed(ours, gradient)
        assert torch.allclose(ours, theirs.detach(), atol=1e-6)


def test_fewer_steps_are_longer_within_bounds() -> None:
    assert [rate_of(1, steps) for steps in (16, 50, 100, 200, 512)] == [0.1, 0.1, 0.1, 0.05, 0.05]
    assert rate_of(64, 64) == pytest.approx(0.1 * 2 / 64)


def test_pixels_step_by_hand() -> None:
    style = Pixels((1, 1, 4))
    parameters = torch.tensor([[[[0.5, 0.5, 0.995, 0.001]]], [[[0.1, 0.2, 0.3, 0.4]]]])
    gradient = torch.tensor([[[[3.0, -4.0, 12.0, 0.0]]], [[[0.0, 0.0, 0.0, 0.0]]]])
    root = math.sqrt((9 + 16 + 144 + 0) / 4)
    expected = [0.5 + 0.02 * 3 / root, 0.5 - 0.02 * 4 / root, 1.0, 0.001]
    climbed = style.climbed(parameters, gradient)
    assert torch.allclose(climbed[0, 0, 0], torch.tensor(expected))
    assert torch.equal(climbed[1], parameters[1])  # nothing leads upwards: nothing moves


def test_no_move_is_no_change() -> None:
    pictures = torch.rand(2, 3, 9, 14, generator=seeded())
    still = torch.tensor([[0.0, 0, 0, 0, 1, 0]] * 2)
    assert torch.allclose(moved(pictures, affine(still, 9, 14)), pictures, atol=1e-6)


@pytest.mark.parametrize("place", [0, 2])
def test_a_shift_is_a_crop_of_the_padded_picture(place: int) -> None:
    pictures = torch.rand(2, 3, 9, 14, generator=seeded())
    padded = torch.nn.functional.pad(pictures, (12, 12, 12, 12), value=0.5)
    moves = torch.zeros(2, 6)
    moves[:, 4] = 1
    shifts = [(3, -5), (-8, 2)]
    for row, shift in enumerate(shifts):
        moves[row, place : place + 2] = torch.tensor(shift, dtype=torch.float32)
    found = moved(pictures, affine(moves, 9, 14))
    for row, (down, across) in enumerate(shifts):
        # what comes to stand at (i, j) stood at (i − down, j − across)
        expected = padded[row, :, 12 - down : 21 - down, 12 - across : 26 - across]
        assert torch.allclose(found[row], expected, atol=1e-5)


def test_a_quarter_turn_and_a_doubling() -> None:
    pictures = torch.rand(1, 1, 8, 8, generator=seeded())
    turn = torch.tensor([[0.0, 0, 0, 0, 1, math.pi / 2]])
    assert torch.allclose(moved(pictures, affine(turn, 8, 8)), pictures.rot90(-1, dims=(2, 3)), atol=1e-5)
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    doubled = moved(ramp, affine(torch.tensor([[0.0, 0, 0, 0, 2, 0]]), 8, 8))
    assert torch.allclose(doubled[0, 0, 0], (torch.arange(8.0) - 3.5) / 2 + 3.5, atol=1e-5)


def test_moves_follow_one_another() -> None:
    """On a slanted plane interpolation is exact, so each pixel shows where it came from."""
    height, width = 40, 60
    down, across = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    planes = torch.stack((down, across))[None] / 100
    moves = torch.tensor([[3.0, -2, -4, 1, 1.1, 0.15]])
    found = moved(planes, affine(moves.double(), height, width).float())[0] * 100
    for i, j in ((12, 20), (20, 30), (27, 41)):
        y, x = i - (height - 1) / 2, j - (width - 1) / 2
        y, x = y - moves[0, 2], x - moves[0, 3]  # the second shift undone
        cos, sin = math.cos(0.15), math.sin(0.15)
        y, x = (-sin * x + cos * y), (cos * x + sin * y)  # the turn undone
        y, x = y / 1.1, x / 1.1
        y, x = y - moves[0, 0], x - moves[0, 1]
        assert float(found[0, i, j]) == pytest.approx(float(y) + (height - 1) / 2, abs=1e-3)
        assert float(found[1, i, j]) == pytest.approx(float(x) + (width - 1) / 2, abs=1e-3)


def test_moves_are_drawn_for_each_step_within_their_bounds() -> None:
    moves = drawn_moves(seeded(), 400)
    assert moves.shape == (400, 6)
    for column, reach in ((0, 8), (1, 8), (2, 4), (3, 4)):
        assert torch.equal(moves[:, column].unique(), torch.arange(-reach, reach + 1.0))
    assert 0.9 <= float(moves[:, 4].min()) < 0.91 < 1.09 < float(moves[:, 4].max()) <= 1.1
    assert float(moves[:, 5].abs().max()) <= math.radians(10)
    assert float(moves[:, 5].min()) < 0 < float(moves[:, 5].max())
    assert len(moves.unique(dim=0)) == 400
    assert not torch.equal(moves, drawn_moves(seeded(1), 400))
    assert torch.equal(moves, drawn_moves(seeded(), 400))
