"""The six methods against the formulas in float64, against grad-cam, and against a network derived by hand."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reportgen.engine.passes import Passes
from reportgen.engine.plan import Batch, merge
from reportgen.engine.probe import EngineProbe
from reportgen.engine.requests import Backward, Forward
from reportgen.engine.resolution import Resolution
from reportgen.engine.resolve import resolve
from reportgen.engine.trace import Counts, Trace
from reportgen.techniques.cam_formulas import GRADIENT_METHODS
from reportgen.techniques.class_activation import ClassActivation
from tests.networks import lively, noise

NETWORKS = (
    "resnet18",
    "vgg11_bn",
    "densenet121",
    "googlenet",
    "squeezenet1_1",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "convnext_tiny",
)
TOLERANCE = 1e-4


def resolved(model: nn.Module, size: int, channels: int = 3) -> Resolution:
    pipeline = {"size": (size, size), "channels": channels}
    return resolve(
        model,
        facts={"architecture": "test"},
        pipeline=pipeline,
        labels=(),
        output_kind="auto",
        device="cpu",
        batch_size=4,
        counts=Counts(),
    )


def computed(model: nn.Module, x: Tensor, classes: Sequence[int]) -> tuple[Resolution, dict[str, Tensor], Trace]:
    """What the technique computes for a batch, through the engine."""
    resolution = resolved(model, x.shape[-1], x.shape[1])
    technique = ClassActivation(layers=resolution.defaults)
    needs = technique.needs(resolution)
    counts = Counts()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    passes = Passes(model, resolution, torch.device("cpu"), counts)
    merged = merge([needs])
    trace = passes.forward(x, len(x), taps=merged.taps, wrt=merged.wrt)
    trace.backward(0, classes, merged.wrt, keep=False)
    probe = EngineProbe(resolution, model, needs, trace, (tuple(classes),))
    assert (counts.forward_batches, counts.backward_batches) == (1, 1)
    return resolution, technique.compute(probe), trace


def formulas(activation: np.ndarray, gradient: np.ndarray) -> dict[str, np.ndarray]:
    """The methods written out from the papers, one image, in float64, channel by channel."""
    a, g = activation.astype(np.float64), gradient.astype(np.float64)
    maps = {name: np.zeros(a.shape[1:]) for name in GRADIENT_METHODS}
    for k in range(len(a)):
        maps["grad_cam"] += g[k].mean() * a[k]
        maps["layer_cam"] += np.maximum(g[k], 0) * a[k]
        maps["hires_cam"] += g[k] * a[k]
        total = a[k].sum()
        maps["xgrad_cam"] += ((g[k] * a[k]).sum() / total if total != 0 else 0.0) * a[k]
        positive = g[k][g[k] > 0]  # eq. 19; where G <= 0 the rectifier leaves nothing to weigh
        alpha = positive**2 / (2 * positive**2 + total * positive**3)
        maps["grad_cam_pp"] += (alpha * positive).sum() * a[k]
    return {name: np.maximum(values, 0) for name, values in maps.items()}


def independent(model: nn.Module, layer: str, x: Tensor, classes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Activations and gradients of a batch, by a plain hook on a copy of the model without in-place operations.

    In the precision of the model: a rectifier whose input rounds to the other side of zero changes the gradient of a
    random
    network by up to a percent, and that is no matter of the methods.
    """
    plain = copy.deepcopy(model)
    for part in plain.modules():
        if hasattr(part, "inplace"):
            part.inplace = False
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        output = output.detach().requires_grad_(True)
        kept.append(output)
        return output * 1.0  # functional in-place rectifiers then work on a copy

    handle = plain.get_submodule(layer).register_forward_hook(keep)
    scores = plain(x)
    handle.remove()
    chosen = torch.stack([scores[row, index] for row, index in enumerate(classes)]).sum()
    (gradient,) = torch.autograd.grad(chosen, kept[-1])
    return kept[-1].detach().numpy(), gradient.numpy()


@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_the_formulas_in_float64(name: str) -> None:
    model, x = lively(name), noise(2, 96, seed=3)
    classes = [7, 423]
    resolution, maps, trace = computed(model, x, classes)
    assert resolution.defaults
    for layer in resolution.defaults:
        activations, gradients = independent(model, layer, x, classes)
        for row, (activation, gradient) in enumerate(zip(activations, gradients, strict=True)):
            assert np.abs(activation - trace.activation(layer)[row].numpy()).max() <= 1e-4 * np.abs(activation).max()
            for method, expected in formulas(activation, gradient).items():
                if method in ("grad_cam_pp", "xgrad_cam") and activation.min() < 0:
                    continue  # both divide by the sum of A and are ill-posed where it can vanish
                found = maps[f"{method}/{layer}/{{target0}}"][row].numpy()
                scale = max(np.abs(expected).max(), 1e-12)
                assert np.abs(found - expected).max() <= TOLERANCE * scale, (method, layer)


@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_grad_cam_package(name: str) -> None:
    peers = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, x = lively(name), noise(2, 96, seed=5)
    classes = [1, 900]
    resolution, maps, _trace = computed(model, x, classes)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    for part in model.modules():  # the peer taps tensors that in-place operations overwrite
        if hasattr(part, "inplace"):
            part.inplace = False
    layer = resolution.defaults[-1]
    if name in ("densenet121",):
        layer = resolution.defaults[-2]  # what follows `features` there is a functional rectifier in place
    for method, peer in (("grad_cam", peers.GradCAM), ("layer_cam", peers.LayerCAM), ("hires_cam", peers.HiResCAM)):
        with peer(model=model, target_layers=[model.get_submodule(layer)]) as cam:
            targets = [ClassifierOutputTarget(index) for index in classes]
            cam.activations_and_grads(x)
            outputs = cam.activations_and_grads(x)
            model.zero_grad()
            sum(target(output) for target, output in zip(targets, outputs, strict=True)).backward()
            activation = cam.activations_and_grads.activations[0].numpy()
            gradient = cam.activations_and_grads.gradients[0].numpy()
            raw = cam.get_cam_image(x, cam.target_layers[0], targets, activation, gradient, False)
            expected = np.maximum(raw, 0)
        found = maps[f"{method}/{layer}/{{target0}}"].numpy()
        assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max(), method


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "efficientnet_b0", "mobilenet_v2", "regnet_y_400mf"])
def test_cam_identity(name: str) -> None:
    """Grad-CAM of the pooled layer is ReLU(CAM) / Z, and W·mean(A) + b the score itself (Zhou et al. 2016)."""
    model, x = lively(name), noise(2, 96)
    classes = [3, 700]
    resolution, maps, trace = computed(model, x, classes)
    assert resolution.head is not None
    layer = resolution.head.layer
    cam = maps[f"cam/{layer}/{{target0}}"]
    grad_cam = maps[f"grad_cam/{layer}/{{target0}}"]
    area = cam.shape[1] * cam.shape[2]
    assert torch.allclose(grad_cam, cam.relu() / area, atol=float(cam.abs().max()) / area * TOLERANCE)
    bias = model.get_submodule(resolution.head.linear).bias
    assert trace.scores is not None
    scores = torch.stack([trace.scores[row, index] for row, index in enumerate(classes)])
    assert torch.allclose(cam.mean(dim=(1, 2)) + bias[classes], scores, atol=1e-3)


@pytest.mark.parametrize("name", ["vgg11_bn", "densenet121", "squeezenet1_1", "mobilenet_v3_small", "convnext_tiny"])
def test_cam_is_left_out_where_it_does_not_apply(name: str) -> None:
    resolution, maps, _trace = computed(lively(name), noise(1, 96), [0])
    assert resolution.head is None
    assert not any(key.startswith("cam/") for key in maps)
    assert any(key.startswith("grad_cam/") for key in maps)


class Mini(nn.Module):
    """Convolution, rectifier, linear layer: small enough to derive everything by hand."""

    def __init__(self, *, inplace: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.relu = nn.ReLU(inplace=inplace)
        self.fc = nn.Linear(8, 4)
        with torch.no_grad():
            self.conv.weight.fill_(1.0)
            self.conv.bias.copy_(torch.tensor([-50.0, -75.0]))
            self.fc.weight.copy_(torch.tensor([1.0] * 5 + [-1.0] * 3).expand(4, -1))
            self.fc.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv(x)).flatten(1))


@pytest.mark.parametrize("inplace", [False, True])
def test_mini_network_derived_by_hand(inplace: bool) -> None:
    model = Mini(inplace=inplace).eval()
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    resolution = resolved(model, 4, 1)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    layers = ("conv", "relu")
    passes = Passes(model, resolution, torch.device("cpu"), Counts())
    trace = passes.forward(x, 1, taps=layers, wrt=layers)
    trace.backward(0, [0], layers, keep=False)
    technique = ClassActivation(layers=layers, methods=("grad_cam",))
    needs = (Forward(taps=layers), Backward(wrt=layers))
    maps = technique.compute(EngineProbe(resolution, model, needs, trace, ((0,),)))
    # the convolution's sums are 45 54 / 81 90, less 50 and 75; its tap must be the values before the rectifier
    assert trace.activation("conv").tolist() == [[[[-5, 4], [31, 40]], [[-30, -21], [6, 15]]]]
    assert maps["grad_cam/conv/{target0}"][0].tolist() == [[11.25, 13.5], [20.25, 22.5]]
    assert maps["grad_cam/relu/{target0}"][0].tolist() == [[0, 4], [28, 32.5]]


def test_images_of_a_batch_do_not_touch() -> None:
    model, x = lively("resnet18"), noise(3, 64)
    _r, together, _t = computed(model, x, [1, 2, 3])
    for row in range(3):
        _r, alone, _t = computed(model, x[row : row + 1], [row + 1])
        for name, maps in together.items():
            scale = float(alone[name].abs().max()) or 1.0
            assert float((maps[row] - alone[name][0]).abs().max()) <= TOLERANCE * scale, name


def test_zero_gradient_gives_zero_maps_and_no_nan() -> None:
    model = lively("resnet18")
    nn.init.zeros_(model.fc.weight)
    _resolution, maps, _trace = computed(model, noise(1, 64), [5])
    for name, values in maps.items():
        assert not values.isnan().any(), name
        assert not values.any(), name


def test_equal_needs_share_passes() -> None:
    """A batch with two targets asks for two backwards and no more."""
    from reportgen.techniques.technique import Case

    technique = ClassActivation(layers=("layer4",))
    needs = (Forward(taps=("layer4",)), Backward(wrt=("layer4",)))
    batch = Batch((Case("a", "00", (1, 2)), Case("b", "01", (3,))), (), merge([needs, needs]))
    assert batch.backwards == 2
    assert technique.template == "techniques/class_activation.html.j2"
