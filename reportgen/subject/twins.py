"""Layers of training frameworks, written here: a whole model that such a framework pickled opens without its code.

A class of fastai or Ultralytics in a file is never imported. Where the layer is simple and its file holds all its
parts, a twin computes what the framework's documentation says of it; tests compare the two where the framework is
installed. A twin is called as its users know it from the framework, since reports name layers by their
class. It takes the file's submodules and of its other attributes those that it declares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from reportgen.errors import ModelFileError


class Twin(nn.Module):
    """One such layer; `takes` names the attributes that are read from the file."""

    takes: ClassVar[tuple[str, ...]] = ()


# fastai
# ---------------------------------------------------------------------------------------------------------------


class AdaptiveConcatPool2d(Twin):
    """Maximum and mean over positions beside each other: (n, C, h, w) to (n, 2·C, 1, 1)."""

    mp: nn.Module
    ap: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.mp(x), self.ap(x)), dim=1)


class Flatten(Twin):
    """(n, …) to (n, product of the rest)."""

    takes = ("full",)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten() if getattr(self, "full", False) else x.flatten(1)


# Ultralytics
# -----------------------------------------------------------------------------------------------------------


class Conv(Twin):
    """Convolution, batch normalisation (which a fused model has no more) and activation."""

    takes = ("f",)
    conv: nn.Module
    bn: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z: Tensor = self.act(self.bn(y) if "bn" in self._modules else y)
        return z


class Bottleneck(Twin):
    """Two convolutions, with the input added where the shapes allow."""

    takes = ("f", "add")
    cv1: nn.Module
    cv2: nn.Module
    add: bool

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        z: Tensor = x + y if self.add else y
        return z


class C2f(Twin):
    """One half of the channels stays; the other goes through blocks in a row, and all their outputs are kept."""

    takes = ("f",)
    cv1: nn.Module
    cv2: nn.Module
    m: nn.ModuleList

    def forward(self, x: Tensor) -> Tensor:
        kept = list(self.cv1(x).chunk(2, dim=1))
        for block in self.m:
            kept.append(block(kept[-1]))
        y: Tensor = self.cv2(torch.cat(kept, dim=1))
        return y


class C3(Twin):
    """Blocks in a row beside a single convolution."""

    takes = ("f",)
    cv1: nn.Module
    cv2: nn.Module
    cv3: nn.Module
    m: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), dim=1))
        return y


class SelfAttention(Twin):
    """Attention among positions; the values, convolved by channel, are added as their place (PSA)."""

    takes = ("num_heads", "head_dim", "key_dim", "scale")
    num_heads: int
    head_dim: int
    key_dim: int
    scale: float
    qkv: nn.Module
    proj: nn.Module
    pe: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        parts = [self.key_dim, self.key_dim, self.head_dim]
        together = self.qkv(x).reshape(n, self.num_heads, sum(parts), height * width)
        query, key, value = together.split(parts, dim=2)
        weights = (query.transpose(-2, -1) @ key * self.scale).softmax(dim=-1)
        mixed = (value @ weights.transpose(-2, -1)).reshape(n, channels, height, width)
        y: Tensor = self.proj(mixed + self.pe(value.reshape(n, channels, height, width)))
        return y


class AttentionBlock(Twin):
    """Attention, then two convolutions by position, each added to its input where the file says so."""

    takes = ("add",)
    add: bool
    attn: nn.Module
    ffn: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x) if self.add else self.attn(x)
        y: Tensor = x + self.ffn(x) if self.add else self.ffn(x)
        return y


class C2PSA(Twin):
    """Attention blocks on one half of the channels."""

    takes = ("f",)
    cv1: nn.Module
    cv2: nn.Module
    m: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.cv1(x).chunk(2, dim=1)
        y: Tensor = self.cv2(torch.cat((one, self.m(other)), dim=1))
        return y


class Classify(Twin):
    """Convolution, mean over positions, one linear layer; probabilities, as the framework returns them."""

    takes = ("f",)
    conv: nn.Module
    pool: nn.Module
    drop: nn.Module
    linear: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.linear(self.drop(self.pool(self.conv(x)).flatten(1)))
        return scores.softmax(dim=1)


class ClassificationModel(Twin):
    """The network: its layers in a row."""

    model: nn.Sequential

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.model:
            if getattr(layer, "f", -1) != -1:
                raise ModelFileError("the network's layers are not in a row", "open it with --trust-model")
            x = layer(x)
        return x


_BLOCK, _CONV = "ultralytics.nn.modules.block.", "ultralytics.nn.modules.conv."
TWINS: Mapping[str, type[Twin]] = {
    "fastai.layers.AdaptiveConcatPool2d": AdaptiveConcatPool2d,
    "fastai.layers.Flatten": Flatten,
    f"{_CONV}Conv": Conv,
    f"{_CONV}DWConv": Conv,
    f"{_BLOCK}Bottleneck": Bottleneck,
    f"{_BLOCK}C2f": C2f,
    f"{_BLOCK}C3k2": C2f,
    f"{_BLOCK}C3": C3,
    f"{_BLOCK}C3k": C3,
    f"{_BLOCK}Attention": SelfAttention,
    f"{_BLOCK}PSABlock": AttentionBlock,
    f"{_BLOCK}C2PSA": C2PSA,
    "ultralytics.nn.modules.head.Classify": Classify,
    "ultralytics.nn.tasks.ClassificationModel": ClassificationModel,
}
"""Class paths in files to what takes their place."""


def twin_of(path: str) -> type[Twin] | None:
    """The twin of a class that a file names, or None."""
    return TWINS.get(path)


def twins_in(foreign: Any) -> tuple[str, ...]:
    """Those of the names that a twin takes the place of."""
    return tuple(path for path in foreign if path in TWINS)
