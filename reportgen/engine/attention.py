"""The attention of a transformer, caught while one forward runs, and multiplied up over its blocks.

Attention rollout (Abnar and Zuidema 2020): with W_l the attention of block l, a mean over heads, and one half of every
token passed on by the residual connection, R = Ã_L ··· Ã_1 with Ã_l = (W_l + I) / 2. Row i of R tells from which
patches token i is mixed. Where a fused kernel keeps its weights to itself, they are computed from its queries and keys;
the forward is not changed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from reportgen.engine.resolution import Attention, Layer
from reportgen.errors import PassError

_WITHOUT = ("bias_k", "bias_v", "attn_mask", "key_padding_mask", "static_k", "static_v")
"""Arguments of `functional.multi_head_attention_forward` that would change the weights; image classifiers give none."""


@dataclass(frozen=True)
class _Call:
    """One computation of attention.

    Attributes:
        queries: (n, heads, queries, d).
        keys: (n, heads, keys, d); None where `queries` are weights (n, heads, queries, keys).
        mask: added to the logits, or, as bool, what may be attended to.
        scale: of the logits.
    """

    queries: Tensor
    keys: Tensor | None = None
    mask: Tensor | None = None
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, queries, keys)."""
        keys = self.queries.shape[3] if self.keys is None else self.keys.shape[2]
        return len(self.queries), self.queries.shape[2], keys

    def weights(self) -> Tensor:
        """(n, queries, keys), means over heads. Image by image: all heads of a batch at once may not fit."""
        return torch.stack([self._of_image(row) for row in range(len(self.queries))])

    def _of_image(self, row: int) -> Tensor:
        query = self.queries[row].float()
        if self.keys is None:
            return query.mean(dim=0)
        key = self.keys[row].float()
        key = key.repeat_interleave(len(query) // len(key), dim=0)  # heads may share their keys
        logits = query @ key.transpose(-2, -1) * self.scale
        if self.mask is not None:
            own = self.mask[min(row, len(self.mask) - 1)] if self.mask.dim() == 4 else self.mask
            logits = logits.masked_fill(~own, float("-inf")) if own.dtype == torch.bool else logits + own
        return logits.softmax(dim=-1).mean(dim=0)


class Attentions(TorchFunctionMode):
    """While active, catches attention however it is computed: by the fused kernel, by `nn.MultiheadAttention`, or by a
    softmax (n, heads, queries, keys).

    Args:
        known: how this model attends; None to note the shapes alone.

    Attributes:
        shapes: (n, queries, keys) of every call.
    """

    def __init__(self, known: Attention | None = None) -> None:
        super().__init__()
        self.shapes: list[tuple[int, int, int]] = []
        self._known = known
        self._product: Tensor | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        result = func(*args, **named)
        with torch.no_grad():
            call = _call(getattr(func, "__name__", ""), args, named, result)
            if call is not None:
                self._note(call)
        return result

    def rollout(self) -> Tensor:
        """(n, h, w) of the tokens that the scores read, a mean over them. Raises PassError if attention was not seen as
        before.
        """
        known, product = self._known, self._product
        if known is None or product is None or len(self.shapes) != known.calls:
            raise PassError("attention went another way than when the model was looked at")
        rows = product if known.pooled else product[:, list(known.read)]
        return rows.mean(dim=1)[:, known.prefix :].reshape(len(rows), *known.grid)

    def _note(self, call: _Call) -> None:
        self.shapes.append(call.shape)
        if self._known is None or call.shape[2] != self._known.tokens:
            return
        weights = call.weights()
        if weights.shape[1] == weights.shape[2]:
            weights = (weights + torch.eye(weights.shape[1], device=weights.device)) / 2
        self._product = weights if self._product is None else weights @ self._product


def _call(name: str, args: Sequence[Any], named: Mapping[str, Any], result: object) -> _Call | None:
    """What a call of a function of torch has to do with attention."""
    if name == "scaled_dot_product_attention":
        return _fused(*args, **named)
    if name == "multi_head_attention_forward":
        return _multihead(args, named)
    if name == "softmax" and isinstance(result, Tensor) and result.dim() == 4:
        return _Call(result.detach())
    return None


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> _Call | None:
    """A call of `functional.scaled_dot_product_attention`."""
    if query.dim() != 4:
        return None
    if is_causal:
        attn_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    return _Call(query.detach(), key.detach(), attn_mask, query.shape[3] ** -0.5 if scale is None else scale)


@cache
def _signature() -> inspect.Signature:
    return inspect.signature(functional.multi_head_attention_forward)


def _multihead(args: Sequence[Any], named: Mapping[str, Any]) -> _Call | None:
    """A call of `functional.multi_head_attention_forward`, whose tensors are (tokens, n, C)."""
    given = _signature().bind(*args, **named).arguments
    tokens, heads = (given["query"], given["key"]), int(given["num_heads"])
    if tokens[0].dim() != 3 or any(given.get(name) is not None for name in _WITHOUT) or given.get("add_zero_attn"):
        return None
    own = given.get("use_separate_proj_weight")
    weights = (given["q_proj_weight"], given["k_proj_weight"]) if own else given["in_proj_weight"].chunk(3)[:2]
    bias = given.get("in_proj_bias")
    biases = (None, None) if bias is None else bias.chunk(3)[:2]
    queries, keys = (
        functional.linear(one, weight, shift).reshape(len(one), one.shape[1], heads, -1).permute(1, 2, 0, 3).detach()
        for one, weight, shift in zip(tokens, weights, biases, strict=True)
    )
    return _Call(queries, keys, None, queries.shape[3] ** -0.5)


def read_attention(
    shapes: Sequence[tuple[int, int, int]],
    layers: Sequence[Layer],
    reads: Callable[[str], Tensor | None],
    images: int,
) -> Attention | None:
    """How a model attends: among all its tokens from block to block; None where it does otherwise.

    Args:
        shapes: of `Attentions`.
        layers: of the model.
        reads: (tokens,) how strongly the scores depend on each token that a layer returns; None if not at all.
        images: in the batch.
    """
    pooled = len(shapes) > 1 and shapes[-1] == (images, 1, shapes[0][2])
    among = shapes[:-1] if pooled else shapes
    tokens = shapes[0][2] if shapes else 0
    if not among or any(shape != (images, tokens, tokens) for shape in among):
        return None
    mixed = [layer for layer in layers if layer.layout == "tokens" and layer.output[0] == tokens]
    for layer in sorted(mixed, key=lambda one: -one.order):
        strength = reads(layer.name)
        if strength is None:
            continue
        read = tuple(torch.nonzero(strength).flatten().tolist()) or tuple(range(layer.prefix, tokens))
        height, width = layer.resolution
        return Attention(len(shapes), tokens, layer.prefix, (height, width), read, pooled)
    return None
