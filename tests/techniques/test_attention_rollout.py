"""Attention rollout against the plain product of weights taken from the blocks by hand, and maps read from tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import VisionTransformer
from torchvision.models.swin_transformer import SwinTransformer

import reportgen
from reportgen.engine.attention import Attentions
from reportgen.engine.passes import Passes
from reportgen.engine.plan import merge
from reportgen.engine.probe import EngineProbe
from reportgen.engine.requests import Forward
from reportgen.engine.resolution import Attention, Resolution
from reportgen.engine.resolve import resolve
from reportgen.engine.trace import Counts
from reportgen.errors import PassError
from reportgen.techniques.class_activation import ROLLOUT, ClassActivation
from reportgen.techniques.technique import NotApplicable
from tests.networks import enlivened, noise

SIDE = 32
SMALL: dict[str, Any] = {"img_size": SIDE, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}


def torchvision_vit() -> nn.Module:
    return VisionTransformer(
        image_size=SIDE, patch_size=8, num_layers=3, num_heads=3, hidden_dim=24, mlp_dim=32, num_classes=5
    )


def timm_vit(**options: Any) -> nn.Module:
    model: nn.Module = timm.models.VisionTransformer(**{**SMALL, "num_classes": 5, **options})
    return model


def deit(**options: Any) -> nn.Module:
    from timm.models.deit import VisionTransformerDistilled

    model: nn.Module = VisionTransformerDistilled(**SMALL, num_classes=5, **options)
    return model


def hybrid() -> nn.Module:
    from timm.layers import HybridEmbed

    stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1))

    def embed(img_size: int, patch_size: int, in_chans: int, embed_dim: int, **rest: Any) -> nn.Module:
        made: nn.Module = HybridEmbed(stem, img_size, 2, None, None, in_chans, embed_dim, bias=rest.get("bias", True))
        return made

    return timm_vit(embed_layer=embed)


def lively(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = enlivened(make(), size=SIDE)
    for name, parameter in model.named_parameters():
        if "token" in name or "pos_embed" in name or "pos_embedding" in name:
            nn.init.normal_(parameter, std=0.5)
        parameter.requires_grad_(False)
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], int, tuple[int, ...]]] = {
    # prefix tokens, tokens that the scores read
    "torchvision": (torchvision_vit, 1, (0,)),
    "timm": (timm_vit, 1, (0,)),
    "mean of patches": (lambda: timm_vit(class_token=False, global_pool="avg"), 0, tuple(range(16))),
    "class token unread": (lambda: timm_vit(global_pool="avg"), 1, tuple(range(1, 17))),
    "registers": (lambda: timm_vit(reg_tokens=4, global_pool="token"), 5, (0,)),
    "distillation token": (deit, 2, (0, 1)),
    "hybrid": (hybrid, 1, (0,)),
    "normalised queries": (lambda: timm_vit(qk_norm=True), 1, (0,)),
}


def resolved(model: nn.Module, side: int = SIDE) -> Resolution:
    return resolve(
        model,
        facts={"architecture": "test"},
        pipeline={"size": (side, side), "channels": 3},
        labels=(),
        output_kind="auto",
        device="cpu",
        batch_size=2,
        counts=Counts(),
    )


def rolled_out(model: nn.Module, x: Tensor) -> tuple[Resolution, Tensor]:
    """Through the engine, in the forward that gradients are taken from as well."""
    resolution = resolved(model)
    technique = ClassActivation().settled(resolution)
    needs = technique.needs(resolution)
    merged = merge([needs])
    assert merged.attention
    passes = Passes(model, resolution, torch.device("cpu"), Counts())
    trace = passes.forward(x, len(x), taps=merged.taps, wrt=merged.wrt, attention=True)
    trace.backward(0, [0] * len(x), merged.wrt, keep=False)
    assert passes.counts.forward_batches == 1
    probe = EngineProbe(resolution, model, needs, trace, ((0,) * len(x),))
    return resolution, technique.compute(probe)[ROLLOUT]


def by_hand(model: nn.Module, x: Tensor, prefix: int, read: tuple[int, ...]) -> Tensor:
    """From weights of single blocks: `need_weights` of torch, or queries and keys as timm's code makes them."""
    weights: list[Tensor] = []
    handles = []
    for part in model.modules():
        if isinstance(part, nn.MultiheadAttention):

            def torchvisions(module: nn.Module, args: tuple[Any, ...], _out: object) -> None:
                assert isinstance(module, nn.MultiheadAttention)
                plain = nn.MultiheadAttention.forward(module, *args[:3], need_weights=True, average_attn_weights=False)
                weights.append(plain[1].mean(dim=1))

            handles.append(part.register_forward_hook(torchvisions))
        elif type(part).__name__ == "Attention":

            def timms(module: Any, args: tuple[Any, ...], _out: object) -> None:
                n, tokens, width = args[0].shape
                qkv = module.qkv(args[0]).reshape(n, tokens, 3, module.num_heads, width // module.num_heads)
                q, k, _v = qkv.permute(2, 0, 3, 1, 4)
                q, k = module.q_norm(q), module.k_norm(k)
                weights.append(((q * module.scale) @ k.transpose(-2, -1)).softmax(-1).mean(dim=1))

            handles.append(part.register_forward_hook(timms))
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    assert len(weights) == 3
    maps = []
    for row in range(len(x)):
        product = torch.eye(weights[0].shape[1], dtype=torch.float64)
        for weight in weights:
            mixed = 0.5 * weight[row].double() + 0.5 * torch.eye(len(product), dtype=torch.float64)
            product = (mixed / mixed.sum(dim=1, keepdim=True)) @ product
        shares = sum(product[token] for token in read) / len(read)
        assert isinstance(shares, Tensor)
        assert float(shares.sum()) == pytest.approx(1)
        maps.append(shares[prefix:].reshape(4, 4))
    return torch.stack(maps)


@pytest.mark.parametrize(("make", "prefix", "read"), MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("fused", [True, False])
def test_rollout_is_the_product_of_the_blocks(
    make: Callable[[], nn.Module], prefix: int, read: tuple[int, ...], fused: bool
) -> None:
    model = lively(make)
    for part in model.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = fused
    x = noise(2, SIDE)
    resolution, found = rolled_out(model, x)
    known = resolution.attention
    assert known is not None
    assert (known.calls, known.tokens, known.prefix, known.read) == (3, 16 + prefix, prefix, read)
    expected = by_hand(model, x, prefix, read)
    assert found.shape == (2, 4, 4)
    assert float((found - expected).abs().max()) <= 1e-5
    assert float(expected.std()) > 1e-4


def test_a_pooling_query_weighs_the_rows() -> None:
    model = lively(lambda: timm_vit(class_token=False, global_pool="map"))
    x = noise(2, SIDE)
    resolution, found = rolled_out(model, x)
    assert resolution.attention is not None
    assert (resolution.attention.pooled, resolution.attention.calls) == (True, 4)
    caught: list[Tensor] = []
    pool: Any = model.attn_pool
    handle = pool.register_forward_pre_hook(lambda _m, args: caught.append(args[0]))
    each = [by_hand(model, x, 0, (token,)).flatten(1) for token in range(16)]
    handle.remove()
    tokens = caught[0]
    q = pool.q_norm(pool.q(pool.latent.expand(2, -1, -1)).reshape(2, 1, 3, -1).transpose(1, 2))
    k = pool.k_norm(pool.kv(tokens).reshape(2, 16, 2, 3, -1).permute(2, 0, 3, 1, 4)[0])
    weights = ((q * pool.scale) @ k.transpose(-2, -1)).softmax(-1).mean(dim=1)
    expected = (weights.double() @ torch.stack(each, dim=1)).reshape(2, 4, 4)
    assert float((found - expected).abs().max()) <= 1e-5


def swin() -> nn.Module:
    return SwinTransformer([2, 2], 12, [2, 2], [2, 2], [4, 4], num_classes=5)


def test_windows_are_told_to_be_none() -> None:
    resolution = resolved(lively(swin))
    assert resolution.attention is None
    assert resolution.attends
    with pytest.raises(NotApplicable, match="keeps to windows"):
        ClassActivation(methods=(ROLLOUT,)).settled(resolution).needs(resolution)
    convolutions = resolved(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)))
    assert not convolutions.attends
    with pytest.raises(NotApplicable, match="none is seen"):
        ClassActivation(methods=(ROLLOUT,)).settled(convolutions).needs(convolutions)


def test_rollout_alone_takes_no_backward() -> None:
    resolution = resolved(lively(timm_vit))
    assert ClassActivation(methods=(ROLLOUT,)).settled(resolution).needs(resolution) == (Forward(attention=True),)


# single computations ------------------------------------------------------------------------------------------------

KEPT = Attention(calls=1, tokens=9, prefix=0, grid=(3, 3), read=(4,))


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) * shape[1]))


@pytest.mark.parametrize(
    ("key_heads", "options"),
    [
        (4, {}),
        (4, {"is_causal": True}),
        (4, {"attn_mask": drawn(9, 9) + 3 * torch.eye(9) > 0}),
        (4, {"attn_mask": drawn(2, 1, 9, 9)}),
        (4, {"attn_mask": drawn(1, 1, 9, 9)}),
        (4, {"scale": 0.1}),
        (2, {"enable_gqa": True}),
    ],
    ids=["plain", "causal", "mask", "mask of each image", "mask of all images", "scale", "shared keys"],
)
def test_what_the_fused_kernel_keeps_to_itself(key_heads: int, options: dict[str, Any]) -> None:
    """Values that are the identity make it tell its weights."""
    query, key = drawn(2, 4, 9, 6), drawn(2, key_heads, 9, 6)
    with Attentions(KEPT) as caught:
        weights = functional.scaled_dot_product_attention(
            query, key, torch.eye(9).expand(2, key_heads, 9, 9), **options
        ).mean(dim=1)
    expected = (weights + torch.eye(9))[:, 4].reshape(2, 3, 3) / 2
    assert float((caught.rollout() - expected).abs().max()) <= 1e-6


def test_projections_of_keys_of_another_width() -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, kdim=5, vdim=5, batch_first=True).eval()
    tokens, others = drawn(2, 9, 8), drawn(2, 9, 5)
    with torch.no_grad(), Attentions(KEPT) as caught:
        _made, weights = layer(tokens, others, others)
    expected = (weights + torch.eye(9))[:, 4].reshape(2, 3, 3) / 2
    assert float((caught.rollout() - expected).abs().max()) <= 1e-6


@pytest.mark.parametrize("calls", [0, 2])
def test_attention_that_goes_another_way_is_no_rollout(calls: int) -> None:
    x = drawn(2, 4, 9, 6)
    with Attentions(KEPT) as caught:
        for _call in range(calls):
            functional.scaled_dot_product_attention(x, x, x)
    with pytest.raises(PassError, match="another way"):
        caught.rollout()


@pytest.mark.parametrize(
    ("made", "asked"), [({}, {"attn_mask": torch.zeros(9, 9)}), ({"add_zero_attn": True}, {})], ids=["mask", "zeros"]
)
def test_what_changes_the_weights_of_a_layer_is_not_read(made: dict[str, Any], asked: dict[str, Any]) -> None:
    layer = nn.MultiheadAttention(8, 2, batch_first=True, **made).eval()
    x = drawn(2, 9, 8)
    with Attentions() as caught:
        layer(x, x, x, **asked)
    assert caught.shapes == []


# maps by tokens -----------------------------------------------------------------------------------------------------


def maxvit() -> nn.Module:
    from torchvision.models.maxvit import MaxVit

    return MaxVit(
        input_size=(SIDE, SIDE),
        stem_channels=8,
        partition_size=2,
        block_channels=[8, 16],
        block_layers=[1, 1],
        head_dim=4,
        stochastic_depth_prob=0.0,
        num_classes=5,
    )


def timm_swin() -> nn.Module:
    made: nn.Module = timm.models.SwinTransformer(
        img_size=SIDE, patch_size=4, embed_dim=12, depths=(2, 2), num_heads=(2, 2), window_size=4, num_classes=5
    )
    return made


def patches(prefix: int) -> Callable[[Tensor], Tensor]:
    return lambda tokens: tokens[:, prefix:].transpose(1, 2).reshape(len(tokens), -1, 4, 4)


TOKENS: dict[str, tuple[Callable[[], nn.Module], str, Callable[[Tensor], Tensor]]] = {
    # the deepest default layer, and how its output reads as maps
    "torchvision": (torchvision_vit, "encoder.layers.encoder_layer_2.ln_1", patches(1)),
    "timm": (timm_vit, "blocks.2.norm1", patches(1)),
    "registers": (MODELS["registers"][0], "blocks.2.norm1", patches(5)),
    "distillation token": (deit, "blocks.2.norm1", patches(2)),
    "hybrid": (hybrid, "blocks.2.norm1", patches(1)),
    "mean of patches": (MODELS["mean of patches"][0], "blocks", patches(0)),
    "swin of torchvision": (swin, "permute", lambda maps: maps),
    "swin of timm": (timm_swin, "norm", lambda tokens: tokens.permute(0, 3, 1, 2)),
    "maxvit": (maxvit, "blocks.1", lambda maps: maps),
}


@pytest.mark.parametrize(("make", "layer", "read"), TOKENS.values(), ids=TOKENS)
def test_grad_cam_of_tokens(make: Callable[[], nn.Module], layer: str, read: Callable[[Tensor], Tensor]) -> None:
    model = lively(make)
    resolution = resolved(model)
    assert resolution.defaults[-1] == layer
    technique = ClassActivation(layers=(layer,), methods=("grad_cam",))
    needs = technique.needs(resolution)
    x = noise(2, SIDE)
    passes = Passes(model, resolution, torch.device("cpu"), Counts())
    trace = passes.forward(x, 2, taps=(layer,), wrt=(layer,))
    trace.backward(0, [1, 3], (layer,), keep=False)
    (found,) = technique.compute(EngineProbe(resolution, model, needs, trace, ((1, 3),))).values()
    kept: list[Tensor] = []
    with torch.enable_grad():
        handle = model.get_submodule(layer).register_forward_hook(lambda _m, _a, out: kept.append(out))
        scores = model(x.clone().requires_grad_())
    handle.remove()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(scores[0, 1] + scores[1, 3], kept[-1])
    maps, slopes = read(kept[-1].detach()).double(), read(gradient).double()
    expected = (slopes.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1).relu()
    assert expected.shape == found.shape
    assert float(expected.max()) > 0
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.max())


# the document -------------------------------------------------------------------------------------------------------


def audited(model: nn.Module, **options: Any) -> reportgen.Report:
    images = [noise(1, SIDE, seed=seed)[0] for seed in (1, 2)]
    return reportgen.audit(
        model, images, preset="quick", batch_size=2, exhibits=2, sample=0, only=["class_activation"], **options
    )


def test_the_report_says_that_rollout_has_no_class() -> None:
    model = lively(timm_vit)
    report = audited(model, target=["predicted", "0", "1"])
    section = report.facts["techniques"]["class_activation"]
    assert section["results"]["rollout"] == {"blocks": 3, "tokens": 17, "prefix": 1, "read": 1}
    assert section["results"]["rollout_omitted"] is None
    assert section["results"]["methods"][-1] == ROLLOUT
    for name in ("image-0000", "image-0001"):
        found = report.tensors("class_activation", image=name)[ROLLOUT]
        expected = by_hand(model, report.input(name)[None], 1, (0,))[0]
        assert float((found - expected).abs().max()) <= 1e-5
    page = report.rendered(".html").decode()
    assert "It has no class" in page
    shown = [figure for figure in section["figures"] if ROLLOUT in figure]
    assert shown == ["class_activation-rollout-image-0000", "class_activation-rollout-image-0001"]
    assert report.facts["passes"]["forward"]["batches"] == 3, "one to look at layers, one scan, one for all maps"


def test_rollout_alone_makes_a_report_and_a_warm_one_without_passes() -> None:
    options: dict[str, Any] = {"techniques": {"class_activation": {"methods": [ROLLOUT]}}, "model_id": "the same"}
    report = audited(lively(timm_vit), **options)
    warm = audited(lively(timm_vit), **options)
    assert warm.facts["passes"]["forward"]["batches"] == 0
    assert warm.facts["techniques"]["class_activation"]["results"]["rollout"]["blocks"] == 3
    assert report.facts["techniques"]["class_activation"]["status"] == "complete"
    assert list(report.tensors("class_activation", image="image-0000")) == [ROLLOUT]
    assert report.facts["passes"]["backward"]["batches"] == 0
    assert "Attention rollout of image-0000 over all 3 blocks, 4×4 patches" in report.rendered(".html").decode()


def test_windows_in_the_report() -> None:
    report = audited(lively(timm_swin))
    omitted = report.facts["techniques"]["class_activation"]["results"]["rollout_omitted"]
    assert "keeps to windows" in omitted
    assert omitted in report.rendered(".html").decode()
