"""Mild changes against Pillow and by hand."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reportgen.engine.perturbations import perturbed
from reportgen.engine.requests import Perturbed

PIPELINE: dict[str, Any] = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "bgr": False, "transform": None}
MEAN, STD = (torch.tensor(PIPELINE[name])[:, None, None] for name in ("mean", "std"))


@pytest.fixture
def plain() -> torch.Tensor:
    """(2, 3, 24, 30) in 0..1, 8 bits."""
    return torch.randint(0, 256, (2, 3, 24, 30), generator=torch.Generator().manual_seed(0)) / 255


def changed(plain: torch.Tensor, change: Perturbed, **pipeline: Any) -> torch.Tensor:
    """In 0..1 again."""
    return perturbed((plain - MEAN) / STD, change, {**PIPELINE, **pipeline}) * STD + MEAN


def test_brightness_is_added_and_cut(plain: torch.Tensor) -> None:
    found = changed(plain, Perturbed("brightness", -0.1))
    assert torch.allclose(found, (plain - 0.1).clamp(0, 1), atol=1e-6)


def test_jpeg_is_that_of_pillow(plain: torch.Tensor) -> None:
    for bgr in (False, True):
        found = changed(plain, Perturbed("jpeg", 75), bgr=bgr)
        for image, one in zip(plain, found, strict=True):
            colours = image.flip(0) if bgr else image
            file = io.BytesIO()
            pixels = (255 * colours).round().byte().numpy().transpose(1, 2, 0)
            Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=75)
            expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
            assert torch.allclose(one, expected.flip(0) if bgr else expected, atol=1e-6)


def test_a_shift_moves_right_and_down_and_repeats_the_border(plain: torch.Tensor) -> None:
    found = changed(plain, Perturbed("shift", 0.1))  # 2 of 24 pixels
    assert torch.allclose(found[..., 2:, 2:], plain[..., :-2, :-2], atol=1e-6)
    assert torch.allclose(found[..., 0, 2:], plain[..., 0, :-2], atol=1e-6)


def test_noise_is_the_same_for_all_images_and_of_its_size() -> None:
    grey = torch.full((2, 3, 60, 60), 0.5)
    found = changed(grey, Perturbed("noise", 0.04)) - grey
    assert torch.allclose(found[0], found[1])
    assert float(found.std()) == pytest.approx(0.04, rel=0.05)


def test_blur_keeps_the_mean_and_takes_the_contrast(plain: torch.Tensor) -> None:
    found = changed(plain, Perturbed("blur", 0.05))
    assert float(found.mean()) == pytest.approx(float(plain.mean()), abs=0.02)
    assert float(found.std()) < 0.6 * float(plain.std())


@pytest.mark.parametrize("kind", ["brightness", "blur", "noise", "jpeg", "shift"])
def test_inputs_of_other_channels_keep_their_own_range(kind: Any) -> None:
    images = 7 + 5 * torch.randn(2, 5, 20, 20, generator=torch.Generator().manual_seed(1))
    found = perturbed(images, Perturbed(kind, 75 if kind == "jpeg" else 0.05), PIPELINE)
    assert found.shape == images.shape
    assert not torch.equal(found, images)
    for image, one in zip(images, found, strict=True):
        assert float(one.min()) >= float(image.min()) - 1e-4
        assert float(one.max()) <= float(image.max()) + 1e-4
