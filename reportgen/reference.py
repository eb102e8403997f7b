"""The images of ``--reference``: looked at, not put into the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from reportgen.engine.plan import bucket_of, looks_only
from reportgen.engine.shards import Shards
from reportgen.privacy import Names, shown_names
from reportgen.progress import Progress
from reportgen.store import Array
from reportgen.subject.feed import in_order
from reportgen.subject.images import ImageError, ImageRef
from reportgen.subject.preprocessing import looked_at
from reportgen.subject.subject import Image
from reportgen.techniques.duplicates import LOOK
from reportgen.techniques.technique import Case


def look_at_reference(
    images: Sequence[Image],
    shards: Iterable[Shards],
    how: Names,
    told: Mapping[str, Any],
    *,
    threads: int,
    progress: Progress,
) -> tuple[Case, ...]:
    """What these images look like, for whoever compares: decoded where that is not stored.

    Args:
        shards: rows of the scanning techniques; those of techniques that look at images alone take these in.
        how: images are called.
        told: stored beside them.

    Returns:
        The images that can be read.
    """
    looking = [one for one in shards if looks_only(one.planned.needs)]
    if not images or not looking:
        return ()
    refs = {image.digest: image.ref for image in images}
    for one in looking:
        lacking = sorted(digest for digest in refs if not one.knows(digest))
        if lacking:
            progress.each(_look_at(one, refs, lacking, threads, told), "compare", len(lacking), "image")
    known = [image for image in images if all(one.row(image.digest) is not None for one in looking)]
    names = shown_names(how, [(image.name, image.digest) for image in known])
    return tuple(Case(name, image.digest) for name, image in zip(names, known, strict=True))


def _look_at(
    shards: Shards, refs: Mapping[str, ImageRef], digests: Sequence[str], threads: int, told: Mapping[str, Any]
) -> Iterator[int]:
    """Decode images in the order of their digests; a shard is stored when the last of it is there."""

    def look(digest: str) -> Array:
        return looked_at(refs[digest])

    for place, (digest, made) in enumerate(in_order(look, digests, threads=threads, ahead=4 * threads)):
        if isinstance(made, ImageError):
            shards.put_error(digest, made.reason)
        elif isinstance(made, Exception):
            raise made
        else:
            shards.put(digest, {LOOK: made})
        if place + 1 == len(digests) or bucket_of(digests[place + 1]) != bucket_of(digest):
            shards.flush(bucket_of(digest), told)
        yield 1
