"""Checkpoints of training frameworks, in their documented structure: tensors only, and never the frameworks' code.

`test_frameworks_themselves.py` does the same with files that the frameworks wrote, where they are installed.
"""

from __future__ import annotations

import argparse
import os
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

import reportgen
from reportgen.errors import ModelFileError, UnsafeModelError
from reportgen.subject.contents import read_contents
from reportgen.subject.model_facts import ModelFacts
from reportgen.subject.model_file import open_model
from tests.networks import enlivened, lively, noise


def opened(path: Path, **options: Any) -> tuple[nn.Module, ModelFacts]:
    return open_model(path, sha256="", **options)


def assert_equal(one: nn.Module, other: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected = one(x)
        assert expected.std() > 0
        torch.testing.assert_close(other(x), expected)


def under(prefix: str, model: nn.Module) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in model.state_dict().items()}


class Elsewhere:
    """Makes classes of packages that are gone when the file is read."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def cls(self, path: str, base: type = object, **members: Any) -> type:
        """A class of this dotted name, importable for pickle until `gone`."""
        module, _dot, name = path.rpartition(".")
        parts = module.split(".")
        for package in (".".join(parts[: depth + 1]) for depth in range(len(parts))):
            if package not in sys.modules:
                self._patch.setitem(sys.modules, package, types.ModuleType(package))
        made: type | None = getattr(sys.modules[module], name, None)
        if made is None:
            made = type(name, (base,), {"__module__": module, "__qualname__": name, **members})
            self._patch.setattr(sys.modules[module], name, made, raising=False)
        return made

    def object(self, path: str, **state: Any) -> Any:
        made = self.cls(path)()
        made.__dict__.update(state)
        return made

    def gone(self) -> None:
        self._patch.undo()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    return Elsewhere(monkeypatch)


# whose weights
# -----------------------------------------------------------------------------------------------------------------


def test_lightning(tmp_path: Path, elsewhere: Elsewhere) -> None:
    model = lively("resnet18", classes=7)
    settings = elsewhere.object("project.settings.Settings", width=3)
    torch.save(
        {
            "epoch": 4,
            "global_step": 120,
            "pytorch-lightning_version": "2.6.0",
            "state_dict": {**under("net.", model), "loss.weight": torch.ones(7)},
            "loops": {"fit_loop": {"state_dict": {}}},
            "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": "/home/someone/x.ckpt"}},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
            "hparams_name": "kwargs",
            "hyper_parameters": {"settings": settings, "make": elsewhere.cls("project.nets.Net"), "loss": nn.Softmax()},
        },
        tmp_path / "m.ckpt",
    )
    elsewhere.gone()
    found, facts = opened(tmp_path / "m.ckpt")
    assert (facts.architecture, facts.prefix, facts.stray) == ("torchvision:resnet18", "net.", ("loss.weight",))
    assert facts.safe
    assert_equal(model, found, noise(2, 64))
    contents = read_contents(tmp_path / "m.ckpt", "m.ckpt")
    assert (contents.framework, contents.place) == ("Lightning", "state_dict")
    assert contents.facts == {"epoch": 4, "global_step": 120, "pytorch-lightning_version": "2.6.0"}
    assert set(contents.container.foreign) == {"project.settings.Settings", "project.nets.Net"}


def test_lightning_says_what_was_trained_among_its_hyperparameters(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = enlivened(timm.create_model("efficientnet_lite0", num_classes=3))
    whole = {"state_dict": under("model.", model), "pytorch-lightning_version": "2"}
    torch.save({**whole, "hyper_parameters": {"backbone": "efficientnet_lite0"}}, tmp_path / "m.ckpt")
    found, facts = opened(tmp_path / "m.ckpt")
    assert (facts.architecture, facts.how) == ("timm:efficientnet_lite0", "checkpoint")
    assert_equal(model, found, noise(1, 64))


AVERAGED: dict[str, Callable[[nn.Module, nn.Module], dict[str, Any]]] = {
    "timm": lambda raw, ema: {
        "epoch": 3, "arch": "resnet18", "version": 2, "args": argparse.Namespace(model="resnet18"),
        "state_dict": raw.state_dict(), "state_dict_ema": ema.state_dict(), "metric": 71.5,
    },
    "torchvision's reference scripts": lambda raw, ema: {
        "model": raw.state_dict(), "optimizer": {"state": {}, "param_groups": []}, "lr_scheduler": {"last_epoch": 3},
        "epoch": 3, "args": argparse.Namespace(model="resnet18", data_path="/data/someone"),
        "model_ema": {"n_averaged": torch.tensor(12), **under("module.", ema)},
    },
    "Lightning": lambda raw, ema: {
        "pytorch-lightning_version": "2.6.0", "epoch": 3, "state_dict": under("model.", ema),
        "current_model_state": under("model.", raw),
    },
    "beside each other": lambda raw, ema: {
        "epoch": 3, "state_dict": {**under("model.", raw), **under("ema_model.module.", ema)},
    },
    "compiled, distributed": lambda raw, ema: {
        "epoch": 3, "model_state_dict": under("module._orig_mod.", raw), "ema": {"module": under("_orig_mod.", ema)},
    },
    "modules": lambda raw, ema: {"epoch": 3, "model": raw, "ema": ema},
}  # fmt: skip


@pytest.mark.parametrize("kind", AVERAGED)
def test_raw_weights_and_their_moving_average(kind: str, tmp_path: Path) -> None:
    raw, ema = lively("resnet18", classes=3, seed=1), lively("resnet18", classes=3, seed=2)
    torch.save(AVERAGED[kind](raw, ema), tmp_path / "m.pth")
    for weights, expected in ((None, ema), ("raw", raw)):
        found, facts = opened(tmp_path / "m.pth", weights=weights)
        assert facts.weights == (weights or "ema")
        assert facts.architecture == "torchvision:resnet18"
        assert_equal(expected, found, noise(1, 64))
    contents = read_contents(tmp_path / "m.pth", "m.pth")
    assert contents.available == ("ema", "raw")
    assert contents.facts["epoch"] == 3
    if kind in ("timm", "Lightning") or kind.startswith("torchvision"):
        assert contents.framework == kind


PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "model._orig_mod.module.", "backbone.net.")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("given", [None, "resnet18"])
def test_prefixes_of_wrappers_come_off(prefix: str, given: str | None, tmp_path: Path) -> None:
    model = lively("resnet18", classes=3)
    torch.save({"state_dict": under(prefix, model)}, tmp_path / "m.pt")
    found, facts = opened(tmp_path / "m.pt", arch=given)
    assert (facts.prefix, facts.stray) == (prefix, ())
    assert_equal(model, found, noise(1, 64))


def test_wrappers_of_torch_itself(tmp_path: Path) -> None:
    model = lively("resnet18", classes=3)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    for number, wrapped in enumerate((nn.DataParallel(model), averaged)):
        save_file({k: v.clone() for k, v in wrapped.state_dict().items()}, tmp_path / f"{number}.safetensors")
        torch.save({"model": wrapped.state_dict()}, tmp_path / f"{number}.pt")
        for suffix in (".safetensors", ".pt"):
            found, _facts = opened(tmp_path / f"{number}{suffix}")
            assert_equal(model, found, noise(1, 64))


def test_prefixes_come_off_for_an_architecture_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "its_net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        end = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)\n"
        "        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), *end)\n"
        "    def forward(self, x):\n"
        "        return self.model(x)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    for prefix, own in (("", "model."), ("module.", "model."), ("model._orig_mod.", "model.")):
        torch.save(under(prefix + own, model), tmp_path / "m.pt")
        found, facts = opened(tmp_path / "m.pt", arch="its_net:Net")
        assert facts.prefix == prefix
        assert_equal(model, found, noise(1, 16))


def test_the_one_entry_that_holds_weights(tmp_path: Path) -> None:
    model = lively("resnet18", classes=3)
    torch.save({"epoch": 1, "best_weights_so_far": model.state_dict(), "optimizer": {"state": {}}}, tmp_path / "m.pt")
    found, _facts = opened(tmp_path / "m.pt")
    assert_equal(model, found, noise(1, 64))
    assert read_contents(tmp_path / "m.pt", "m.pt").place == "best_weights_so_far"
    torch.save({"one": model.state_dict(), "other": model.state_dict()}, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match="it holds one, other"):
        opened(tmp_path / "m.pt")


# whole objects
# ------------------------------------------------------------------------------------------------------------------


def test_a_class_of_ones_own_around_a_known_network(tmp_path: Path, elsewhere: Elsewhere) -> None:
    model = lively("resnet18", classes=3)
    own = elsewhere.cls("__main__.Classifier", nn.Module, forward=lambda self, x: self.net(x))()
    own.net = model
    torch.save(own, tmp_path / "m.pt")
    elsewhere.gone()
    found, facts = opened(tmp_path / "m.pt")
    assert (facts.architecture, facts.how, facts.safe) == ("torchvision:resnet18", "recognised", True)
    assert facts.replaced == ("__main__.Classifier",)
    assert_equal(model, found, noise(1, 64))


def test_the_report_says_whose_code_was_not_run(tmp_path: Path, elsewhere: Elsewhere) -> None:
    own = elsewhere.cls("project.nets.Classifier", nn.Module)()
    own.net = lively("resnet18", classes=3)
    torch.save(own, tmp_path / "own.pt")
    torch.save(cut(elsewhere), tmp_path / "twins.pt")
    elsewhere.gone()
    picture = Image.fromarray((noise(1, 64)[0].permute(1, 2, 0) * 40 + 128).byte().numpy())
    for name, severity, words in (("own", "warning", "project.nets.Classifier"), ("twins", "info", "fastai.layers")):
        report = reportgen.audit(
            tmp_path / f"{name}.pt", [picture], only=["predictions"], input_size="64", no_cache=True
        )
        found = [one for one in report.facts["findings"] if one["rule"] == "model.replaced_classes"]
        assert [one["severity"] for one in found] == [severity]
        assert words in found[0]["detail"]


def test_a_class_of_ones_own_with_weights_of_its_own_is_refused(tmp_path: Path, elsewhere: Elsewhere) -> None:
    own = elsewhere.cls("project.Net", nn.Module)()
    own.conv, own.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
    torch.save(own, tmp_path / "m.pt")
    elsewhere.gone()
    with pytest.raises(UnsafeModelError, match=r"it holds project\.Net") as caught:
        opened(tmp_path / "m.pt")
    assert "--arch" in caught.value.remedy
    assert len(str(caught.value).splitlines()) == 2


def test_what_python_itself_can_do_stays_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, ("true",)

    torch.save({"state_dict": lively("resnet18").state_dict(), "hyper_parameters": {"x": Evil()}}, tmp_path / "m.ckpt")
    with pytest.raises(UnsafeModelError, match="system, which is not needed to read weights"):
        opened(tmp_path / "m.ckpt")


# Ultralytics: what its layers compute, written down a second time
# ----------------------------------------------------------------------------------------------------------------


class Layers:
    """Layers in the structure and under the names of Ultralytics."""

    def __init__(self, elsewhere: Elsewhere) -> None:
        conv, block = "ultralytics.nn.modules.conv.", "ultralytics.nn.modules.block."
        make = elsewhere.cls
        self.Conv = make(f"{conv}Conv", nn.Module, forward=lambda m, x: m.act(m.bn(m.conv(x))))
        self.Bottleneck = make(
            f"{block}Bottleneck", nn.Module, forward=lambda m, x: m.cv2(m.cv1(x)) + (x if m.add else 0)
        )
        self.C2f = make(f"{block}C2f", nn.Module, forward=c2f)
        self.C3k2 = make(f"{block}C3k2", nn.Module, forward=c2f)
        self.C3k = make(
            f"{block}C3k", nn.Module, forward=lambda m, x: m.cv3(torch.cat([m.m(m.cv1(x)), m.cv2(x)], dim=1))
        )
        self.Attention = make(f"{block}Attention", nn.Module, forward=attended)
        self.PSABlock = make(f"{block}PSABlock", nn.Module, forward=lambda m, x: (y := x + m.attn(x)) + m.ffn(y))
        self.C2PSA = make(f"{block}C2PSA", nn.Module, forward=c2psa)
        self.Classify = make(
            "ultralytics.nn.modules.head.Classify",
            nn.Module,
            forward=lambda m, x: m.linear(m.drop(m.pool(m.conv(x)).flatten(1))).softmax(1),
        )
        self.Model = make("ultralytics.nn.tasks.ClassificationModel", nn.Module, forward=lambda m, x: m.model(x))

    def of(self, kind: str, **parts: Any) -> Any:
        made = getattr(self, kind)()
        for name, part in parts.items():
            setattr(made, name, part)
        return made

    def conv(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
    ) -> Any:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        activation = nn.SiLU(inplace=True) if act else nn.Identity()
        return self.of("Conv", conv=convolution, bn=nn.BatchNorm2d(outputs, eps=1e-3), act=activation)

    def bottleneck(self, width: int) -> Any:
        return self.of("Bottleneck", cv1=self.conv(width, width, 3), cv2=self.conv(width, width, 3), add=True)


def c2f(m: Any, x: Tensor) -> Tensor:
    whole = m.cv1(x)
    width = whole.shape[1] // 2
    outputs = [whole[:, :width], whole[:, width:]]
    for block in m.m:
        outputs = [*outputs, block(outputs[-1])]
    return m.cv2(torch.cat(outputs, dim=1))  # type: ignore[no-any-return]


def c2psa(m: Any, x: Tensor) -> Tensor:
    whole = m.cv1(x)
    return m.cv2(torch.cat([whole[:, : m.c], m.m(whole[:, m.c :])], dim=1))  # type: ignore[no-any-return]


def attended(m: Any, x: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    per_head = m.qkv(x).reshape(n, m.num_heads, -1, height * width).transpose(2, 3)
    query, key, value = (
        per_head[..., : m.key_dim],
        per_head[..., m.key_dim : 2 * m.key_dim],
        per_head[..., 2 * m.key_dim :],
    )
    mixed = functional.scaled_dot_product_attention(query, key, value, scale=m.scale)
    places = m.pe(value.transpose(2, 3).reshape(n, channels, height, width))
    return m.proj(mixed.transpose(2, 3).reshape(n, channels, height, width) + places)  # type: ignore[no-any-return]


def classifier(layers: Layers, *, names: Mapping[int, str]) -> nn.Module:
    """A network of all layers that have a twin, 16 channels wide."""
    conv = layers.conv
    attention = layers.of(
        "Attention", num_heads=2, head_dim=4, key_dim=2, scale=2**-0.5,
        qkv=conv(8, 16, act=False), proj=conv(8, 8, act=False), pe=conv(8, 8, 3, groups=8, act=False),
    )  # fmt: skip
    block = layers.of("PSABlock", attn=attention, ffn=nn.Sequential(conv(8, 16), conv(16, 8, act=False)), add=True)
    c3k = layers.of("C3k", cv1=conv(8, 4), cv2=conv(8, 4), cv3=conv(8, 8), m=nn.Sequential(layers.bottleneck(4)))
    parts = [
        conv(3, 16, 3, stride=2),
        layers.of("C2f", c=8, cv1=conv(16, 16), cv2=conv(24, 16), m=nn.ModuleList([layers.bottleneck(8)])),
        layers.of("C3k2", c=8, cv1=conv(16, 16), cv2=conv(24, 16), m=nn.ModuleList([c3k])),
        layers.of("C2PSA", c=8, cv1=conv(16, 16), cv2=conv(16, 16), m=nn.Sequential(block)),
        layers.of(
            "Classify", conv=conv(16, 32), pool=nn.AdaptiveAvgPool2d(1), drop=nn.Dropout(0.0), linear=nn.Linear(32, 5)
        ),
    ]
    for number, part in enumerate(parts):
        part.i, part.f, part.type = number, -1, type(part).__name__  # type: ignore[assignment]
    model: nn.Module = layers.of("Model", model=nn.Sequential(*parts), names=dict(names), args={"imgsz": 96})
    return enlivened(model, size=64)


def ultralytics_file(path: Path, model: Any, **more: Any) -> Path:
    torch.save({"epoch": -1, "model": model, "ema": None, "optimizer": None, "version": "8.4.0", **more}, path)
    return path


def test_ultralytics(tmp_path: Path, elsewhere: Elsewhere) -> None:
    model = classifier(Layers(elsewhere), names=dict(enumerate(("ant", "bee", "cat", "dog", "elk"))))
    x = noise(2, 64)
    with torch.no_grad():
        expected = model(x)
    path = ultralytics_file(tmp_path / "best.pt", model.half())
    elsewhere.gone()
    found, facts = opened(path)
    with torch.no_grad():
        torch.testing.assert_close(found(x), expected, atol=2e-3, rtol=0)
    assert expected.std() > 0.02
    assert facts.labels == ("ant", "bee", "cat", "dog", "elk")
    assert (facts.safe, facts.how, facts.num_classes) == (True, "class", 5)
    assert facts.published is not None
    assert (facts.published.input_size, facts.published.mean) == ((3, 96, 96), (0.0, 0.0, 0.0))
    assert "ultralytics.nn.modules.block.C2PSA" in facts.replaced
    assert read_contents(path, "best.pt").framework == "Ultralytics"


def test_layers_of_ultralytics_that_are_not_in_a_row_stop_the_network(tmp_path: Path, elsewhere: Elsewhere) -> None:
    model: Any = classifier(Layers(elsewhere), names={})
    model.model[2].f = 0
    path = ultralytics_file(tmp_path / "m.pt", model)
    elsewhere.gone()
    found, _facts = opened(path)
    with pytest.raises(ModelFileError, match="not in a row"):
        found(noise(1, 64))


def test_a_detector_of_ultralytics_is_told(tmp_path: Path, elsewhere: Elsewhere) -> None:
    model = elsewhere.cls("ultralytics.nn.tasks.DetectionModel", nn.Module)()
    model.model = nn.Sequential(Layers(elsewhere).conv(3, 4))
    path = ultralytics_file(tmp_path / "yolo.pt", model)
    elsewhere.gone()
    with pytest.raises(ModelFileError, match="is a DetectionModel of Ultralytics, not an image") as caught:
        opened(path)
    assert "cls.pt" in caught.value.remedy


# fastai
# ------------------------------------------------------------------------------------------------------------------


def cut(elsewhere: Elsewhere, name: str = "resnet18") -> nn.Module:
    """A network in the structure of fastai: numbered children as body, pooling by maximum and mean, its own head."""
    pool = elsewhere.cls(
        "fastai.layers.AdaptiveConcatPool2d", nn.Module, forward=lambda m, x: torch.cat([m.mp(x), m.ap(x)], 1)
    )()
    pool.ap, pool.mp = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
    flatten = elsewhere.cls("fastai.layers.Flatten", nn.Module, forward=lambda m, x: x.reshape(len(x), -1))()
    flatten.full = False
    whole = lively(name)
    body = nn.Sequential(
        *[part for child, part in whole.named_children() if child not in ("avgpool", "fc", "classifier")]
    )
    with torch.no_grad():
        width = body.eval()(noise(1, 64)).shape[1]
    head = [pool, flatten, nn.BatchNorm1d(2 * width), nn.Dropout(0.25), nn.Linear(2 * width, 16, bias=False)]
    head += [nn.ReLU(inplace=True), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 4, bias=False)]
    model = nn.Sequential(body, nn.Sequential(*head))
    for part in head:
        if isinstance(part, nn.BatchNorm1d):
            nn.init.uniform_(part.running_mean, -0.5, 0.5)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    return model.eval()


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "squeezenet1_1"])
@pytest.mark.parametrize("whole", [False, True])
def test_fastai_saved_weights(name: str, whole: bool, tmp_path: Path, elsewhere: Elsewhere) -> None:
    model = cut(elsewhere, name)
    torch.save({"model": model.state_dict(), "opt": {"state": []}} if whole else model.state_dict(), tmp_path / "m.pth")
    found, facts = opened(tmp_path / "m.pth")
    assert (facts.architecture, facts.how, facts.num_classes) == (f"torchvision:{name}", "recognised", 4)
    assert_equal(model, found, noise(2, 64))
    if whole:
        assert read_contents(tmp_path / "m.pth", "m.pth").framework == "fastai (learn.save)"


def test_fastai_saved_weights_of_a_head_behind_the_mean_alone(tmp_path: Path, elsewhere: Elsewhere) -> None:
    body, head = cut(elsewhere)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(512), nn.Dropout(), nn.Linear(512, 4))
    model = nn.Sequential(body, head).eval()
    torch.save(model.state_dict(), tmp_path / "m.pth")
    assert_equal(model, opened(tmp_path / "m.pth")[0], noise(2, 64))


def test_fastai_saved_weights_of_a_body_of_timm(tmp_path: Path, elsewhere: Elsewhere) -> None:
    timm = pytest.importorskip("timm")
    body = nn.Module()
    body.model = timm.create_model("resnet18", num_classes=0, global_pool="")
    torch.save(nn.Sequential(body, cut(elsewhere)[1]).state_dict(), tmp_path / "m.pth")
    found, facts = opened(tmp_path / "m.pth")
    assert facts.architecture == "timm:resnet18"
    expected = nn.Sequential(body.model, cut(elsewhere)[1]).eval()
    expected[1].load_state_dict(found[1].state_dict())  # type: ignore[index]
    assert_equal(expected, found, noise(2, 64))


def learner(elsewhere: Elsewhere, model: nn.Module) -> Any:
    """An export in the structure of fastai: the network among data, transforms and callbacks."""
    make = elsewhere.object
    items = make("fastcore.foundation.L", items=["ant", "bee", "cat", "dog"])
    vocabulary = make("fastai.data.transforms.CategoryMap", items=items, o2i={"ant": 0})
    resize = make("fastai.vision.augment.Resize", size=(64, 48), method="squish")
    mean, std = torch.tensor([0.5, 0.4, 0.3]).reshape(1, 3, 1, 1), torch.full((1, 3, 1, 1), 0.2)
    normalize = make("fastai.data.transforms.Normalize", mean=mean, std=std)
    loader = make(
        "fastai.data.core.TfmdDL", after_item=[resize], after_batch=[normalize], dataset={"vocab": vocabulary}
    )
    made = make("fastai.learner.Learner", model=model, dls=make("fastai.data.core.DataLoaders", loaders=[loader]))
    made.cbs = make("fastcore.foundation.L", items=[make("fastai.callback.core.TrainEvalCallback", learn=made)])
    return made


def test_fastai_export(tmp_path: Path, elsewhere: Elsewhere) -> None:
    model = cut(elsewhere)
    torch.save(learner(elsewhere, model), tmp_path / "export.pkl", pickle_protocol=2)
    elsewhere.gone()
    found, facts = opened(tmp_path / "export.pkl")
    assert_equal(model, found, noise(2, 64))
    assert (facts.safe, facts.labels, facts.num_classes) == (True, ("ant", "bee", "cat", "dog"), 4)
    assert facts.published is not None
    assert facts.published.input_size == (3, 64, 48)
    assert facts.published.crop_mode == "squash"
    assert facts.published.mean == pytest.approx((0.5, 0.4, 0.3))
    assert facts.replaced == ("fastai.layers.AdaptiveConcatPool2d", "fastai.layers.Flatten")
    contents = read_contents(tmp_path / "export.pkl", "export.pkl")
    assert (contents.framework, contents.place) == ("fastai (learn.export)", "model")
