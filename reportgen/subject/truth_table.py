"""Which class an image truly shows, or which ones, by a table."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from reportgen.errors import LabelsError
from reportgen.subject.images import shown
from reportgen.subject.labels import number_of, text_of
from reportgen.subject.truth import Truth, by_name, plain
from reportgen.text import line as line_of

_NAMED = 3
"""So many examples are named in a message."""
_PART = re.compile(r"([;|])")
"""What parts the classes of one image."""
_MARKS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_QUOTE = {
    ",": 'write names with a comma in quotes: "tench, Tinca tinca"',
    ";": 'part the classes of an image by |, or write them in quotes: "cat;dog"',
}


def truth_from_csv(
    file: Path,
    images: Sequence[str],
    classes: Sequence[str] | None,
    *,
    others: Collection[str] | None = None,
    several: bool = False,
) -> dict[str, Truth]:
    """Labels from a table with the columns ``image,label[,group,slice]``, by name or number of the class.

    An image is named as in the report, or by the end of that name (its file name, say) where only one ends so. A row
    without label says nothing. Commas, semicolons and tabs separate.

    An image shows several classes, or none, by a table in which a label is a list parted by ``;`` or ``|``, or whose
    column is called ``labels``, or which has a column of 0 and 1 for every class. A row without label then says that
    the image shows none of them; without any 0 or 1 it says nothing. Of names that hold the signs that part them, the
    longest counts.

    Args:
        file: the table, with a head line.
        images: names of the images that are used.
        classes: class names, or None.
        others: names of those that lay there and are not used. If given, a row about any further one is an error; if
            not, rows about further ones count as being about some of these.
        several: whether an image may show several classes, by the model.

    Raises:
        LabelsError: for a missing column, for labels and images that do not exist, for two labels of one image, with
            their lines; for several classes where the model's exclude each other.
    """
    name = shown(file.name)
    columns, rows = _rows(text_of(file, "--truth"), name)
    labels, listed = _labels(columns, rows, classes or (), name)
    if listed and not several:
        raise LabelsError(
            f"{name!r} gives images several classes ({listed}), and those of the model exclude each other",
            "--output-kind multilabel, if an image may show several of them or none",
        )
    find = _finder([*images, *(others or ())])
    used = set(images)
    truth: dict[str, Truth] = {}
    wrong: dict[str, list[str]] = {"image": [], "twice": []}
    for (line, row), own in zip(rows, labels, strict=True):
        if own is None or not (own or listed):
            continue
        image = find(row["image"])
        said = Truth(own if listed else min(own), row.get("group") or None, row.get("slice") or None)
        if image is None:
            wrong["image"].append(f"line {line}: {row['image']!r}")
        elif truth.setdefault(image, said) != said:
            wrong["twice"].append(f"line {line}: {row['image']!r}")
    if wrong["twice"]:
        remedy = "leave one; all classes of an image stand in one row: cat;dog" if several else "leave one"
        raise LabelsError(f"{name!r} says two things of one image: {_told(wrong['twice'])}", remedy)
    if wrong["image"] and (others is not None or not truth):
        raise LabelsError(
            f"{name!r} names images that are not there, or that several are called: {_told(wrong['image'])}",
            "name them relative to the image folder" + (f", as {images[0]!r}" if images else ""),
        )
    return {image: said for image, said in truth.items() if image in used}


def _told(lines: Sequence[str]) -> str:
    more = f" and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
    return "; ".join(lines[:_NAMED]) + more


_Row = tuple[int, dict[str, str]]
"""The line and the fields by column."""


def _rows(text: str, name: str) -> tuple[list[str], list[_Row]]:
    """The columns, and every row that is not empty."""
    head = text.splitlines()[0] if text.strip() else ""
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: list[_Row] = []
    try:
        columns = [column.strip().lower() for column in next(reader, [])]
        if columns.count("image") != 1:
            raise _headless(name, columns)
        for fields in reader:
            if len(fields) > len(columns) and any(field.strip() for field in fields[len(columns) :]):
                what = f"line {reader.line_num} of {name!r} has more fields than its head"
                raise LabelsError(what, _QUOTE.get(delimiter, _QUOTE[","]))
            padded = [field.strip() for field in fields] + [""] * (len(columns) - len(fields))
            if any(padded):
                rows.append((reader.line_num, dict(zip(columns, padded, strict=False))))
    except csv.Error as error:
        raise LabelsError(f"{name!r} is no CSV table: line {reader.line_num}: {error}", "save it as CSV") from None
    if not rows:
        raise LabelsError(f"{name!r} names no image", "write a line for each image")
    return columns, rows


def _headless(name: str, columns: Sequence[str]) -> LabelsError:
    what = f"{name!r} has no columns image and label; its first line is {line_of(','.join(columns), 60)!r}"
    return LabelsError(what, "begin it with the line image,label")


def _labels(
    columns: Sequence[str], rows: Sequence[_Row], classes: Sequence[str], name: str
) -> tuple[list[frozenset[int] | None], str]:
    """The classes that every row names, None where it says nothing; and, in words, what tells that an image may have
    several of them or none: empty where nothing does. Raises LabelsError.
    """
    known = by_name(classes)

    def find(words: str) -> int | None:
        index = known.get(plain(words))
        number = number_of(words) if index is None else None
        return number if number is not None and number < len(classes) else index

    where = [column for column in columns if column in ("label", "labels")]
    if not where:
        return _marked(columns, rows, classes, find, name), "a column for each class"
    if len(where) > 1:
        raise LabelsError(f"{name!r} has no columns image and label, but several", "leave one column of labels")
    # in how many parts a name falls at most that holds the signs which part names
    longest = 1 + max((len(_PART.findall(label)) for label in classes), default=0)
    labels: list[frozenset[int] | None] = []
    strange: list[str] = []
    listed = "column labels" if where == ["labels"] else ""
    for line, row in rows:
        own, unknown = _listed(row[where[0]], find, longest)
        labels.append(own)
        strange += [f"line {line}: {words!r}" for words in unknown]
        if len(own) > 1 and not listed:
            listed = f"line {line}: {row[where[0]]!r}"
    if strange:
        raise LabelsError(
            f"{name!r} names classes that the model does not have, or that several have: {_told(strange)}",
            "check --truth and --labels; class numbers, from 0, do as well",
        )
    return labels, listed


def _listed(words: str, find: Callable[[str], int | None], longest: int) -> tuple[frozenset[int], list[str]]:
    """The classes that a label names, and the names in it that are of none."""
    if (whole := find(words)) is not None:
        return frozenset((whole,)), []
    pieces = _PART.split(words)
    found: set[int] = set()
    strange: list[str] = []
    place = 0
    while place < len(pieces):
        for width in range(min(longest, len(pieces) // 2 + 1), 0, -1):  # the longest name counts
            index = find("".join(pieces[place : place + 2 * width - 1]))
            if index is not None:
                found.add(index)
                break
        else:
            strange += [piece] if (piece := pieces[place].strip()) else []
        place += 2 * width
    return frozenset(found), strange if found else [words] * bool(strange)


def _marked(
    columns: Sequence[str], rows: Sequence[_Row], classes: Sequence[str], find: Callable[[str], int | None], name: str
) -> list[frozenset[int] | None]:
    """The classes by columns of 0 and 1, one a class."""
    place: dict[int, list[str]] = {index: [] for index in range(len(classes))}
    for column in columns:
        if column not in ("image", "group", "slice") and (index := find(column)) is not None:
            place[index].append(column)
    lacking = [classes[index] for index, found in place.items() if len(found) != 1]
    if not place or len(lacking) == len(place):
        raise _headless(name, columns)
    if lacking:
        raise LabelsError(
            f"{name!r} has no column, or several, for {len(lacking)} of {len(place)} classes: {_told(lacking)}",
            "give each class one column of 0 and 1, or begin with the line image,labels",
        )
    labels: list[frozenset[int] | None] = []
    wrong: list[str] = []
    for line, row in rows:
        cells = {index: row[column] for index, (column,) in place.items()}
        wrong += [
            f"line {line}: {cell!r}" for cell in cells.values() if cell.lower() not in _MARKS and any(cells.values())
        ]
        said = frozenset(index for index, cell in cells.items() if _MARKS.get(cell.lower()))
        labels.append(said if any(cells.values()) else None)
    if wrong:
        raise LabelsError(
            f"{name!r} says neither 0 nor 1 of a class: {_told(wrong)}",
            "write 1 where the image shows the class and 0 where not; leave out rows that are not known",
        )
    return labels


def _finder(images: Iterable[str]) -> Callable[[str], str | None]:
    """Finds the image that a table means: the one so called, or the only one whose name ends so."""
    whole: dict[str, list[str]] = {}
    ends: dict[str, list[str]] = {}
    for image in dict.fromkeys(images):
        usual = unicodedata.normalize("NFC", image)
        whole.setdefault(usual, []).append(image)
        ends.setdefault(usual.rpartition("/")[2], []).append(image)

    def find(words: str) -> str | None:
        if whole.get(words) == [words]:
            return words
        usual = unicodedata.normalize("NFC", shown(words)).replace("\\", "/").removeprefix("./")
        # a name with an escaped byte in it holds a backslash that is none between folders
        for said in (words, unicodedata.normalize("NFC", shown(words)), usual):
            exact = whole.get(said, [])
            if len(exact) == 1:
                return exact[0]
            last = ends.get(said.rpartition("/")[2], [])
            fitting = [image for image in last if unicodedata.normalize("NFC", image).endswith("/" + said)]
            if len(fitting) == 1:
                return fitting[0]
        return None

    return find
