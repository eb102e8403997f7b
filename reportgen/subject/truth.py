"""Names of classes, and which class an image truly shows."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reportgen.errors import LabelsError

_SYNSET = re.compile(r"^n\d{8}\s+(?=\S)")


@dataclass(frozen=True)
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
    """

    truth: dict[str, Truth]
    words: str | None = None


def read_labels(file: Path) -> tuple[str, ...]:
    """Class names in the order of their numbers.

    One name a line, a JSON list, or a JSON object of numbers to names or names to numbers. The lines of ImageNet's synset list
    (``n01440764 tench, Tinca tinca``) lose their identifier.

    Raises:
        LabelsError: if it cannot be read or does not number the classes from 0 without a gap.
    """
    name = file.name
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LabelsError(f"cannot read the labels {name!r}: {error.strerror}", "check the path of --labels") from None
    except UnicodeDecodeError:
        raise LabelsError(f"the labels {name!r} are not UTF-8 text", "save the file as UTF-8") from None
    if text.lstrip()[:1] in ("[", "{"):
        labels = _from_json(text, name)
    else:
        labels = tuple(_SYNSET.sub("", line.strip()) for line in text.splitlines() if line.strip())
    if not labels:
        raise LabelsError(f"there is no label in {name!r}", "write one class name a line")
    return labels


def _from_json(text: str, name: str) -> tuple[str, ...]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LabelsError(f"the labels {name!r} are not JSON: {error}", "mend the file, or write one name a line") from None
    if isinstance(value, list):
        return tuple(str(item) for item in value)
    pairs = [(str(key), item) for key, item in value.items()]
    if pairs and all(isinstance(item, int) for _key, item in pairs) and not all(key.isdigit() for key, _item in pairs):
        numbered = {int(item): key for key, item in pairs}
    elif all(key.isdigit() for key, _item in pairs):
        # {"0": ["n01440764", "tench"]} is the other usual shape
        numbered = {int(key): str(item[-1] if isinstance(item, list) and item else item) for key, item in pairs}
    else:
        raise LabelsError(f"the labels {name!r} give no numbers", 'write {"0": "first", "1": "second"}')
    if sorted(numbered) != list(range(len(pairs))):
        raise LabelsError(f"the labels {name!r} do not number the classes from 0 without a gap", "number them from 0")
    return tuple(numbered[index] for index in range(len(numbered)))


def _plain(words: str) -> str:
    """Folded for comparison: case, spaces, underscores and hyphens do not count."""
    return re.sub(r"[\s_\-]+", " ", words.strip()).casefold()


def _by_name(classes: Sequence[str]) -> dict[str, int]:
    """Class numbers by folded name; a synonym between commas counts where it means one class only."""
    whole = {_plain(label): index for index, label in enumerate(classes)}
    parts = Counter(part for label in classes for part in {_plain(p) for p in label.split(",")})
    synonyms = {
        part: index
        for index, label in enumerate(classes)
        for part in (_plain(p) for p in label.split(","))
        if parts[part] == 1
    }
    twice = {name for name, count in Counter(map(_plain, classes)).items() if count > 1}
    return {name: index for name, index in {**synonyms, **whole}.items() if name not in twice}


def truth_from_folders(images: Sequence[str], classes: Sequence[str]) -> FolderTruth:
    """Labels from class-named folders: the folder an image lies in, or one above it, is called like a class.

    Args:
        images: names relative to the folder given, with ``/``.
        classes: class names; their numbers as words where there are none.
    """
    known = _by_name(classes)
    truth: dict[str, Truth] = {}
    foreign: Counter[str] = Counter()
    for image in images:
        folders = image.split("/")[:-1]
        found = next((known[_plain(folder)] for folder in reversed(folders) if _plain(folder) in known), None)
        if found is not None:
            truth[image] = Truth(found)
        elif folders:
            foreign[folders[-1]] += 1
    if not foreign:
        return FolderTruth(truth)
    named = ", ".join(folder for folder, _count in sorted(foreign.items())[:3])
    return FolderTruth(truth, f"{len(foreign)} folders are called like no class: {named}")


def truth_from_csv(file: Path, images: Sequence[str], classes: Sequence[str]) -> dict[str, Truth]:
    """Labels from a table with the columns ``image,label[,group,slice]``, by name or number of the class.

    An image is named as in the report, or by its file name where that is unique.

    Raises:
        LabelsError: for a missing column, and for images or labels that do not exist, with their lines.
    """
    name = file.name
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened)
            columns = {column.strip().lower(): column for column in reader.fieldnames or ()}
            if not {"image", "label"} <= set(columns):
                raise LabelsError(f"{name!r} has no columns image and label", "begin it with the line image,label")
            rows = [
                (reader.line_num, {key: (row[column] or "").strip() for key, column in columns.items()}) for row in reader
            ]
    except OSError as error:
        raise LabelsError(f"cannot read {name!r}: {error.strerror}", "check the path of --truth") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise LabelsError(f"{name!r} is not a CSV table in UTF-8: {error}", "save it as CSV in UTF-8") from None
    return _matched(rows, name, images, classes)


def _matched(
    rows: Sequence[tuple[int, dict[str, str]]], name: str, images: Sequence[str], classes: Sequence[str]
) -> dict[str, Truth]:
    known = _by_name(classes)
    whole = set(images)
    last = Counter(image.rpartition("/")[2] for image in images)
    by_last = {image.rpartition("/")[2]: image for image in images}
    truth: dict[str, Truth] = {}
    bad: list[str] = []
    for line, row in rows:
        image = row["image"].replace("\\", "/").removeprefix("./")
        if image not in whole:
            image = by_last.get(image, "") if last[image] == 1 else ""
        label = row["label"]
        index = known.get(_plain(label), int(label) if label.isdigit() and int(label) < len(classes) else None)
        if not label:
            continue
        if index is None:
            bad.append(f"line {line}: no class {label!r}")
        elif image:
            truth[image] = Truth(index, row.get("group") or None, row.get("slice") or None)
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise LabelsError(f"{name!r} names classes the model does not have: {'; '.join(bad[:3])}{more}", "check --truth and --labels")
    if rows and not truth:
        raise LabelsError(f"{name!r} names none of the images", "name them relative to the image folder")
    return truth
