"""How an ascent writes its pictures, steps upwards, and moves them before the model sees them.

``plain`` (Erhan et al. 2009): pixels, steps along the normalised gradient. ``robust`` (Olah et al. 2017): Fourier
coefficients scaled by 1/f with decorrelated colours, steps by Adam (Kingma and Ba 2015), and pictures that are moved,
scaled and turned at random before every step.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

import torch
from torch import Tensor
from torch.nn import functional

GREY: Final = 0.5
"""What surrounds a moved picture, and what noise starts from."""

JITTER: Final = (8, 4)
"""Pixels by which a picture is shifted at most, to either side: before it is scaled and turned, and afterwards."""
SCALE: Final = (0.9, 1.1)
ROTATION: Final = 10.0
"""Degrees, to either side."""

PIXEL_NOISE: Final = 0.05
PIXEL_STEP: Final = 0.02
"""Root of the mean square by which one step of plain ascent changes the pixels (before they are cut to [0, 1])."""
SPECTRUM_NOISE: Final = 0.01
SPECTRUM_DIVISOR: Final = 4.0
"""Keeps sigmoids out of saturation."""
ADAM_RATES: Final = (0.05, 0.1)
"""The least, that of Olah et al., and the greatest."""
ADAM_PATH: Final = 10.0
"""How far a coefficient may go in all steps together: fewer steps are longer, so that few lead as far as many."""
ADAM_DECAYS: Final = (0.5, 0.999)
"""Less momentum than is usual (0.9): the picture is moved before every step, and where an old gradient pointed leads
astray. On EfficientNet-Lite0, 16 steps then reach what Lucent's defaults reach in 64.
"""
ADAM_EPSILON: Final = 1e-8

COLOURS: Final = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""Root of the covariance of colours in photographs: red, green, blue (rows) of three independent coordinates (Olah et
al. 2017, code). Divided by its longest column before use.
"""


class Parametrisation(Protocol):
    """Parameters of a batch of pictures, one row a picture; rows never touch one another."""

    def start(self, generator: torch.Generator) -> Tensor:
        """Parameters of one picture of noise, on the CPU."""

    def pictures(self, parameters: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1], differentiable."""

    def climbed(self, parameters: Tensor, gradient: Tensor) -> Tensor:
        """Parameters after one more step along `gradient`."""


class Pixels:
    """The picture itself; a step goes along the gradient divided by its root mean square, then values are cut to
    [0, 1].

    Args:
        shape: (C, H, W).
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._shape = shape

    def start(self, generator: torch.Generator) -> Tensor:
        return (GREY + PIXEL_NOISE * torch.randn(self._shape, generator=generator)).clamp_(0, 1)

    def pictures(self, parameters: Tensor) -> Tensor:
        return parameters

    def climbed(self, parameters: Tensor, gradient: Tensor) -> Tensor:
        size = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        # a gradient of zero stays zero: nothing leads upwards
        return (parameters + PIXEL_STEP * gradient / size.masked_fill(size == 0, 1.0)).clamp_(0, 1)


class Spectrum:
    """Coefficients of a real Fourier transform, of independent colours, made a picture by a sigmoid.

    x = σ(M · irfft2(z / max(f, 1/max(H, W))) / 4), f in cycles a pixel, the transform orthonormal, M the root of the
    covariance of natural colours (for three channels; otherwise channels are independent).

    Args:
        shape: (C, H, W).
        device: of the pictures.
        steps: how many there will be.
    """

    def __init__(self, shape: tuple[int, int, int], device: torch.device, steps: int) -> None:
        channels, height, width = self._shape = shape
        down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
        frequencies = (down.square() + across.square()).sqrt().clamp_min(1 / max(height, width))
        self._scale = (1 / (SPECTRUM_DIVISOR * frequencies)).to(device)
        colours = torch.tensor(COLOURS, device=device)
        self._colours = colours / colours.norm(dim=0).max() if channels == 3 else None
        self._moments: tuple[Tensor, Tensor] | None = None
        self._steps, self._step = steps, 0

    def start(self, generator: torch.Generator) -> Tensor:
        channels, height, width = self._shape
        return SPECTRUM_NOISE * torch.randn(channels, height, width // 2 + 1, 2, generator=generator)

    def pictures(self, parameters: Tensor) -> Tensor:
        coefficients = torch.view_as_complex(parameters) * self._scale
        picture: Tensor = torch.fft.irfft2(coefficients, s=self._shape[1:], norm="ortho")
        if self._colours is not None:
            picture = torch.einsum("dc,nchw->ndhw", self._colours, picture)
        return picture.sigmoid()

    def climbed(self, parameters: Tensor, gradient: Tensor) -> Tensor:
        if self._moments is None:
            self._moments = torch.zeros_like(gradient), torch.zeros_like(gradient)
        first, second = self._moments
        self._step += 1
        fast, slow = ADAM_DECAYS
        first.lerp_(gradient, 1 - fast)
        second.mul_(slow).addcmul_(gradient, gradient, value=1 - slow)
        denominator = (second / (1 - slow**self._step)).sqrt_().add_(ADAM_EPSILON)
        rate: float = rate_of(self._step, self._steps) / (1 - fast**self._step)
        return parameters.addcdiv(first, denominator, value=rate)


def rate_of(step: int, steps: int) -> float:
    """Rate of the `step`-th of `steps` steps, from 1: level during the first half, then falling evenly towards 0."""
    least, greatest = ADAM_RATES
    level = min(greatest, max(least, ADAM_PATH / steps))
    return level * min(1.0, 2 * (1 - (step - 1) / steps))


def drawn_moves(generator: torch.Generator, steps: int) -> Tensor:
    """(steps, 6) random moves of one picture: two shifts down and across in whole pixels, scale, and turn in radians.

    Columns: shift before (2), shift after (2), scale, turn.
    """
    shifts = [torch.randint(-reach, reach + 1, (steps, 2), generator=generator).float() for reach in JITTER]
    low, high = SCALE
    scale = low + (high - low) * torch.rand(steps, 1, generator=generator)
    turn = math.radians(ROTATION) * (2 * torch.rand(steps, 1, generator=generator) - 1)
    return torch.cat((*shifts, scale, turn), dim=1)


def affine(moves: Tensor, height: int, width: int) -> Tensor:
    """Moves (…, 6) as matrices (…, 2, 3) that say, in the coordinates of `grid_sample`, where each pixel comes from.

    All moves of one step are one matrix, so a picture is sampled once. From where a pixel p (from the centre, in
    pixels) comes: R⁻¹(p − shift after) / scale − shift before.
    """
    before_down, before_across, after_down, after_across, scale, turn = moves.unbind(-1)
    cos, sin = turn.cos() / scale, turn.sin() / scale
    across = -(cos * after_across + sin * after_down) - before_across
    down = -(-sin * after_across + cos * after_down) - before_down
    # half a side is 1 in the coordinates of grid_sample
    rows = (
        torch.stack((cos, sin * (height / width), across * (2 / width)), dim=-1),
        torch.stack((-sin * (width / height), cos, down * (2 / height)), dim=-1),
    )
    return torch.stack(rows, dim=-2)


def moved(pictures: Tensor, matrices: Tensor) -> Tensor:
    """Pictures (B, C, H, W), each by its own matrix (B, 2, 3); grey comes in from outside. Differentiable."""
    grid = functional.affine_grid(matrices, list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures - GREY, grid, padding_mode="zeros", align_corners=False) + GREY
