"""What was drawn is not drawn again, and is what it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reportgen import album
from reportgen.album import drawn, kept_formula, kept_pages
from reportgen.figures.figure import Colorbar, Figure, Panel, Picture, Row
from reportgen.figures.formula import formula_svg
from reportgen.findings import Finding
from reportgen.store import Store
from reportgen.text import Message, _, verbatim
from reportgen.versions import versions_of

SVG = Picture(b"<svg/>", "image/svg+xml", 3, 4)


def photograph(seed: int) -> Picture:
    return Picture(np.random.default_rng(seed).bytes(1000), "image/jpeg", 30, 20, pixelated=seed % 2 == 1)


def figure(seed: int) -> Figure:
    panel = Panel(photograph(seed), verbatim("0.5"), _("{n} of {what}", n=seed, what=_("all")), "one")
    return Figure(
        id=f"x-{seed}",
        technique="x",
        rows=(Row((panel, None), _("head")), Row((Panel(SVG, _("é 猫"), _("alt")),))),
        caption=_("{a} {b} {c}", a=1, b=0.1, c=None),
        columns=2,
        headings=(_("h"),),
        exhibit="cat.png",
        colorbar=Colorbar("inferno", _("low"), _("high")),
        beside=True,
    )


FINDING = Finding(
    rule="x.y", about="model", severity="notice", subject="s", title=_("t"), detail=_("d {n}", n=2), value=float("nan"),
    interval=(0.1, 0.2), figures=("x-1",),
)  # fmt: skip


class Counting:
    """Draws, and counts how often."""

    def __init__(self, *seeds: int) -> None:
        self.seeds = seeds
        self.calls = 0

    def __call__(self) -> dict[str, Any]:
        self.calls += 1
        results = {"a": [1, 2.5, None, True, float("inf")], "b": {"c": (1, 2), "é": "ü"}}
        return {"results": results, "findings": [FINDING], "figures": (figure(seed) for seed in self.seeds)}


def contents(made: Any) -> list[bytes]:
    return [p.picture.data for f in made["figures"] for row in f.rows for p in row.panels if p]


def test_drawn_once_and_the_same_both_times(tmp_path: Path) -> None:
    draw = Counting(1, 2, 1)
    first = drawn(Store(tmp_path), {"x": 1}, draw)
    second = drawn(Store(tmp_path), {"x": 1}, draw)
    assert draw.calls == 1
    for made in (first, second):
        assert made["results"] == {"a": [1, 2.5, None, True, float("inf")], "b": {"c": [1, 2], "é": "ü"}}
        assert repr(made["findings"]) == repr([FINDING])  # NaN is not equal to itself
        assert contents(made) == [one for seed in (1, 2, 1) for one in (photograph(seed).data, SVG.data)]
        (one, *_rest) = made["figures"]
        expected = figure(1)
        assert (one.caption, one.headings, one.colorbar) == (expected.caption, expected.headings, expected.colorbar)
        assert str(one.rows[0].panels[0].alt) == "1 of all"
        assert one.rows[0].panels[0].picture.digest == photograph(1).digest
        assert one.rows[0].panels[0].picture.pixelated
        assert (one.rows[0].panels[1], one.exhibit, one.layer, one.beside) == (None, "cat.png", None, True)


@pytest.mark.parametrize("what", ["about", "code", "library"])
def test_something_else_is_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    draw = Counting(1)
    drawn(Store(tmp_path), {"x": 1}, draw)
    if what == "code":
        monkeypatch.setattr(album, "code_digest", lambda: "other")
    if what == "library":
        monkeypatch.setattr(album, "versions_of", lambda names: {**versions_of(names), "pillow": "0"})
    drawn(Store(tmp_path), {"x": 2 if what == "about" else 1}, draw)
    assert draw.calls == 2


def test_pictures_leave_memory_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(album, "PART", 2500)
    store = Store(tmp_path)
    entries: list[int] = []

    def figures() -> Iterator[Figure]:
        for seed in range(9):
            yield figure(seed)
            entries.append(store.info()["entries"])

    made = drawn(store, {}, lambda: {"figures": figures()})
    assert entries == [0, 0, 1, 1, 1, 2, 2, 2, 3]  # three pictures of 1000 bytes are more than a part
    assert contents(made)[::2] == [photograph(seed).data for seed in range(9)]
    assert all(not isinstance(f.rows[0].panels[0].picture.content, bytes) for f in made["figures"])


def test_pictures_can_be_read_when_their_entry_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path, limit=1)
    made = drawn(store, {}, Counting(1, 2))
    store.close()
    assert store.info()["entries"] == 0
    assert contents(made) == [one for seed in (1, 2) for one in (photograph(seed).data, SVG.data)]


def test_what_is_damaged_is_drawn_again(tmp_path: Path) -> None:
    draw = Counting(1)
    drawn(Store(tmp_path), {}, draw)
    paths = sorted(tmp_path.rglob("*.safetensors"))
    assert len(paths) == 2
    for calls, path in enumerate(paths, 2):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
        assert contents(drawn(Store(tmp_path), {}, draw)) == [photograph(1).data, SVG.data]
        assert draw.calls == calls
    os.unlink(paths[0])
    drawn(Store(tmp_path), {}, draw)
    assert draw.calls == 4


@pytest.mark.parametrize(
    "odd",
    [
        {"figures": [], "caption": Message("{x}", {"x": (1, 2)})},
        {"caption": Message("{x}", {"x": np.float32(1)})},
        {"number": np.float32(1)},
        {"~": 1},
        {1: 2},
    ],
)
def test_what_cannot_be_kept_is_drawn_each_time(tmp_path: Path, odd: dict[Any, Any]) -> None:
    calls: list[int] = []

    def draw() -> dict[Any, Any]:
        calls.append(1)
        return odd

    assert drawn(Store(tmp_path), {}, draw) == odd
    assert drawn(Store(tmp_path), {}, draw) == odd
    assert len(calls) == 4  # it was tried to keep it both times


def test_a_full_disk_keeps_pictures_for_this_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reportgen.store._write", full)
    store = Store(tmp_path)
    assert contents(drawn(store, {}, Counting(1))) == [photograph(1).data, SVG.data]
    assert "No space left" in store.notices[0]


def test_formulas_and_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept_formula(Store(tmp_path))(r"\frac{1}{Z}") == formula_svg(r"\frac{1}{Z}")
    monkeypatch.setattr(album, "formula_svg", None)
    assert kept_formula(Store(tmp_path))(r"\frac{1}{Z}") == formula_svg(r"\frac{1}{Z}")
    made = iter([b"pages", b"other pages"])
    assert kept_pages(Store(tmp_path), {"html": "a"}, lambda: next(made)) == b"pages"
    assert kept_pages(Store(tmp_path), {"html": "a"}, lambda: next(made)) == b"pages"
    assert kept_pages(Store(tmp_path), {"html": "b"}, lambda: next(made)) == b"other pages"
