"""Models as directories, laid out as the hub of Hugging Face does it: weights, ``config.json``, preprocessing.

The directory or the weights in it may be given. What stands beside the weights is read as data: nothing in it is
imported, and nothing is fetched. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reportgen.errors import ModelFileError
from reportgen.subject.kinds import kind_of_folder
from reportgen.subject.sharded import INDEX, PART

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pt2")
_USUAL = tuple(f"{name}{end}" for name in ("model.safetensors", "pytorch_model.bin") for end in ("", INDEX))
_MOST_JSON = 2**25
"""``config.json`` of a classifier of twenty thousand classes has two million letters."""
_FOR_TRAINING = ("optimizer.", "scheduler.", "rng_state", "training_args.", "scaler.")
_TIMM_WRAPPER = "timm_wrapper"
"""How transformers calls a model of timm within it; its ``config.json`` is timm's."""


def weights_of(path: Path) -> Path:
    """The file of the weights, or their index: the path itself, or what lies in it if it is a directory.

    Raises:
        ModelFileError: if a directory holds none, or several and none under the usual name.
    """
    if not path.is_dir():
        return path
    for name in _USUAL:
        if (path / name).is_file():
            return path / name
    shown = shown_name(path)
    there = _weights_in(path)
    if len(there) == 1:
        return there[0]
    if there:
        names = ", ".join(repr(file.name) for file in there[:3])
        raise ModelFileError(f"the folder {shown!r} holds {len(there)} weights files: {names}", "give one of them")
    kind = kind_of_folder(path)
    if kind is not None:
        raise ModelFileError(f"the folder {shown!r} is {kind.what}", kind.remedy)
    raise ModelFileError(
        f"the folder {shown!r} holds no weights",
        "give a model file, or a folder with config.json and model.safetensors",
    )


def _weights_in(folder: Path) -> list[Path]:
    try:
        files = [file for file in sorted(folder.iterdir()) if file.suffix in _SUFFIXES and file.is_file()]
    except OSError as error:
        raise ModelFileError(
            f"cannot read the folder {shown_name(folder)!r}: {error.strerror}", "check its permissions"
        ) from None
    return [file for file in files if not PART.fullmatch(file.name) and not file.name.startswith(_FOR_TRAINING)]


def shown_name(path: Path) -> str:
    """What a model is called: the name of its file or folder, never a path; bytes that are no UTF-8 as ``\\xNN``."""
    name = path.name or path.resolve().name
    return name.encode(errors="surrogateescape").decode("utf-8", "backslashreplace")


def beside(weights: Path) -> tuple[Path, ...]:
    """The files beside weights that say what they are; none where it is not sure that they speak of these weights."""
    found = tuple(file for name in (CONFIG, PREPROCESSOR) if (file := weights.parent / name).is_file())
    if found and weights.name not in _USUAL and _weights_in(weights.parent) != [weights]:
        return ()
    return found


@dataclass(frozen=True)
class Settings:
    """What stands beside the weights.

    Attributes:
        folder: where.
        config: ``config.json``; empty where there is none.
        preprocessor: ``preprocessor_config.json`` is there.
    """

    folder: Path
    config: Mapping[str, Any]
    preprocessor: bool

    @property
    def of_timm(self) -> bool:
        """The configuration is in timm's form."""
        return isinstance(self.config.get("architecture"), str)

    @property
    def of_transformers(self) -> bool:
        """The configuration is one of transformers' own models."""
        kind = self.config.get("model_type")
        return not self.of_timm and isinstance(kind, str) and kind != _TIMM_WRAPPER

    @property
    def classes(self) -> tuple[str, ...]:
        """Class paths that transformers wrote down, such as ``ViTForImageClassification``."""
        named = self.config.get("architectures")
        return tuple(one for one in named if isinstance(one, str)) if isinstance(named, list) else ()

    def own(self) -> dict[str, Any]:
        """The same as a checkpoint that says of itself what it is would say it: ``architecture``, ``pretrained_cfg``,
        ``labels``, ``model_args``. Empty where the configuration is not timm's.
        """
        if not self.of_timm:
            return {}
        told: dict[str, Any] = {"architecture": self.config["architecture"], "labels": self._described()}
        for name in ("pretrained_cfg", "model_args"):
            if isinstance(self.config.get(name), dict):
                told[name] = dict(self.config[name])
        if "num_classes" in self.config and "pretrained_cfg" in told:
            told["pretrained_cfg"].setdefault("num_classes", self.config["num_classes"])
        return told

    def _described(self) -> Any:
        """Class names: the descriptions where names are identifiers of WordNet and each has one."""
        names, words = self.config.get("label_names"), self.config.get("label_descriptions")
        if isinstance(names, list) and isinstance(words, dict) and all(str(name) in words for name in names):
            return [words[str(name)] for name in names]
        return names


def settings_of(weights: Path) -> Settings:
    """What stands beside the weights.

    Raises:
        ModelFileError: if ``config.json`` is damaged.
    """
    files = {file.name: file for file in beside(weights)}
    return Settings(weights.parent, _json(files[CONFIG]) if CONFIG in files else {}, PREPROCESSOR in files)


def _json(file: Path) -> dict[str, Any]:
    try:
        read = json.loads(file.read_bytes()) if file.stat().st_size <= _MOST_JSON else None
    except (ValueError, RecursionError):
        read = None
    except OSError as error:
        raise ModelFileError(f"cannot read {file.name!r} beside the weights: {error.strerror}", "check it") from None
    if not isinstance(read, dict):
        raise ModelFileError(f"{file.name!r} beside the weights is damaged", "get it again, or move the weights alone")
    return read
