"""Images that give way and come back, derived by hand."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import gaussian_filter

from reportgen.engine.fading import blurred, faded, ranked
from reportgen.engine.requests import Fading

IMAGE = torch.tensor([[[[8.0, 4.0], [2.0, 2.0]]]])  # its mean is 4
MAP = torch.tensor([[[0.0, 3.0], [1.0, 2.0]]])


def test_deletion_puts_the_mean_where_the_map_is_highest_first() -> None:
    found = list(faded(IMAGE, [MAP], Fading("deletion", 4, 1)))
    assert [place for _inputs, place in found] == [None, (0, 1), (0, 2), (0, 3)]
    images = [inputs[0, 0].tolist() for inputs, _place in found]
    assert images == [[[4, 4], [4, 4]], [[8, 4], [2, 2]], [[8, 4], [2, 4]], [[8, 4], [4, 4]]]


def test_insertion_begins_with_a_blur_and_brings_the_highest_back_first() -> None:
    (blur, _end), (first, _one), (second, _two), (third, _three) = faded(IMAGE, [MAP], Fading("insertion", 4, 1))
    assert torch.equal(blur, blurred(IMAGE, 0.1))
    expected = blur.clone()
    for inputs, (row, column) in ((first, (0, 1)), (second, (1, 1)), (third, (1, 0))):
        expected[..., row, column] = IMAGE[..., row, column]
        assert torch.equal(inputs, expected)


def test_a_mask_lies_on_the_mean() -> None:
    ((inputs, _place),) = faded(IMAGE, [MAP + 5], Fading("masking", 1, 1))
    assert torch.allclose(inputs[0, 0], torch.tensor([[4.0, 4.0], [4 - 2 / 3, 4 - 4 / 3]]))
    ((flat, _place),) = faded(IMAGE, [torch.ones(1, 2, 2)], Fading("masking", 1, 1))
    assert torch.equal(flat, torch.full_like(IMAGE, 4.0))


def test_counts_are_those_that_are_planned() -> None:
    images = torch.randn(2, 3, 20, 30)
    maps = [torch.rand(2, 5, 5), torch.rand(2, 7, 9)]
    for request in (Fading("deletion", 10, 2), Fading("insertion", 3, 2), Fading("masking", 1, 2)):
        found = list(faded(images, maps, request))
        assert len(found) == request.count
        assert all(inputs.shape == images.shape for inputs, _place in found)
    gone = [
        int((inputs[0] != images[0]).any(dim=0).sum()) for inputs, _p in faded(images, maps, Fading("deletion", 10, 2))
    ]
    assert gone == [600, *range(60, 600, 60), *range(60, 600, 60)]


def test_of_equal_values_a_draw_decides_and_what_is_no_number_comes_last() -> None:
    flat = ranked(torch.zeros(1, 10, 10))[0]
    assert sorted(flat.tolist()) == list(range(100))
    rows = torch.arange(100)[flat < 50] // 10
    assert 15 < int((rows < 5).sum()) < 35  # in the order of rows it would be 50
    broken = torch.tensor([[[1.0, torch.nan], [torch.inf, -3.0]]])
    assert ranked(broken)[0].tolist() == [1, 3, 0, 2]


def test_blur_is_a_gaussian() -> None:
    image = torch.randn(1, 2, 40, 50, dtype=torch.float64)
    for place in range(2):
        expected = gaussian_filter(image[0, place].numpy(), 2.0, mode="nearest", truncate=3.0)
        assert blurred(image, 2.0)[0, place].numpy() == pytest.approx(expected, abs=1e-12)
