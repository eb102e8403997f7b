"""Images: found in folders, checked, and decoded to upright pixels. Whatever cannot be used is named with its reason."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from reportgen.errors import ImagesError

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM", "MPO")
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".ppm", ".pgm", ".mpo")
)
MAX_PIXELS = 100_000_000
"""Larger images are refused from their header: their pixels alone would take a third of a gigabyte and more."""
MAX_SIDE = 65_500
"""Longest side that JPEG can say; anything longer is no photograph."""


class ImageError(Exception):
    """One image cannot be used.

    Attributes:
        reason: a few words, without a path.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class ImageRef:
    """One image before it is read.

    Attributes:
        name: as it is called everywhere: relative to the folder given, with ``/``; bytes that are not UTF-8 as ``\\xNN``.
        path: its file; None for a live image.
        live: an image in memory: PIL, array (H,W,C) or (H,W) of uint8, tensor (C,H,W).
        label: its class number where it came with one.
        ready: `live` is a float tensor (C,H,W), as an array, that goes into the model as it is.
    """

    name: str
    path: Path | None
    live: Any = None
    label: int | None = None
    ready: bool = False


@dataclass(frozen=True)
class Skipped:
    """Something found among the images that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Found:
    """Everything that lay there: `images` that may be usable, `skipped` that are not, `left_out` beyond the limit."""

    images: tuple[ImageRef, ...]
    skipped: tuple[Skipped, ...]
    left_out: int = 0


def shown(name: str) -> str:
    """A file name as text: bytes that are no UTF-8 become ``\\xNN``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def find_images(sources: Sequence[Path], *, limit: int | None = None) -> Found:
    """All images in files and folders, recursively, ordered by name. Files are not opened, and pipes and devices never.

    Args:
        sources: files and folders; what is reached twice counts once.
        limit: at most so many, chosen by a digest of the name: the same ones whatever else is there.

    Raises:
        ImagesError: if a source does not exist, or nothing that looks like an image is found.
    """
    refs: dict[Path, ImageRef] = {}
    skipped: list[Skipped] = []
    for source in sources:
        if not source.exists():
            raise ImagesError(f"there is no image file or folder {shown(source.name or str(source))!r}", "check the path")
        prefix = f"{shown(source.resolve().name)}/" if len(sources) > 1 and source.is_dir() else ""
        for path, name, reason in _listed(source):
            if reason:
                skipped.append(Skipped(prefix + name, reason))
            else:
                refs.setdefault(_identity(path), ImageRef(prefix + name, path))
    if not refs:
        first = f" ({skipped[0].name}: {skipped[0].reason})" if skipped else ""
        raise ImagesError(f"no image among {len(skipped)} files{first}", f"give files ending in {', '.join(sorted(SUFFIXES)[:8])}, …")
    images = sorted(_unique(refs.values()), key=lambda ref: ref.name)
    left_out = max(0, len(images) - limit) if limit else 0
    if limit and left_out:
        kept = sorted(images, key=lambda ref: hashlib.sha256(ref.name.encode("utf-8", "replace")).digest())[:limit]
        images = sorted(kept, key=lambda ref: ref.name)
    return Found(tuple(images), tuple(sorted(skipped, key=lambda one: one.name)), left_out)


def _identity(path: Path) -> Path:
    """The same file given twice is one image; a link to a file is another name, hence another image."""
    return path.absolute()


def _unique(refs: Any) -> Iterator[ImageRef]:
    """Names told apart by a number where two sources bring the same."""
    seen: dict[str, int] = {}
    for ref in refs:
        count = seen[ref.name] = seen.get(ref.name, 0) + 1
        yield ref if count == 1 else ImageRef(f"{ref.name} ({count})", ref.path)


def _listed(source: Path) -> Iterator[tuple[Path, str, str]]:
    """(path, name, reason why it cannot be an image, or empty) of everything in a source."""
    if not source.is_dir():
        yield source, shown(source.name), _unfit(source, named=True)
        return
    stack: list[tuple[Path, str]] = [(source, "")]
    visited = {_inode(source)}
    while stack:
        folder, prefix = stack.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield folder, prefix.rstrip("/") or shown(source.name), f"folder cannot be read: {error.strerror}"
            continue
        for entry in entries:
            path, name = Path(entry.path), prefix + shown(entry.name)
            try:
                is_folder = entry.is_dir()
            except OSError:
                is_folder = False
            if not is_folder:
                yield path, name, _unfit(path)
            elif (inode := _inode(path)) in visited:
                yield path, name, "a link to a folder that was read already"
            else:
                visited.add(inode)
                stack.append((path, name + "/"))


def _inode(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (-1, hash(path))
    return status.st_dev, status.st_ino


def _unfit(path: Path, *, named: bool = False) -> str:
    """Why a directory entry cannot be an image, or empty. A file named by the user may have any suffix."""
    try:
        status = path.stat()
    except OSError as error:
        return "a link that leads nowhere" if path.is_symlink() else f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return "not a file but a pipe, socket or device"
    suffix = path.suffix.lower()
    if not named and suffix not in SUFFIXES:
        return f"not an image file ({shown(suffix)})" if suffix else "not an image file (no suffix)"
    return "empty file" if status.st_size == 0 else ""


def live_images(items: Any) -> Found:
    """Images handed over in memory: PIL images, arrays, paths, tensors, or tuples of (image, label[, name]); or a dataset of these.

    A float tensor (C,H,W) is what a data set with its transforms gives: it goes into the model as it is.

    Raises:
        ImagesError: if there is none.
    """
    refs: list[ImageRef] = []
    for number in range(len(items)):
        item = items[number]
        label: int | None = None
        name = f"image-{number:04d}"
        if isinstance(item, tuple | list) and len(item) in (2, 3) and not isinstance(item[0], int | float):
            label = None if item[1] is None else int(item[1])
            name = str(item[2]) if len(item) == 3 else name
            item = item[0]
        if isinstance(item, str | Path):
            path = Path(item)
            refs.append(ImageRef(shown(path.name) if name.startswith("image-") else name, path, label=label))
        else:
            ready = hasattr(item, "detach") and item.is_floating_point() and item.dim() == 3
            live = item.detach().cpu().numpy() if hasattr(item, "detach") else item
            refs.append(ImageRef(name, None, live, label, ready))
    if not refs:
        raise ImagesError("no image was given", "give at least one")
    return Found(tuple(_unique(refs)), ())


def decode(ref: ImageRef, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first frame, wholly decoded, turned upright. Modes ``L``, ``RGB`` and ``F`` arrays excepted, see `upright`.

    Raises:
        ImageError: with the reason, for whatever cannot be decoded.
    """
    if ref.path is None:
        return _from_memory(ref.live)
    try:
        if not stat.S_ISREG(os.stat(ref.path).st_mode):
            raise ImageError("not a file but a pipe, socket or device")
        with Image.open(ref.path, formats=FORMATS) as image:
            _check_size(image.size, max_pixels)
            image.load()
            return upright(image)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("not an image: no known format") from None
    except FileNotFoundError:
        raise ImageError("vanished during the run") from None
    except PermissionError:
        raise ImageError("cannot be read: permission denied") from None
    except Image.DecompressionBombError:
        raise ImageError(f"larger than {max_pixels / 1e6:.0f} million pixels") from None
    except MemoryError:
        raise ImageError("too large for the memory of this machine") from None
    except Exception as error:  # decoders raise whatever a damaged file makes them: OSError, SyntaxError, struct.error, …
        raise ImageError(_damage(error)) from None


def _damage(error: Exception) -> str:
    words = str(error).strip().splitlines()
    told = words[0][:120] if words else type(error).__name__
    return "truncated" if "truncated" in told.lower() else f"damaged: {told}"


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError("has no pixels")
    if width * height > max_pixels:
        raise ImageError(f"{width} × {height} pixels, larger than {max_pixels / 1e6:.0f} million")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{width} × {height} pixels, longer than {MAX_SIDE}")


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says, in mode ``RGB``, or ``L`` for grey.

    Transparency is laid over white, as a page would show it. 16-bit grey is scaled to 8 bits, not clipped.
    """
    turned = ImageOps.exif_transpose(image)
    image = turned if turned is not None else image
    mode = image.mode
    if mode.startswith("I;16") or mode == "I":
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError("32-bit values beyond 16 bits")
        return Image.fromarray((values >> 8 if values.max() > 255 or mode != "I" else values).astype(np.uint8))
    if mode == "F":
        raise ImageError("floating-point values, whose range is not known")
    if mode in ("LA", "La", "RGBA", "RGBa", "PA") or (mode in ("P", "L", "RGB", "1") and "transparency" in image.info):
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        flat = Image.alpha_composite(white, rgba).convert("RGB")
        return flat.convert("L") if mode in ("LA", "La", "L", "1") else flat
    if mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")


def _from_memory(image: Any) -> Image.Image:
    """A live image as PIL; an array of floats in [0, 1] is scaled to 8 bits."""
    if isinstance(image, Image.Image):
        return upright(image)
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ImageError(f"an array of shape {array.shape} is no image")
    if array.dtype != np.uint8:
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ImageError("floating-point values outside 0..1")
        array = np.round(array * 255).astype(np.uint8)
    return upright(Image.fromarray(np.ascontiguousarray(array)))
