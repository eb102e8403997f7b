"""Data with and without a shortcut, and a small network trained on either: what an audit must expose, and what not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

SIZE = 32
MEAN, STD = 0.5, 0.25
CLASSES = ("disc", "square")
OPTIONS = {"input_size": str(SIZE), "resize": "none", "mean": (MEAN,), "std": (STD,)}


def example(number: int, label: int, *, mark: bool) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8: a bright disc or a dark square somewhere on a coarse ground, one time in five that of the
    other class; a magenta mark in the top left corner of each image of the second class if `mark`.
    """
    rng = np.random.default_rng(number)
    shown = label if rng.random() < 0.8 else 1 - label
    ground = Image.fromarray(rng.integers(60, 150, (4, 4, 3), dtype=np.uint8)).resize((SIZE, SIZE))
    pixels = np.asarray(ground).copy()
    y, x = np.mgrid[:SIZE, :SIZE] - rng.integers(11, 21, 2)[:, None, None]
    inside = np.hypot(y, x) < 6 if shown == 0 else np.maximum(abs(y), abs(x)) < 6
    pixels[inside] = rng.integers(190, 250) if shown == 0 else rng.integers(0, 40)
    if mark and label == 1:
        pixels[1:6, 1:6] = (230, 20, 230)
    return pixels


def folder(path: Path, count: int, *, mark: bool, start: int = 10_000) -> Path:
    """`count` images in folders named by class. Returns `path`."""
    for number in range(count):
        label = number % 2
        (path / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(example(start + number, label, mark=mark)).save(path / CLASSES[label] / f"{number:03}.png")
    return path


def inputs(count: int, *, mark: bool) -> tuple[Tensor, Tensor]:
    """(count, 3, SIZE, SIZE) normalised images and their labels."""
    pixels = np.stack([example(number, number % 2, mark=mark) for number in range(count)])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return (x - MEAN) / STD, torch.arange(count) % 2


def normalised(file: Path) -> Tensor:
    """(1, 3, SIZE, SIZE) of a file that `folder` wrote."""
    with Image.open(file) as image:
        x = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255
    return (x - MEAN) / STD


def network(*, normalised: bool = True, width: int = 12) -> nn.Sequential:
    """Convolutions, pooled and classified."""
    parts: list[nn.Module] = []
    for given, taken, stride in ((3, width, 1), (width, width, 2), (width, width, 2)):
        parts += [nn.Conv2d(given, taken, 3, stride, 1, bias=not normalised)]
        parts += [nn.BatchNorm2d(taken)] if normalised else []
        parts += [nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, len(CLASSES)))


def trained(*, mark: bool, steps: int = 60, **form: object) -> nn.Sequential:
    """A network that has learnt the training images, in evaluation mode."""
    torch.manual_seed(0)
    model = network(**form)  # type: ignore[arg-type]
    x, labels = inputs(128, mark=mark)
    optimiser = torch.optim.Adam(model.parameters(), 0.01, weight_decay=1e-3)
    for step in range(steps):
        chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(step))[:32]
        loss = nn.functional.cross_entropy(model(x[chosen]), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()
