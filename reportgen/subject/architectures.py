"""Names to modules, and what is published about them. Never downloads anything."""

from __future__ import annotations

import difflib
import importlib
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from reportgen.errors import ArchitectureError
from reportgen.text import words_of

IMAGENET_CLASSES = 1000
MOST_SIDE = 8192
"""Of an input, in pixels."""


@dataclass(frozen=True)
class Published:
    """What the published weights of an architecture expect.

    Attributes:
        input_size: (C, H, W).
        resize: shorter side before the crop, where stated as such.
        crop_pct: side of the crop over the shorter side, where stated as such.
        crop_mode: ``center``, ``squash`` or ``border``.
        interpolation: name of the resampling filter.
        mean: per channel.
        std: per channel.
        classes: of their head.
        source: name of the weights.
        stated: the file itself says so; nothing is assumed then but what `assumed` names.
        bgr: channels are handed over as blue, green, red.
        assumed: names of the fields of the pipeline that cannot be done as stated.
    """

    input_size: tuple[int, int, int]
    resize: int | None
    crop_pct: float | None
    crop_mode: str
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int
    source: str
    stated: bool = False
    bgr: bool = False
    assumed: tuple[str, ...] = ()


@cache
def torchvision_names() -> tuple[str, ...]:
    """All classifiers of torchvision."""
    import torchvision

    return tuple(sorted(torchvision.models.list_models(module=torchvision.models)))


@cache
def timm_names() -> tuple[str, ...]:
    """All architectures of timm; none where it is not installed."""
    try:
        import timm
    except ImportError:
        return ()
    return tuple(sorted(timm.list_models()))


def qualified(name: str) -> str:
    """``torchvision:NAME``, ``timm:NAME`` or ``package.module:callable`` for what a user or a file calls an
    architecture.

    A bare name is torchvision's first, then timm's; timm's pretrained tags (``name.tag``) are accepted.

    Raises:
        ArchitectureError: if nothing is called so, with the nearest names.
    """
    library, colon, rest = name.partition(":")
    bare = rest if colon else name
    if not colon or library == "torchvision":
        if bare in torchvision_names():
            return f"torchvision:{bare}"
        if library == "torchvision" and colon:
            raise _unknown(bare, torchvision_names())
    if not colon or library == "timm":
        known = timm_names()
        plain = bare.partition(".")[0]
        if plain in known:
            return f"timm:{plain}"
        if library == "timm" and not known:
            raise ArchitectureError(f"{name!r} is of timm, which is not installed", "pip install 'reportgen[timm]'")
        raise _unknown(bare, (*torchvision_names(), *known))
    return name


def _unknown(name: str, known: Iterable[str]) -> ArchitectureError:
    close = difflib.get_close_matches(name, tuple(known), n=4, cutoff=0.5)
    nearest = (
        f"the nearest names are {', '.join(close)}" if close else "give --arch package.module:callable for your own"
    )
    return ArchitectureError(f"there is no architecture {name!r} in torchvision or timm", nearest)


def construct(
    name: str,
    *,
    classes: int | None,
    channels: int | None,
    keys: Iterable[str] = (),
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The module of a qualified name; its random weights are zeros (own code keeps its own initialisation).

    Args:
        classes: width of the head; None for the architecture's own.
        channels: input channels; None for the architecture's own.
        keys: of the weights that will be loaded: auxiliary heads exist where they have weights.
        arguments: further arguments of the constructor.

    Raises:
        ArchitectureError: if it cannot be built.
    """
    given = {key: _literal(value) for key, value in (arguments or {}).items()}
    library, _colon, bare = name.partition(":")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated constructors and initialisations that weights will overwrite
            if library not in ("torchvision", "timm"):
                return _own(name, given)
            with _NoRandomFill():
                if library == "timm":
                    return _timm(bare, classes, channels, given)
                return _torchvision(bare, classes, channels, set(keys), given)
    except ArchitectureError:
        raise
    except Exception as error:
        words = words_of(error)
        raise ArchitectureError(
            f"the architecture {name!r} cannot be built: {words}", "check --arch and --arch-arg"
        ) from error


class _NoRandomFill(TorchFunctionMode):
    """While active, random numbers are zeros: weights will overwrite them, and drawing them takes seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if getattr(func, "__name__", "") in ("normal_", "uniform_"):
            tensor = args[0] if args else named["tensor"]  # methods have the tensor in front, torch.nn.init names it
            return (
                tensor.detach().zero_()
            )  # zeros and not what lay there: truncated distributions are drawn until they fit
        return func(*args, **named)


def _torchvision(
    bare: str, classes: int | None, channels: int | None, keys: set[str], given: dict[str, Any]
) -> nn.Module:
    import torchvision

    if classes is not None:
        given.setdefault("num_classes", classes)
    if bare in ("googlenet", "inception_v3"):
        auxiliary = any(key.startswith(("aux1.", "AuxLogits.")) for key in keys)
        given.setdefault("aux_logits", auxiliary)
        given.setdefault("init_weights", False)
    model: nn.Module = torchvision.models.get_model(bare, weights=None, **given)
    if channels is not None:
        _restem(model, channels)
    return model


def _restem(model: nn.Module, channels: int) -> None:
    """Exchange the first convolution for one with other input channels."""
    for name, part in model.named_modules():
        if isinstance(part, nn.Conv2d):
            if part.in_channels != channels:
                parent, _dot, last = name.rpartition(".")
                stem = nn.Conv2d(
                    channels,
                    part.out_channels,
                    part.kernel_size,  # type: ignore[arg-type]
                    part.stride,  # type: ignore[arg-type]
                    part.padding,  # type: ignore[arg-type]
                    part.dilation,  # type: ignore[arg-type]
                    groups=part.groups,
                    bias=part.bias is not None,
                    device=part.weight.device,
                )
                setattr(model.get_submodule(parent), last, stem)
            return


def _timm(bare: str, classes: int | None, channels: int | None, given: dict[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise ArchitectureError(
            f"timm:{bare} needs timm, which is not installed", "pip install 'reportgen[timm]'"
        ) from None
    if classes is not None:
        given.setdefault("num_classes", classes)
    if channels is not None:
        given.setdefault("in_chans", channels)
    model: nn.Module = timm.create_model(bare, pretrained=False, **given)
    return model


def _own(name: str, given: dict[str, Any]) -> nn.Module:
    module, _colon, attribute = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        own = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        remedy = "give its folder as --pythonpath, the working directory as --pythonpath ."
        remedy = remedy if own else "install what its module imports, or give the folder of that as --pythonpath too"
        raise ArchitectureError(f"{name!r} cannot be imported: {error}", remedy) from None
    except AttributeError as error:
        remedy = "name a class or a function of it behind the colon"
        raise ArchitectureError(f"{name!r} cannot be imported: {error}", remedy) from None
    model = made(**given)
    if not isinstance(model, nn.Module):
        raise ArchitectureError(
            f"{name!r} makes a {type(model).__name__}, not a torch.nn.Module", "name a class or a function"
        )
    return model


def _literal(value: Any) -> Any:
    """``--arch-arg`` values: numbers, true, false, none and lists are themselves, everything else is words."""
    if not isinstance(value, str):
        return value
    if value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    constants = {"true": True, "false": False, "none": None}
    if value.lower() in constants:
        return constants[value.lower()]
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


# what is published
# -----------------------------------------------------------------------------------------------------


def published(name: str, own: Mapping[str, Any] | None = None) -> Published | None:
    """Facts of an architecture's published weights, or None.

    Args:
        name: qualified.
        own: a ``pretrained_cfg`` of timm that the file itself holds; it beats the library's.
    """
    library, _colon, bare = name.partition(":")
    if own:
        return _from_cfg(own, "the file", stated=True)
    if library == "torchvision":
        return _torchvision_published(bare)
    if library == "timm" and bare in timm_names():
        import timm

        cfg = timm.get_pretrained_cfg(bare)
        return _from_cfg(vars(cfg), f"{bare}.{cfg.tag}" if cfg.tag else bare) if cfg is not None else None
    return None


def _torchvision_published(bare: str) -> Published | None:
    import torchvision

    try:
        weights = torchvision.models.get_model_weights(bare).DEFAULT
    except (ValueError, AttributeError):
        return None
    preset = weights.transforms()
    side = int(preset.crop_size[0])
    return Published(
        input_size=(3, side, side),
        resize=int(preset.resize_size[0]),
        crop_pct=None,
        crop_mode="center",
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        classes=len(weights.meta["categories"]),
        source=str(weights),
    )


def _from_cfg(cfg: Mapping[str, Any], source: str, *, stated: bool = False) -> Published | None:
    """timm's ``pretrained_cfg``; None where it is not of the usual form or not possible: a file may state anything."""
    try:
        channels, height, width = (int(side) for side in cfg["input_size"])
        facts = Published(
            input_size=(channels, height, width),
            resize=None,
            crop_pct=float(cfg.get("crop_pct") or 0.875),
            crop_mode=str(cfg.get("crop_mode") or "center"),
            interpolation=str(cfg.get("interpolation") or "bicubic"),
            mean=tuple(float(v) for v in cfg["mean"]),
            std=tuple(float(v) for v in cfg["std"]),
            classes=int(cfg.get("num_classes") or 0),
            source=source,
            stated=stated,
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return facts if possible(facts) else None


def possible(facts: Published) -> bool:
    """Whether a network can expect that: a file may state anything."""
    return (
        min(facts.input_size) > 0
        and max(facts.input_size) <= MOST_SIDE
        and facts.classes >= 0
        and facts.crop_pct is not None
        and 0.1 <= facts.crop_pct <= 1
        and len(facts.mean) == len(facts.std) > 0
        and all(0 <= value <= 1 for value in facts.mean)
        and all(0 < value < math.inf for value in facts.std)
    )


@cache
def imagenet_labels() -> tuple[str, ...]:
    """The thousand class names of ImageNet-1k in the order of their numbers, as torchvision publishes them."""
    import torchvision

    return tuple(torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"])


def meta(name: str, **arguments: Any) -> nn.Module:
    """The module of a qualified name without memory for its weights."""
    with torch.device("meta"):
        return construct(name, **arguments)


def names(libraries: Sequence[str] = ("torchvision", "timm")) -> tuple[str, ...]:
    """All qualified names."""
    found = {"torchvision": torchvision_names, "timm": timm_names}
    return tuple(f"{library}:{bare}" for library in libraries for bare in found[library]())
