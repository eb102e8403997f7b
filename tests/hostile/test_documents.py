"""Words of others in every output: names of files, classes and modules, metadata of checkpoints and images."""

from __future__ import annotations

import base64
import getpass
import json
import platform
import re
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import html5lib
import pikepdf
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import nn

import reportgen

ATTACK = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}\\input{secret}$_^&%#~\x1b[31m\u202e"
OPTIONS: dict[str, Any] = {"preset": "quick", "batch_size": 2, "no_cache": True, "input_size": "32"}
SECRETS = ("GPS-52.5200", "Camera of Nobody", "a comment in the file", "/home/nobody-at-all/data")


def hostile_model(folder: Path) -> Path:
    """A checkpoint whose own name, the names of its parts and all it says of itself are attacks."""
    torch.manual_seed(0)
    names = (ATTACK.replace(".", "").replace("\x1b", "").replace("\u202e", ""), "$(touch x)`", "pool", "flat", "head")
    parts = (nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    model = nn.Sequential(OrderedDict(zip(names, parts, strict=True)))
    model[0].comment = SECRETS[3] + ATTACK  # type: ignore[assignment]
    told = {
        "model": model,
        "classes": [f"{ATTACK} {number}" for number in range(4)],
        "architecture": ATTACK,
        "pretrained_cfg": {"tag": ATTACK, "interpolation": ATTACK, "crop_mode": ATTACK, "url": f"file:///{ATTACK}"},
        "args": {"arch": ATTACK, "data": SECRETS[3]},
        "hyper_parameters": {"data_dir": SECRETS[3]},
        ATTACK: ATTACK,
    }
    path = folder / f"{ATTACK.replace('/', '')}.pt"
    torch.save(told, path)
    return path


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    images = folder / "images"
    images.mkdir()
    for number in range(3):
        picture = Image.effect_noise((48, 40), 90).convert("RGB")
        text = PngInfo()
        text.add_text("Comment", SECRETS[2] + ATTACK)
        text.add_itxt(ATTACK.replace("\x1b", "")[:79], SECRETS[2] + ATTACK)
        exif = Image.Exif()
        exif[0x010F], exif[0x010E] = SECRETS[1] + ATTACK, SECRETS[0]
        name = ATTACK.replace("/", "").replace("\x1b", "") + f"{number}.png"
        picture.save(images / name, pnginfo=text, exif=exif)
    (images / f"{ATTACK.replace('/', '')}.txt").write_text("no image")
    model = hostile_model(images.parent)
    report = reportgen.audit(
        model,
        images,
        title=ATTACK.replace("\x1b", ""),
        author=ATTACK.replace("\x1b", ""),
        techniques={"max_activation": {"steps": 2}, "occlusion": {"grid": 2}},
        skip=["profile"],
        figures=folder / "figures",
        tensorboard=folder / "logs",
        **OPTIONS,
    )
    model.unlink()  # it is none of the outputs
    failed = {name: one["reason"] for name, one in report.facts["techniques"].items() if one["status"] == "failed"}
    assert not failed
    for kind in ("html", "pdf", "json"):
        report.write(folder / f"report.{kind}")
    return folder


def test_what_the_file_says_of_itself_is_shown_as_words(outputs: Path) -> None:
    """So that the attacks have come as far as the outputs."""
    told = json.loads((outputs / "report.json").read_text())
    assert "<script>" in told["model"]["file"]
    assert all("<script>" in one["label"] for row in told["predictions"] for one in row["top"])
    assert any("<script>" in layer["name"] for layer in told["model"]["layers"])
    assert all("<script>" in one["image"] for one in told["predictions"])


def test_no_element_comes_from_a_name(outputs: Path) -> None:
    tree = html5lib.parse((outputs / "report.html").read_text(encoding="utf-8"), namespaceHTMLElements=False)
    for element in tree.iter():
        assert not [name for name in element.attrib if str(name).lower().startswith("on")]
        assert "alert(1)" not in str(element.attrib.get("src", ""))
        assert not str(element.attrib.get("href", "")).lower().startswith(("javascript:", "data:text"))
        if element.tag == "script" and element.attrib.get("type") != "application/json":
            assert "alert(1)" not in "".join(element.itertext())
    assert "49" not in "".join(tree.find(".//title").itertext())  # templates in names are words


def test_the_island_of_facts_is_what_json_holds(outputs: Path) -> None:
    tree = html5lib.parse((outputs / "report.html").read_text(encoding="utf-8"), namespaceHTMLElements=False)
    (island,) = [one for one in tree.iter("script") if one.attrib.get("type") == "application/json"]
    told, held = json.loads("".join(island.itertext())), json.loads((outputs / "report.json").read_text())
    assert told["model"]["layers"] == held["model"]["layers"]
    assert any("<script>" in layer["name"] for layer in held["model"]["layers"])  # words, and no longer markup


def test_the_pdf_runs_and_asks_for_nothing(outputs: Path) -> None:
    with pikepdf.open(outputs / "report.pdf") as document:
        for number in document.objects:
            if isinstance(number, pikepdf.Dictionary):
                assert not {"/JS", "/JavaScript", "/AA", "/Launch"} & set(number.keys())
                assert number.get("/S") not in ("/JavaScript", "/Launch", "/GoToR", "/SubmitForm")
        assert "alert(1)" in str(document.docinfo["/Title"])


def test_latex_reads_no_file_and_runs_no_command(outputs: Path) -> None:
    for file in (outputs / "figures").rglob("*.tex"):
        assert "\\input{secret}" not in file.read_text(encoding="utf-8")
    for file in (outputs / "figures").rglob("*"):
        assert file.resolve().is_relative_to(outputs.resolve())
        assert "<" not in file.name


def test_no_output_tells_where_or_by_whom_it_was_made(outputs: Path) -> None:
    words = [str(outputs), str(Path.home()), platform.node(), *SECRETS]
    if len(getpass.getuser()) > 4:  # "root" is a word of trees and of folders, too
        words.append(getpass.getuser())
    for file in [one for one in outputs.rglob("*") if one.is_file() and not one.is_relative_to(outputs / "images")]:
        data = content(file)
        for word in words:
            assert len(word) < 4 or word.encode() not in data, (file.name, word)


def test_tags_of_tensorboard_are_words(outputs: Path) -> None:
    tags: set[str] = set()
    for file in (outputs / "logs").rglob("*"):
        assert not set("<>$;&'\"") & set(file.name)
        assert file.resolve().is_relative_to(outputs.resolve())
        if "tfevents" in file.name:
            for event in EventFileLoader(str(file)).Load():
                tags |= {value.tag for value in event.summary.value}
                shown = {value.metadata.display_name for value in event.summary.value}
                assert not [name for name in shown if "<" in name]
    assert len(tags) > 10
    assert all(re.fullmatch(r"[\w./=+-]+", tag) for tag in tags), tags


@pytest.mark.parametrize("kind", ["html", "pdf"])
def test_what_is_drawn_holds_no_markup_of_others(kind: str, outputs: Path) -> None:
    """Charts and graphs are SVG: in the page as data, in the PDF as vectors, beside it as files."""
    drawn = 0
    if kind == "html":
        page = (outputs / "report.html").read_text(encoding="utf-8")
        for data in re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", page):
            drawn += harmless(base64.b64decode(data))
        for data in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
            drawn += harmless(data.encode())
    for file in (outputs / "figures").rglob("*.pdf" if kind == "pdf" else "*.svg"):
        with pikepdf.open(file) as document:
            assert not any("/JS" in one for one in document.objects if isinstance(one, pikepdf.Dictionary))
        drawn += 1
    assert drawn


def harmless(data: bytes) -> int:
    """1, if an SVG has no script, no handler, and no link but within itself."""
    for element in html5lib.parse(data.decode(), namespaceHTMLElements=False).iter():
        assert element.tag not in ("script", "foreignObject", "iframe", "object", "a")
        for name, value in element.attrib.items():
            assert not str(name).lower().startswith("on")
            assert not (str(name).endswith("href") and not str(value).startswith(("#", "data:image/")))
    return 1


def content(file: Path) -> bytes:
    """The bytes of a file with what is compressed in it."""
    data = file.read_bytes()
    if file.suffix == ".pdf":
        with pikepdf.open(file) as document:
            streams = [
                one.read_bytes() for one in document.objects if isinstance(one, pikepdf.Stream) and readable(one)
            ]
            return data + b"".join(streams) + str(document.docinfo).encode()
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return data + b"".join(archive.read(name) for name in archive.namelist())
    return data


def readable(stream: pikepdf.Stream) -> bool:
    try:
        stream.read_bytes()
    except (pikepdf.PdfError, zlib.error):
        return False
    return True
