"""From bytes, PIL images and arrays to upright 8-bit pixels; what cannot be read is told in a few words."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from reportgen.subject.digests import open_regular

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM")
"""Pillow's names of what is opened; its other decoders never see a file. (MPO, of some cameras, is opened as JPEG.)"""
MAX_PIXELS = 89_478_485
"""Pillow's own limit: a quarter of a gigabyte of pixels. Pillow only warns there, and refuses at twice that."""
MAX_SIDE = 65_500
"""Longest side that a JPEG can have."""

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PLAIN_MODES = {"1": "L", "L": "L", "LA": "LA", "La": "LA", "RGBA": "RGBA", "RGBa": "RGBA", "CMYK": "CMYK"}
_TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_HEADS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
)
_FOREIGN = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the image itself with git lfs pull"),
    (b"\xff\x0a", "JPEG XL, which is not read"),
    (b"\0\0\0\x0cJXL ", "JPEG XL, which is not read"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000, which is not read"),
    (b"8BPS", "a Photoshop document"),
)


# Pillow logs errors about damaged files; without any handler Python prints them to stderr. The reason is told anyway.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class ImageError(Exception):
    """One image cannot be used.

    Attributes:
        reason: a few words, without a path.
        name: of its file, where that is not known from elsewhere.
    """

    def __init__(self, reason: str, name: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.name = name


def format_of(head: bytes) -> str | None:
    """Format that the first 16 bytes of a file claim, among `FORMATS`; None for any other."""
    for magic, name in _HEADS:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return "AVIF"
    return "PPM" if re.match(rb"P[1-6]\s", head) else None


def decode_file(path: Path, max_pixels: int) -> Image.Image:
    """The first frame of an image file, see `as_upright`.

    Raises:
        ImageError: with the reason, for whatever cannot be decoded.
    """
    try:
        with open_regular(path) as file, _hushed():
            return _decoded(file, max_pixels)
    except FileNotFoundError:
        raise ImageError("vanished during the run") from None
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or type(error).__name__}") from None


def _decoded(file: BinaryIO, max_pixels: int) -> Image.Image:
    head = file.read(512)
    if not head:
        raise ImageError("empty file")
    length = file.seek(0, 2)
    file.seek(0)
    try:
        with Image.open(file, formats=FORMATS) as image:
            _check_size(image.size, max_pixels)
            ImageFile.LOAD_TRUNCATED_IMAGES = False  # WeasyPrint sets it for the whole process when it is imported
            image.load()
            return as_upright(image)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(_unidentified(head)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(_bomb(error, max_pixels)) from None
    except MemoryError:
        raise ImageError("too large for the memory of this machine") from None
    except Exception as error:
        # decoders raise whatever a damaged file makes them: OSError, SyntaxError, ValueError, struct.error, KeyError, …
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ImageError(_damage(error, head, length)) from None


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError("has no pixels")
    if width * height > max_pixels:
        raise ImageError(f"{width} × {height} pixels, more than {max_pixels / 1e6:.3g} million")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{width} × {height} pixels, a side longer than {MAX_SIDE}")


def _bomb(error: Exception, max_pixels: int) -> str:
    count = re.search(r"\d+", str(error))
    many = f"{int(count[0]) / 1e6:.3g} million pixels" if count else "too many pixels"
    return f"{many}, more than {max_pixels / 1e6:.3g} million"


def _unidentified(head: bytes) -> str:
    claimed = format_of(head)
    if claimed is not None:
        return f"truncated or damaged: begins as {claimed}, and no image can be read from it"
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            return f"not an image: {what}"
    if head[4:8] == b"ftyp":
        return "not an image that is read: HEIC or a video"
    if not head.strip(b"\0"):
        return "not an image: zeros"
    try:
        words = head.decode("utf-8").lstrip("\ufeff \r\n\t").lower()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return "not an image: of no known format"
        words = head[: error.start].decode("utf-8").lower()
    if words.startswith(("<!doctype html", "<html")):
        return "not an image: a web page"
    if "<svg" in words:
        return "not an image that is read: SVG"
    return "not an image: text"


def _damage(error: Exception, head: bytes, length: int) -> str:
    told = (str(error).strip().splitlines() or [""])[0]
    if re.search(r"truncated|unexpected end|end of (file|data)", told, re.IGNORECASE):
        return "truncated"
    # WebP's decoder does not say why; the container tells its own length
    if format_of(head) == "WEBP" and int.from_bytes(head[4:8], "little") + 8 > length:
        return "truncated"
    return f"damaged: {told[:120]}" if told else f"damaged ({type(error).__name__})"


def as_upright(image: Image.Image) -> Image.Image:
    """A loaded image turned as its EXIF orientation says, in 8 bits a band, without metadata.

    Modes are ``L`` (grey, bilevel), ``RGB`` (colour, palette), and as stored ``LA``, ``RGBA``, ``CMYK``:
    `Pipeline.fit` reduces these to what the model takes, and drops transparency as the image loaders of torchvision and
    timm do. Grey of 16 bits keeps its high byte, as Pillow does for colours of 16 bits; it is not clipped at 255.

    Raises:
        ImageError: for numbers whose range is not known (float, 32-bit) and colour spaces that Pillow cannot convert.
    """
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # damaged metadata raise whatever they like, and the pixels are none the worse
        orientation = None
    plain = _eight_bits(image)
    if orientation in _UPRIGHT:
        plain = plain.transpose(_UPRIGHT[orientation])
    plain.info = {}
    return plain


def _eight_bits(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format == "PPM"):
        values = np.asarray(image)
        tags: Any = getattr(image, "tag_v2", {})
        if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
            values = 65535 - values
        return Image.fromarray((values >> 8).astype(np.uint8))
    if mode == "I":
        raise ImageError("32-bit integers, whose white is not known: save it with 8 or 16 bits")
    if mode == "F":
        raise ImageError("floating-point values, whose white is not known: save it with 8 or 16 bits")
    try:
        return image.convert(_PLAIN_MODES.get(mode, "RGB"))
    except ValueError:
        raise ImageError(f"colours of kind {mode}, which cannot be converted") from None


def as_pil(image: Any, max_pixels: int) -> Image.Image:
    """A live image as upright 8-bit pixels; the one given is not changed.

    Args:
        image: PIL image, or array (H,W) or (H,W,C) of uint8, uint16, other integers in 0..255, or floats in 0..1.

    Raises:
        ImageError: for anything else.
    """
    if isinstance(image, Image.Image):
        load(image, max_pixels)
        with _hushed():
            return as_upright(image)
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] > 4):
        raise ImageError(
            f"an array of shape {array.shape}: images are (H,W) or (H,W,C) with 1 to 4 channels, other inputs "
            "floats (C,H,W)"
        )
    _check_size((array.shape[1], array.shape[0]), max_pixels)
    return Image.fromarray(np.ascontiguousarray(_array_as_bytes(array)))


def load(image: Image.Image, max_pixels: int) -> None:
    """Decode a PIL image that its caller may have opened lazily. Raises ImageError."""
    _check_size(image.size, max_pixels)
    try:
        with _hushed():
            image.load()
    except Exception as error:  # the same decoders as for files
        raise ImageError(_damage(error, b"", 0)) from None


def _array_as_bytes(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    kind = array.dtype.kind
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    if kind in "iu":
        if array.min() < 0 or array.max() > 255:
            raise ImageError(f"{array.dtype} values outside 0..255")
        return array.astype(np.uint8)
    if kind != "f":
        raise ImageError(f"an array of {array.dtype} is no image")
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise ImageError("floating-point values outside 0..1")
    return np.round(array * 255).astype(np.uint8)


_hush_lock = threading.Lock()
_hush_users = 0
_HUSH = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@contextmanager
def _hushed() -> Iterator[None]:
    """Pillow's warnings are ignored meanwhile (odd metadata, images beyond its limit, which are refused here anyway).

    `warnings.catch_warnings` swaps the whole list of filters and is not safe with threads: one that ends while another
    runs takes its filters away. Here the first of several threads adds one filter, about Pillow alone, and the last
    removes it.
    """
    global _hush_users
    filters: Any = warnings.filters
    with _hush_lock:
        _hush_users += 1
        if _HUSH not in filters:
            filters.insert(0, _HUSH)
    try:
        yield
    finally:
        with _hush_lock:
            _hush_users -= 1
            filters = warnings.filters
            while not _hush_users and _HUSH in filters:
                filters.remove(_HUSH)
