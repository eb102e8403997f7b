"""What ``--names`` and ``--no-originals`` withhold is nowhere: searched for in the bytes of every output."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pikepdf
import pytest
import torch
from PIL import Image, ImageFilter
from PIL.PngImagePlugin import PngInfo

import reportgen
from reportgen.cli import main
from reportgen.errors import ImagesError
from reportgen.figures.tiles import COARSE
from reportgen.privacy import shown_groups, shown_names, shown_skipped
from reportgen.subject.images import Skipped
from tests.networks import lively, noise

LABELS = ("tabby", "siamese", "persian", "beagle", "poodle", "boxer", "pug")
NEVER = ("ward-seven", "SecretCam", "48.137", "confidential comment")
"""In the path or in the metadata of an image: nothing may tell them, however images are called."""
NAMES = ("jane-doe", "john-roe", "mary-major", "broken-bones", "alice-notes", "jane")

PICTURES = (b"\x89PNG", b"\xff\xd8\xff\xe0", b"RIFF")
"""How files of pictures begin: PNG, JPEG, WebP."""
JFIF = {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """m.pt, labels.txt and class-named folders below ward-seven/, with metadata in each image."""
    folder = tmp_path_factory.mktemp("subject")
    torch.save(lively("resnet18", classes=7).state_dict(), folder / "m.pt")
    (folder / "labels.txt").write_text("\n".join(LABELS))
    for number, (label, name) in enumerate(zip(LABELS, NAMES[:3], strict=False)):
        place = folder / "ward-seven" / label
        place.mkdir(parents=True)
        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((90, 80), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[0x010F], exif[0x9286] = "SecretCam", "48.137"
        comment = PngInfo()
        comment.add_text("Comment", "confidential comment")
        if number % 2:
            image.save(place / f"{name}.png", pnginfo=comment, exif=exif)
        else:
            image.save(place / f"{name}.jpg", exif=exif, comment="confidential comment", quality=95)
    (folder / "ward-seven" / "broken-bones.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a JPEG")
    (folder / "ward-seven" / "notes.alice-notes").write_text("x")
    return folder


FEW = ("max_activation.steps=2", "occlusion.grid=2")


def written(subject: Path, out: Path, *words: str) -> Path:
    outputs = [part for suffix in ("html", "pdf", "json") for part in ("-o", str(out / f"r.{suffix}"))]
    options = ["--preset", "quick", "--input-size", "64", "--labels", str(subject / "labels.txt"), "-q"]
    few = [part for option in FEW for part in ("--set", option)]
    logs = ["--figures", str(out / "figures"), "--tensorboard", str(out / "logs")]
    asked = ["--exhibit", "jane-doe.jpg"]
    code = main([str(subject / "m.pt"), str(subject / "ward-seven"), *outputs, *options, *few, *logs, *asked, *words])
    assert code == 0
    return out


def texts(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All bytes that a reader of the outputs could get at, with the names of the files themselves."""
    for path in sorted(folder.rglob("*")):
        yield "a path", str(path.relative_to(folder)).encode()
        if not path.is_file():
            continue
        data = path.read_bytes()
        yield path.name, data
        if path.suffix == ".html":
            yield path.name, data.decode().encode("utf-16-le")
            for encoded in set(re.findall(rb"base64,([A-Za-z0-9+/=]+)", data)):
                yield f"a picture of {path.name}", base64.b64decode(encoded)
        if path.suffix == ".gz":
            yield path.name, gzip.decompress(data)
        if path.suffix == ".pdf":
            yield from ((path.name, found) for found in of_pdf(data))


def of_pdf(data: bytes) -> Iterator[bytes]:
    """Its streams without compression, and its strings as words."""
    with pikepdf.open(io.BytesIO(data)) as made:
        for one in made.objects:
            if isinstance(one, pikepdf.Stream):
                try:
                    yield one.read_bytes()
                except pikepdf.PdfError:  # a JPEG stays one
                    yield one.read_raw_bytes()
            yield from strings(one)


def strings(one: Any, depth: int = 0) -> Iterator[bytes]:
    if isinstance(one, pikepdf.String):
        yield str(one).encode()
        yield bytes(one)
    elif isinstance(one, pikepdf.Dictionary | pikepdf.Stream) and depth < 6:
        for key, value in one.items():
            yield key.encode()
            if not getattr(value, "is_indirect", False):
                yield from strings(value, depth + 1)
    elif isinstance(one, pikepdf.Array) and depth < 6:
        for value in one:
            if not getattr(value, "is_indirect", False):
                yield from strings(value, depth + 1)


def told(folder: Path, *needles: str) -> set[tuple[str, str]]:
    """(where, what) of every needle that is found, whatever its case."""
    found = set()
    for where, data in texts(folder):
        lower = data.lower()
        found |= {(where, needle) for needle in needles if needle.lower().encode() in lower}
    return found


@pytest.fixture(scope="module")
def open_folder(subject: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(subject, tmp_path_factory.mktemp("open"))


@pytest.fixture(scope="module")
def hashed(subject: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(subject, tmp_path_factory.mktemp("hashed"), "--names", "hash", "--no-originals")


def test_the_search_finds_what_is_told(open_folder: Path) -> None:
    """Else the other tests could not fail."""
    places = {where for where, needle in told(open_folder, "jane-doe") if needle == "jane-doe"}
    for output in ("r.html", "r.pdf", "r.json", "a path", "figures.tex"):
        assert output in places
    assert any(where.startswith("events.out.tfevents") for where in places)


def test_metadata_is_never_carried_over(open_folder: Path) -> None:
    assert told(open_folder, "SecretCam", "48.137", "confidential comment") == set()
    pictures = 0
    for _where, data in texts(open_folder):
        if data[:4] in PICTURES:
            with Image.open(io.BytesIO(data)) as image:
                pictures += 1
                assert not image.getexif()
                assert not {"icc_profile", "xmp", "comment", "exif"} & set(image.info)
                assert {"PNG": {"dpi"}, "JPEG": JFIF, "WEBP": set(image.info)}[str(image.format)] >= set(image.info)
    assert pictures > 50


def test_a_hash_tells_no_name(hashed: Path) -> None:
    assert told(hashed, *NEVER, *NAMES) == set()
    facts = json.loads((hashed / "r.json").read_text())
    names = {one["image"]: one["sha256"] for one in facts["predictions"]}
    assert len(names) == 3
    assert all(name == f"image-{digest[:12]}" for name, digest in names.items())
    assert list(names) == sorted(names)
    # the classes that folders were named by are known all the same
    assert sorted(one["truth"]["label"] for one in facts["predictions"]) == ["persian", "siamese", "tabby"]
    assert facts["images"]["exhibits"][0]["why"] == "given"
    assert [one["file"] for one in facts["images"]["skipped"]] == ["file-0001", "file-0002"]
    assert "not an image file" in {one["reason"] for one in facts["images"]["skipped"]}
    assert facts["generator"]["job"]["exhibit"] == ["(withheld)"]


def test_a_stem_tells_no_path(subject: Path, tmp_path: Path) -> None:
    out = written(subject, tmp_path, "--names", "stem")
    assert told(out, *NEVER, "tabby/", "jane-doe.jpg", "tabby/jane") == set()
    facts = json.loads((out / "r.json").read_text())
    assert [one["image"] for one in facts["predictions"]] == ["jane-doe", "john-roe", "mary-major"]
    assert {one["file"] for one in facts["images"]["skipped"]} == {"broken-bones", "notes"}


def test_no_output_holds_a_photograph(hashed: Path, open_folder: Path) -> None:
    """No picture made of an image has more rows or columns than the coarsest map; none of them resembles the image."""
    checked = 0
    for path in sorted((hashed / "figures").glob("*-image-*.png")):
        if path.with_suffix(".tex").exists():
            continue  # a whole figure: its panels are looked at
        picture, most = Image.open(path).convert("RGB"), COARSE
        if "-difference-" in path.name:
            # light stripes mark the sign of a cell: beneath them it is of one colour, but for a seam on both sides
            picture, most = picture.filter(ImageFilter.MinFilter(9)), 2 * COARSE
        pixels = np.asarray(picture)
        for axis in (0, 1):
            turned = np.moveaxis(pixels, axis, 0).reshape(pixels.shape[axis], -1)
            assert (turned[1:] != turned[:-1]).any(axis=1).sum() < most, path.name
        checked += 1
    assert checked > 20
    photographs = [path for path in (open_folder / "figures").glob("*.png") if path.stem.endswith(("-input", "-patch"))]
    assert photographs
    assert not [path for path in (hashed / "figures").iterdir() if "input" in path.stem or "patch" in path.stem]
    known = [small(path.read_bytes()) for path in photographs]
    assert not [data for data in pictures_of(hashed) if resembles(data, known)]
    shown = [data for data in pictures_of(open_folder) if resembles(data, known)]
    assert {data[:4] for data in shown} == set(PICTURES)


def pictures_of(folder: Path) -> set[bytes]:
    return {data for _where, data in texts(folder) if data[:4] in PICTURES}


def small(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("L").resize((32, 32)), float).ravel()


def resembles(data: bytes, photographs: list[np.ndarray]) -> bool:
    """Whether a picture correlates with one of the photographs that the open report shows."""
    pixels = small(data)
    return bool(pixels.std()) and any(abs(np.corrcoef(pixels, one)[0, 1]) > 0.8 for one in photographs if one.std())


def test_the_report_says_what_remains(hashed: Path) -> None:
    page = (hashed / "r.html").read_text()
    assert "Photographs are withheld" in page
    assert "Names of images are withheld" in page
    assert "the image as the network saw it" not in page


def test_a_refusal_tells_no_name(subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(subject / "m.pt"), str(subject / "ward-seven" / "broken-bones.jpg"), "-o", str(tmp_path / "r.json")]
    assert main([*command, "--names", "hash"]) == 1
    assert "broken-bones" in capsys.readouterr().err
    assert "broken" not in (tmp_path / "r.json").read_text()
    assert json.loads((tmp_path / "r.json").read_text())["refused"]["error"] == ImagesError.__name__
    assert main(command) == 1
    assert "broken-bones" in (tmp_path / "r.json").read_text()


def test_live_images_are_called_the_same_way() -> None:
    items = [(noise(1, 64)[0], None, "jane/doe.png"), (noise(2, 64)[1], None, "john/doe.png")]
    model = lively("resnet18", classes=7, size=64)
    options: dict[str, Any] = {"only": ["feature_maps"], "layers": ["layer4"]}
    report = reportgen.audit(model, items, names="stem", **options)
    assert [one["image"] for one in report.facts["predictions"]] == ["doe", "doe (2)"]
    report = reportgen.audit(model, items, names="hash", no_originals=True, **options)
    name = report.facts["predictions"][0]["image"]
    assert name.startswith("image-")
    assert report.tensors("feature_maps", image=name)
    assert report.document.exhibits[0].picture is None


def test_names() -> None:
    images = [("a/x.jpg", "1" * 64), ("b/x.png", "2" * 64), ("c", "1" * 64)]
    assert shown_names("path", images) == ["a/x.jpg", "b/x.png", "c"]
    assert shown_names("stem", images) == ["x", "x (2)", "c"]
    assert shown_names("hash", images) == ["image-" + "1" * 12, "image-" + "2" * 12, "image-" + "1" * 12 + " (2)"]


def test_reasons_and_groups() -> None:
    skipped = [
        Skipped("z.x", "not an image file (.jane)"),
        Skipped("b/y.jpg", "the data set raised ValueError: no jane"),
        Skipped("a.heic", "a format that is not read (.heic)"),
    ]
    assert shown_skipped("hash", skipped) == [
        Skipped("file-0001", "a format that is not read (.heic)"),
        Skipped("file-0002", "not an image file"),
        Skipped("file-0003", "the data set raised ValueError"),
    ]
    assert shown_skipped("stem", skipped)[1] == Skipped("y", "the data set raised ValueError")
    assert shown_skipped("path", skipped) == skipped
    assert shown_groups("hash", ["jane", None, "john", "jane"]) == ["group-1", None, "group-2", "group-1"]
    assert shown_groups("stem", ["jane"]) == ["jane"]
