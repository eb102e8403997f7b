"""What is audited: a model, images, and what is known about both before anything runs. Imports no torch."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from reportgen.errors import ModelFileError, UsageError
from reportgen.job import Job
from reportgen.store import key_of
from reportgen.subject.digests import DigestMemory, digest_of_live
from reportgen.subject.feed import in_order
from reportgen.subject.hub import beside, shown_name, weights_of
from reportgen.subject.images import Found, ImageError, ImageRef, Skipped, find_images, live_images, ready_shape
from reportgen.subject.masks import find_masks
from reportgen.subject.sharded import digest_of_model
from reportgen.subject.truth import Truth
from reportgen.versions import library_versions, versions_of

RESOLVING = (
    "arch", "arch_arg", "weights", "num_classes", "output_kind", "input_size", "channels_in", "resize", "interpolation",
    "mean", "std", "bgr", "transform", "device", "batch_size", "precision", "trust_model",
)  # fmt: skip
"""Options that decide how the model is opened and called: with the file, they determine its `Resolution`."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image that was found, with the SHA-256 of its bytes."""

    ref: ImageRef
    digest: str

    @property
    def name(self) -> str:
        return self.ref.name


@dataclass(frozen=True)
class Subject:
    """What is audited.

    Attributes:
        path: the model file; None for a live module.
        module: a live module; None for a file.
        sha256: digest of the model file; empty for a live module.
        identity: what tells this model from all others: hashed into every key.
        images: found and readable, in order of their names.
        skipped: what was found and cannot be used, and why.
        left_out: images beyond ``--max-images``.
        given_truth: labels that came with live images, by name.
        others: names of the images beyond ``--max-images``.
        masks: files with segmentation masks, by the digest of their image.
        reference: images of ``--reference``, found and readable, in order of their names.
    """

    path: Path | None
    module: Any
    sha256: str
    identity: Mapping[str, Any]
    images: tuple[Image, ...]
    skipped: tuple[Skipped, ...]
    left_out: int
    given_truth: Mapping[str, Truth]
    others: tuple[str, ...] = ()
    masks: Mapping[str, Path] = field(default_factory=dict)
    reference: tuple[Image, ...] = ()

    @property
    def model_name(self) -> str:
        """File name, or class of a live module; never a path."""
        if self.path is None:
            return type(self.module).__name__
        return shown_name(self.path)

    @cached_property
    def refs(self) -> Mapping[str, ImageRef]:
        """The images by digest; one of several that are equal."""
        return {image.digest: image.ref for image in self.images}

    @cached_property
    def ready_shape(self) -> tuple[int, ...] | None:
        """(C, H, W) of inputs that are handed over ready, if all are: that of the first that can be read."""
        if not self.images or not all(image.ref.ready for image in self.images):
            return None
        for image in self.images:
            with suppress(ImageError):
                return ready_shape(image.ref)
        return None

    def resolution_key(self, job: Job, labels: Sequence[str] | None) -> str:
        """Key of the record of what was resolved about this model under these options."""
        options = job.model_dump(mode="json", include=set(RESOLVING))
        return key_of(
            "resolution",
            model=dict(self.identity),
            options=options,
            labels=list(labels) if labels else None,
            transform=digest_of_code(job.transform, job.pythonpath),
            ready=self.ready_shape,
            versions=library_versions(),
        )


def digest_of_code(dotted: str | None, pythonpath: Sequence[Path]) -> str | None:
    """SHA-256 of the file that defines ``package.module:callable``; None for names that are no own code.

    The module is found, not run.
    """
    if not dotted or ":" not in dotted or dotted.startswith(("torchvision:", "timm:")):
        return None
    with importable(pythonpath):
        try:
            spec = importlib.util.find_spec(dotted.partition(":")[0])
        except (ImportError, ValueError):
            return None
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        return None
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


@contextmanager
def importable(folders: Sequence[Path]) -> Iterator[None]:
    """Own code in these folders can be imported meanwhile; nothing else can that could not before."""
    added = [str(folder.resolve()) for folder in folders]
    sys.path[:0] = added
    try:
        yield
    finally:
        for entry in added:
            sys.path.remove(entry)


def load_subject(
    model: Any, images: Any, job: Job, memory: DigestMemory, *, threads: int, model_id: str | None = None
) -> Subject:
    """Look at what is audited without opening it.

    Args:
        model: path of a file, or a live module.
        images: a path, several, or live images (see `reportgen.audit`).
        memory: remembers digests of files that did not change.
        threads: that read files.
        model_id: name under which the caller vouches that a live module's results may be kept.

    Raises:
        ModelFileError: if the file is not there.
        ImagesError: if there is no image.
    """
    path = Path(model) if isinstance(model, str | Path) else None
    sha256 = ""
    if path is not None:
        if not path.exists():
            raise ModelFileError(f"there is no model file {path.name!r} at the path given", "check the path")
        weights = weights_of(path)
        if not weights.is_file():
            raise ModelFileError(f"{path.name!r} is not a file", "give the model file itself")
        try:
            sha256 = digest_of_model(weights, memory.sha256)
            settings = {file.name: memory.sha256(file) for file in beside(weights)}
        except OSError as error:
            raise ModelFileError(f"cannot read {path.name!r}: {error.strerror}", "check its permissions") from None
        identity: dict[str, Any] = {
            "sha256": sha256,
            "arch": job.arch,
            "arch_arg": {k: str(v) for k, v in job.arch_arg.items()},
            "weights": job.weights,
            "num_classes": job.num_classes,
            "channels_in": job.channels_in,
            "code": digest_of_code(job.arch, job.pythonpath),
            **({"beside": {**settings, **versions_of(("transformers",))}} if settings else {}),
        }
    else:
        if not hasattr(model, "named_modules"):
            raise UsageError(f"a model is a path or a torch.nn.Module, not {type(model).__name__}", "see the README")
        # without the caller's word no two live modules are the same
        identity = {"live": model_id} if model_id is not None else {"unique": id(model)}
    found = _found(images, job)
    usable, unreadable = _digested(found, memory, threads)
    given = {ref.name: Truth(ref.label) for ref in found.images if ref.label is not None}
    skipped = tuple(sorted((*found.skipped, *unreadable), key=lambda one: one.name))
    masks: Mapping[str, Path] = {}
    if job.masks is not None:
        if job.transform is not None:
            raise UsageError("--masks cannot be laid over images that --transform places", "leave out one of them")
        masks = find_masks(job.masks, [(image.name, image.digest) for image in usable])
    reference: tuple[Image, ...] = ()
    if job.reference is not None:
        reference, _unreadable = _digested(find_images([job.reference]), memory, threads)
    return Subject(
        path,
        model if path is None else None,
        sha256,
        identity,
        usable,
        skipped,
        found.left_out,
        given,
        found.others,
        masks,
        reference,
    )


def _found(images: Any, job: Job) -> Found:
    if isinstance(images, str | Path):
        return find_images([Path(images)], limit=job.max_images, seed=job.seed)
    if isinstance(images, list | tuple) and images and all(isinstance(item, str | Path) for item in images):
        return find_images([Path(item) for item in images], limit=job.max_images, seed=job.seed)
    items = images if hasattr(images, "__getitem__") and hasattr(images, "__len__") else list(images)
    return live_images(items, limit=job.max_images)


def _digested(found: Found, memory: DigestMemory, threads: int) -> tuple[tuple[Image, ...], list[Skipped]]:
    def digest(ref: ImageRef) -> str:
        return memory.sha256(Path(ref.path)) if ref.path is not None else digest_of_live(ref.live)

    usable: list[Image] = []
    unreadable: list[Skipped] = []
    for ref, made in in_order(digest, found.images, threads=threads, ahead=16 * threads):
        if isinstance(made, str):
            usable.append(Image(ref, made))
        elif isinstance(made, OSError):
            unreadable.append(Skipped(ref.name, f"cannot be read: {made.strerror or type(made).__name__}"))
        else:
            raise made
    return tuple(usable), unreadable
