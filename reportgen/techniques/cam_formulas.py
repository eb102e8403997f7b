"""The formulas by which activations and gradients become class activation maps. Tensors in, tensors out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def precise(values: Tensor) -> Tensor:
    """In float64 where the device has it: the sums over channels cancel, behind a layer normalisation almost wholly."""
    return values if values.device.type == "mps" else values.double()


def weighted(activation: Tensor, weight: Tensor) -> Tensor:
    """Σ_k w_k A_k for weights (n,C) or (n,C,h,w)."""
    if weight.dim() == 2:
        return (weight[:, None] @ activation.flatten(2)).reshape(len(activation), *activation.shape[2:])
    return (weight * activation).sum(dim=1)


def grad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """ReLU(Σ_k w_k A_k), w_k = mean_ij G_kij. Selvaraju et al. 2017, eq. 1 and 2. (n,C,h,w) twice → (n,h,w)."""
    return weighted(activation, gradient.mean(dim=(2, 3))).relu()


def grad_cam_pp(activation: Tensor, gradient: Tensor) -> Tensor:
    """ReLU(Σ_k w_k A_k), w_k = Σ_ij α_kij ReLU(G_kij). Chattopadhay et al. 2018, eq. 19.

    α = G² / (2G² + (Σ_ab A_kab) G³) counts only where G > 0, where α·G = G / (2 + G Σ_ab A_kab): the same function,
    without the powers that underflow for small gradients.
    """
    positive = gradient.relu()
    total = activation.sum(dim=(2, 3), keepdim=True)
    share = positive / (positive * total).add_(2)
    return weighted(activation, share.sum(dim=(2, 3))).relu()


def layer_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """ReLU(Σ_k ReLU(G_k) ⊙ A_k). Jiang et al. 2021."""
    return weighted(activation, gradient.relu()).relu()


def hires_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """ReLU(Σ_k G_k ⊙ A_k). Draelos and Carin 2020."""
    return weighted(activation, gradient).relu()


def xgrad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """ReLU(Σ_k w_k A_k), w_k = Σ_ij G_kij A_kij / Σ_ij A_kij, 0 where the sum of A is 0. Fu et al. 2020."""
    total = activation.sum(dim=(2, 3))
    weight = (gradient * activation).sum(dim=(2, 3)) / total
    return weighted(activation, weight.where(total != 0, 0.0)).relu()


GRADIENT_METHODS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "grad_cam": grad_cam,
    "grad_cam_pp": grad_cam_pp,
    "layer_cam": layer_cam,
    "hires_cam": hires_cam,
    "xgrad_cam": xgrad_cam,
}


def maps_by_gradient(activation: Tensor, gradient: Tensor, methods: Sequence[str]) -> dict[str, Tensor]:
    """(n,h,w) by method, on a CPU image by image: what they work on then stays in the processor's cache."""
    import torch

    size = 1 if activation.device.type == "cpu" else len(activation)
    found: dict[str, list[Tensor]] = {name: [] for name in methods}
    for one, other in zip(torch.split(activation, size), torch.split(gradient, size), strict=True):
        both = precise(one), precise(other)
        for name in methods:
            found[name].append(GRADIENT_METHODS[name](*both).float())
    return {name: torch.cat(maps) for name, maps in found.items()}
