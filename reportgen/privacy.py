"""How images are called in every output, and what a reason may say of them (``--names``).

Names are settled once, when the scan is read: whatever comes later (tables, captions, anchors, file names, logs) knows
no other. The original names serve before that, to find truth and exhibits by.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Final, Literal

from reportgen.subject.images import Skipped, told_apart

Names = Literal["path", "stem", "hash"]

DIGITS: Final = 12
"""Hexadecimal digits of an image's own SHA-256 that stand for its name. A hash of the name could be undone by trying
names; that of the content only by who has the image.
"""

# what the user's own code said may hold anything
_RAISED: Final = re.compile(r"( raised \w+).*", re.DOTALL)
# a suffix is the rest of a name: only the usual ones say nothing of it
_SUFFIX: Final = re.compile(r"^not an image file \(\..*\)$", re.DOTALL)


def shown_names(how: Names, images: Sequence[tuple[str, str]]) -> list[str]:
    """What images are called, each otherwise than the rest.

    Args:
        images: name and SHA-256 of each, in an order that does not depend on chance.
    """
    if how == "path":
        return [name for name, _digest in images]
    if how == "stem":
        return told_apart(PurePosixPath(name).stem or "image" for name, _digest in images)
    return told_apart(f"image-{digest[:DIGITS]}" for _name, digest in images)


def shown_skipped(how: Names, skipped: Iterable[Skipped]) -> list[Skipped]:
    """Files that were not used, under names and with reasons that tell no more than `how` allows."""
    listed = list(skipped)
    if how == "path":
        return listed
    if how == "stem":
        names = told_apart(PurePosixPath(one.name).stem or "file" for one in listed)
        told = [Skipped(name, _RAISED.sub(r"\1", one.reason)) for name, one in zip(names, listed, strict=True)]
        return sorted(told, key=lambda one: one.name)
    # numbered by reason: an order by name would tell of the names
    reasons = sorted(_RAISED.sub(r"\1", _SUFFIX.sub("not an image file", one.reason)) for one in listed)
    return [Skipped(f"file-{number:04d}", reason) for number, reason in enumerate(reasons, 1)]


def shown_groups(how: Names, groups: Sequence[str | None]) -> list[str | None]:
    """What groups of images are called: ``hash`` numbers them in the order given, since a group may be a person."""
    if how != "hash":
        return list(groups)
    number = {group: place for place, group in enumerate(dict.fromkeys(g for g in groups if g is not None), 1)}
    return [None if group is None else f"group-{number[group]}" for group in groups]
