"""How an image becomes the input of a model: size, channels, mean and standard deviation, as one declared pipeline.

Resizing and cropping are Pillow's, in the order and with the rounding of torchvision's and timm's evaluation
transforms, so that the numbers are the same as theirs.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reportgen.errors import UsageError
from reportgen.subject.decoding import MAX_PIXELS, ImageError
from reportgen.subject.images import ImageRef, decode, fetched
from reportgen.subject.look import look_of, look_of_values
from reportgen.text import counted

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
RESIZES = ("crop", "squash", "pad", "none")
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
        resize: ``crop`` (scaled until the image covers `resize_to`), ``squash`` (to exactly that), ``pad`` (until it
            fits into that), then the centre of `size` is cut out; or ``none``: images must have the size.
        resize_to: the shorter side, or (H, W); None for `size` itself.
        interpolation: a key of `FILTERS`.
        mean: per channel in the order in which the model takes them, of values in [0, 1].
        std: likewise.
        bgr: channels are handed over as blue, green, red.
        transform: own code instead of all this, ``package.module:callable``: PIL image → (C,H,W).
        assumed: names of the fields that nobody stated for this very file.
    """

    size: tuple[int, int]
    channels: int
    resize: str
    resize_to: int | tuple[int, int] | None
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool = False
    transform: str | None = None
    assumed: tuple[str, ...] = ()

    def fit(self, image: Image.Image) -> Pixels:
        """What the network sees before normalisation: uint8 (H, W, C), or (H, W) for one channel.

        Under `transform` that is not known: its result is made visible instead.

        Raises:
            ImageError: if the image does not have the model's channels, under ``none`` its size, or is too elongated.
        """
        if self.transform is not None:
            return self.visible(self(image))
        image = self._banded(image)
        scaled, left, top = self._placed(image.size)
        if scaled != image.size:
            image = image.resize(scaled, FILTERS[self.interpolation])
        height, width = self.size
        if self.resize == "pad" and (image.width < width or image.height < height):
            page = Image.new(image.mode, (width, height), self._border())
            page.paste(image, (-left, -top))
            image = page
        else:
            # outside the image Pillow crops black, as torchvision's CenterCrop pads
            image = image.crop((left, top, left + width, top + height))
        return np.asarray(image, dtype=np.uint8)

    def normalise(self, fitted: Pixels) -> Values:
        """(H, W, C) or (H, W) uint8 → (C, H, W) float32."""
        values = fitted.astype(np.float32) / np.float32(255)
        values = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
        if self.bgr:
            values = values[::-1]
        mean, std = self._statistics()
        return np.ascontiguousarray((values - mean) / std)

    def __call__(self, image: Image.Image) -> Values:
        """An upright image → (C, H, W) float32. Raises ImageError."""
        if self.transform is None:
            return self.normalise(self.fit(image))
        own = _called(self.transform)
        try:
            made = own(self._banded(image) if self.channels in (1, 3) else image)
            values = np.array(made.detach().cpu().float().numpy() if hasattr(made, "detach") else made, np.float32)
        except Exception as error:  # the user's code
            words = (str(error).strip().splitlines() or [""])[0][:120]
            raise ImageError(f"--transform raised {type(error).__name__}: {words}") from error
        return self._checked(values, "--transform made")

    def ready(self, values: npt.ArrayLike) -> Values:
        """A (C, H, W) input that was handed over as it goes into the model. Raises ImageError."""
        return self._checked(np.array(values, dtype=np.float32), "the input has")

    def visible(self, values: Values) -> Pixels:
        """A (C, H, W) input as something to look at: uint8 (H, W, 3) or (H, W).

        Normalisation is undone where that gives values in [0, 1]; otherwise the values are stretched to that range.
        """
        mean, std = self._statistics()
        undone = values * std + mean if len(mean) == len(values) else values
        if undone.min() < -0.02 or undone.max() > 1.02:
            low, high = float(values.min()), float(values.max())
            undone = (values - low) / (high - low if high > low else 1.0)
        if self.bgr:
            undone = undone[::-1]
        pixels: Pixels = np.round(np.clip(undone, 0, 1) * 255).astype(np.uint8)
        if len(pixels) == 3:
            return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
        return pixels[0].copy() if len(pixels) == 1 else np.asarray(pixels.mean(axis=0), np.uint8)

    def box(self, image_size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Which part of an upright image the network sees: (left, top, right, bottom) in its pixels.

        Beyond the image where it is padded. Under `transform`, which does not tell, the whole image.

        Args:
            image_size: (width, height), as Pillow says it.

        Raises:
            ImageError: as `fit` does for an image of this size.
        """
        width, height = image_size
        if self.transform is not None:
            return 0.0, 0.0, float(width), float(height)
        scaled, left, top = self._placed(image_size)
        across, down = width / scaled[0], height / scaled[1]
        return left * across, top * down, (left + self.size[1]) * across, (top + self.size[0]) * down

    def _placed(self, image_size: tuple[int, int]) -> tuple[tuple[int, int], int, int]:
        """((width, height) after scaling, left, top of the part that is cut out; negative where there is a border)."""
        height, width = self.size
        scaled = self._scaled(*image_size)
        if scaled[0] * scaled[1] > MAX_PIXELS:
            raise ImageError(f"{image_size[0]} × {image_size[1]} pixels, too elongated to be scaled")
        return scaled, _offset(scaled[0], width), _offset(scaled[1], height)

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        if self.resize == "none":
            if (height, width) != self.size:
                needed = f"{self.size[1]} × {self.size[0]}"
                raise ImageError(f"{width} × {height} pixels, and --resize none needs {needed}")
            return width, height
        to = self.resize_to if self.resize_to is not None else self.size
        high, wide = (to, to) if isinstance(to, int) else to
        if self.resize == "squash":
            return wide, high
        if self.resize == "crop" and high == wide:
            # torchvision's Resize(int): the longer side is truncated, not rounded
            short, long = min(width, height), max(width, height)
            longer = int(high * long / short)
            return (high, longer) if width <= height else (longer, high)
        # timm's ResizeKeepRatio
        ratios = (height / high, width / wide)
        ratio = max(ratios) if self.resize == "pad" else min(ratios)
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def _border(self) -> int | tuple[int, ...]:
        """The mean, which normalisation makes zero, in the order of the image's bands."""
        fill = tuple(round(255 * value) for value in (self.mean[::-1] if self.bgr else self.mean))
        return fill if len(fill) > 1 else fill[0]

    def _banded(self, image: Image.Image) -> Image.Image:
        if self.channels in (1, 3):
            mode = "L" if self.channels == 1 else "RGB"
            return image if image.mode == mode else image.convert(mode)
        if len(image.getbands()) != self.channels:
            bands = len(image.getbands())
            raise ImageError(
                f"{bands} channels, and the model takes {self.channels}: give arrays (C,H,W), or --transform"
            )
        return image

    def _statistics(self) -> tuple[Values, Values]:
        mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (self.mean, self.std))
        return mean, std

    def _checked(self, values: Values, what: str) -> Values:
        expected = (self.channels, *self.size)
        if values.shape != expected:
            raise ImageError(f"{what} the shape {values.shape}, not {expected}: see --input-size and --channels-in")
        if not np.isfinite(values).all():
            raise ImageError(f"{what} values that are not finite")
        return np.ascontiguousarray(values)


def prepare(ref: ImageRef, pipeline: Pipeline) -> Values:
    """The (C, H, W) float32 input that one image makes. Raises ImageError."""
    return pipeline.ready(fetched(ref)) if ref.ready else pipeline(decode(ref))


def looked_at(ref: ImageRef) -> Pixels:
    """What an image looks like (see `reportgen.subject.look`), whatever becomes of it. Raises ImageError."""
    return look_of_values(np.asarray(fetched(ref), np.float32)) if ref.ready else look_of(decode(ref))


def sighted(ref: ImageRef, pipeline: Pipeline) -> tuple[Values, Pixels, tuple[int, int]]:
    """What `prepare` and `looked_at` give, decoded once; (height, width) of the upright image. Raises ImageError."""
    if ref.ready:
        values = pipeline.ready(fetched(ref))
        return values, look_of_values(values), (values.shape[1], values.shape[2])
    image = decode(ref)
    return pipeline(image), look_of(image), (image.height, image.width)


def _offset(there: int, wanted: int) -> int:
    """Where the middle begins, rounded as torchvision's CenterCrop does: half to even inside, down for a border."""
    return round((there - wanted) / 2.0) if there >= wanted else -((wanted - there) // 2)


def _called(dotted: str) -> Any:
    module, _colon, name = dotted.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--transform {dotted!r} cannot be imported: {error}", "check name and --pythonpath") from None
    if not callable(found):
        raise UsageError(f"--transform {dotted!r} cannot be called", "name a function of one PIL image")
    return found


def read_size(words: str) -> tuple[int, int]:
    """``224`` or ``HxW`` as (H, W). Raises UsageError."""
    parts = words.lower().replace("×", "x").split("x")
    if len(parts) not in (1, 2) or not all(part.strip().isdecimal() for part in parts):
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
    only_size: tuple[int, int] | None = None,
) -> Pipeline:
    """The user's word, then what the published weights expect, then what is usual; the last two are `assumed`.

    Args:
        published: facts of the published weights (see `reportgen.subject.architectures.Published`), or None.
        channels_in: of the model's first layer.
        fixed_size: (H, W) of inputs that are all handed over ready: nothing is done to them, so nothing is assumed.
        only_size: (H, W) of the only input that the model takes, where it says so.

    Raises:
        UsageError: for values that are malformed or do not fit the channels.
    """
    _check_words(resize, interpolation, transform)
    if bgr and channels_in != 3:
        raise UsageError(f"--bgr, and the model takes {channels_in} channels", "leave it out")
    assumed: list[str] = []
    done_elsewhere = transform is not None or fixed_size is not None

    def settle(name: str, given: Any, from_published: Any, usual: Any) -> Any:
        if given is not None:
            return given
        if not done_elsewhere:
            assumed.append(name)
        return from_published if from_published is not None else usual

    known = getattr(published, "input_size", None)
    given_size = fixed_size or (read_size(str(input_size)) if input_size else only_size)
    size = settle("size", given_size, tuple(known[1:]) if known else None, (USUAL_SIZE, USUAL_SIZE))
    how = settle("resize", resize, _published_resize(published), "crop")
    if resize == "crop" and not done_elsewhere:
        assumed.append("resize_to")
    # where nothing is resampled, nothing is assumed of how
    wanted = "bilinear" if interpolation is None and how == "none" else interpolation
    kernel = settle("interpolation", wanted, _published_interpolation(published), "bilinear")
    # published statistics are those of red, green, blue
    order = -1 if bgr else 1
    means = settle("mean", mean, getattr(published, "mean", None), IMAGENET_MEAN)
    stds = settle("std", std, getattr(published, "std", None), IMAGENET_STD)
    return Pipeline(
        size=size,
        channels=channels_in,
        resize=how,
        resize_to=_resize_to(published, size, how, given=resize is not None),
        interpolation=kernel,
        mean=_given("mean", mean, channels_in) if mean is not None else _usual(means[::order], channels_in),
        std=_given("std", std, channels_in) if std is not None else _usual(stds[::order], channels_in),
        bgr=bgr,
        transform=transform,
        assumed=tuple(assumed),
    )


def _check_words(resize: str | None, interpolation: str | None, transform: str | None) -> None:
    if resize is not None and resize not in RESIZES:
        raise UsageError(f"--resize {resize!r} is unknown", f"write one of {', '.join(RESIZES)}")
    if interpolation is not None and interpolation not in FILTERS:
        raise UsageError(f"--interpolation {interpolation!r} is unknown", f"write one of {', '.join(FILTERS)}")
    if transform is not None and not all(transform.partition(":")):
        raise UsageError(f"--transform {transform!r} names no callable", "write package.module:callable")


def _published_resize(published: Any) -> str | None:
    return {"center": "crop", "squash": "squash", "border": "pad"}.get(str(getattr(published, "crop_mode", None)))


def _published_interpolation(published: Any) -> str | None:
    name = str(getattr(published, "interpolation", None)).lower()
    return name if name in FILTERS else None


def _resize_to(published: Any, size: tuple[int, int], how: str, *, given: bool) -> int | tuple[int, int] | None:
    """What is scaled to before the centre is cut: as published for the published size, in proportion for another."""
    same = how == (_published_resize(published) or "crop")
    if how == "none" or (how != "crop" and (given or not same)):
        return None
    known = getattr(published, "input_size", None) if same else None
    shorter = getattr(published, "resize", None) if same else None
    share = (getattr(published, "crop_pct", None) if same else None) or USUAL_CROP
    if shorter and known:
        side = min(known[1:])
        high, wide = (shorter if length == side else max(length, round(length * shorter / side)) for length in size)
    else:
        # as timm rounds
        high, wide = (max(length, math.floor(length / share)) for length in size)
    if how == "crop":
        return int(high) if high == wide else (int(high), int(wide))
    return (int(high), int(wide)) if (high, wide) != size else None


def _given(name: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    """The user's statistics, one for each channel; one value serves all."""
    told = tuple(float(value) for value in values)
    if len(told) not in (1, channels):
        raise UsageError(
            f"--{name} has {counted(len(told), 'value')} for {counted(channels, 'channel')}",
            "give one value, or one a channel",
        )
    if not all(math.isfinite(value) for value in told) or (name == "std" and min(told) <= 0):
        raise UsageError(f"--{name} {told} is impossible", "give finite numbers, and standard deviations above zero")
    if name == "mean" and max(abs(value) for value in told) > 1:
        raise UsageError(f"--mean {told}: means are of values in 0..1", "divide them by 255, and --std too")
    return told * channels if len(told) == 1 else told


def _usual(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Published statistics; averaged for a model with another number of channels."""
    if len(values) == channels:
        return tuple(float(value) for value in values)
    return tuple(sum(values) / len(values) for _ in range(channels))
