"""Every kind of file that may lie in a folder of images, made here by Pillow, against Pillow's own decoding."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from reportgen.errors import ImagesError
from reportgen.subject.images import (
    DatasetItem,
    ImageError,
    ImageRef,
    Skipped,
    decode,
    fetched,
    find_images,
    live_images,
    shown,
)


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    """A smooth colour picture that survives lossy formats."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def save(file: Path, image: Image.Image | None = None, **options: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    (image or picture()).save(file, **options)
    return file


def opened(file: Path) -> Image.Image:
    return decode(ImageRef(file.name, file))


def names(folder: Path | list[Path], **options: int) -> list[str]:
    sources = folder if isinstance(folder, list) else [folder]
    return [ref.name for ref in find_images(sources, **options).images]


# finding ----------------------------------------------------------------------------------------------------


def test_names_are_relative_and_ordered(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.png", "a.jpg", "c/d/e.webp", "Z.PNG"):
        save(tmp_path / name)
    assert names(tmp_path) == ["Z.PNG", "a.jpg", "b/10.png", "b/2.png", "c/d/e.webp"]


def test_order_does_not_depend_on_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        save(tmp_path / f"{number % 3}" / f"{number}.png")
    before = names(tmp_path), names(tmp_path, limit=7)
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: sorted(real(path), key=lambda e: e.name, reverse=True))
    assert (names(tmp_path), names(tmp_path, limit=7)) == before


def test_used_and_skipped_are_all_there_was(tmp_path: Path) -> None:
    save(tmp_path / "x.jpg")
    foreign = {
        "labels.txt": "not an image file (.txt)",
        "README": "not an image file (no suffix)",
        "Thumbs.db": "not an image file (.db)",
        ".DS_Store": "not an image file (hidden)",
        "._x.jpg": "not an image file (hidden)",
        "photo.heic": "a format that is not read (.heic)",
        "empty.png": "empty file",
    }
    for name in foreign:
        (tmp_path / name).write_text("" if name == "empty.png" else "words")
    (tmp_path / ".git").mkdir()
    found = find_images([tmp_path])
    assert [ref.name for ref in found.images] == ["x.jpg"]
    assert {one.name: one.reason for one in found.skipped} == {**foreign, ".git": "not an image file (a hidden folder)"}


def test_an_image_is_recognised_whatever_its_suffix(tmp_path: Path) -> None:
    for suffix, kind in (("", "JPEG"), (".download", "PNG"), (".1", "WEBP")):
        save(tmp_path / f"image{kind}{suffix}", format=kind)
    assert len(names(tmp_path)) == 3


def test_odd_names_are_told_safely(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path)
    data = io.BytesIO()
    picture().save(data, "PNG")
    told = {
        b'"><script>alert(1)<_script>.png': '"><script>alert(1)<_script>.png',
        b"new\nline.png": "new\\x0aline.png",
        b"\x1b[31mred.png": "\\x1b[31mred.png",
        b"\xff\xfeodd.png": "\\xff\\xfeodd.png",
        "😀 猫.png".encode(): "😀 猫.png",
        "gnp.\u202etxt.png".encode(): "gnp.\\u202etxt.png",
        b"\\xff.png": "\\xff.png",
        b"\xff.png": "\\xff.png (2)",
    }
    for name in told:
        with open(os.path.join(raw, name), "wb") as file:
            file.write(data.getvalue())
    found = find_images([tmp_path])
    assert sorted(ref.name for ref in found.images) == sorted(told.values())
    for ref in found.images:
        ref.name.encode("utf-8")
        assert decode(ref).size == (40, 30)


def test_shown_survives_lone_surrogates() -> None:
    assert shown("a\ud800b") == "a\\ud800b"


def test_what_is_reached_twice_counts_once(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    save(folder / "a.png")
    save(folder / "sub" / "b.png")
    (folder / "notes.txt").write_text("x")
    for sources in (
        [folder, folder],
        [folder, folder / "a.png"],
        [folder, folder / "sub" / ".." / "sub" / "b.png"],
    ):
        found = find_images(sources)
        assert [ref.name for ref in found.images] == ["a.png", "sub/b.png"]
        assert [one.name for one in found.skipped] == ["notes.txt"]
    assert names([folder, folder / "sub"]) == ["images/a.png", "images/sub/b.png"]


def test_a_link_to_the_folder_is_the_folder(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "images")
    assert names([tmp_path / "link", tmp_path / "images"]) == ["a.png"]


def test_several_folders_are_told_apart(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png", "old/cat/1.png"):
        save(tmp_path / name)
    assert names([tmp_path / "cat", tmp_path / "dog"]) == ["cat/1.png", "dog/1.png"]
    assert names([tmp_path / "cat", tmp_path / "old" / "cat"]) == ["cat (2)/1.png", "cat/1.png"]
    assert names([tmp_path / "cat" / "1.png", tmp_path / "dog" / "1.png"]) == ["1.png", "1.png (2)"]


def test_links_may_loop_or_lead_nowhere(tmp_path: Path) -> None:
    save(tmp_path / "z" / "a.png")
    (tmp_path / "a-link-that-sorts-first").symlink_to(tmp_path / "z")
    (tmp_path / "z" / "up").symlink_to(tmp_path)
    (tmp_path / "z" / "self.png").symlink_to(tmp_path / "z" / "self.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "other.png").symlink_to(tmp_path / "z" / "a.png")
    found = find_images([tmp_path])
    assert [ref.name for ref in found.images] == ["other.png", "z/a.png"]
    assert {one.name: one.reason for one in found.skipped} == {
        "a-link-that-sorts-first": "not an image file (a link to a folder that is listed already)",
        "z/up": "not an image file (a link to a folder that is listed already)",
        "z/self.png": "a link that leads nowhere",
        "gone.png": "a link that leads nowhere",
    }


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "more").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "images") == ["more/a.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_sockets_and_devices_never_block(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe")
    for device in ("zero", "full", "stdin"):
        (tmp_path / f"{device}.png").symlink_to(f"/dev/{device}")
    with socket.socket(socket.AF_UNIX) as listening:
        before = os.getcwd()
        os.chdir(tmp_path)  # the length of a socket's path is limited
        try:
            listening.bind("socket.jpg")
        finally:
            os.chdir(before)
        found = find_images([tmp_path])
    assert [ref.name for ref in found.images] == ["a.png"]
    assert len(found.skipped) == 6
    reasons = {one.reason for one in found.skipped if one.name != "stdin.png"}  # it may be a file here
    assert reasons == {"not a file but a pipe, socket or device"}
    with pytest.raises(ImagesError, match="pipe, socket or device"):
        find_images([tmp_path / "pipe.png"])
    with pytest.raises(ImageError, match="pipe, socket or device"):
        opened(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="pipe, socket or device"):
        opened(Path(os.devnull))


def test_a_hundred_thousand_files(tmp_path: Path) -> None:
    """One in ten is an image; all are told, each once."""
    save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("words")
    for folder in range(100):
        place = tmp_path / "images" / str(folder)
        place.mkdir(parents=True)
        for suffix in (".png", ".txt"):  # a file has no room for a hundred thousand names
            shutil.copyfile(tmp_path / f"a{suffix}", place / f"0{suffix}")
        for number in range(1, 999):
            suffix = ".txt" if number % 10 else ".png"
            os.link(place / f"0{suffix}", place / f"{number}{suffix}")
    found = find_images([tmp_path / "images"], limit=50)
    assert (len(found.images), len(found.others), len(found.skipped)) == (50, 9_950, 90_000)
    told = {*(ref.name for ref in found.images), *found.others, *(one.name for one in found.skipped)}
    assert len(told) == 100_000


def test_an_unreadable_folder_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "locked").mkdir()
    real = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = find_images([tmp_path])
    assert [(one.name, one.reason) for one in found.skipped] == [
        ("locked", "a folder that cannot be read: Permission denied")
    ]


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match="no image file or folder 'gone'"):
        find_images([tmp_path / "gone"])
    with pytest.raises(ImagesError, match="no image among 0 files"):
        find_images([tmp_path])
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ImagesError, match=r"no image among 1 file, such as 'a.txt': not an image file \(.txt\)"):
        find_images([tmp_path])


def test_a_limit_takes_the_same_share_of_every_folder(tmp_path: Path) -> None:
    for folder, count in (("cat", 40), ("dog", 20), ("eel", 20)):
        for number in range(count):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{number}.jpg").write_bytes(b"x")
    found = find_images([tmp_path], limit=8)
    folders = [ref.name.split("/")[0] for ref in found.images]
    assert folders == ["cat"] * 4 + ["dog"] * 2 + ["eel"] * 2
    assert found.left_out == 72
    assert len({*found.others, *(ref.name for ref in found.images)}) == 80
    assert [ref.name for ref in found.images] == names(tmp_path, limit=8) != names(tmp_path, limit=8, seed=1)
    assert find_images([tmp_path], limit=80).left_out == 0


# decoding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "tif", "bmp", "gif", "ppm"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    file = save(tmp_path / f"a.{suffix}")
    with Image.open(file) as oracle:
        expected = np.asarray(oracle.convert("RGB"))
    image = opened(file)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), expected)
    # and it is the picture that was saved, not only what Pillow makes of it
    error = np.abs(expected.astype(int) - np.asarray(picture()).astype(int)).mean()
    assert error < 12


@pytest.mark.parametrize(("suffix", "order"), [("png", "<"), ("tif", "<"), ("tif", ">"), ("pgm", ">")])
def test_grey_of_16_bits_is_scaled(tmp_path: Path, suffix: str, order: str) -> None:
    values = np.array([[0, 255, 256, 32767, 32768, 65535]], f"{order}u2")
    if suffix == "pgm":
        file = tmp_path / "a.pgm"
        file.write_bytes(b"P5 6 1 65535\n" + values.astype(">u2").tobytes())
    else:
        file = save(tmp_path / f"a.{suffix}", Image.fromarray(values))
    image = opened(file)
    assert image.mode == "L"
    assert np.asarray(image).tolist() == [[0, 0, 1, 127, 128, 255]]


def test_colour_of_16_bits_agrees_with_grey(tmp_path: Path) -> None:
    values = np.array([[[0, 255, 256], [32767, 32768, 65535]]], ">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))  # noqa: E731
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    assert np.asarray(opened(tmp_path / "a.png")).tolist() == [[[0, 0, 1], [127, 128, 255]]]


def test_white_is_zero(tmp_path: Path) -> None:
    values = np.array([[0, 65535, 256]], np.uint16)
    file = save(tmp_path / "a.tif", Image.fromarray(values), tiffinfo={262: 0})
    assert np.asarray(opened(file)).tolist() == [[255, 0, 254]]


@pytest.mark.parametrize(
    ("values", "reason"),
    [(np.ones((2, 2), np.float32), "floating-point values"), (np.full((2, 2), 70000, np.int32), "32-bit integers")],
)
def test_unknown_ranges_are_refused(tmp_path: Path, values: np.ndarray, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        opened(save(tmp_path / "a.tif", Image.fromarray(values)))


def test_one_bit_palette_and_alpha(tmp_path: Path) -> None:
    checked = Image.fromarray((np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8))
    image = opened(save(tmp_path / "bits.png", checked.convert("1")))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(checked))
    colours = picture().quantize(16)
    np.testing.assert_array_equal(
        np.asarray(opened(save(tmp_path / "palette.png", colours))), np.asarray(colours.convert("RGB"))
    )
    # a palette with a transparent colour, told both ways: one index, and bytes for all
    for number, transparency in enumerate((3, bytes(range(0, 256, 16)))):
        file = save(tmp_path / f"clear{number}.png", colours, transparency=transparency)
        np.testing.assert_array_equal(np.asarray(opened(file)), np.asarray(colours.convert("RGB")))
    alpha = picture().convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    for suffix in ("png", "tif", "webp"):
        image = opened(
            save(tmp_path / f"alpha.{suffix}", alpha, **({"lossless": True, "exact": True} if suffix == "webp" else {}))
        )
        assert image.mode == "RGBA"
        # as the loaders of torchvision and timm: transparency is dropped, colours stay
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(picture()))
    grey = Image.merge("LA", (picture().convert("L"), Image.linear_gradient("L").resize((40, 30))))
    np.testing.assert_array_equal(
        np.asarray(opened(save(tmp_path / "la.png", grey)).convert("L")), np.asarray(picture().convert("L"))
    )


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(tmp_path: Path, suffix: str) -> None:
    file = save(tmp_path / f"a.{suffix}", picture().convert("CMYK"))
    with Image.open(file) as oracle:
        assert oracle.mode == "CMYK"
        expected = np.asarray(oracle.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(opened(file).convert("RGB")), expected)
    assert np.abs(expected.astype(int) - np.asarray(picture()).astype(int)).mean() < 12


def test_lab_is_converted(tmp_path: Path) -> None:
    lab = ImageCms.profileToProfile(
        picture(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    image = opened(save(tmp_path / "a.tif", lab))
    assert np.abs(np.asarray(image).astype(int) - np.asarray(picture()).astype(int)).mean() < 4


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    image = picture(48, 32)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = save(tmp_path / f"a.{suffix}", image, exif=exif, **({"compression": "tiff_lzw"} if suffix == "tif" else {}))
    pixels = np.asarray(image)
    # from the EXIF standard: which row and column of the stored image are the top and the left
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).swapaxes(0, 1),
        8: np.rot90(pixels),
    }[orientation]
    made = np.asarray(opened(file))
    assert made.shape == upright.shape
    assert np.abs(made.astype(int) - upright.astype(int)).mean() < 8


def test_damaged_metadata_do_no_harm(tmp_path: Path) -> None:
    for number, exif in enumerate((b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 30)):
        file = save(tmp_path / f"{number}.jpg", exif=exif)
        assert opened(file).size == (40, 30)


def test_metadata_are_left_behind(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "secret"
    for suffix in ("jpg", "png", "webp"):
        image = opened(save(tmp_path / f"a.{suffix}", exif=exif))
        assert image.info == {}
        out = io.BytesIO()
        image.save(out, "PNG")
        assert b"secret" not in out.getvalue()


def test_only_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [picture(seed=seed) for seed in range(3)]
    for suffix in ("gif", "webp", "png", "tif"):
        options = {"lossless": True} if suffix == "webp" else {}
        file = save(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
        made = np.asarray(opened(file).convert("RGB")).astype(int)
        differences = [np.abs(made - np.asarray(frame).astype(int)).mean() for frame in frames]
        assert int(np.argmin(differences)) == 0
        assert differences[0] < 12


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "tif", "bmp", "gif"])
def test_truncated_files_say_so(tmp_path: Path, suffix: str) -> None:
    whole = save(tmp_path / f"whole.{suffix}", picture(400, 300)).read_bytes()
    for share in (0.9, 0.5, 0.2):
        file = tmp_path / f"{share}.{suffix}"
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            opened(file)
    cut = tmp_path / f"head.{suffix}"
    cut.write_bytes(whole[:20])
    with pytest.raises(ImageError, match="truncated"):
        opened(cut)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "tif", "bmp", "gif", "ppm"])
def test_damage_is_a_reason_and_never_a_crash(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    whole = save(tmp_path / f"whole.{suffix}", picture(64, 48)).read_bytes()
    rng = np.random.default_rng(1)
    file = tmp_path / f"damaged.{suffix}"
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), int(rng.integers(1, 12))):
            data[place] = int(rng.integers(0, 256))
        file.write_bytes(data)
        with contextlib.suppress(ImageError):
            opened(file)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"just words", "not an image: text"),
        ("schöne Wörter ".encode() * 40, "not an image: text"),
        (b"<!DOCTYPE html><title>404</title>", "not an image: a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\0" * 100, "not an image: zeros"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (bytes(range(128, 256)) * 3, "of no known format"),
        (b"\xff\xd8\xff\xe0", "truncated or damaged: begins as JPEG"),
        (b"<svg xmlns='x'/>", "SVG"),
    ],
)
def test_no_image_at_all(tmp_path: Path, data: bytes, reason: str) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(data)
    with pytest.raises(ImageError, match=reason):
        opened(file)


def test_decoders_that_are_not_listed_see_no_file(tmp_path: Path) -> None:
    for kind in ("TGA", "ICO", "PCX", "EPS"):
        with pytest.raises(ImageError):
            opened(save(tmp_path / f"{kind}.jpg", format=kind))


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    assert opened(save(tmp_path / "a.png", picture(1, 1))).size == (1, 1)


def bomb(file: Path, side: int) -> Path:
    """A black PNG of side × side pixels in a few hundred kilobytes, as a stream that is never held."""
    packer = zlib.compressobj(9)
    row = b"\0" * (side + 1)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))  # noqa: E731
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return file


@pytest.mark.parametrize("side", [20_000, 12_000, 9_600])
def test_bombs_are_refused_from_their_header(tmp_path: Path, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # the three lie above both limits of Pillow, between them, and just above the lower one
    file = bomb(tmp_path / "bomb.png", side)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("a bomb was decoded"))
    begin = time.perf_counter()
    with pytest.raises(ImageError, match=rf"{side} × {side}|{side**2 // 10**6} million pixels, more than 89.5 million"):
        opened(file)
    assert time.perf_counter() - begin < 0.5


def test_absurd_sides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="a side longer than"):
        opened(save(tmp_path / "a.png", Image.new("L", (70_000, 2))))


def test_the_limit_can_be_lowered(tmp_path: Path) -> None:
    file = save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"40 × 30 pixels, more than 0.001 million"):
        decode(ImageRef("a", file), max_pixels=1000)
    assert decode(ImageRef("a", file), max_pixels=1200).size == (40, 30)


def test_what_pillow_logs_is_not_printed(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.tif").read_bytes()
    # tag 277, samples per pixel: 2048 instead of 3
    damaged = whole.replace(b"\x15\x01\x03\x00\x01\x00\x00\x00\x03\x00", b"\x15\x01\x03\x00\x01\x00\x00\x00\x00\x08")
    assert damaged != whole
    (tmp_path / "a.tif").write_bytes(damaged)
    code = """if True:
        import sys
        from pathlib import Path
        from reportgen.subject.images import ImageError, ImageRef, decode
        try:
            decode(ImageRef("a", Path(sys.argv[1])))
        except ImageError as error:
            print(error.reason)
    """
    command = [sys.executable, "-c", code, str(tmp_path / "a.tif")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("truncated or damaged: begins as TIFF")
    assert done.stderr == ""


def test_a_file_may_vanish(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="vanished"):
        opened(tmp_path / "gone.png")


def test_threads_leak_no_warning_and_leave_the_filters_alone(tmp_path: Path) -> None:
    # the palette makes Pillow warn when it is converted, the side between its two limits when it is opened
    palette = save(tmp_path / "p.png", picture().quantize(16), transparency=bytes(range(0, 256, 16)))
    large = bomb(tmp_path / "large.png", 9_600)
    before = list(warnings.filters)

    def work(number: int) -> None:
        if number % 2:
            opened(palette)
        else:
            with pytest.raises(ImageError, match="million"):
                opened(large)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    assert list(warnings.filters) == before


# live -------------------------------------------------------------------------------------------------------


def test_live_images_of_every_kind(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    file = save(tmp_path / "b.png")
    array = np.asarray(picture())
    items = [
        picture(),
        str(file),
        array,
        (torch.from_numpy(array.copy()).permute(2, 0, 1), 3),
        (torch.zeros(3, 8, 8), None, "mine"),
        array / 255.0,
        (picture(), np.int64(2), "mine"),
        (picture(), -1),
    ]
    found = live_images(items)
    assert [ref.name for ref in found.images] == [
        "image-0000", "b.png", "image-0002", "image-0003", "mine", "image-0005", "mine (2)", "image-0007",
    ]  # fmt: skip
    assert [ref.label for ref in found.images] == [None, None, None, 3, None, None, 2, None]
    assert [ref.ready for ref in found.images] == [False] * 4 + [True] + [False] * 3
    for number in (0, 1, 2, 3, 5, 6, 7):
        np.testing.assert_array_equal(np.asarray(decode(found.images[number])), array)


def test_live_images_are_not_changed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO()
    picture().save(data, "JPEG", exif=exif)
    image = Image.open(data)
    made = decode(live_images([image]).images[0])
    assert (image.size, made.size) == ((40, 30), (30, 40))
    assert image.getexif()[0x0112] == 6
    assert "exif" in image.info
    made.putpixel((0, 0), (1, 2, 3))
    assert np.asarray(image).shape == (30, 40, 3)


def test_live_images_that_are_none() -> None:
    cut = io.BytesIO()
    picture(200, 200).save(cut, "JPEG")
    found = live_images([picture(), Image.open(io.BytesIO(cut.getvalue()[:900])), "gone.png", object()])
    assert found.skipped == (
        Skipped("image-0001", "truncated"),
        Skipped("gone.png", "cannot be read: No such file or directory"),
    )
    with pytest.raises(ImageError, match="shape"):
        decode(found.images[1])
    for array, reason in (
        (np.zeros((4, 4, 9), np.uint8), "shape"),
        (np.zeros((0, 4)), "shape"),
        (np.full((4, 4), 2.0), "outside 0..1"),
        (np.full((4, 4), np.nan), "outside 0..1"),
        (np.full((4, 4), 300), "outside 0..255"),
        (np.full((4, 4), "x"), "no image"),
    ):
        with pytest.raises(ImageError, match=reason):
            decode(ImageRef("x", None, array))
    with pytest.raises(ImagesError, match="no image was given"):
        live_images([])
    with pytest.raises(ImagesError, match="label of image 0 is no class number but str"):
        live_images([(picture(), "cat")])


class Numbers:
    """A map-style data set; `noise` makes it another one each time."""

    def __init__(self, count: int, *, noise: bool = False) -> None:
        self.count, self.noise, self.calls = count, noise, 0
        self.busy = threading.Lock()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[object, int, str]:
        assert self.busy.acquire(blocking=False), "two threads at once"
        try:
            self.calls += 1
            if index == 2:
                raise ValueError("a broken one")
            return np.full((6, 6, 3), index + self.calls * self.noise, np.uint8), index % 2, f"id-{index}"
        finally:
            self.busy.release()


def test_a_data_set_is_fetched_again_and_not_kept() -> None:
    dataset = Numbers(20)
    found = live_images(dataset)
    assert [ref.name for ref in found.images][:3] == ["id-0", "id-1", "id-3"]
    assert [(one.name, one.reason) for one in found.skipped] == [
        ("image-0002", "the data set raised ValueError: a broken one")
    ]
    assert all(isinstance(ref.live, DatasetItem) for ref in found.images)
    with ThreadPoolExecutor(4) as pool:
        decoded = list(pool.map(decode, found.images))
    assert [np.asarray(image).max() for image in decoded] == [0, 1, *range(3, 20)]
    assert dataset.calls == 39
    limited = live_images(dataset, limit=5)
    assert [ref.given_id for ref in limited.images] == ["id-0", "id-4", "id-8", "id-12", "id-16"]
    assert limited.left_out == 15


def test_a_data_set_that_draws_at_random_is_told() -> None:
    found = live_images(Numbers(2, noise=True))
    with pytest.raises(ImageError, match="random transforms"):
        fetched(found.images[0])
