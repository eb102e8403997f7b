"""Which class an image truly shows, by a table."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from reportgen.errors import LabelsError
from reportgen.subject.images import shown
from reportgen.subject.labels import number_of, text_of
from reportgen.subject.truth import Truth, by_name, plain

_NAMED = 3
"""So many examples are named in a message."""


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
    known = by_name(classes or ())
    find = _finder([*images, *(others or ())])
    used = set(images)
    truth: dict[str, Truth] = {}
    wrong: dict[str, list[str]] = {"label": [], "image": [], "twice": []}
    for line, row in rows:
        if not row["label"]:
            continue
        index = known.get(plain(row["label"]))
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
    _refuse(wrong, name, strict=others is not None or not truth)
    return {image: said for image, said in truth.items() if image in used}


def _refuse(wrong: Mapping[str, Sequence[str]], name: str, *, strict: bool) -> None:
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
            "name them relative to the image folder",
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
            raise LabelsError(f"{name!r} has no columns image and label", "begin it with the line image,label")
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
