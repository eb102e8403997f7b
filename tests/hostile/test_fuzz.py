"""Inputs that chance makes: whatever they are, they are read, or refused in words of one or two lines.

More of them: ``python -m pytest tests/hostile/test_fuzz.py --hypothesis-profile=long``.
"""

from __future__ import annotations

import io
import json
import pickle
import string
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from PIL import Image

from reportgen.configuration import read_toml
from reportgen.errors import ReportgenError
from reportgen.job import Job
from reportgen.report.notes import notes_html
from reportgen.subject.contents import read_contents
from reportgen.subject.decoding import ImageError, decode_file
from reportgen.subject.images import decode, fetched, find_images
from reportgen.subject.labels import read_labels
from reportgen.subject.truth_table import truth_from_csv
from reportgen.text import line, shown


@contextmanager
def file_of(data: bytes, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        yield path


@contextmanager
def refused_or_read() -> Iterator[None]:
    """Nothing but an expected error of at most two lines leaves it."""
    said: list[str] = []
    try:
        yield
    except ReportgenError as error:
        said = str(error).split("\n")
    assert len(said) <= 2
    assert all(one == line(one) for one in said)


def damaged(whole: bytes) -> SearchStrategy[bytes]:
    """A file with some bytes changed, a piece cut out, doubled or cut off."""
    places = st.integers(0, max(len(whole) - 1, 0))

    def change(changes: list[tuple[int, int]], cut: tuple[int, int], how: str) -> bytes:
        data = bytearray(whole)
        for place, value in changes:
            data[place] = value
        begin, end = sorted(cut)
        if how == "cut":
            del data[begin:end]
        if how == "double":
            data[begin:begin] = data[begin:end]
        if how == "end":
            del data[begin:]
        return bytes(data)

    changes = st.lists(st.tuples(places, st.integers(0, 255)), max_size=8)
    return st.builds(change, changes, st.tuples(places, places), st.sampled_from(["", "cut", "double", "end"]))


# images
# ----------------------------------------------------------------------------------------------------------------


def encoded(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (19, 23, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM"])
def test_images(kind: str) -> None:
    whole = encoded(kind)

    @given(damaged(whole))
    def reads(data: bytes) -> None:
        with file_of(data, "a.png") as path, suppress(ImageError):
            image = decode_file(path, 10_000)
            assert image.width * image.height <= 10_000

    reads()


@given(st.binary(max_size=300))
def test_any_bytes_as_an_image(data: bytes) -> None:
    with file_of(data, "a.jpg") as path, suppress(ImageError):
        decode_file(path, 10_000)


# model files
# ----------------------------------------------------------------------------------------------------------------

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20)
keys = st.text(max_size=20) | st.integers(-5, 5)
tensors = st.lists(st.integers(0, 3), max_size=4).map(torch.ones)
values = st.recursive(
    plain | tensors,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=12,
)


def saved(value: Any, *, legacy: bool) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


@given(st.dictionaries(keys, values, max_size=5), st.booleans())
def test_checkpoints_of_any_structure(value: dict[Any, Any], legacy: bool) -> None:
    with file_of(saved(value, legacy=legacy), "m.pt") as path, refused_or_read():
        found = read_contents(path, "m.pt")
        assert all(isinstance(name, str) for name in found.state)


WEIGHTS = {"conv.weight": torch.ones(2, 3, 1, 1), "fc.weight": torch.ones(4, 2), "fc.bias": torch.zeros(4)}


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors", "pickle"])
def test_damaged_model_files(form: str) -> None:
    whole = {
        "zip": lambda: saved(WEIGHTS, legacy=False),
        "legacy": lambda: saved(WEIGHTS, legacy=True),
        "safetensors": lambda: safetensors.torch.save(WEIGHTS),
        "pickle": lambda: pickle.dumps({"a": [1, "b", (2.5, None)]}, protocol=2),
    }[form]()

    @given(damaged(whole))
    def opens(data: bytes) -> None:
        with file_of(data, "m.safetensors" if form == "safetensors" else "m.pt") as path, refused_or_read():
            read_contents(path, path.name)

    opens()


header = st.recursive(
    st.none() | st.integers(-(2**70), 2**70) | st.text(max_size=8) | st.sampled_from(["F32", "I8", "BF16", "F8_E4M3"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=6) | st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__"]), inner
        )
    ),
    max_leaves=16,
)


@given(header, st.binary(max_size=64))
def test_headers_of_safetensors(value: Any, data: bytes) -> None:
    head = json.dumps(value).encode()
    with file_of(struct.pack("<Q", len(head)) + head + data, "m.safetensors") as path, refused_or_read():
        read_contents(path, path.name)


# tables, options, words
# ----------------------------------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=()), max_size=60)
bytes_of_text = st.binary(max_size=200) | words.map(lambda text: text.encode("utf-8", "surrogatepass"))


@given(bytes_of_text, st.sampled_from(["a.txt", "a.json", "a.csv"]))
def test_label_files(data: bytes, name: str) -> None:
    with file_of(data, name) as path, refused_or_read():
        assert all(isinstance(label, str) for label in read_labels(path))


# labels as they are and as nobody writes them
cells = words | st.lists(st.sampled_from(["cat", "dog;fox", "dog", "0", "1", "", "a.png"])).map(";".join)


@given(
    st.lists(st.lists(cells, max_size=4), max_size=5),
    st.sampled_from(",;\t"),
    st.sampled_from(["label", "labels", "cat,dog,dog;fox", "0,1,2"]),
    st.booleans(),
)
def test_truth_tables(rows: list[list[str]], between: str, head: str, several: bool) -> None:
    text = "\n".join([between.join(["image", *head.split(",")]), *(between.join(row) for row in rows)])
    with file_of(text.encode("utf-8", "surrogatepass"), "t.csv") as path, refused_or_read():
        truth_from_csv(path, ["a.png", "b.png"], ("cat", "dog", "dog;fox"), others=(), several=several)


toml_values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(string.printable, max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_letters, min_size=1), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(Job.model_fields)) | st.text(max_size=8), toml_values, max_size=4))
def test_options_of_any_type(options: dict[str, Any]) -> None:
    with refused_or_read():
        Job.from_options(options)


@given(bytes_of_text)
def test_configurations(data: bytes) -> None:
    with file_of(data, "reportgen.toml") as path, refused_or_read():
        read_toml(path, path.parent)


def written(value: Any) -> str:
    """A value as TOML writes it; JSON does for what is drawn here, but for keys."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {written(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


@given(st.dictionaries(st.sampled_from(sorted(Job.model_fields)), toml_values, min_size=1, max_size=4), st.booleans())
def test_options_in_configurations(options: dict[str, Any], shared: bool) -> None:
    name, head = ("pyproject.toml", "[tool.reportgen]\n") if shared else ("reportgen.toml", "")
    text = head + "\n".join(f"{key} = {written(value)}" for key, value in options.items())
    with file_of(text.encode(), name) as path, refused_or_read():
        Job.from_options(read_toml(path, path.parent))


def saved_array(values: Any) -> bytes:
    held = io.BytesIO()
    np.save(held, values)
    return held.getvalue()


@pytest.mark.parametrize("values", [np.zeros((5, 4, 6), np.float32), np.zeros((7, 6, 3), np.uint8)], ids=["f", "u"])
def test_damaged_arrays(values: Any) -> None:
    @given(damaged(saved_array(values)) | st.binary(max_size=80).map(lambda data: b"\x93NUMPY\x01\x00" + data))
    def opens(data: bytes) -> None:
        with file_of(data, "a.npy") as path, suppress(ReportgenError, ImageError):
            (ref,) = find_images([path]).images
            if ref.ready:
                assert fetched(ref).dtype != object
            decode(ref)

    opens()


@given(words)
def test_words_of_others_are_shown_on_one_line(text: str) -> None:
    for made in (shown(text), line(text)):
        made.encode("utf-8")
        assert "\n" not in made
        assert not any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 for letter in made)


@given(words | st.text("<>&\"'[](){}!#*_`-:/\\ \nabjsrit", max_size=80))
def test_notes_bring_no_markup_of_their_own(text: str) -> None:
    made = str(notes_html(text)).lower()
    for forbidden in ("<script", "<img", "<iframe", "<style", "javascript:", " on"):
        assert forbidden not in made or (forbidden == " on" and "=" not in made.partition(" on")[2][:12])


def usable(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


@given(st.lists(st.binary(min_size=1, max_size=60).map(lambda b: b.decode("utf-8", "surrogateescape")), max_size=6))
def test_every_file_is_found_or_skipped(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        there = set()
        for number, name in enumerate(names):
            if usable(name):
                with suppress(OSError):  # what the file system does not take
                    Path(folder, name).write_bytes(encoded("PNG") if number % 2 else b"words")
                    there.add(name)
        with refused_or_read():
            found = find_images([Path(folder)])
            told: Callable[[Any], str] = lambda one: one.name  # noqa: E731
            assert len(found.images) + len(found.skipped) == len(there)
            assert len({*map(told, found.images), *map(told, found.skipped)}) == len(there)
