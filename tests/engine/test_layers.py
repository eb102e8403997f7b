"""Layer discovery as the report promises it, on networks that write their stages in different ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from reportgen.engine.defaults import blocks, default_layers
from reportgen.engine.device import numerics
from reportgen.engine.layers import discover
from reportgen.engine.layout import read_layout
from reportgen.engine.passes import Passes
from reportgen.engine.resolution import Layer, choose_channels
from reportgen.engine.resolve import resolve
from reportgen.engine.trace import Counts
from reportgen.errors import LayerError, PassError
from tests.networks import enlivened, lively, noise

EXPECTED = {
    "resnet18": ("relu", "layer1", "layer2", "layer3", "layer4"),
    "densenet121": (
        "features.relu0",
        "features.denseblock1",
        "features.denseblock2",
        "features.denseblock3",
        "features",
    ),
    "googlenet": ("conv1", "conv3", "inception3b", "inception4e", "inception5b"),
    "shufflenet_v2_x0_5": ("conv1", "maxpool", "stage2", "stage3", "conv5"),
    "swin_t": ("features.1", "features.3", "features.5", "permute"),
    "vit_b_32": ("encoder.layers.encoder_layer_11.ln_1",),
    "regnet_y_400mf": ("stem", "trunk_output.block1", "trunk_output.block2", "trunk_output.block3", "trunk_output"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_default_layers(name: str) -> None:
    model = (
        enlivened(torchvision.models.get_model(name, weights=None), size=224) if name != "googlenet" else lively(name)
    )
    found = discover(model, noise(2, 224))
    assert default_layers(found.layers, found.outputs) == EXPECTED[name]
    by_name = {layer.name: layer for layer in found.layers}
    sizes = [by_name[layer].resolution for layer in default_layers(found.layers, found.outputs)]
    assert len(set(sizes)) == len(sizes) <= 5
    assert sizes == sorted(sizes, reverse=True)


def listed(name: str, kind: str, order: int, shape: tuple[int, ...], **more: Any) -> Layer:
    layout: Any = "channels-first" if shape else "none"
    return Layer(name, kind, order, shape, layout, shape, 0, 0, (), False, int(order >= 0), **more)


def test_lists_of_modules_are_looked_through_and_attention_is_not_looked_into() -> None:
    layers = [
        listed("patches", "Embedding", 1, (8, 4, 4)),
        listed("blocks", "ModuleList", -1, ()),
        listed("blocks.0", "Block", 3, (8, 4, 4)),
        listed("blocks.0.norm", "LayerNorm", 2, (8, 4, 4)),
        listed("blocks.1", "Block", 9, (8, 4, 4), explains=False),
        listed("blocks.1.norm", "LayerNorm", 4, (8, 4, 4)),
        listed("blocks.1.attn", "Mixer", 8, (8, 4, 4), explains=False),
        listed("blocks.1.attn.qkv", "Linear", 5, (24, 4, 4)),
        listed("blocks.1.attn.weights", "Softmax", 6, (2, 16, 16)),
    ]
    assert default_layers(layers, 5) == ("blocks.1.norm",)
    assert default_layers([one for one in layers if ".attn." in one.name], 5) != ()


def test_a_classifier_of_positions_is_no_layer_to_look_at_where_another_stands_beside_it() -> None:
    layers = [
        listed("stem", "Conv2d", 1, (5, 8, 8)),
        listed("body", "Body", 2, (8, 4, 4)),
        listed("positions", "Linear", 3, (5, 4, 4)),
    ]
    assert default_layers(layers, 5) == ("stem", "body")
    assert default_layers(layers, 6) == ("stem", "positions")


def test_blocks_are_the_repeated_units() -> None:
    found = discover(lively("resnet18"), noise(2, 64))
    assert blocks(found.layers) == tuple(f"layer{stage}.{unit}" for stage in (1, 2, 3, 4) for unit in (0, 1))


def test_pooled_head_is_found_by_trying() -> None:
    assert discover(lively("resnet18"), noise(2, 64)).head is not None
    for name in ("vgg11_bn", "densenet121", "mobilenet_v3_small", "convnext_tiny"):
        assert discover(lively(name), noise(2, 64)).head is None, name


@pytest.mark.parametrize(
    ("kind", "output", "expected"),
    [
        ("Conv2d", (64, 56, 56), ("channels-first", (64, 56, 56), 0)),
        ("SwinBlock", (56, 56, 96), ("channels-last", (96, 56, 56), 0)),
        ("LayerNorm", (14, 14, 14), ("channels-last", (14, 14, 14), 0)),
        ("Block", (197, 768), ("tokens", (768, 14, 14), 1)),
        ("Block", (196, 768), ("tokens", (768, 14, 14), 0)),
        ("Block", (201, 384), ("tokens", (384, 14, 14), 5)),
        ("Linear", (1, 49, 2048), ("none", (), 0)),
        ("Linear", (1000,), ("none", (), 0)),
    ],
)
def test_layouts(kind: str, output: tuple[int, ...], expected: tuple[str, tuple[int, ...], int]) -> None:
    assert read_layout(kind, output, (224, 224)) == expected


def test_layouts_of_inputs_that_are_not_square() -> None:
    assert read_layout("Block", (1 + 7 * 10, 768), (224, 320)) == ("tokens", (768, 7, 10), 1)
    assert read_layout("Block", (7, 10, 768), (224, 320)) == ("channels-last", (768, 7, 10), 0)
    assert read_layout("Block", (768, 7, 10), (224, 320)) == ("channels-first", (768, 7, 10), 0)


class Returns(nn.Module):
    """A classifier that returns its scores in some wrapping."""

    def __init__(self, wrap: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, 1 if wrap == "one" else 5)
        self.wrap = wrap

    def forward(self, x: Tensor) -> object:
        scores = self.fc(self.conv(x).relu().mean(dim=(2, 3)))
        return {
            "plain": lambda: scores,
            "one": lambda: scores,
            "tuple": lambda: (scores, x),
            "dict": lambda: {"loss": None, "logits": scores},
            "spatial": lambda: scores[:, :, None, None],
            "softmax": lambda: scores.softmax(1),
            "log_softmax": lambda: torch.nn.functional.log_softmax(scores, dim=1),
            "sigmoid": lambda: torch.sigmoid(scores),
            "image": lambda: x,
        }[self.wrap]()


def looked_at(wrap: str) -> tuple[Returns, Passes]:
    model = Returns(wrap).eval()
    resolution = resolve(
        model,
        facts={},
        pipeline={"size": (16, 16), "channels": 3},
        labels=(),
        output_kind="auto",
        device="cpu",
        batch_size=2,
        counts=Counts(),
    )
    return model, Passes(model, resolution, torch.device("cpu"), Counts())


@pytest.mark.parametrize(
    ("wrap", "kind"),
    [
        ("plain", "logits"),
        ("tuple", "logits"),
        ("dict", "logits"),
        ("spatial", "logits"),
        ("softmax", "softmax"),
        ("log_softmax", "log-softmax"),
        ("sigmoid", "sigmoid"),
    ],
)
def test_scores_are_those_before_softmax_or_sigmoid(wrap: str, kind: str) -> None:
    model, passes = looked_at(wrap)
    assert passes.resolution.output_kind == kind
    x = noise(2, 16)
    found = passes.forward(x, 2).scores
    with torch.no_grad():
        expected = model.fc(model.conv(x).relu().mean(dim=(2, 3)))
    assert found is not None
    assert torch.allclose(found, expected, atol=1e-6)


def test_one_logit_makes_two_classes() -> None:
    _model, passes = looked_at("one")
    assert (passes.resolution.classes, passes.resolution.outputs) == (2, 1)
    scores = passes.forward(noise(2, 16), 2).scores
    assert scores is not None
    assert torch.equal(scores[:, 0], -scores[:, 1])


def test_what_is_no_classifier_is_said_to_be_none() -> None:
    with pytest.raises(PassError, match="not one score a class"):
        looked_at("image")


def test_the_forward_stops_behind_the_last_tap() -> None:
    model = lively("resnet18")
    resolution = resolve(
        model,
        facts={},
        pipeline={"size": (64, 64), "channels": 3},
        labels=(),
        output_kind="auto",
        device="cpu",
        batch_size=2,
        counts=Counts(),
    )
    reached: list[str] = []
    for name in ("layer2", "layer3"):
        model.get_submodule(name).register_forward_hook(lambda _m, _a, _o, name=name: reached.append(name))
    trace = Passes(model, resolution, torch.device("cpu"), Counts()).forward(
        noise(2, 64), 2, taps=("relu", "layer2"), scores=False
    )
    assert trace.scores is None
    assert "layer3" not in reached
    assert set(trace.outputs) == {"relu", "layer2"}


def test_select_and_choose() -> None:
    model = lively("resnet18")
    resolution = resolve(
        model,
        facts={},
        pipeline={"size": (64, 64), "channels": 3},
        labels=(),
        output_kind="auto",
        device="cpu",
        batch_size=2,
        counts=Counts(),
    )
    assert resolution.select(("layer4", "layer1")) == ("layer1", "layer4")
    assert resolution.select(("last:2",)) == ("layer3", "layer4")
    assert resolution.select(("layer2.*.conv1",)) == ("layer2.0.conv1", "layer2.1.conv1")
    for wrong in ("layer9", "fc", "avg*nothing"):
        with pytest.raises(LayerError):
            resolution.select((wrong,))
    assert choose_channels("even:16", 256) == tuple(range(0, 256, 16))
    assert choose_channels("even:16", 5) == (0, 1, 2, 3, 4)
    assert choose_channels("all", 3) == (0, 1, 2)
    for wrong in ("even:0", "odd:3", "0,300", "-1"):
        with pytest.raises(LayerError):
            choose_channels(wrong, 256)


def test_large_inputs_go_in_small_batches() -> None:
    cpu = torch.device("cpu")
    assert [numerics(cpu, None, side * side)["batch"] for side in (32, 224, 299, 384, 528)] == [4, 4, 2, 1, 1]
    assert numerics(cpu, 8, 528 * 528)["batch"] == 8


class _Backbone(nn.Module):
    """Returns maps and what was pooled from them, as models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.stage = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Tanh())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.stage(self.stem(x))
        return maps, maps.mean(dim=(2, 3))


class _Classifier(nn.Module):
    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.backbone = _Backbone()
        self.head = nn.Linear(6, 3)
        self.pooled = pooled

    def forward(self, x: Tensor) -> Tensor:
        maps, means = self.backbone(x)
        scores: Tensor = self.head(means if self.pooled else maps.amax(dim=(2, 3)))
        return scores


@pytest.mark.parametrize("pooled", [True, False])
def test_a_layer_whose_maps_are_passed_by_is_looked_through(pooled: bool) -> None:
    """What is exchanged behind the backbone changes the scores only where its maps go on."""
    torch.manual_seed(0)
    found = discover(_Classifier(pooled).eval(), noise(2, 32))
    layers = {layer.name: layer for layer in found.layers}
    assert layers["backbone"].explains is not pooled
    assert default_layers(found.layers, found.outputs) == ("backbone.stem", "backbone.stage" if pooled else "backbone")
    assert (found.head.layer if found.head else None) == ("backbone.stage" if pooled else None)
    assert found.forwards == 2


class _Places(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linspace(0, 1, 64).reshape(1, 1, 8, 8).repeat(len(x), 4, 1, 1)


class _Encoded(_Classifier):
    def __init__(self) -> None:
        super().__init__(False)
        self.places = _Places()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.places(x).mean()


def test_what_is_the_same_for_every_image_gives_no_maps() -> None:
    found = discover(_Encoded().eval(), noise(2, 32))
    assert "places" not in default_layers(found.layers, found.outputs)
    assert next(layer for layer in found.layers if layer.name == "places").shape == ()
