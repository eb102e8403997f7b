"""Where the weights lie in a checkpoint, whose they are, and what stands beside them: habits of training frameworks.

| written by | weights | moving average |
|---|---|---|
| Lightning | ``state_dict`` under ``model.``, ``net.`` … | ``state_dict``; then ``current_model_state`` is raw |
| torchvision's reference scripts | ``model`` | ``model_ema`` under ``module.`` |
| timm | ``state_dict`` | ``state_dict_ema`` |
| Ultralytics | ``model``, a module | ``ema``, a module |
| fastai | ``model`` | – |
| MMPretrain | ``state_dict`` | ``state_dict``; then ``ema_state_dict`` under ``module.`` is raw |
| any | under the names below, or the one entry that holds weights | under the names below, or a prefix of the keys |
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from reportgen.subject.modules import is_module
from reportgen.subject.stand_ins import Inert, TensorSpec
from reportgen.text import line

EMA = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "ema_model",
    "ema",
    "averaged_model",
    "swa_model",
)
RAW = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "model_state",
    "classifier",
    "state",
)
_LIGHTNING_RAW = "current_model_state"
_OF_MMENGINE = {"meta", "message_hub"}
_EMA_PREFIXES = ("ema_model.", "model_ema.", "ema.", "averaged_model.", "swa_model.")
_FACTS = (
    "epoch", "global_step", "step", "iteration", "updates", "best_acc", "best_acc1", "best_fitness", "best_metric",
    "metric", "metric_ema", "pytorch-lightning_version", "version", "date", "task", "license", "iter",
    "mmcls_version", "mmengine_version",
)  # fmt: skip
LEARNER = "fastai.learner.Learner"


@dataclass(frozen=True)
class Entry:
    """Weights in a checkpoint.

    Attributes:
        value: names to tensors, or the stand-in of a module.
        place: where it lies, for example ``model_ema.module``; empty for the file itself.
    """

    value: Any
    place: str


def is_state(value: Any) -> bool:
    """A mapping that is mostly tensors under words."""
    if not isinstance(value, dict) or not value:
        return False
    tensors = sum(isinstance(one, TensorSpec | Tensor) and isinstance(key, str) for key, one in value.items())
    return tensors >= 2 and tensors >= 0.5 * len(value)


def tensors_of(value: Mapping[Any, Any]) -> Mapping[str, Any]:
    """The entries of a mapping that are tensors under words."""
    return OrderedDict((k, v) for k, v in value.items() if isinstance(k, str) and isinstance(v, TensorSpec | Tensor))


def weights_in(root: Mapping[Any, Any]) -> dict[str, Entry]:
    """The weights of a checkpoint: under ``ema`` and ``raw``, as far as there are any."""
    found = _by_name(root, "", 0)
    if _LIGHTNING_RAW in root and "raw" in found and is_state(root[_LIGHTNING_RAW]):
        return {"ema": found["raw"], "raw": Entry(tensors_of(root[_LIGHTNING_RAW]), _LIGHTNING_RAW)}
    if root.keys() >= _OF_MMENGINE and {"ema", "raw"} <= found.keys():  # its EMAHook exchanges them in the file
        return {"ema": found["raw"], "raw": found["ema"]}
    if not found:
        others = [(key, value) for key, value in root.items() if isinstance(key, str) and _is_weights(value)]
        if len(others) == 1:
            found["raw"] = Entry(_entered(others[0][1]), others[0][0])
    return found if "ema" in found else _apart(found)


def _by_name(root: Mapping[Any, Any], place: str, depth: int) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for which, names in (("ema", EMA), ("raw", RAW)):
        for name in names:
            value, here = root.get(name), f"{place}{name}"
            if _is_weights(value):
                found.setdefault(which, Entry(_entered(value), here))
            elif isinstance(value, dict) and depth < 2:
                inner = _by_name(value, f"{here}.", depth + 1)
                best = inner.get("raw", inner.get("ema"))
                if best is not None:
                    found.setdefault(which, best)
    return found


def _is_weights(value: Any) -> bool:
    return is_module(value) or is_state(value)


def _entered(value: Any) -> Any:
    return value if is_module(value) else tensors_of(value)


def split(state: Mapping[str, Any], place: str = "") -> dict[str, Entry]:
    """A state dict that holds a network and its moving average beside each other, taken apart."""
    return _apart({"raw": Entry(state, place)})


def _apart(found: dict[str, Entry]) -> dict[str, Entry]:
    entry = found.get("raw")
    if entry is None or not isinstance(entry.value, Mapping):
        return found
    for prefix in _EMA_PREFIXES:
        average = {key: value for key, value in entry.value.items() if key.startswith(prefix)}
        if len(average) >= 2:
            rest = {key: value for key, value in entry.value.items() if key not in average}
            parts = {"ema": Entry(average, f"{entry.place}[{prefix}*]".lstrip("."))}
            return parts | ({"raw": Entry(rest, entry.place)} if 2 * len(rest) >= len(average) else {})
    return found


# what stands beside them
# -------------------------------------------------------------------------------------------------------


def framework_of(root: Any, foreign: tuple[str, ...] = ()) -> str:
    """What wrote a checkpoint, by what it holds; empty where nothing tells."""
    if isinstance(root, Inert) and root.path == LEARNER:
        return "fastai (learn.export)"
    if any(name.startswith("ultralytics.") for name in foreign):
        return "Ultralytics"
    if not isinstance(root, dict):
        return ""
    keys = {key for table in (root, meta_of(root)) for key in table if isinstance(key, str)}
    for name, needed in (
        ("Lightning", {"pytorch-lightning_version", "state_dict"}),
        ("MMEngine", _OF_MMENGINE),
        ("MMClassification", {"mmcls_version"}),
        ("timm", {"arch", "state_dict", "args", "version"}),
        ("torchvision's reference scripts", {"model", "optimizer", "lr_scheduler", "args"}),
        ("Composer", {"state", "rng"}),
    ):
        if needed <= keys:
            return name
    return "fastai (learn.save)" if keys == {"model", "opt"} else ""


def meta_of(root: Mapping[Any, Any]) -> dict[Any, Any]:
    """What frameworks of OpenMMLab tell of a checkpoint; empty where there is nothing of the kind."""
    meta = root.get("meta")
    return meta if isinstance(meta, dict) else {}


def facts_of(root: Any) -> dict[str, Any]:
    """Numbers and words beside the weights that tell a reader something: epoch, step, best metric, versions."""
    if not isinstance(root, dict):
        return {}
    told: dict[str, Any] = {}
    for name in _FACTS:
        value = root.get(name, meta_of(root).get(name))
        if isinstance(value, bool | int | float):
            told[name] = value
        elif isinstance(value, str) and value:
            told[name] = line(value, 80)
    return told
