"""Figures as files: their names, what is in them, and what happens to files that are there already."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pikepdf
import pytest
from PIL import Image

from reportgen.errors import OutputError
from reportgen.figures.chart import chart
from reportgen.figures.composition import DPI, MOST_CELL, TEXT_WIDTH, compose, raster
from reportgen.figures.figure import Figure, Panel, Row
from reportgen.figures.lettering import wrapped
from reportgen.report import figure_files
from reportgen.report.document import Document
from reportgen.report.figure_files import MANIFEST, check_figure_folder, write_figures
from reportgen.report.figure_names import MOST, named
from reportgen.text import verbatim
from tests.report.small import document, figure, picture


def plain(words: str) -> str:
    return words


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def two() -> Document:
    """Two sections of one figure each."""
    made = document()
    sections = tuple(replace(one, figures=one.figures[:1]) for one in made.sections[2:])
    return replace(made, sections=sections)


def one() -> Document:
    """The first of them."""
    return replace(two(), sections=two().sections[:1])


def of_image(name: str, exhibit: str, panel: str = "grad_cam-layer4-281") -> Figure:
    panels = (Panel(picture(1), verbatim(""), verbatim("x"), panel),)
    return Figure(name, name.partition("-")[0], (Row(panels),), verbatim("c"), 1, exhibit=exhibit)


# names
# ----------------------------------------------------------------------------------------------------------------


def test_names_say_what_is_in_the_file() -> None:
    (one,) = named([of_image("class_activation-cat.jpg-281", "cat.jpg")])
    assert one.stem == "class_activation-cat-281"
    assert [stem for _panel, stem in one.panels] == ["class_activation-grad_cam-layer4-281-cat"]


def test_names_never_meet() -> None:
    figures = [
        of_image("class_activation-a-cat.jpg-1", "a/cat.jpg"),
        of_image("class_activation-b-cat.jpg-1", "b/cat.jpg"),
        of_image("class_activation-Cat.JPG-1", "Cat.JPG"),
        of_image("class_activation-c.at-1", "c.at"),
        of_image("class_activation-c-at-1", "c-at"),
        of_image("con", "x"),
        of_image("aux", "y"),
        of_image("t-" + "n" * 400, "z"),
        of_image("t-" + "n" * 401, "z"),
    ]
    for order in (figures, figures[::-1]):
        found = {one.figure.id: (one.stem, *(stem for _panel, stem in one.panels)) for one in named(order)}
        stems = [stem for all_of_one in found.values() for stem in all_of_one]
        assert len({stem.casefold() for stem in stems}) == len(stems) == 18
        for stem in stems:
            assert re.fullmatch(r"[a-z0-9_-]+", stem)
            assert len(stem) <= MOST
            assert stem not in ("con", "aux")
        if order is figures:
            first = found
    assert found == first  # and do not depend on who came first


# what is in them
# ----------------------------------------------------------------------------------------------------------------


def test_composition_keeps_to_its_page() -> None:
    made = compose(figure("filters", 1, exhibit="a", layer="b"), plain)
    assert made.width <= TEXT_WIDTH + 0.01
    for placed in made.pictures:
        assert placed.x >= 0
        assert placed.x + placed.width <= made.width + 0.01
        assert placed.y + placed.height <= made.height + 0.01
        assert placed.width <= MOST_CELL
    tiles = made.pictures[:7]
    for one in tiles:
        for other in tiles:
            apart = (
                one.x + one.width <= other.x + 0.01
                or other.x + other.width <= one.x + 0.01
                or one.y + one.height <= other.y + 0.01
                or other.y + other.height <= one.y + 0.01
            )
            assert one is other or apart
    words = [one.text for one in made.words]
    assert words[:4] == ["column 0", "column 1", "column 2", "column 3"]
    assert {"above", "below", "largest", "6"} <= set(words)
    assert made.pictures[-1].picture.height == 1  # the colour bar


def test_words_are_broken_to_their_width() -> None:
    lines = wrapped("features.denseblock3.denselayer24.conv2 of the network", 20.0, 7.0, most=9)
    assert "".join(lines).replace(" ", "") == "features.denseblock3.denselayer24.conv2ofthenetwork"
    assert len(lines) > 2
    assert wrapped("n" * 500, 20.0, 7.0, most=3)[-1].endswith("…")
    assert wrapped("猫" * 30, 20.0, 7.0, most=4)[0] == "猫" * len(wrapped("猫" * 30, 20.0, 7.0, most=4)[0])


def test_pixels_are_print_resolution(tmp_path: Path) -> None:
    write_figures(tmp_path, two())
    found = sorted(tmp_path.glob("*.png"))
    assert len(found) == 16
    for path in found:
        with Image.open(path) as image:
            assert [round(one) for one in image.info["dpi"]] == [DPI, DPI]
            assert set(image.info) == {"dpi"}
            assert not image.getexif()
    whole = compose(document().sections[2].figures[0], plain)
    with Image.open(tmp_path / "filters-20.png") as image:
        assert image.width == round(whole.width * DPI / 25.4)
    with Image.open(tmp_path / "filters-20-tile-3.png") as image:
        assert image.width == round(whole.pictures[3].width * DPI / 25.4)


def test_few_pixels_stay_sharp() -> None:
    tile = picture(3, pixelated=True)
    one = Figure("t-1", "t", (Row((Panel(tile, verbatim(""), verbatim("x")),)),), verbatim("c"), 1)
    with Image.open(io.BytesIO(raster(compose(one, plain)).data)) as image, Image.open(io.BytesIO(tile.data)) as own:
        colours = image.getcolors(1 << 20)
        assert colours is not None
        assert {colour for _count, colour in colours} == set(map(tuple, np.asarray(own).reshape(-1, 3)))


def drawing() -> Document:
    """One section whose only figure is a chart."""
    made = document()
    drawn = chart(lambda axes: axes.plot([1, 2, 3], [1, 4, 2], label="rise") and None)
    wide = Figure("filters-curve", "filters", (Row((Panel(drawn, verbatim(""), verbatim("x")),)),), verbatim("c"), 1)
    section = replace(made.sections[2], figures=(replace(wide, wide=True),))
    return replace(made, sections=(section,))


def test_what_is_drawn_stays_drawn(tmp_path: Path) -> None:
    write_figures(tmp_path, drawing())
    assert sorted(path.name for path in tmp_path.glob("filters*")) == ["filters-curve.pdf", "filters-curve.tex"]
    with pikepdf.open(tmp_path / "filters-curve.pdf") as made:
        assert len(made.pages) == 1
        assert not [one for one in made.objects if isinstance(one, pikepdf.Stream) and one.get("/Subtype") == "/Image"]
        assert made.pdf_version == "1.5"


def test_letters_of_a_composed_figure_are_letters(tmp_path: Path) -> None:
    write_figures(tmp_path, one())
    with pikepdf.open(tmp_path / "filters-20.pdf") as made:
        (page,) = made.pages
        assert len(page.resources["/Font"]) == 1
        width = float(page.mediabox[2]) / 72 * 25.4
        assert width == pytest.approx(compose(document().sections[2].figures[0], plain).width, abs=0.1)


def test_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for name in ("one", "two"):
        write_figures(tmp_path / name, two())
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


# what is there already
# ----------------------------------------------------------------------------------------------------------------


def test_stale_files_go_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "mine.pdf").write_bytes(b"mine")
    write_figures(tmp_path, two())
    before = contents(tmp_path)
    assert any(name.startswith("class_activation") for name in before)
    write_figures(tmp_path, one())
    after = contents(tmp_path)
    assert after["mine.pdf"] == b"mine"
    assert not any(name.startswith("class_activation") for name in after)
    assert set(json.loads(after[MANIFEST])["files"]) == set(after) - {"mine.pdf", MANIFEST}
    assert not list(tmp_path.glob("*.part"))


def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "references.bib").write_text("@book{mine}")
    with pytest.raises(OutputError, match=r"'references.bib' .* is not of an earlier run"):
        check_figure_folder(tmp_path)
    (tmp_path / "references.bib").rename(tmp_path / "filters-20.png")
    check_figure_folder(tmp_path)  # which figures there will be is not known yet
    with pytest.raises(OutputError, match=r"'filters-20.png'"):
        write_figures(tmp_path, two())
    assert contents(tmp_path) == {"filters-20.png": b"@book{mine}"}


def test_what_was_changed_by_hand_is_not_lost(tmp_path: Path) -> None:
    write_figures(tmp_path, two())
    (tmp_path / "filters-20.tex").write_text("a better caption")
    with pytest.raises(OutputError, match=r"'filters-20.tex' .* was changed"):
        write_figures(tmp_path, two())
    assert (tmp_path / "filters-20.tex").read_text() == "a better caption"
    (tmp_path / "filters-20.tex").unlink()
    write_figures(tmp_path, two())
    assert "Tiles of conv1" in (tmp_path / "filters-20.tex").read_text()


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_figures(tmp_path, two())
    before = contents(tmp_path)

    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure_files, "methods", broken)
    with pytest.raises(OutputError, match="No space left on device"):
        write_figures(tmp_path, one())
    assert contents(tmp_path) == before
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_manifest_from_elsewhere_leads_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("x")
    folder = tmp_path / "figures"
    folder.mkdir()
    digest = figure_files._digest_of(outside)
    (folder / MANIFEST).write_text(json.dumps({"files": {"../outside.txt": digest}}))
    write_figures(folder, one())
    assert outside.read_text() == "x"
    (folder / MANIFEST).write_text("{")
    with pytest.raises(OutputError, match="is not of an earlier run"):
        write_figures(folder, one())


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="'file' is a file"):
        check_figure_folder(tmp_path / "file" / "figures")
