"""Names of classes, in whatever shape a file has them."""

from __future__ import annotations

import ast
import codecs
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reportgen.errors import LabelsError
from reportgen.subject.digests import open_regular
from reportgen.subject.images import shown
from reportgen.text import line as one_line

_SYNSET_LINE = re.compile(r"n\d{8}\s+(?=\S)")
_SYNSET_FIELD = re.compile(r"n\d{8}\s*[,;\s]\s*(?=\S)")
_NUMBER_FIRST = re.compile(r"(?P<number>\d{1,9})\s*[,;:\s]\s*(?P<name>\S.*)", re.ASCII)
_NUMBER_LAST = re.compile(r"(?P<name>.*\S)\s*[,;\t]\s*(?P<number>\d{1,9})", re.ASCII)
_HEADS = frozenset((
    "index", "idx", "id", "class", "class_id", "class_index", "number", "label", "labels", "name", "class_name",
    "classes", "names", "wnid", "synset",
))  # fmt: skip
MOST_CLASSES = 100_000
MOST_LETTERS = 200
"""Of a class's name in a model file."""
_KEYS = ("id2label", "label2id", "class_to_idx", "classes", "names", "labels")
"""Under which the classes stand in a file about more than them."""


def named_classes(value: Any, *, by_name: bool = False) -> tuple[str, ...] | None:
    """Class names that a model file holds: a list of words, or a table that numbers them without a gap; None for
    anything else.

    Args:
        by_name: the table's keys are the names, not the numbers.
    """
    if not isinstance(value, list | tuple | dict) or not 0 < len(value) <= MOST_CLASSES:
        return None
    if not isinstance(value, dict):
        words = all(isinstance(item, str) for item in value)
        return tuple(one_line(item, MOST_LETTERS) for item in value) if words else None
    pairs = [(number, name) for name, number in value.items()] if by_name else list(value.items())
    if not all(isinstance(number, str | int) and isinstance(name, str | int | float) for number, name in pairs):
        return None
    try:
        numbered = {int(number): one_line(str(name), MOST_LETTERS) for number, name in pairs}
    except ValueError:
        return None
    return tuple(numbered[n] for n in range(len(pairs))) if sorted(numbered) == list(range(len(pairs))) else None


def read_labels(file: Path) -> tuple[str, ...]:
    """Class names in the order of their numbers.

    One name a line, a JSON list, or a JSON object (or Python's way of writing it) of numbers to names or names to
    numbers, by itself or as what Hugging Face calls ``id2label``; a table of numbers and names in either order, with or
    without a head, a WordNet identifier between them or not. The lines of ImageNet's synset list (``n01440764 tench,
    Tinca tinca``) lose their identifier.

    Raises:
        LabelsError: if it cannot be read, or does not number the classes from 0 without a gap.
    """
    name = shown(file.name)
    text = text_of(file, "--labels")
    if text.lstrip()[:1] in ("[", "{"):
        labels = _from_json(text, name)
    else:
        lines = [line.strip() for line in re.split(r"\r\n|\n|\r", text.rstrip())]
        labels = _from_table(lines, name) or [_SYNSET_LINE.sub("", line, count=1) for line in lines]
    clean = tuple(shown(" ".join(label.split())) for label in labels)
    if not any(clean):
        raise LabelsError(f"there is no label in {name!r}", "write one class name a line")
    if "" in clean:
        # leaving it out would give every later class another number
        empty = clean.index("")
        raise LabelsError(f"label {empty} of {name!r} is empty", "give every class a name, without empty lines")
    return clean


def text_of(file: Path, option: str) -> str:
    name = shown(file.name)
    try:
        with open_regular(file) as opened:
            data = opened.read()
    except OSError as error:
        raise LabelsError(f"cannot read {name!r}: {error.strerror}", f"check the path of {option}") from None
    # what Excel calls Unicode text begins like this
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise LabelsError(f"{name!r} is not UTF-8 text", "save it as UTF-8") from None


def _from_json(text: str, name: str) -> list[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            raise LabelsError(f"{name!r} is not JSON: {error}", "mend it, or write one name a line") from None
    if isinstance(value, dict):
        value = next((inner for key in _KEYS if isinstance(inner := value.get(key), dict | list)), value)
    if isinstance(value, list):
        return [_word(item, name) for item in value]
    if not isinstance(value, dict):
        raise LabelsError(f"{name!r} holds neither a list nor an object", "write one name a line")
    keys = [number_of(str(key)) for key in value]
    if value and all(type(item) is int for item in value.values()) and None in keys:
        numbered = [(int(item), str(key)) for key, item in value.items()]
    elif None not in keys:
        pairs = zip(keys, value.values(), strict=True)
        numbered = [(number, _word(item, name)) for number, item in pairs if number is not None]
    else:
        raise LabelsError(f"{name!r} gives no class numbers", 'write {"0": "first", "1": "second"}')
    return _in_order(numbered, name)


def _in_order(numbered: list[tuple[int, str]], name: str) -> list[str]:
    numbered.sort()
    if [number for number, _word in numbered] != list(range(len(numbered))):
        raise LabelsError(f"{name!r} does not number the classes from 0 without a gap", "number them 0, 1, 2, …")
    return [word for _number, word in numbered]


def _from_table(lines: Sequence[str], name: str) -> list[str]:
    """Names by their numbers, where every line has both; empty where the lines are names alone.

    Numbers that are no class numbers belong to the names (``101 dalmatians``), but not in a file called ``.csv`` or one
    with a head.
    """
    table = name.lower().endswith((".csv", ".tsv"))
    head = {word.strip().lower() for word in re.split("[,;\t]", lines[0])} <= _HEADS
    rows = [line for line in lines[head and (table or len(lines[0].split()) == 1) :] if line]
    for pattern in (_NUMBER_FIRST, _NUMBER_LAST):
        found = [pattern.fullmatch(row) for row in rows]
        if rows and all(found):
            numbered = [(int(one["number"]), _unquoted(one["name"])) for one in found if one is not None]
            if table or sorted(number for number, _word in numbered) == list(range(len(numbered))):
                return _in_order(numbered, name)
    return [_unquoted(row) for row in rows] if table and head else []


def _unquoted(words: str) -> str:
    """A name as CSV means it, without the WordNet identifier before it."""
    named = _SYNSET_FIELD.sub("", words.strip(), count=1).strip()
    quoted = len(named) > 1 and named[0] == named[-1] == '"'
    return named[1:-1].replace('""', '"') if quoted else named


def _word(item: Any, name: str) -> str:
    # ["n01440764", "tench"] is how Keras writes a class
    if isinstance(item, list | tuple) and item:
        item = item[-1]
    if not isinstance(item, str | int | float) or isinstance(item, bool):
        raise LabelsError(f"{name!r} holds something that is no name: {json.dumps(item, default=str)[:40]}", "use text")
    return str(item)


def number_of(words: str) -> int | None:
    """A class number in decimal digits; tables that had gaps write 3 as ``3.0``."""
    digits = re.fullmatch(r"(\d{1,9})(?:\.0)?", words.strip(), re.ASCII)
    return int(digits[1]) if digits else None
