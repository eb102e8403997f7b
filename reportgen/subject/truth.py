"""Which class an image truly shows, and what the names of folders say of that."""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from reportgen.subject.labels import number_of

_WORDNET_ID = re.compile(r"n\d{8}")
_NAMED = 3
"""So many examples are named in a message."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of one image.

    Attributes:
        label: class number; the set of them, which may be empty, where an image may show several classes or none.
        group: images that belong together (one patient, one camera).
        slice: a part of the data to be told apart.
    """

    label: int | frozenset[int]
    group: str | None = None
    slice: str | None = None

    @property
    def single(self) -> int | None:
        """The class; None where an image may show several or none."""
        return self.label if isinstance(self.label, int) else None

    @property
    def labels(self) -> tuple[int, ...]:
        """All classes that the image shows, in order."""
        return (self.label,) if isinstance(self.label, int) else tuple(sorted(self.label))


@dataclass(frozen=True)
class FolderTruth:
    """What folder names said.

    Attributes:
        truth: by image name.
        words: which folders are no class, in words; None where there is nothing to say.
        unmatched: the folders that hold images and are called like no class, or like several.
    """

    truth: dict[str, Truth]
    words: str | None = None
    unmatched: tuple[str, ...] = ()


def plain(words: str) -> str:
    """Folded for comparison: case, accents' encoding, spaces, underscores and hyphens do not count."""
    return re.sub(r"[\s_\-]+", " ", unicodedata.normalize("NFC", words)).strip().casefold()


def by_name(classes: Sequence[str]) -> dict[str, int]:
    """Class numbers by folded name; a synonym between commas counts where it means one class only."""
    found: dict[str, int] = {}
    synonyms = [(part, index) for index, label in enumerate(classes) for part in {plain(p) for p in label.split(",")}]
    for names in (synonyms, [(plain(label), index) for index, label in enumerate(classes)]):
        times = Counter(name for name, _index in names)
        # a whole name beats a synonym, and one that two classes have means neither
        found = {name: index for name, index in found.items() if name not in times}
        found.update((name, index) for name, index in names if name and times[name] == 1)
    return found


def truth_from_folders(images: Sequence[str], classes: Sequence[str] | None) -> FolderTruth:
    """Labels from class-named folders: a folder that an image lies in, or one above it, is called like a class.

    Folders match a class by its name, one of its synonyms, or its WordNet identifier (where timm is installed, which
    knows them). Where none does, and every folder that holds images is a number, they are class numbers. A name that
    means two classes means none, and so does a path with two of them.

    Args:
        images: names relative to the folder given, with ``/``.
        classes: class names; their numbers as words, or None, where there are none.
    """
    paths = {image: tuple(image.split("/")[:-1]) for image in images}
    folders = {folder for path in paths.values() for folder in path}
    meaning = _meaning(folders, classes or ())
    if not meaning:
        # an image beside the folders says that these are something else
        meaning = {} if () in paths.values() else _numbers({path[-1] for path in paths.values()}, len(classes or ()))
    truth: dict[str, Truth] = {}
    unmatched: set[str] = set()
    for image, path in paths.items():
        meant = {meaning[folder] for folder in path if folder in meaning}
        if len(meant) == 1:
            truth[image] = Truth(meant.pop())
        elif path:
            unmatched.add("/".join(path))
    return FolderTruth(truth, _about(unmatched), tuple(sorted(unmatched)))


def _about(unmatched: Collection[str]) -> str | None:
    if not unmatched:
        return None
    named = ", ".join(sorted(unmatched)[:_NAMED]) + (", …" if len(unmatched) > _NAMED else "")
    if len(unmatched) == 1:
        return f"1 folder is called like no class, or like several: {named}"
    return f"{len(unmatched)} folders are called like no class, or like several: {named}"


def _meaning(folders: Collection[str], classes: Sequence[str]) -> dict[str, int]:
    """Class number of every folder that is called like one class."""
    known = by_name(classes)
    if all(number_of(label) == index for index, label in enumerate(classes)):
        known = {}  # nobody named these classes: see `_numbers`
    found = {folder: known[name] for folder in folders if (name := plain(folder)) in known}
    identifiers = {folder for folder in folders if folder not in found and _WORDNET_ID.fullmatch(folder)}
    return found | (_by_wordnet(identifiers, classes, known) if identifiers else {})


def _numbers(folders: Collection[str], classes: int) -> dict[str, int]:
    """Class numbers of folders that are all called by one."""
    numbers = {folder: number_of(folder) if folder.isdecimal() else None for folder in folders}
    if any(number is None or number >= classes for number in numbers.values()):
        return {}
    return {folder: number for folder, number in numbers.items() if number is not None}


def _by_wordnet(identifiers: Iterable[str], classes: Sequence[str], known: Mapping[str, int]) -> dict[str, int]:
    """Class numbers of WordNet identifiers: by ImageNet's order for ImageNet's classes, else by WordNet's words."""
    order, words = _wordnet()
    parts = [{plain(part) for part in label.split(",")} for label in classes]
    # names alone do not do here: ImageNet has two cranes and two maillots
    if len(order) == len(classes):
        same = sum(bool(own & set(words.get(one, ()))) for own, one in zip(parts, order, strict=True))
        if same >= 0.9 * len(order):
            place = {one: index for index, one in enumerate(order)}
            return {one: place[one] for one in identifiers if one in place}
    found = {one: {known[word] for word in words.get(one, ()) if word in known} for one in identifiers}
    return {one: next(iter(meant)) for one, meant in found.items() if len(meant) == 1}


@cache
def _wordnet() -> tuple[tuple[str, ...], Mapping[str, tuple[str, ...]]]:
    """(ImageNet's identifiers in the order of its classes, words of every identifier), read from timm's data."""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        return (), {}
    folder = Path(spec.origin).parent / "data" / "_info"
    try:
        order = tuple((folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split())
        lines = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    except OSError:
        return (), {}
    split = (line.partition("\t") for line in lines)
    return order, {one: tuple(plain(word) for word in words.split(",")) for one, _tab, words in split}
