"""Checkpoints that training frameworks wrote themselves, where they are installed (CONTRIBUTING tells how)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reportgen.subject.contents import read_contents
from reportgen.subject.model_file import open_model
from tests.networks import enlivened, lively, noise

pytestmark = pytest.mark.filterwarnings("ignore")  # what a framework is warned of is its own affair


def assert_equal(expected: Tensor, path: Path, x: Tensor, **options: Any) -> None:
    found, facts = open_model(path, sha256="", **options)
    assert facts.safe
    with torch.no_grad():
        assert expected.std() > 0
        torch.testing.assert_close(found(x), expected)


def scores(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(x)  # type: ignore[no-any-return]


def test_a_compiled_network(tmp_path: Path) -> None:
    model = lively("squeezenet1_1", classes=3)
    torch.save({"model": torch.compile(model).state_dict()}, tmp_path / "m.pt")
    assert any(key.startswith("_orig_mod.") for key in read_contents(tmp_path / "m.pt", "m.pt").state)
    assert_equal(scores(model, noise(1, 64)), tmp_path / "m.pt", noise(1, 64))


def trained_by_lightning(path: Path, *callbacks: Any) -> nn.Module:
    """A network after three steps; the checkpoint is written after the second, while a moving average runs beside."""
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")

    class Lit(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self, loss: Any) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = lively("squeezenet1_1", classes=3)
            self.loss = loss

        def training_step(self, batch: Any, _index: int) -> Any:
            return self.loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 1e-2)

    class Saving(lightning.Callback):  # type: ignore[name-defined, misc]
        def on_train_batch_end(self, trainer: Any, module: Any, _out: Any, _batch: Any, index: int) -> None:
            if index == 1:
                trainer.save_checkpoint(path)
                saved.load_state_dict(module.net.state_dict())

    saved = lively("squeezenet1_1", classes=3)
    data = torch.utils.data.DataLoader([(noise(1, 64, seed=n)[0], n % 3) for n in range(6)], batch_size=2)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_steps=3, enable_checkpointing=False, callbacks=[*callbacks, Saving()], **quiet)
    trainer.fit(Lit(nn.CrossEntropyLoss()), data)
    return saved


def test_lightning(tmp_path: Path) -> None:
    model = trained_by_lightning(tmp_path / "m.ckpt")
    assert_equal(scores(model, noise(2, 64)), tmp_path / "m.ckpt", noise(2, 64))
    contents = read_contents(tmp_path / "m.ckpt", "m.ckpt")
    assert (contents.framework, contents.facts["global_step"]) == ("Lightning", 2)


def test_lightning_with_a_moving_average(tmp_path: Path) -> None:
    callbacks = pytest.importorskip("lightning.pytorch.callbacks", reason="lightning is not installed")
    model = trained_by_lightning(tmp_path / "m.ckpt", callbacks.EMAWeightAveraging(decay=0.5))
    assert read_contents(tmp_path / "m.ckpt", "m.ckpt").available == ("ema", "raw")
    x = noise(2, 64)
    assert_equal(scores(model, x), tmp_path / "m.ckpt", x, weights="raw")
    average, facts = open_model(tmp_path / "m.ckpt", sha256="")
    assert facts.weights == "ema"
    assert not torch.allclose(scores(average, x), scores(model, x))


def test_accelerate_in_several_files(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    model = lively("squeezenet1_1", classes=3)
    accelerator = accelerate.Accelerator(cpu=True)
    for safe, index in ((True, "model.safetensors.index.json"), (False, "pytorch_model.bin.index.json")):
        accelerator.save_model(model, tmp_path / str(safe), max_shard_size="1MB", safe_serialization=safe)
        assert len(list((tmp_path / str(safe)).iterdir())) > 2
        assert_equal(scores(model, noise(1, 64)), tmp_path / str(safe) / index, noise(1, 64))


@pytest.mark.parametrize("name", ["yolov8n-cls", "yolo11n-cls"])
def test_ultralytics(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    ultralytics = pytest.importorskip("ultralytics", reason="ultralytics is not installed")
    wrapper = ultralytics.YOLO(f"{name}.yaml", verbose=False)
    enlivened(wrapper.model, size=64)
    wrapper.save(str(tmp_path / "m.pt"))
    # it saves half precision, so what it wrote is what counts
    saved = torch.load(tmp_path / "m.pt", weights_only=False)["model"].float().eval()
    x = noise(2, 64)
    assert_equal(scores(saved, x)[0], tmp_path / "m.pt", x)
    assert read_contents(tmp_path / "m.pt", "m.pt").framework == "Ultralytics"


def fastai_learner(folder: Path) -> Any:
    vision = pytest.importorskip("fastai.vision.all", reason="fastai is not installed")
    for number in range(8):
        kind = folder / ("cat", "dog")[number % 2]
        kind.mkdir(exist_ok=True)
        vision.PILImage.create((noise(1, 48, seed=number)[0].permute(1, 2, 0) * 40 + 128).byte().numpy()).save(
            kind / f"{number}.png"
        )
    loaders = vision.ImageDataLoaders.from_folder(
        folder, valid_pct=0.25, seed=0, bs=2, item_tfms=vision.Resize(64), num_workers=0
    )
    made = vision.vision_learner(loaders, vision.squeezenet1_1, metrics=vision.accuracy, pretrained=False)
    with made.no_bar(), made.no_logging():
        made.fit(1)
    return made


def test_fastai(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    learner = fastai_learner(tmp_path / "images")
    learner.save(tmp_path / "saved")
    learner.export(tmp_path / "export.pkl")
    x = noise(2, 64)
    expected = scores(learner.model.cpu(), x)
    for name, framework in (("saved.pth", "fastai (learn.save)"), ("export.pkl", "fastai (learn.export)")):
        assert_equal(expected, tmp_path / name, x)
        assert read_contents(tmp_path / name, name).framework == framework
    _model, facts = open_model(tmp_path / "export.pkl", sha256="")
    assert facts.labels == ("cat", "dog")
    assert facts.published is not None
    assert facts.published.input_size == (3, 64, 64)
