"""Networks with random weights that behave like trained ones: heads are not zero, statistics are those of real
activations.
"""

from __future__ import annotations

import warnings

import torch
import torchvision
from torch import Tensor, nn


def lively(name: str, *, seed: int = 0, classes: int = 1000, size: int = 96) -> nn.Module:
    """A torchvision classifier in evaluation mode whose head and batch-norm statistics have real values."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # GoogLeNet and Inception announce another initialisation
        model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes)
    return enlivened(model, size=size)


def enlivened(model: nn.Module, *, size: int = 96) -> nn.Module:
    """The same module with a head that is not zero and statistics taken from one batch of noise."""
    for part in model.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
            if part.bias is not None:
                nn.init.normal_(part.bias, std=0.1)
        if isinstance(scale := getattr(part, "layer_scale", None), nn.Parameter):
            nn.init.uniform_(scale, 0.2, 1.0)  # fresh ones all but close the branch they stand in
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
            nn.init.uniform_(part.weight, 0.6, 1.4)
            nn.init.normal_(part.bias, std=0.2)
    if any(isinstance(part, nn.BatchNorm2d) for part in model.modules()):
        model.train()
        with torch.no_grad():
            model(noise(4, size))
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 0.1
    return model.eval()


def noise(n: int, size: int, *, seed: int = 1, channels: int = 3) -> Tensor:
    """(n, channels, size, size) images of smooth noise, roughly of unit variance."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, channels, 8, 8, generator=generator)
    fine = torch.randn(n, channels, size, size, generator=generator)
    return nn.functional.interpolate(coarse, size=(size, size), mode="bilinear") + 0.3 * fine
