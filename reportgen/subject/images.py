"""Images: found in folders or handed over in memory, told apart by name. The unusable is named with its reason."""

from __future__ import annotations

import errno
import hashlib
import operator
import os
import re
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reportgen.errors import ImagesError
from reportgen.subject import arrays
from reportgen.subject.decoding import MAX_PIXELS, as_pil, decode_file, format_of, load
from reportgen.subject.decoding import ImageError as ImageError
from reportgen.subject.digests import digest_of_live, open_regular
from reportgen.text import counted

SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".dib",
    ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".npy",
))  # fmt: skip
_OTHER_IMAGES = frozenset((
    ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".psd", ".svg", ".ico", ".tga", ".exr", ".hdr", ".dcm", ".nii", ".raw",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".eps", ".ai", ".xcf",
))  # fmt: skip
# neither terminals nor tables should obey a file name: controls, line separators, and changes of writing direction
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_NUMBERS = (int, float, list, tuple)


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image before it is read.

    Attributes:
        name: as it is called everywhere: relative to the folder given, with ``/``; bytes that are not UTF-8 as
            ``\\xNN``.
        path: its file; None for a live image.
        live: an image in memory: PIL, array (H,W,C) or (H,W), float array (C,H,W) if `ready`, or a `DatasetItem` of
            these.
        label: its class number where it came with one.
        ready: `live`, or what the file holds, is what goes into the model as it is: (C,H,W) float.
        given_id: the caller's own name of it.
    """

    name: str
    path: str | os.PathLike[str] | None
    live: Any = None
    label: int | None = None
    ready: bool = False
    given_id: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something found among the images that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Found:
    """Everything that lay there: `images` that may be usable, `skipped` that are not, `left_out` beyond the limit.

    Attributes:
        others: names of those left out.
    """

    images: tuple[ImageRef, ...]
    skipped: tuple[Skipped, ...]
    left_out: int = 0
    others: tuple[str, ...] = ()


def shown(name: str) -> str:
    """A file name as text that is safe to print: bytes that are no UTF-8, and control characters, become ``\\xNN``."""
    if name.isascii() and name.isprintable():
        return name
    try:
        text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # lone surrogates, as Windows allows them
        text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return _UNPRINTABLE.sub(lambda hit: f"\\x{ord(hit[0]):02x}" if ord(hit[0]) < 256 else f"\\u{ord(hit[0]):04x}", text)


def find_images(sources: Sequence[Path], *, limit: int | None = None, seed: int = 0) -> Found:
    """All images in files and folders, recursively, ordered by name.

    Only files whose suffix says nothing are opened, for their first bytes; pipes and devices never are. Hidden files
    and folders (``.git``, ``._cat.jpg``) are skipped, each as one. Of several folders each is a prefix to its names.

    Args:
        sources: files and folders; what is reached twice counts once.
        limit: at most so many, the same share of every folder, drawn by a hash of the name.
        seed: of the draw.

    Raises:
        ImagesError: if a source does not exist, or nothing that looks like an image is found.
    """
    entries: dict[str, tuple[str, str]] = {}
    for source, prefix in _prefixed(sources):
        for path, name, reason in _walk(source):
            entries.setdefault(path, (prefix + name, reason))
    images = _unique(
        ImageRef(name, path, ready=_is_ready(path)) for path, (name, reason) in entries.items() if not reason
    )
    skipped = sorted((Skipped(name, reason) for name, reason in entries.values() if reason), key=lambda one: one.name)
    if not images:
        first = f", such as {skipped[0].name!r}: {skipped[0].reason}" if skipped else ""
        remedy = "give JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF or NumPy files"
        raise ImagesError(f"no image among {counted(len(skipped), 'file')}{first}", remedy)
    chosen = images if limit is None or limit >= len(images) else _share(images, limit, seed)
    ordered = sorted(chosen, key=lambda ref: ref.name)
    kept = {ref.name for ref in ordered}
    others = tuple(sorted(ref.name for ref in images if ref.name not in kept))
    return Found(tuple(ordered), tuple(skipped), len(others), others)


def _prefixed(sources: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """(canonical path, what its names begin with) of every source, each once."""
    real: dict[str, None] = {}
    for source in sources:
        try:
            os.stat(source)
        except OSError as error:
            words = shown(source.name or str(source))
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise ImagesError(f"there is no image file or folder {words!r}", "check the path") from None
            raise ImagesError(f"cannot read {words!r}: {error.strerror}", "check its permissions") from None
        # a link to a file keeps its own name, a link to a folder gives way to the folder
        link = os.path.islink(source) and not os.path.isdir(source)
        real[_canonical(source) if link else os.path.realpath(source)] = None
    folders = [path for path in real if os.path.isdir(path)]
    names = told_apart(shown(os.path.basename(path)) for path in folders)
    prefixes = {path: f"{name}/" for path, name in zip(folders, names, strict=True)} if len(folders) > 1 else {}
    for path in real:
        yield path, prefixes.get(path, "")


def _canonical(path: Path) -> str:
    return os.path.join(os.path.realpath(path.parent), path.name)


def told_apart(names: Iterable[str]) -> list[str]:
    """The same names, with `` (2)`` and so on after those that were there before."""
    wanted = list(names)
    taken = set(wanted)
    seen: Counter[str] = Counter()
    told: list[str] = []
    for name in wanted:
        seen[name] += 1
        other = name
        while seen[name] > 1 and (other := f"{name} ({seen[name]})") in taken:
            seen[name] += 1
        taken.add(other)
        told.append(other)
    return told


def _unique(refs: Iterable[ImageRef]) -> list[ImageRef]:
    listed = list(refs)
    names = told_apart(ref.name for ref in listed)
    return [ref if ref.name == name else replace(ref, name=name) for ref, name in zip(listed, names, strict=True)]


def _share(images: Sequence[ImageRef], limit: int, seed: int) -> list[ImageRef]:
    """`limit` images, as many per cent of one folder as of another (systematic sampling over shuffled folders)."""
    folders: dict[str, list[tuple[bytes, ImageRef]]] = {}
    for ref in images:
        rank = hashlib.sha256(f"{seed} {ref.name}".encode("utf-8", "replace")).digest()
        folders.setdefault(ref.name.rpartition("/")[0], []).append((rank, ref))
    placed: list[tuple[float, bytes, ImageRef]] = []
    for members in folders.values():
        members.sort(key=lambda member: member[0])
        placed += [((place + 0.5) / len(members), rank, ref) for place, (rank, ref) in enumerate(members)]
    placed.sort(key=lambda one: one[:2])
    return [ref for _place, _rank, ref in placed[:limit]]


def _walk(source: str) -> Iterator[tuple[str, str, str]]:
    """(path, name, why it cannot be an image, or empty) of everything in a source.

    Folders come before links to folders, so that a folder is never skipped in favour of a link to it.
    """
    if not os.path.isdir(source):
        name = os.path.basename(source)
        yield source, shown(name), _unfit(source, os.stat(source), suffix=None)
        return
    folders: list[tuple[str, str]] = [(source, "")]
    links: list[tuple[str, str]] = []
    visited: set[tuple[int, int]] = set()
    while folders or links:
        linked = not folders
        folder, prefix = folders.pop() if folders else links.pop(0)
        try:
            status = os.stat(folder)
            inode = status.st_dev, status.st_ino
            if inode in visited:
                yield folder, prefix[:-1], "not an image file (a link to a folder that is listed already)"
                continue
            visited.add(inode)
            canonical = os.path.realpath(folder) if linked else folder
            entries = sorted(os.scandir(canonical), key=lambda entry: entry.name)
        except OSError as error:
            name = prefix[:-1] or shown(os.path.basename(source))
            yield folder, name, f"a folder that cannot be read: {error.strerror}"
            continue
        for entry in entries:
            name = prefix + shown(entry.name)
            kind, reason = _entry(entry)
            if kind == "folder":
                folders.append((entry.path, name + "/"))
            elif kind == "link":
                links.append((entry.path, name + "/"))
            else:
                yield entry.path, name, reason
        links.sort(key=lambda link: link[1])


def _entry(entry: os.DirEntry[str]) -> tuple[str, str]:
    """("folder" | "link" to a folder | "file", why it cannot be an image)."""
    try:
        if entry.is_dir(follow_symlinks=False):
            return ("file", "not an image file (a hidden folder)") if entry.name.startswith(".") else ("folder", "")
        if entry.name.startswith("."):
            return "file", "not an image file (hidden)"
        status = entry.stat()
        if stat.S_ISDIR(status.st_mode):
            return "link", ""
        return "file", _unfit(entry.path, status, suffix=os.path.splitext(entry.name)[1].lower())
    except OSError as error:
        if entry.is_symlink():
            return "file", "a link that leads nowhere"
        vanished = error.errno == errno.ENOENT
        return "file", "vanished during the run" if vanished else f"cannot be read: {error.strerror}"


def _unfit(path: str, status: os.stat_result, *, suffix: str | None) -> str:
    """Why a file cannot be an image, or empty. One that the user named (`suffix` None) is tried whatever its name."""
    if not stat.S_ISREG(status.st_mode):
        return "not a file but a pipe, socket or device"
    if suffix is not None and suffix in _OTHER_IMAGES:
        return f"a format that is not read ({suffix})"
    if suffix is not None and suffix not in SUFFIXES and not _begins_as_image(path):
        return f"not an image file ({shown(suffix)})" if suffix else "not an image file (no suffix)"
    return "" if status.st_size else "empty file"


def _is_ready(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds an array that goes into the model as it is; one that is damaged says so when it is read."""
    if not arrays.is_array(path):
        return False
    try:
        return arrays.is_input(*arrays.head_of(Path(path)))
    except ImageError:
        return True


def _begins_as_image(path: str) -> bool:
    try:
        with open_regular(Path(path)) as file:
            # two letters are too few to believe in
            return format_of(file.read(16)) not in (None, "BMP", "PPM")
    except OSError:
        return False


@dataclass(frozen=True, eq=False)
class DatasetItem:
    """One image of a map-style data set, fetched anew whenever it is needed: the set may not fit into memory.

    Attributes:
        digest: of the image as it was when it was first seen.
        shape: of its array; empty for PIL images.
    """

    dataset: Any
    index: int
    digest: str
    shape: tuple[int, ...]
    lock: threading.Lock

    def fetch(self) -> Any:
        """The image. Raises ImageError if the set fails, or gives another image than before."""
        try:
            with self.lock:  # few data sets are written for threads
                taken = _taken_apart(self.dataset[self.index], self.index)
        except Exception as error:  # the data set is the caller's code
            raise ImageError(_raised(error)) from None
        if digest_of_live(taken.image) != self.digest:
            raise ImageError("the data set gives another image each time: turn random transforms off")
        return taken.image


@dataclass(frozen=True)
class _Taken:
    """One item of a list or data set: image (PIL, array or path), class number, the caller's name, is it ready."""

    image: Any
    label: int | None
    given_id: str | None
    ready: bool


def _taken_apart(item: Any, number: int) -> _Taken:
    label: int | None = None
    given: str | None = None
    # (image, label) or (image, label, id): a list of numbers would be an image
    if isinstance(item, tuple | list) and len(item) in (1, 2, 3) and not isinstance(item[0], _NUMBERS):
        label = _class_number(item[1], number) if len(item) > 1 else None
        given = str(item[2]) if len(item) == 3 and item[2] is not None else None
        item = item[0]
    if not hasattr(item, "detach"):
        array = isinstance(item, np.ndarray)
        return _Taken(item, label, given, array and arrays.is_input(item.shape, item.dtype))
    tensor = item.detach().cpu()
    if tensor.is_floating_point():
        array = tensor.float().numpy()
        return _Taken(array, label, given, array.ndim == 3)
    array = tensor.numpy()
    return _Taken(array.transpose(1, 2, 0) if array.ndim == 3 else array, label, given, False)


def _class_number(label: Any, number: int) -> int | None:
    """-1 is the usual way to say that a label is missing."""
    if label is None:
        return None
    try:
        value = operator.index(label)
    except TypeError:
        what = f"the label of image {number} is no class number but {type(label).__name__}"
        raise ImagesError(what, "give (image, class number or None, id)") from None
    return value if value >= 0 else None


def _raised(error: Exception) -> str:
    words = (str(error).strip().splitlines() or [""])[0][:120]
    return f"the data set raised {type(error).__name__}" + (f": {words}" if words else "")


def live_images(items: Any, *, limit: int | None = None) -> Found:
    """Images handed over in memory: PIL, arrays, tensors, paths, tuples (image, label[, id]), or a data set of these.

    A float tensor (C,H,W) is what a data set with its transforms gives: it goes into the model as it is. What comes
    from a data set is not kept but fetched again when needed.

    Args:
        items: a list or tuple, or anything with a length and an index.
        limit: at most so many, evenly spaced.

    Raises:
        ImagesError: if there is none, or a label is not a class number.
    """
    total = len(items)
    chosen = range(total) if limit is None or limit >= total else [place * total // limit for place in range(limit)]
    lock = threading.Lock()
    kept = isinstance(items, list | tuple)
    refs: list[ImageRef] = []
    skipped: list[Skipped] = []
    for number in chosen:
        try:
            refs.append(_live(items, number, lock, kept=kept))
        except ImageError as error:
            skipped.append(Skipped(error.name or f"image-{number:04d}", error.reason))
    if not refs:
        first = f" ({skipped[0].name}: {skipped[0].reason})" if skipped else ""
        raise ImagesError(f"no image was given{first}", "give at least one")
    return Found(tuple(_unique(refs)), tuple(skipped), total - len(chosen))


def _live(items: Any, number: int, lock: threading.Lock, *, kept: bool) -> ImageRef:
    try:
        taken = _taken_apart(items[number], number)
    except ImagesError:
        raise
    except Exception as error:  # the data set is the caller's code
        raise ImageError(_raised(error)) from None
    image, given = taken.image, taken.given_id
    name = f"image-{number:04d}" if given is None else shown(given)
    if isinstance(image, str | os.PathLike):
        path = Path(os.fspath(image))
        name = name if given is not None else shown(path.name)
        return ImageRef(name, _checked(path), None, taken.label, _is_ready(path), given)
    if isinstance(image, Image.Image):
        load(image, MAX_PIXELS)
    if not kept:
        image = DatasetItem(items, number, digest_of_live(image), tuple(getattr(image, "shape", ())), lock)
    return ImageRef(name, None, image, taken.label, taken.ready, given)


def _checked(path: Path) -> Path:
    """The path of a file that may be an image. Raises ImageError."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}", shown(path.name)) from None
    reason = "a folder" if stat.S_ISDIR(status.st_mode) else _unfit(str(path), status, suffix=None)
    if reason:
        raise ImageError(reason, shown(path.name))
    return path


def decode(ref: ImageRef, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first frame, wholly decoded, turned upright, 8 bits a band: `reportgen.subject.decoding.as_upright`.

    Raises:
        ImageError: with the reason, for whatever cannot be decoded.
    """
    if ref.path is not None and not arrays.is_array(ref.path):
        return decode_file(Path(ref.path), max_pixels)
    return as_pil(fetched(ref), max_pixels)


def fetched(ref: ImageRef) -> Any:
    """The live image itself, from its data set or file where it is not in memory. Raises ImageError."""
    if ref.path is not None:
        return arrays.array_of(Path(ref.path))
    return ref.live.fetch() if isinstance(ref.live, DatasetItem) else ref.live


def ready_shape(ref: ImageRef) -> tuple[int, ...]:
    """(C,H,W) of an input that is ready. Raises ImageError."""
    return arrays.head_of(Path(ref.path))[0] if ref.path is not None else tuple(ref.live.shape)
