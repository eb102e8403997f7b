"""Preprocessing as transformers states it beside a model (``preprocessor_config.json``), in the words of our own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from reportgen.errors import ArchitectureError
from reportgen.subject.architectures import MOST_SIDE, Published, possible
from reportgen.subject.hub import PREPROCESSOR, Settings
from reportgen.subject.preprocessing import IMAGENET_MEAN, IMAGENET_STD, USUAL_CROP
from reportgen.subject.transformers_models import quiet
from reportgen.text import words_of

_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""In the order of Pillow's numbers."""
_CROPS_BELOW = 384
"""ConvNeXt's preprocessing cuts out the centre for smaller sides, and squeezes the image into larger ones."""
_LEVIT = 256 / 224


def published_beside(settings: Settings, classes: int) -> Published | None:
    """What the files beside the weights say of the input; None where they say nothing.

    Without ``preprocessor_config.json`` it is the size in ``config.json``, and everything else is a guess.

    Raises:
        ArchitectureError: if it is there and cannot be read.
    """
    if not settings.preprocessor:
        return _size_alone(settings.config, classes)
    try:
        from transformers import AutoImageProcessor

        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library about itself
            processor = AutoImageProcessor.from_pretrained(
                settings.folder, local_files_only=True, trust_remote_code=False
            )
        facts = stated(processor, classes)
    except Exception as error:  # whatever the library makes of the file
        raise _unreadable(words_of(error)) from error
    if not possible(facts):
        raise _unreadable("it states what no network expects")
    return facts


def _unreadable(why: str) -> ArchitectureError:
    return ArchitectureError(f"{PREPROCESSOR} beside the weights cannot be read: {why}", "get it again, or remove it")


def _size_alone(config: Mapping[str, Any], classes: int) -> Published | None:
    side = config.get("image_size")
    height, width = side if isinstance(side, list) and len(side) == 2 else (side, side)
    if not (
        isinstance(height, int)
        and isinstance(width, int)
        and min(height, width) > 0
        and max(height, width) <= MOST_SIDE
    ):
        return None
    size = (3, height, width)
    return Published(size, None, USUAL_CROP, "center", "bilinear", IMAGENET_MEAN, IMAGENET_STD, classes, "config.json")


def stated(processor: Any, classes: int) -> Published:
    """What an image processor of transformers does.

    Where it keeps the shape of images, which a batch cannot, the centre is cut out and ``resize`` is assumed.

    Args:
        processor: its attributes are read: ``size``, ``crop_size``, ``resample``, ``image_mean`` and so on.
    """
    mode, size, share = "center", processor.size, 1.0
    shorter: int | None = None
    assumed: tuple[str, ...] = ()
    cut = processor.crop_size if getattr(processor, "do_center_crop", None) else None
    if _side(size, "height") and _side(size, "width"):
        high, wide = _side(size, "height"), _side(size, "width")
        height, width = (_side(cut, "height"), _side(cut, "width")) if cut is not None else (high, wide)
        mode = "squash"
        share = min(1.0, height / (high + 0.5)) if height != high else 1.0  # half a pixel more: it is rounded down
        assumed = () if (height * wide == width * high) else ("resize_to",)
    else:
        edge = _side(size, "shortest_edge")
        shorter, squeezed, cuts = _shorter(processor, edge)
        mode = "squash" if squeezed else "center"
        height, width = (_side(cut, "height"), _side(cut, "width")) if cut is not None else (edge, edge)
        assumed = () if cut is not None or cuts else ("resize",)
    if getattr(processor, "do_resize", True) is False:
        assumed = (*assumed, "resize")
    mean, std = _statistics(processor)
    return Published(
        input_size=(len(mean), height, width),
        resize=None if mode == "squash" else shorter,
        crop_pct=share,
        crop_mode=mode,
        interpolation=_FILTERS[int(processor.resample)],
        mean=mean,
        std=std,
        classes=classes,
        source=PREPROCESSOR,
        stated=True,
        bgr=bool(getattr(processor, "do_flip_channel_order", None)),
        assumed=assumed,
    )


def _shorter(processor: Any, edge: int) -> tuple[int, bool, bool]:
    """(shorter side after scaling, the image is squeezed into a square instead, its centre is cut out in any case)."""
    kind, share = type(processor).__name__, float(getattr(processor, "crop_pct", None) or 1)
    if kind.startswith("ConvNext"):
        return int(edge / share), edge >= _CROPS_BELOW, True
    if kind.startswith("Levit"):
        return int(_LEVIT * edge), False, False
    return int(edge / share), False, False


def _side(size: Any, name: str) -> int:
    value = size.get(name) if isinstance(size, Mapping) else getattr(size, name, None)
    return int(value or 0)


def _statistics(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of values in 0..1 that do the same as rescaling, shifting and normalising."""
    scale = 255 * float(processor.rescale_factor) if getattr(processor, "do_rescale", True) else 255.0
    shift = 1.0 if getattr(processor, "rescale_offset", None) else 0.0
    normalises = getattr(processor, "do_normalize", None)
    mean = tuple(float(v) for v in processor.image_mean) if normalises else (0.0,) * 3
    std = tuple(float(v) for v in processor.image_std) if normalises else (1.0,) * 3
    if getattr(processor, "include_top", None):  # EfficientNet's divides once more
        std = tuple(value * float(again) for value, again in zip(std, processor.image_std, strict=True))
    return tuple((shift + value) / scale for value in mean), tuple(value / scale for value in std)
