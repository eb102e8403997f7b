"""Images decoded: as the scan takes them, and as the report shows them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter

from reportgen.engine.resolution import Resolution
from reportgen.errors import EntryVanished
from reportgen.store import Array, Store, key_of
from reportgen.subject.feed import in_order
from reportgen.subject.images import ImageError, decode
from reportgen.subject.masks import fitted_mask
from reportgen.subject.preprocessing import Pipeline, prepare, sighted
from reportgen.subject.subject import Subject
from reportgen.versions import library_versions

if TYPE_CHECKING:
    from reportgen.engine.local import Prepare

ORIGINAL_SIDE = 900
"""Longer side, in pixels, to which the whole image is reduced for the report."""


@dataclass
class Pictures:
    """Exhibits as the network saw them, kept in the store: a warm run decodes nothing.

    An entry holds ``input`` (C,H,W) float32, ``fitted`` (H,W,3) or (H,W) uint8 before normalisation, and ``original``
    (h,w,3) uint8, the whole image upright and reduced.
    """

    subject: Subject
    resolution: Resolution
    store: Store
    threads: int
    _pipeline: Pipeline = field(init=False)

    def __post_init__(self) -> None:
        self._pipeline = pipeline_of(self.resolution)

    def make(self, digests: Iterator[str]) -> None:
        """Decode, in parallel, what is not stored yet."""
        lacking = [digest for digest in dict.fromkeys(digests) if not self.store.has(self.key(digest))]
        for digest, made in in_order(self._arrays, lacking, threads=self.threads, ahead=2 * self.threads):
            if isinstance(made, Exception):
                raise made
            self.store.put(self.key(digest), made, {"kind": "picture"})

    def input(self, digest: str) -> Array:
        """(C,H,W) float32."""
        return self.read(digest)["input"]

    def read(self, digest: str) -> Mapping[str, Array]:
        """The three arrays. Raises EntryVanished."""
        entry = self.store.get(self.key(digest))
        if entry is None:
            raise EntryVanished
        return entry.arrays

    def fitted(self, digests: Iterable[str]) -> Iterator[tuple[str, Array]]:
        """Images as the network saw them, (H,W,3) or (H,W) uint8, one at a time: decoded, in parallel, and not kept.

        Raises:
            EntryVanished: if one cannot be read any more.
        """
        pipeline = self._pipeline

        def fit(digest: str) -> Array:
            ref = self.subject.refs[digest]
            return pipeline.visible(prepare(ref, pipeline)) if ref.ready else pipeline.fit(decode(ref))

        for digest, made in in_order(fit, digests, threads=self.threads, ahead=2 * self.threads):
            if isinstance(made, Exception):
                raise made
            yield digest, made

    def mask(self, digest: str) -> Array | None:
        """The segmentation mask of an image, see `reportgen.subject.masks.fitted_mask`; None where there is none."""
        path = self.subject.masks.get(digest)
        return None if path is None else fitted_mask(path, self._pipeline, whole=self.subject.refs[digest].ready)

    def digest_of_masks(self) -> str:
        """Over the bytes of all masks and the images they belong to; empty where there are none."""
        over = hashlib.sha256()
        for digest, path in sorted(self.subject.masks.items()):
            over.update(digest.encode())
            with contextlib.suppress(OSError):
                over.update(hashlib.sha256(path.read_bytes()).digest())
        return over.hexdigest() if self.subject.masks else ""

    def key(self, digest: str) -> str:
        """Key of the entry of an image."""
        versions = library_versions()
        return key_of("picture", image=digest, pipeline=dict(self.resolution.pipeline), pillow=versions["pillow"])

    def _arrays(self, digest: str) -> dict[str, Array]:
        ref = self.subject.refs[digest]
        values = prepare(ref, self._pipeline)
        if ref.ready:
            fitted = self._pipeline.visible(values)
            return {"input": values, "fitted": fitted, "original": fitted}
        image = decode(ref)
        fitted = self._pipeline.visible(values) if self._pipeline.transform else self._pipeline.fit(image)
        small = image.convert("L" if image.mode in ("1", "L") else "RGB")
        small.thumbnail((ORIGINAL_SIDE, ORIGINAL_SIDE))
        original = np.asarray(small)
        return {"input": values, "fitted": fitted, "original": original}


def pipeline_of(resolution: Resolution) -> Pipeline:
    """The preprocessing as resolved."""
    return TypeAdapter(Pipeline).validate_python(dict(resolution.pipeline))


def preparer(subject: Subject, resolution: Resolution) -> Prepare:
    """Decodes an image of the scan, by its digest."""
    from reportgen.engine.local import Sight, Unusable

    pipeline = pipeline_of(resolution)

    def sight_of(digest: str) -> Sight:
        try:
            return Sight(*sighted(subject.refs[digest], pipeline))
        except ImageError as error:
            raise Unusable(error.reason) from None

    return sight_of
