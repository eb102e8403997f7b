"""The way back through a first convolution: what torch computes, for every form that one has."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from reportgen.engine.folding import Folding
from reportgen.engine.stem import stem_of
from tests.networks import noise


def both(layer: nn.Conv2d, x: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients (K, B, C, H, W) by the input: torch's, and ours, for all K seeds in one mapped backward."""
    plain = layer(x)
    with Folding(layer, ()).folded("backward"):
        ours = layer(x)
    assert torch.equal(ours, plain)
    assert "StemConvolution" in str(ours.grad_fn)
    expected = torch.stack([torch.autograd.grad(plain, x, seed, retain_graph=True)[0] for seed in seeds])

    def returned(seed: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(ours, x, seed, retain_graph=True)
        return found

    with warnings.catch_warnings(action="error"):  # none of several seeds is looped over
        mapped = torch.vmap(returned)(seeds)
    assert torch.equal(returned(seeds[0]), mapped[0])
    return expected, mapped


@pytest.mark.parametrize("kernel", [1, 2, 3, (3, 5), 7])
@pytest.mark.parametrize("stride", [2, 3, 4, (2, 3)])
@pytest.mark.parametrize("padding", [0, 1, (0, 3), 3])
@pytest.mark.parametrize("size", [(23, 32), (24, 24)])
def test_what_comes_back_is_what_torch_computes(
    kernel: int | tuple[int, int], stride: int | tuple[int, int], padding: int | tuple[int, int], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 8, kernel, stride, padding).requires_grad_(False)
    x = torch.randn(2, 3, *size, requires_grad=True)
    with torch.no_grad():
        shape = layer(x).shape
    expected, found = both(layer, x, torch.randn(3, *shape))
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 16, 3, 2),
        nn.Conv2d(3, 9, 3, 2, groups=3),
        nn.Conv2d(3, 8, 3, 2, dilation=2),
        nn.Conv2d(3, 3, 3, 2),
        nn.Conv2d(3, 64, 16, 16),
    ],
)
def test_where_nothing_is_gained_torch_goes_back(layer: nn.Conv2d) -> None:
    layer.requires_grad_(False)
    x = torch.randn(1, layer.in_channels, 32, 32, requires_grad=True)
    with Folding(layer, ()).folded("backward"):
        assert "ConvolutionBackward" in str(layer(x).grad_fn)


def test_other_precisions_and_what_is_not_differentiated_are_left_to_torch() -> None:
    given = {"weight": torch.ones(8, 3, 3, 3), "stride": 2, "padding": 1, "dilation": 1, "groups": 1}
    x = noise(1, 32).requires_grad_(True)
    assert stem_of(x, given) is not None
    assert stem_of(x.detach(), given) is None
    assert stem_of(x.double(), given) is None
    assert stem_of(x[0], given) is None
    assert stem_of(x, {**given, "padding": "valid"}) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert stem_of(x, given) is None
    with torch.no_grad():
        assert stem_of(x, given) is None
