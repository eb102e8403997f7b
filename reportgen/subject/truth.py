"""Which class an image truly shows."""

from __future__ import annotations

import csv
import importlib.util
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from reportgen.errors import LabelsError
from reportgen.subject.images import shown
from reportgen.subject.labels import number_of, text_of
from reportgen.text import line as shown_line

_WORDNET_ID = re.compile(r"n\d{8}")
_NAMED = 3
"""So many examples are named in a message."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of one image.

    Attributes:
        label: class number.
        group: images that belong together (one patient, one camera).
        slice: a part of the data to be told apart.
    """

    label: int
    group: str | None = None
    slice: str | None = None


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


def _plain(words: str) -> str:
    """Folded for comparison: case, accents' encoding, spaces, underscores and hyphens do not count."""
    return re.sub(r"[\s_\-]+", " ", unicodedata.normalize("NFC", words)).strip().casefold()


def _by_name(classes: Sequence[str]) -> dict[str, int]:
    """Class numbers by folded name; a synonym between commas counts where it means one class only."""
    found: dict[str, int] = {}
    synonyms = [(part, index) for index, label in enumerate(classes) for part in {_plain(p) for p in label.split(",")}]
    for names in (synonyms, [(_plain(label), index) for index, label in enumerate(classes)]):
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
    known = _by_name(classes)
    if all(number_of(label) == index for index, label in enumerate(classes)):
        known = {}  # nobody named these classes: see `_numbers`
    found = {folder: known[name] for folder in folders if (name := _plain(folder)) in known}
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
    parts = [{_plain(part) for part in label.split(",")} for label in classes]
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
    return order, {one: tuple(_plain(word) for word in words.split(",")) for one, _tab, words in split}


def truth_from_csv(
    file: Path, images: Sequence[str], classes: Sequence[str] | None, *, others: Collection[str] | None = None
) -> dict[str, Truth]:
    """Labels from a table with the columns ``image,label[,group,slice]``, by name or number of the class.

    An image is named as in the report, or by the end of that name (its file name, say) where only one ends so. A row
    without label says nothing. Commas, semicolons and tabs separate.

    Args:
        file: the table, with a head line.
        images: names of the images that are used.
        classes: class names, or None.
        others: names of those that lay there and are not used. If given, a row about any further one is an error; if
            not, rows about further ones count as being about some of these.

    Raises:
        LabelsError: for a missing column, for labels and images that do not exist, for two labels of one image, with
            their lines.
    """
    name = shown(file.name)
    rows = _rows(text_of(file, "--truth"), name)
    known = _by_name(classes or ())
    find = _finder([*images, *(others or ())])
    used = set(images)
    truth: dict[str, Truth] = {}
    wrong: dict[str, list[str]] = {"label": [], "image": [], "twice": []}
    for line, row in rows:
        if not row["label"]:
            continue
        index = known.get(_plain(row["label"]))
        if index is None and (number := number_of(row["label"])) is not None and number < len(classes or ()):
            index = number
        image = find(row["image"])
        if index is None:
            wrong["label"].append(f"line {line}: {row['label']!r}")
            continue
        said = Truth(index, row.get("group") or None, row.get("slice") or None)
        if image is None:
            wrong["image"].append(f"line {line}: {row['image']!r}")
        elif truth.setdefault(image, said) != said:
            wrong["twice"].append(f"line {line}: {row['image']!r}")
    _refuse(wrong, name, next(iter(images), None), strict=others is not None or not truth)
    return {image: said for image, said in truth.items() if image in used}


def _refuse(wrong: Mapping[str, Sequence[str]], name: str, example: str | None, *, strict: bool) -> None:
    def told(lines: Sequence[str]) -> str:
        more = f" and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
        return "; ".join(lines[:_NAMED]) + more

    if wrong["label"]:
        raise LabelsError(
            f"{name!r} names classes that the model does not have, or that several have: {told(wrong['label'])}",
            "check --truth and --labels; class numbers, from 0, do as well",
        )
    if wrong["twice"]:
        raise LabelsError(f"{name!r} says two things of one image: {told(wrong['twice'])}", "leave one")
    if wrong["image"] and strict:
        raise LabelsError(
            f"{name!r} names images that are not there, or that several are called: {told(wrong['image'])}",
            "name them relative to the image folder" + (f", as {example!r}" if example else ""),
        )


def _rows(text: str, name: str) -> list[tuple[int, dict[str, str]]]:
    """(line, field by column) of every row that is not empty."""
    head = text.splitlines()[0] if text.strip() else ""
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        columns = [column.strip().lower() for column in next(reader, [])]
        if columns.count("image") != 1 or columns.count("label") != 1:
            what = f"{name!r} has no columns image and label; its first line is {shown_line(head, 60)!r}"
            raise LabelsError(what, "begin it with the line image,label")
        for fields in reader:
            if len(fields) > len(columns) and any(field.strip() for field in fields[len(columns) :]):
                what = f"line {reader.line_num} of {name!r} has more fields than its head"
                raise LabelsError(what, 'write names with a comma in quotes: "tench, Tinca tinca"')
            padded = [field.strip() for field in fields] + [""] * (len(columns) - len(fields))
            if any(padded):
                rows.append((reader.line_num, dict(zip(columns, padded, strict=False))))
    except csv.Error as error:
        raise LabelsError(f"{name!r} is no CSV table: line {reader.line_num}: {error}", "save it as CSV") from None
    if not rows:
        raise LabelsError(f"{name!r} names no image", "write a line for each image")
    return rows


def _finder(images: Iterable[str]) -> Callable[[str], str | None]:
    """Finds the image that a table means: the one so called, or the only one whose name ends so."""
    whole: dict[str, list[str]] = {}
    ends: dict[str, list[str]] = {}
    for image in dict.fromkeys(images):
        plain = unicodedata.normalize("NFC", image)
        whole.setdefault(plain, []).append(image)
        ends.setdefault(plain.rpartition("/")[2], []).append(image)

    def find(words: str) -> str | None:
        if whole.get(words) == [words]:
            return words
        plain = unicodedata.normalize("NFC", shown(words)).replace("\\", "/").removeprefix("./")
        # a name with an escaped byte in it holds a backslash that is none between folders
        for said in (words, unicodedata.normalize("NFC", shown(words)), plain):
            exact = whole.get(said, [])
            if len(exact) == 1:
                return exact[0]
            last = ends.get(said.rpartition("/")[2], [])
            fitting = [image for image in last if unicodedata.normalize("NFC", image).endswith("/" + said)]
            if len(fitting) == 1:
                return fitting[0]
        return None

    return find
