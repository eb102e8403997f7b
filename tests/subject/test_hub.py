"""Models as Hugging Face's hub lays them out: the directory or the weights in it, of timm and of transformers."""

from __future__ import annotations

import json
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import reportgen
from reportgen.cli import main
from reportgen.errors import ArchitectureError, ModelFileError, ReportgenError
from reportgen.inspection import inspect_file
from reportgen.subject import hub
from reportgen.subject.hub import beside, settings_of, weights_of
from reportgen.subject.live import live_facts
from reportgen.subject.model_facts import ModelFacts
from reportgen.subject.model_file import open_model
from reportgen.subject.preprocessing import resolve_pipeline
from tests.networks import enlivened, lively, noise

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_args: object, **_named: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def opened(path: Path, **options: Any) -> tuple[nn.Module, ModelFacts]:
    return open_model(path, sha256="", **options)


def scores(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        made = model(x)
    return made if isinstance(made, torch.Tensor) else made.logits


def agree(one: nn.Module, other: nn.Module, x: torch.Tensor) -> bool:
    expected, found = scores(one, x), scores(other, x)
    return bool((expected - found).abs().max() <= 1e-5 * expected.abs().max()) and bool(expected.abs().max() > 0)


# timm
# ---------------------------------------------------------------------------------------------------------------


def saved_by_timm(model: nn.Module, folder: Path, **more: Any) -> Path:
    """As timm's ``save_for_hf`` writes it."""
    from timm.models import save_for_hf

    save_for_hf(model, folder, model_config=more, safe_serialization=True)
    return folder


def test_a_folder_of_timm_says_what_the_weights_do_not(tmp_path: Path) -> None:
    """These weights fit two architectures that compute different things."""
    model = enlivened(timm.create_model("efficientnet_lite0", num_classes=3))
    names = ["n01", "n02", "n03"]
    folder = saved_by_timm(
        model, tmp_path / "lite", label_names=names, label_descriptions=dict(zip(names, "abc", strict=False))
    )
    for path in (folder, folder / "model.safetensors"):
        found, facts = opened(path)
        assert (facts.architecture, facts.how, facts.num_classes) == ("timm:efficientnet_lite0", "checkpoint", 3)
        assert (facts.labels, facts.labels_from) == (("a", "b", "c"), "file")
        assert facts.file == path.name
        assert facts.published is not None
        assert facts.published.stated
        assert facts.published.input_size == (3, 224, 224)
        assert agree(model, found, noise(1, 96))
    _found, facts = opened(folder, arch="timm:tf_efficientnet_lite0")  # the user's word goes first, names stay
    assert (facts.architecture, facts.how, facts.labels) == ("timm:tf_efficientnet_lite0", "given", ("a", "b", "c"))
    (folder / "config.json").unlink()
    with pytest.raises(ArchitectureError, match="compute different things"):
        opened(folder)


def test_arguments_of_the_constructor_are_taken_unless_they_open_files(tmp_path: Path) -> None:
    model = enlivened(timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=64, depth=2), size=64)
    folder = saved_by_timm(model, tmp_path / "vit", model_args={"img_size": 64, "depth": 2})
    found, facts = opened(folder)
    assert facts.architecture == "timm:vit_tiny_patch16_224"
    assert agree(model, found, noise(1, 64))
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] |= {"checkpoint_path": str(tmp_path / "other.pt"), "pretrained": True}
    (folder / "config.json").write_text(json.dumps(config))
    found, _facts = opened(folder)
    assert agree(model, found, noise(1, 64))


def test_a_configuration_that_does_not_fit_is_not_believed(tmp_path: Path) -> None:
    folder = saved_by_timm(timm.create_model("resnet18", num_classes=3), tmp_path / "m")
    model = lively("mobilenet_v3_small", classes=4)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    found, facts = opened(folder)
    assert facts.architecture == "torchvision:mobilenet_v3_small"
    assert agree(model, found, noise(1, 64))


# transformers
# -------------------------------------------------------------------------------------------------------

VIT = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
TINY: dict[str, dict[str, Any]] = {
    "ViT": VIT,
    "DeiT": VIT,
    "Beit": VIT,
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "ConvNext": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    "Swin": {
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [1, 2],
        "window_size": 4,
        "image_size": 32,
        "patch_size": 2,
    },
    "MobileNetV2": {"depth_multiplier": 0.25},
}
"""Options of tiny models by the kind of model."""


def tiny(kind: str, **more: Any) -> nn.Module:
    config = getattr(transformers, f"{kind}Config")(**TINY[kind], **more)
    torch.manual_seed(0)
    model: nn.Module = getattr(transformers, f"{kind}ForImageClassification")(config)
    return enlivened(model, size=32)


NAMES = {"id2label": {0: "cat", 1: "dog", 2: "owl"}, "label2id": {"cat": 0, "dog": 1, "owl": 2}}


@pytest.mark.parametrize("name", TINY)
def test_folders_of_transformers(name: str, tmp_path: Path) -> None:
    model = tiny(name, **NAMES)
    model.save_pretrained(tmp_path / "m")
    for path in (tmp_path / "m", tmp_path / "m" / "model.safetensors"):
        found, facts = opened(path)
        assert facts.architecture == f"transformers:{type(model).__name__}"
        assert (facts.how, facts.num_classes, facts.labels) == ("checkpoint", 3, ("cat", "dog", "owl"))
        assert facts.safe
        assert not found.training
        assert agree(model, found, noise(2, 32))


def test_a_model_of_timm_within_transformers(tmp_path: Path) -> None:
    config = transformers.TimmWrapperConfig(architecture="resnet10t", do_pooling=True, num_labels=3)
    model = enlivened(transformers.TimmWrapperForImageClassification(config), size=64)
    model.save_pretrained(tmp_path)
    found, facts = opened(tmp_path)
    assert (facts.architecture, facts.how, facts.num_classes) == ("timm:resnet10t", "checkpoint", 3)
    assert agree(model, found, noise(1, 64))


def test_shards_of_transformers(tmp_path: Path) -> None:
    model = tiny("ViT", **NAMES)
    model.save_pretrained(tmp_path / "m", max_shard_size="20KB")
    assert len(list((tmp_path / "m").glob("model-*.safetensors"))) > 1
    for path in (tmp_path / "m", tmp_path / "m" / "model.safetensors.index.json"):
        found, _facts = opened(path)
        assert agree(model, found, noise(1, 32))


def test_numbers_of_the_library_are_no_class_names(tmp_path: Path) -> None:
    tiny("ResNet", num_labels=3).save_pretrained(tmp_path / "m")
    _found, facts = opened(tmp_path / "m")
    assert (facts.num_classes, facts.labels) == (3, None)


def test_what_does_not_fit_the_configuration_is_named(tmp_path: Path) -> None:
    tiny("ViT", **NAMES).save_pretrained(tmp_path / "m")
    state = load_file(tmp_path / "m" / "model.safetensors")
    del state["classifier.bias"]
    state["classifier.weight"] = torch.ones(7, 24)
    save_file({**state, "more": torch.ones(2)}, tmp_path / "m" / "model.safetensors")
    with pytest.raises(ArchitectureError) as caught:
        opened(tmp_path / "m")
    assert str(caught.value).splitlines() == [
        "the weights in 'm' do not fit transformers:ViTForImageClassification: 1 are missing (classifier.bias); "
        "1 are of another shape (classifier.weight: (7, 24), not (3, 24)); 1 are unknown to it (more)",
        "give the config.json that was saved with these weights",
    ]


def test_models_for_something_else_are_named(tmp_path: Path) -> None:
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=32)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "m")
    for told in (lambda: opened(tmp_path / "m"), lambda: opened(tmp_path / "m" / "model.safetensors")):
        with pytest.raises(ModelFileError, match="is a GPT2LMHeadModel of transformers, not an image classifier"):
            told()
    assert "GPT2LMHeadModel" in inspect_file(tmp_path / "m")["error"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_hidden_layers": 10**9}, "impossible num_hidden_layers"),
        ({"hidden_size": 2**40}, "impossible hidden_size"),
        ({"hidden_size": "wide"}, "config.json"),
        ({"model_type": "no-such"}, "no image classifier of that kind"),
        ({"hidden_act": "no-such"}, "cannot be built"),
    ],
)
def test_hostile_and_damaged_configurations(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    tiny("ViT", **NAMES).save_pretrained(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ReportgenError, match=words) as caught:
        opened(tmp_path / "m")
    assert len(str(caught.value).splitlines()) == 2


def test_code_in_the_folder_is_not_run(tmp_path: Path) -> None:
    model = tiny("ViT", **NAMES)
    model.save_pretrained(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["auto_map"] = {"AutoModelForImageClassification": "evil.Model", "AutoConfig": "evil.Config"}
    config |= dict.fromkeys(("attn_implementation", "_attn_implementation", "backbone"), "evil/kernel")
    config |= {"quantization_config": {"quant_method": "awq"}, "use_pretrained_backbone": True}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "evil.py").write_text(f"open({str(tmp_path / 'done')!r}, 'w')")
    (tmp_path / "m" / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", "auto_map": {"AutoImageProcessor": "evil.P"}})
    )
    found, _facts = opened(tmp_path / "m")
    assert agree(model, found, noise(1, 32))
    assert not (tmp_path / "done").exists()


# preprocessing
# ------------------------------------------------------------------------------------------------------

PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "squash": ("ViTImageProcessor", {"size": {"height": 24, "width": 32}}),
    "convnext": ("ConvNextImageProcessor", {"size": {"shortest_edge": 28}, "crop_pct": 0.875}),
    "convnext, large": ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}, "crop_pct": 0.95}),
    "shorter side, crop": (
        "MobileNetV2ImageProcessor",
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
    ),
    "blue first": (
        "MobileViTImageProcessor",
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
    ),
    "squash, crop": (
        "DeiTImageProcessor",
        {"size": {"height": 37, "width": 37}, "crop_size": {"height": 32, "width": 32}},
    ),
    "shifted": (
        "EfficientNetImageProcessor",
        {
            "size": {"height": 30, "width": 30},
            "do_center_crop": False,
            "rescale_factor": 1 / 127.5,
            "rescale_offset": True,
            "resample": 3,
        },
    ),
    "levit": ("LevitImageProcessor", {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}),
    "poolformer": (
        "PoolFormerImageProcessor",
        {"size": {"shortest_edge": 36}, "crop_pct": 0.9, "crop_size": {"height": 36, "width": 36}},
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_preprocessing_is_what_transformers_does(name: str, tmp_path: Path) -> None:
    kind, options = PROCESSORS[name]
    tiny("ResNet", **NAMES).save_pretrained(tmp_path)
    told = {"image_processor_type": kind, **options}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    _found, facts = opened(tmp_path)
    published = facts.published
    assert published is not None
    assert published.stated
    pipeline = resolve_pipeline(published, channels_in=3, bgr=published.bgr)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    for size in ((60, 80), (80, 60), (53, 53)):
        image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        expected = np.asarray(processor(image, return_tensors="np")["pixel_values"][0])
        assert pipeline(image).shape == expected.shape
        assert np.abs(pipeline(image) - expected).max() <= 1e-5 * np.abs(expected).max(), size


def test_without_a_statement_everything_but_the_size_is_assumed(tmp_path: Path) -> None:
    tiny("ViT", **NAMES).save_pretrained(tmp_path)
    _found, facts = opened(tmp_path)
    assert facts.published is not None
    assert (facts.published.input_size, facts.published.stated) == ((3, 32, 32), False)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "ViTImageProcessor", "size": "x"}')
    with pytest.raises(ArchitectureError, match=r"preprocessor_config.json beside the weights cannot be read"):
        opened(tmp_path)


# a whole audit
# ------------------------------------------------------------------------------------------------------------


def test_an_audit_of_a_folder(tmp_path: Path) -> None:
    tiny("ViT", **NAMES).save_pretrained(tmp_path / "net")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "images" / "a.png")

    def audited() -> Any:
        return reportgen.audit(
            tmp_path / "net", tmp_path / "images", only=("predictions",), cache_dir=tmp_path / "cache"
        ).facts

    facts = audited()
    assert facts["model"]["file"] == "net"
    assert facts["model"]["classes"] == 3
    assert {one["label"] for one in facts["predictions"][0]["top"]} == {"cat", "dog", "owl"}
    assert audited()["passes"]["forward"]["batches"] == 0
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    config["id2label"] = {"0": "ant", "1": "bee", "2": "fly"}
    (tmp_path / "net" / "config.json").write_text(json.dumps(config))
    assert {one["label"] for one in audited()["predictions"][0]["top"]} == {"ant", "bee", "fly"}


def test_a_live_model_that_says_what_its_classes_are(tmp_path: Path) -> None:
    model = tiny("ResNet", **NAMES, problem_type="multi_label_classification")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    report = reportgen.audit(
        model, [tmp_path / "a.png"], only=("predictions",), input_size="32", cache_dir=tmp_path / "cache"
    )
    assert report.facts["model"]["output_kind"] == "multilabel"
    assert {one["label"] for one in report.facts["predictions"][0]["top"]} == {"cat", "dog", "owl"}


def test_without_the_library_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny("ResNet", **NAMES).save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers.models.auto.configuration_auto", None)
    with pytest.raises(ArchitectureError) as caught:
        opened(tmp_path)
    assert caught.value.remedy == "pip install 'reportgen[hf]'"


def test_inspecting_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny("ResNet", **NAMES).save_pretrained(tmp_path / "net")
    assert main(["inspect", str(tmp_path / "net")]) == 0
    told = capsys.readouterr().out
    assert "transformers:ResNetForImageClassification" in told
    assert "safetensors" in told


# which file
# -------------------------------------------------------------------------------------------------------------


def test_which_file_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="holds no weights"):
        weights_of(tmp_path)
    for name in ("optimizer.pt", "other-00001-of-00002.pt", "a.pt"):
        (tmp_path / name).touch()
    assert weights_of(tmp_path).name == "a.pt"
    (tmp_path / "b.pth").touch()
    with pytest.raises(ModelFileError, match="holds 2 weights files"):
        weights_of(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    assert weights_of(tmp_path).name == "pytorch_model.bin"
    assert weights_of(tmp_path / "a.pt") == tmp_path / "a.pt"


def test_a_configuration_speaks_of_the_weights_it_came_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    (tmp_path / "a.pt").touch()
    assert settings_of(tmp_path / "a.pt").of_timm
    (tmp_path / "b.pt").touch()
    assert beside(tmp_path / "a.pt") == ()
    (tmp_path / "model.safetensors").touch()
    assert [file.name for file in beside(tmp_path / "model.safetensors")] == ["config.json"]
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ModelFileError, match=r"'config\.json' beside the weights is damaged"):
        settings_of(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    monkeypatch.setattr(hub, "_MOST_JSON", 20)
    with pytest.raises(ModelFileError, match="damaged"):
        settings_of(tmp_path / "model.safetensors")


@pytest.mark.parametrize(("name", "channels"), [("tresnet_m", 3), ("tresnet_m", 1), ("csatv2", 3), ("resnet18", 12)])
def test_channels_of_images_not_of_what_is_folded_from_them(name: str, channels: int, tmp_path: Path) -> None:
    """The first convolution of TResNet reads 4 × 4 pixels as channels, those of CSATv2 frequencies."""
    module = timm.create_model(name, in_chans=channels).eval()
    torch.save(module.state_dict(), tmp_path / "m.pt")
    _opened, facts = open_model(tmp_path / "m.pt", sha256="0")
    assert facts.channels_in == live_facts(module).channels_in == channels
