"""A known body under a prefix and one linear layer beside it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import reportgen
from reportgen.errors import ArchitectureError
from reportgen.inspection import inspect, words
from reportgen.subject.model_facts import ModelFacts
from reportgen.subject.model_file import open_model
from tests.networks import enlivened, lively, noise


class Net(nn.Module):
    """A class of the user's own: a body whose classifier is cut off, and a head beside it."""

    def __init__(self, body: nn.Module, head: nn.Module, names: tuple[str, str] = ("backbone", "head")) -> None:
        super().__init__()
        self.names = names
        for name, part in zip(names, (body, head), strict=True):
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        body, head = (self.get_submodule(name) for name in self.names)
        scores: Tensor = head(body(x).flatten(1))
        return scores


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """The body of a ResNet-18: 512 features."""
    return without(lively("resnet18"), "fc")


def without(model: nn.Module, place: str) -> nn.Module:
    """The same with nothing at that place."""
    parent, _dot, last = place.rpartition(".")
    setattr(model.get_submodule(parent), last, nn.Identity())
    return model


def linear(features: int, *, bias: bool = True) -> nn.Linear:
    return enlivened(nn.Linear(features, 4, bias=bias))  # type: ignore[return-value]


def opened(path: Path, **options: Any) -> tuple[nn.Module, ModelFacts]:
    return open_model(path, sha256="", **options)


def assert_alike(model: nn.Module, path: Path, size: int = 64, **options: Any) -> ModelFacts:
    """What is opened answers as the model does."""
    found, facts = opened(path, **options)
    x = noise(2, size, channels=facts.channels_in)
    with torch.no_grad():
        torch.testing.assert_close(found(x), model.eval()(x), atol=1e-5, rtol=1e-5)
    return facts


def refused(state: Mapping[str, Tensor], folder: Path, **options: Any) -> list[str]:
    torch.save(dict(state), folder / "m.pt")
    with pytest.raises(ArchitectureError) as caught:
        opened(folder / "m.pt", **options)
    return str(caught.value).splitlines()


# transfer learning
# --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "build", "head"),
    [
        (("backbone", "head"), linear, "head"),
        (("encoder", "classifier"), lambda width: nn.Sequential(nn.Dropout(0.2), linear(width)), "classifier.1"),
        (("features_extractor", "fc"), lambda width: linear(width, bias=False), "fc"),
        (("model", "fc"), lambda width: nn.Sequential(nn.Flatten(), nn.Dropout(), linear(width)), "fc.2"),
    ],
)
@pytest.mark.parametrize("lightning", [False, True])
def test_a_body_and_a_linear_layer(
    names: tuple[str, str],
    build: Callable[[int], nn.Module],
    head: str,
    lightning: bool,
    resnet: nn.Module,
    tmp_path: Path,
) -> None:
    model = Net(resnet, build(512), names)
    state: Any = model.state_dict()
    before = ""
    if lightning:
        before = "model."
        state = {"state_dict": {before + key: value for key, value in state.items()}, "hyper_parameters": {}}
        state |= {"pytorch-lightning_version": "2.4.0"}
        state["state_dict"] |= {"criterion.weight": torch.ones(4)}
    torch.save(state, tmp_path / "m.ckpt")
    facts = assert_alike(model, tmp_path / "m.ckpt")
    assert (facts.architecture, facts.how, facts.num_classes) == ("torchvision:resnet18", "recognised", 4)
    assert (facts.prefix, facts.head) == (f"{before}{names[0]}.", before + head)
    assert facts.stray == (("criterion.weight",) if lightning else ())


def test_networks_in_a_row(resnet: nn.Module, tmp_path: Path) -> None:
    """Numbered as fastai numbers body and head, which it is not."""
    for number, tail in enumerate(([linear(512)], [nn.Dropout(), linear(512)], [nn.Sequential(linear(512))])):
        model = nn.Sequential(resnet, *tail)
        torch.save(model.state_dict(), tmp_path / "m.pt")
        facts = assert_alike(model, tmp_path / "m.pt")
        assert (facts.prefix, facts.head) == ("0.", ("1", "2", "1.0")[number])


@pytest.mark.parametrize("lightning", [False, True])
def test_a_residual_network_taken_apart_into_a_row(lightning: bool, tmp_path: Path) -> None:
    body = nn.Sequential(*list(lively("resnet18").children())[:-1])
    model = Net(body, linear(512), ("feature_extractor", "classifier"))
    before = "model." if lightning else ""
    state = {before + key: value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state} if lightning else state, tmp_path / "m.ckpt")
    facts = assert_alike(model, tmp_path / "m.ckpt")
    assert (facts.architecture, facts.prefix, facts.stray) == (
        "torchvision:resnet18",
        f"{before}feature_extractor.",
        (),
    )
    torch.save(model, tmp_path / "whole.pt")
    assert assert_alike(model, tmp_path / "whole.pt").head == "classifier"


@pytest.mark.parametrize(
    ("name", "cut", "features"),
    [
        ("mobilenet_v3_small", "classifier", 576),  # a head of two linear layers, all of it gone
        ("mobilenet_v3_small", "classifier.3", 1024),  # or only the last
        ("regnet_y_400mf", "fc", 440),
        ("convnext_tiny", "classifier.2", 768),  # a normalisation stays in the head
        ("googlenet", "fc", 1024),
    ],
)
def test_heads_of_other_structure(name: str, cut: str, features: int, tmp_path: Path) -> None:
    model = Net(without(lively(name, size=64), cut), linear(features))
    torch.save(model.state_dict(), tmp_path / "m.pt")
    facts = assert_alike(model, tmp_path / "m.pt")
    assert (facts.architecture, facts.head, facts.num_classes) == (f"torchvision:{name}", "head", 4)
    # heads that only training reads keep the classes of the network they came with
    assert all(key.startswith("backbone.aux") for key in facts.stray)


@pytest.mark.parametrize(
    ("name", "size", "arguments"),
    [
        ("seresnet18", 64, {"in_chans": 1}),
        ("convnext_atto", 64, {}),  # keeps the normalisation of its head
        ("vit_tiny_patch16_224", 96, {"img_size": 96}),
    ],
)
def test_bodies_of_timm(name: str, size: int, arguments: dict[str, Any], tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    body = timm.create_model(name, num_classes=0, **arguments)
    model = Net(body, linear(body.num_features), ("model", "head"))
    torch.save({"state_dict": model.state_dict()}, tmp_path / "m.pt")
    facts = assert_alike(model, tmp_path / "m.pt", size)
    assert (facts.architecture, facts.head, facts.stray) == (f"timm:{name}", "head", ())


def test_bodies_that_compute_different_things_stay_in_doubt(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = Net(timm.create_model("tf_mobilenetv3_small_100", num_classes=0), linear(1024))
    what, remedy = refused(model.state_dict(), tmp_path)
    assert "fit 2 architectures that compute different things: mobilenetv3_small_100, tf_mobilenetv3_small_100" in what
    assert "say which with --arch" in remedy
    assert inspect(tmp_path / "m.pt")["candidates"] == ["timm:mobilenetv3_small_100", "timm:tf_mobilenetv3_small_100"]
    facts = assert_alike(model, tmp_path / "m.pt", arch="timm:tf_mobilenetv3_small_100")
    assert (facts.how, facts.head) == ("given", "head")


def test_the_architecture_that_the_file_names(resnet: nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    model = Net(resnet, linear(512))
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": {"encoder_name": "resnet18"}}, tmp_path / "m.pt")
    facts = assert_alike(model, tmp_path / "m.pt")
    assert (facts.architecture, facts.how) == ("torchvision:resnet18", "checkpoint")


def test_the_head_of_the_architecture_itself_comes_first(tmp_path: Path) -> None:
    model = Net(lively("resnet18", classes=3), linear(3), ("net", "calibration"))
    torch.save(model.state_dict(), tmp_path / "m.pt")
    found, facts = opened(tmp_path / "m.pt")
    assert (facts.head, facts.num_classes) == ("", 3)
    assert facts.stray == ("calibration.weight", "calibration.bias")
    assert torch.equal(found.get_parameter("fc.weight"), model.get_parameter("net.fc.weight"))


def test_a_program_that_answers_alike_is_verified(resnet: nn.Module, tmp_path: Path) -> None:
    for between, alike in ((nn.Identity(), True), (nn.ReLU(), True), (nn.Tanh(), False)):
        model = Net(resnet, nn.Sequential(between, linear(512))).eval()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing is announced to go
            torch.jit.trace(model, noise(2, 64)).save(str(tmp_path / "m.pt"))  # type: ignore[no-untyped-call]
        _found, facts = opened(tmp_path / "m.pt", trust=True)
        assert (facts.how, facts.head) == (("verified", "head.1") if alike else ("class", ""))


def test_a_pickled_module_of_a_class_of_ones_own(resnet: nn.Module, tmp_path: Path) -> None:
    model = Net(resnet, linear(512))
    torch.save(model, tmp_path / "m.pt")
    facts = assert_alike(model, tmp_path / "m.pt")
    assert (facts.how, facts.head, facts.safe) == ("recognised", "head", True)
    assert facts.replaced == (f"{__name__}.Net",)


# refused
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"arch": "resnet18"}])
def test_more_than_one_layer_is_told(options: dict[str, str], resnet: nn.Module, tmp_path: Path) -> None:
    model = Net(resnet, nn.Sequential(nn.Linear(512, 8), nn.ReLU(), nn.Linear(8, 4)))
    what, remedy = refused(model.state_dict(), tmp_path, **options)
    assert what == (
        "'m.pt' has the body of torchvision:resnet18 under 'backbone.' and a head of its own (head.0, head.2)"
    )
    assert "--arch package.module:callable" in remedy


def test_more_than_one_layer_where_the_file_names_the_body(resnet: nn.Module, tmp_path: Path) -> None:
    model = Net(resnet, nn.Sequential(nn.Linear(512, 8), nn.ReLU(), nn.Linear(8, 4)))
    torch.save({"state_dict": model.state_dict(), "arch": "resnet18"}, tmp_path / "m.pt")
    with pytest.raises(ArchitectureError, match=r"under 'backbone.' and a head of its own \(head.0, head.2\)"):
        opened(tmp_path / "m.pt")


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (nn.Linear(1024, 4), "(head), for 1024 features and not 512"),
        (nn.Sequential(nn.BatchNorm1d(512), nn.Linear(512, 4)), "(head.0, head.1)"),
        (nn.Sequential(nn.Conv2d(512, 4, 1)), "(head.0)"),
        (nn.ParameterDict({"weight": torch.ones(4, 512), "scale": torch.ones(1)}), "(head)"),
        (nn.ModuleList(nn.Linear(512, 4) for _ in range(6)), "(head.0, head.1, head.2, head.3, …)"),
    ],
)
def test_other_heads_are_told(head: nn.Module, told: str, resnet: nn.Module, tmp_path: Path) -> None:
    what, _remedy = refused(Net(resnet, head).state_dict(), tmp_path)
    assert what == f"'m.pt' has the body of torchvision:resnet18 under 'backbone.' and a head of its own {told}"


def test_a_normalisation_that_the_file_lacks_is_not_passed_over(tmp_path: Path) -> None:
    model = Net(without(lively("convnext_tiny", size=64), "classifier"), linear(768))
    what, _remedy = refused(model.state_dict(), tmp_path)
    assert what.endswith("the body of torchvision:convnext_tiny under 'backbone.' and a head of its own (head)")


def test_a_body_with_nothing_beside_it(resnet: nn.Module, tmp_path: Path) -> None:
    what, _remedy = refused(Net(resnet, nn.Identity()).state_dict(), tmp_path)
    assert what == "the weights in 'm.pt' are those of torchvision:resnet18 without its head (fc)"


# MMPretrain
# ------------------------------------------------------------------------------------------------------------

NAMES = ("ant", "bee", "cat", "dog")


def of_mmpretrain(model: nn.Module, meta: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    state = {f"backbone.{key}": value for key, value in model.state_dict().items() if not key.startswith("fc.")}
    state |= {f"head.fc.{key}": value for key, value in model.get_submodule("fc").state_dict().items()}
    return {"meta": {"epoch": 3, **meta}, "state_dict": state, **more}


@pytest.mark.parametrize(
    ("name", "meta", "more", "framework"),
    [
        ("resnet18", {"CLASSES": NAMES, "mmcls_version": "0.25.0"}, {}, "MMClassification"),
        ("resnet18", {"dataset_meta": {"classes": list(NAMES)}}, {"message_hub": {}}, "MMEngine"),
        ("resnext50_32x4d", {"dataset_meta": {"CLASSES": NAMES}}, {"message_hub": {}}, "MMEngine"),
    ],
)
def test_mmpretrain(name: str, meta: dict[str, Any], more: dict[str, Any], framework: str, tmp_path: Path) -> None:
    model = lively(name, classes=4, size=64)
    made = of_mmpretrain(model, meta, **more)
    made["state_dict"] |= {"data_preprocessor.mean": torch.ones(3, 1, 1), "data_preprocessor.std": torch.ones(3, 1, 1)}
    torch.save(made, tmp_path / "m.pth")
    facts = assert_alike(model, tmp_path / "m.pth")
    assert (facts.architecture, facts.prefix, facts.head) == (f"torchvision:{name}", "backbone.", "head.fc")
    assert (facts.labels, facts.labels_from) == (NAMES, "file")
    assert facts.stray == ("data_preprocessor.mean", "data_preprocessor.std")
    told = inspect(tmp_path / "m.pth")
    assert (told["framework"], told["beside"]["epoch"]) == (framework, 3)


def test_a_moving_average_of_mmengine_lies_where_the_weights_do(tmp_path: Path) -> None:
    """Its hook exchanges the two when it saves, so that the average is what loads."""
    average, trained = (lively("resnet18", classes=4, size=64, seed=seed) for seed in (0, 1))
    made = of_mmpretrain(average, {}, message_hub={})
    beside = of_mmpretrain(trained, {})["state_dict"]
    made["ema_state_dict"] = {f"module.{key}": value for key, value in beside.items()} | {"steps": torch.tensor(7)}
    torch.save(made, tmp_path / "m.pth")
    assert assert_alike(average, tmp_path / "m.pth").weights == "ema"
    facts = assert_alike(trained, tmp_path / "m.pth", weights="raw")
    assert (facts.weights, facts.prefix, facts.stray) == ("raw", "module.backbone.", ("steps",))


@pytest.mark.parametrize("classes", [None, "ant", 4, [1, 2, 3, 4], {"ant": "bee"}, [], [None] * 4])
def test_what_is_no_class_names_is_not_taken_for_them(classes: Any, resnet: nn.Module, tmp_path: Path) -> None:
    model = copy.deepcopy(resnet)
    model.fc = linear(512)
    for meta in ({"CLASSES": classes}, {"dataset_meta": {"classes": classes}}, {"dataset_meta": classes}):
        torch.save(of_mmpretrain(model, meta), tmp_path / "m.pth")
        assert opened(tmp_path / "m.pth")[1].labels is None


# told
# ------------------------------------------------------------------------------------------------------------------


def test_inspect_tells_what_is_assumed(resnet: nn.Module, tmp_path: Path) -> None:
    torch.save(Net(resnet, linear(512)).state_dict(), tmp_path / "m.pt")
    told = inspect(tmp_path / "m.pt")
    assert (told["prefix"], told["head"], told["num_classes"]) == ("backbone.", "head", 4)
    assert "between         assumed: the pooling of torchvision:resnet18 and nothing but dropout" in words(told)


def test_the_report_tells_what_is_assumed(resnet: nn.Module, tmp_path: Path) -> None:
    torch.save(Net(resnet, linear(512)).state_dict(), tmp_path / "m.pt")
    picture = Image.fromarray((noise(1, 64)[0].permute(1, 2, 0) * 40 + 128).byte().numpy())
    report = reportgen.audit(tmp_path / "m.pt", [picture], only=["predictions"], input_size="64", no_cache=True)
    assert report.facts["model"]["head"] == "head"
    found = [one for one in report.facts["findings"] if one["rule"] == "model.joined"]
    assert [(one["severity"], one["subject"]) for one in found] == [("notice", "head")]
    assert "under backbone. and one linear layer beside it, head, but not what stands between" in found[0]["detail"]
    report.write(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "Body and head lie apart in the file:" in page
    assert "pooling and nothing but dropout are assumed" in page
