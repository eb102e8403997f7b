"""Segmentation masks of images (``--masks``): found by the images' names, laid where the network saw the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image

from reportgen.errors import ImagesError, UsageError
from reportgen.subject.decoding import MAX_PIXELS, ImageError, decode_file
from reportgen.subject.images import find_images
from reportgen.subject.preprocessing import Pipeline


def find_masks(folder: Path, images: Sequence[tuple[str, str]]) -> Mapping[str, Path]:
    """Files with masks, by the digest of the image that they belong to.

    A mask has the name of its image, whatever its suffix: ``cat/1.png`` or ``cat/1.jpg.png`` for ``cat/1.jpg``; where
    only one mask has the last part of the name, folders need not agree.

    Args:
        folder: where they lie.
        images: name and digest of each image.

    Raises:
        UsageError: if the folder cannot be read, or no mask in it belongs to an image.
    """
    try:
        found = find_images([folder]).images
    except ImagesError as error:
        raise UsageError(
            f"--masks: {error.thing}", "name a folder with one mask an image, called as the image"
        ) from None
    whole: dict[str, Path] = {}
    last: dict[str, list[Path]] = {}
    for ref in found:
        assert ref.path is not None
        path = Path(ref.path)
        whole.setdefault(_stem(ref.name), path)
        last.setdefault(PurePosixPath(ref.name).stem, []).append(path)
    chosen: dict[str, Path] = {}
    for name, digest in images:
        alone = last.get(PurePosixPath(name).stem, [])
        mask = whole.get(_stem(name)) or whole.get(name) or (alone[0] if len(alone) == 1 else None)
        if mask is not None:
            chosen.setdefault(digest, mask)
    if not chosen:
        raise UsageError(
            f"none of {len(found)} masks in {folder.name!r} has the name of an image", "call masks as their images"
        )
    return chosen


def fitted_mask(path: Path, pipeline: Pipeline, *, whole: bool) -> npt.NDArray[np.float32] | None:
    """A mask as the network saw its image: (H, W), 1 inside, 0 outside and beyond the image; None if it is unusable.

    Whatever is not black is inside.

    Args:
        pipeline: the preprocessing of the image; one that only the user's code knows gives no place.
        whole: the image was handed over ready: the mask covers all of it.
    """
    if pipeline.transform is not None:
        return None
    try:
        pixels = np.asarray(decode_file(path, MAX_PIXELS).convert("RGB"))
        inside = Image.fromarray(np.where(pixels.any(axis=2), np.uint8(255), np.uint8(0)))
        own = replace(pipeline, channels=1, mean=(0.0,), std=(1.0,), bgr=False, interpolation="bilinear")
        fitted = replace(own, resize="squash", resize_to=None).fit(inside) if whole else own.fit(inside)
    except ImageError:
        return None
    return fitted.astype(np.float32) / np.float32(255)


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
