"""A copy of the model whose weights are drawn anew from the output down. The model itself is only read."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from reportgen.engine.requests import Randomised
from reportgen.engine.resolution import Resolution
from reportgen.errors import PassError


class Twin:
    """A copy of `module`, made when it is first wanted, that takes on one set of weights after another.

    Args:
        module: in evaluation mode.
    """

    def __init__(self, module: nn.Module, resolution: Resolution) -> None:
        self._module = module
        self._resolution = resolution
        self._copy: nn.Module | None = None
        self._drawn: dict[tuple[int, str], Tensor] = {}

    def under(self, change: Randomised) -> nn.Module:
        """The copy with the weights that `change` means; it holds until the next call.

        Raises:
            PassError: if the model cannot be copied.
        """
        with torch.inference_mode(False), torch.no_grad():
            if self._copy is None:
                self._copy = _copied(self._module)
            chosen = set(randomised(self._copy, self._resolution, change.above))
            own = dict(self._module.named_parameters())
            for name, tensor in self._copy.named_parameters():
                if tensor.is_floating_point():
                    tensor.copy_(self._anew(change.seed, name, own[name]) if name in chosen else own[name])
        return self._copy

    def _anew(self, seed: int, name: str, own: Tensor) -> Tensor:
        """Normal, with the mean and the spread of the tensor's own values; drawn on the CPU, alike on all devices."""
        if (seed, name) not in self._drawn:
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
            values = own.detach().float()
            spread = float(values.std(correction=0))
            noise = torch.randn(own.shape, generator=generator)
            self._drawn[seed, name] = (noise * spread + float(values.mean())).to(own)
        return self._drawn[seed, name]


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise PassError(f"the model cannot be copied, so its weights cannot be drawn anew: {error}") from error


def randomised(module: nn.Module, resolution: Resolution, above: str | None) -> Iterator[str]:
    """Names of the parameters of all modules that run after layer `above`; of all where that is None.

    What a module holds besides other modules counts with the first of these: where in it, it is used is not known.
    """
    if above is None:
        yield from (name for name, _tensor in module.named_parameters())
        return
    orders = {layer.name: layer.order for layer in resolution.layers if layer.order >= 0}
    limit = orders[above]
    for name, part in module.named_modules():
        if _begins(name, orders) > limit:
            yield from (f"{name}.{own}" if name else own for own, _tensor in part.named_parameters(recurse=False))


def _begins(name: str, orders: dict[str, int]) -> int:
    """In which position a module or, where it holds others, the first of these was called."""
    prefix = f"{name}." if name else ""
    inside = [order for other, order in orders.items() if other.startswith(prefix)]
    if inside or name in orders:
        return min((*inside, *([orders[name]] if name in orders else [])))
    # never called by itself: it works within what holds it
    return -1 if not name else _begins(name.rpartition(".")[0], orders)
