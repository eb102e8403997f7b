"""How an image becomes the input of a model: size, channels, mean and standard deviation, as one declared pipeline.

Resizing and cropping are Pillow's, in the order and with the rounding of torchvision's and timm's evaluation transforms, so
that the numbers are the same as theirs.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reportgen.errors import UsageError
from reportgen.subject.images import ImageError, ImageRef, decode

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
USUAL_SIZE = 224
USUAL_CROP = 0.875
MOST_SIDE = 8192

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pipeline:
    """The preprocessing of one model. Hashed into every key of the store.

    Attributes:
        size: (H, W) of the input.
        channels: 1 (grey), 3 (colour), or another number that images must have.
        resize: ``crop`` (shorter side to `resize_to`, then the centre), ``squash``, ``pad`` or ``none``.
        resize_to: shorter side before the centre is cut out.
        interpolation: a key of `FILTERS`.
        mean: per channel, of values in [0, 1].
        std: per channel.
        bgr: channels are handed over as blue, green, red.
        transform: own code instead of all this, ``package.module:callable``: PIL image → (C,H,W).
        assumed: names of the fields that nobody stated for this very file.
    """

    size: tuple[int, int]
    channels: int
    resize: str
    resize_to: int | None
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool = False
    transform: str | None = None
    assumed: tuple[str, ...] = ()

    def fit(self, image: Image.Image) -> Pixels:
        """What the network sees before normalisation: uint8 (H, W, 3), or (H, W) for one channel.

        Raises:
            ImageError: if the image does not have the model's channels, or under ``none`` its size.
        """
        image = self._banded(image)
        height, width = self.size
        how = FILTERS[self.interpolation]
        if self.resize == "none":
            if image.size != (width, height):
                raise ImageError(f"{image.width} × {image.height} pixels, and --resize none needs {width} × {height}")
        elif self.resize == "squash":
            image = image.resize((width, height), how)
        elif self.resize == "pad":
            image = self._padded(image, how)
        else:
            image = _centre(_shorter_side(image, self.resize_to or max(height, width), how), height, width)
        return np.asarray(image, dtype=np.uint8)

    def normalise(self, fitted: Pixels) -> Values:
        """(H, W, 3) or (H, W) uint8 → (C, H, W) float32."""
        values = fitted.astype(np.float32) / np.float32(255)
        values = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
        if self.bgr:
            values = values[::-1]
        mean = np.asarray(self.mean, np.float32)[:, None, None]
        std = np.asarray(self.std, np.float32)[:, None, None]
        return np.ascontiguousarray((values - mean) / std)

    def __call__(self, image: Image.Image) -> Values:
        """An upright image → (C, H, W) float32. Raises ImageError."""
        if self.transform is None:
            return self.normalise(self.fit(image))
        made = _called(self.transform)(image)
        values = np.asarray(made.detach().cpu() if hasattr(made, "detach") else made, dtype=np.float32)
        expected = (self.channels, *self.size)
        if values.shape != expected:
            raise ImageError(f"--transform made {values.shape}, not {expected}; give --input-size and --channels-in")
        return values

    def visible(self, values: Values) -> Pixels:
        """A (C, H, W) input as something to look at: normalisation undone where that gives values in [0, 1], else stretched."""
        mean = np.asarray(self.mean, np.float32)[:, None, None]
        std = np.asarray(self.std, np.float32)[:, None, None]
        undone = values * std + mean if len(mean) == len(values) else values
        if undone.min() < -0.02 or undone.max() > 1.02:
            low, high = float(values.min()), float(values.max())
            undone = (values - low) / (high - low if high > low else 1.0)
        if self.bgr:
            undone = undone[::-1]
        pixels = np.round(np.clip(undone, 0, 1) * 255).astype(np.uint8)
        if len(pixels) == 3:
            return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
        return pixels[0] if len(pixels) == 1 else pixels.mean(axis=0).astype(np.uint8)

    def _banded(self, image: Image.Image) -> Image.Image:
        if self.channels == 1:
            return image.convert("L")
        if self.channels == 3:
            return image.convert("RGB")
        if len(image.getbands()) != self.channels:
            raise ImageError(f"{len(image.getbands())} channels, and the model takes {self.channels}; give --transform")
        return image

    def _padded(self, image: Image.Image, how: Image.Resampling) -> Image.Image:
        height, width = self.size
        scale = min(height / image.height, width / image.width)
        inner = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), how)
        # the border is the mean, which normalisation makes zero
        fill = tuple(round(255 * value) for value in self.mean)
        page = Image.new(image.mode, (width, height), fill if len(fill) > 1 else fill[0])
        page.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
        return page


def prepare(ref: ImageRef, pipeline: Pipeline) -> Values:
    """The (C, H, W) float32 input that one image makes. Raises ImageError."""
    if not ref.ready:
        return pipeline(decode(ref))
    values = np.ascontiguousarray(ref.live, dtype=np.float32)
    if values.shape != (pipeline.channels, *pipeline.size):
        raise ImageError(f"a tensor of shape {values.shape}, not {(pipeline.channels, *pipeline.size)}")
    return values


def _shorter_side(image: Image.Image, side: int, how: Image.Resampling) -> Image.Image:
    """As torchvision's ``Resize(int)``: the longer side is truncated, not rounded."""
    width, height = image.size
    new = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
    return image if new == image.size else image.resize(new, how)


def _centre(image: Image.Image, height: int, width: int) -> Image.Image:
    """As torchvision's ``CenterCrop``: black where the image is smaller, offsets rounded half to even."""
    if image.width < width or image.height < height:
        page = Image.new(image.mode, (max(width, image.width), max(height, image.height)))
        page.paste(image, (max(0, (width - image.width) // 2), max(0, (height - image.height) // 2)))
        image = page
    top, left = round((image.height - height) / 2.0), round((image.width - width) / 2.0)
    return image.crop((left, top, left + width, top + height))


def _called(dotted: str) -> Any:
    module, _colon, name = dotted.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--transform {dotted!r} cannot be imported: {error}", "check the name, and --pythonpath") from None


def read_size(words: str) -> tuple[int, int]:
    """``224`` or ``HxW`` as (H, W). Raises UsageError."""
    parts = words.lower().replace("×", "x").split("x")
    if len(parts) not in (1, 2) or not all(part.strip().isdigit() for part in parts):
        raise UsageError(f"--input-size {words!r} is no size", "write 224 or 240x320 (height x width)")
    height, width = int(parts[0]), int(parts[-1])
    if not (0 < height <= MOST_SIDE and 0 < width <= MOST_SIDE):
        raise UsageError(f"--input-size {words!r} is out of range", f"sides go from 1 to {MOST_SIDE}")
    return height, width


def resolve_pipeline(
    published: Any,
    *,
    channels_in: int,
    input_size: str | None = None,
    resize: str | None = None,
    interpolation: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    bgr: bool = False,
    transform: str | None = None,
    fixed_size: tuple[int, int] | None = None,
) -> Pipeline:
    """The user's word, then what the architecture's published weights expect, then what is usual; the last two are `assumed`.

    Args:
        published: facts of the published weights (see `reportgen.subject.model_file.Published`), or None.
        channels_in: of the model's first layer.
        fixed_size: (H, W) of inputs that are handed over ready.

    Raises:
        UsageError: for values that do not fit the channels.
    """
    assumed: list[str] = []

    def settle(name: str, given: Any, from_published: Any, usual: Any) -> Any:
        if given is not None:
            return given
        if not transform:
            assumed.append(name)
        return from_published if from_published is not None else usual

    known = getattr(published, "input_size", None)
    given_size = fixed_size or (read_size(input_size) if input_size else None)
    size = settle("size", given_size, tuple(known[1:]) if known else None, (USUAL_SIZE, USUAL_SIZE))
    how = settle("resize", resize, _published_resize(published), "crop")
    kernel = settle("interpolation", interpolation, getattr(published, "interpolation", None), "bilinear")
    means = settle("mean", mean, getattr(published, "mean", None), IMAGENET_MEAN)
    stds = settle("std", std, getattr(published, "std", None), IMAGENET_STD)
    return Pipeline(
        size=size,
        channels=channels_in,
        resize=how,
        resize_to=_resize_to(published, size) if how == "crop" else None,
        interpolation=kernel if kernel in FILTERS else "bicubic",
        mean=_per_channel("mean", means, channels_in, given=mean is not None),
        std=_per_channel("std", stds, channels_in, given=std is not None),
        bgr=bgr,
        transform=transform,
        assumed=tuple(assumed),
    )


def _published_resize(published: Any) -> str | None:
    mode = getattr(published, "crop_mode", None)
    return {"center": "crop", "squash": "squash", "border": "pad"}.get(mode) if mode else None


def _resize_to(published: Any, size: tuple[int, int]) -> int:
    """Shorter side before the crop: as published for the published size, in the same proportion for another."""
    known = getattr(published, "input_size", None)
    shorter = getattr(published, "resize", None)
    share = getattr(published, "crop_pct", None)
    side = min(size)
    if shorter and known:
        published_side = min(known[1:])
        return int(shorter) if side == published_side else max(side, round(side * shorter / published_side))
    return max(side, floor(side / (share or USUAL_CROP)))


def _per_channel(name: str, values: Sequence[float], channels: int, *, given: bool) -> tuple[float, ...]:
    """One value per channel; one value serves all, and three that were not given are averaged for another number."""
    if len(values) == channels:
        return tuple(float(value) for value in values)
    if len(values) == 1:
        return tuple(float(values[0]) for _ in range(channels))
    if given:
        raise UsageError(f"--{name} has {len(values)} values for {channels} channels", "give one value, or one per channel")
    return tuple(sum(values) / len(values) for _ in range(channels))
