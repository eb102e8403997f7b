"""Digests against hashlib, and the memory of them against files that change behind its back."""

from __future__ import annotations

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reportgen.subject import digests
from reportgen.subject.digests import DigestMemory, digest_of_live, open_regular, sha256_of


def write(file: Path, data: bytes, *, age: float = 100.0) -> Path:
    """A file whose last change lies `age` seconds back."""
    file.write_bytes(data)
    stamp = time.time() - age
    os.utime(file, (stamp, stamp))
    return file


@pytest.fixture
def aged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a file's last change (ctime) cannot be set: let the clock run ahead of it instead."""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 10**10)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that were read, in order."""
    seen: list[Path] = []

    def counting(path: Path) -> str:
        seen.append(path)
        return sha256_of(path)

    monkeypatch.setattr(digests, "sha256_of", counting)
    return seen


def test_sha256(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    assert sha256_of(write(tmp_path / "a", data)) == hashlib.sha256(data).hexdigest()
    assert DigestMemory(None).sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


@pytest.mark.usefixtures("aged")
def test_a_second_run_reads_nothing(tmp_path: Path, reads: list[Path]) -> None:
    files = [write(tmp_path / f"{number}", bytes([number])) for number in range(20)]
    first = DigestMemory(tmp_path / "memory.json")
    expected = [first.sha256(file) for file in files]
    assert reads == files
    first.save()
    second = DigestMemory(tmp_path / "memory.json")
    assert [second.sha256(file) for file in files] == expected
    assert len(reads) == 20
    before = (tmp_path / "memory.json").stat().st_mtime_ns
    second.save()
    assert (tmp_path / "memory.json").stat().st_mtime_ns == before


@pytest.mark.usefixtures("aged")
def test_changes_are_seen(tmp_path: Path) -> None:
    file = write(tmp_path / "a", b"one")
    memory = DigestMemory(tmp_path / "memory.json")
    memory.sha256(file)
    # another size
    write(file, b"three")
    assert memory.sha256(file) == hashlib.sha256(b"three").hexdigest()
    # the same size and time, in place: the time of the inode's change tells
    status = file.stat()
    file.write_bytes(b"other")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert memory.sha256(file) == hashlib.sha256(b"other").hexdigest()
    # the same size and time, another file under the name
    status = file.stat()
    write(tmp_path / "b", b"third")
    os.utime(tmp_path / "b", ns=(status.st_atime_ns, status.st_mtime_ns))
    (tmp_path / "b").replace(file)
    assert memory.sha256(file) == hashlib.sha256(b"third").hexdigest()


def test_a_file_changed_just_now_is_not_trusted(tmp_path: Path, reads: list[Path]) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    memory = DigestMemory(None)
    memory.sha256(file)
    file.write_bytes(b"two")
    assert memory.sha256(file) == hashlib.sha256(b"two").hexdigest()
    assert len(reads) == 2
    time.sleep(0.1)
    memory.sha256(file)
    memory.sha256(file)
    # remembered from the first time on that the change lay back far enough, at the latest after the coarse grain
    assert len(reads) in (3, 4)


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aged: None
) -> None:
    file = write(tmp_path / "a", b"one")

    def slow(path: Path) -> str:
        digest = sha256_of(path)
        write(path, b"another")
        return digest

    memory = DigestMemory(None)
    with monkeypatch.context() as patched:
        patched.setattr(digests, "sha256_of", slow)
        memory.sha256(file)
    assert memory.sha256(file) == hashlib.sha256(b"another").hexdigest()


@pytest.mark.usefixtures("aged")
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"\xff\xfe" + data,
        lambda data: data.replace(b'":"', b'":"X', 1),
        lambda data: b"[1,2]\n{}\n",
        lambda data: b"[" * 100_000,
        lambda data: data.split(b"\n")[1],
        lambda data: json.dumps({"a": ["b"]}).encode(),
    ],
)
def test_a_damaged_memory_is_empty(tmp_path: Path, damage: object, reads: list[Path]) -> None:
    file = write(tmp_path / "a", b"one")
    kept = tmp_path / "memory.json"
    memory = DigestMemory(kept)
    memory.sha256(file)
    memory.save()
    kept.write_bytes(damage(kept.read_bytes()))  # type: ignore[operator]
    again = DigestMemory(kept)
    assert again.sha256(file) == hashlib.sha256(b"one").hexdigest()
    assert len(reads) == 2
    again.save()
    assert DigestMemory(kept).sha256(file) == hashlib.sha256(b"one").hexdigest()
    assert len(reads) == 2


@pytest.mark.usefixtures("aged")
def test_what_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    file = write(tmp_path / "a", b"one")
    memory = DigestMemory(tmp_path / "no such folder" / "memory.json")
    memory.sha256(file)
    memory.save()
    (tmp_path / "folder.json").mkdir()
    memory = DigestMemory(tmp_path / "folder.json")
    memory.sha256(file)
    memory.save()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "folder.json"]


@pytest.mark.usefixtures("aged")
def test_two_runs_that_save_keep_what_both_learned(tmp_path: Path, reads: list[Path]) -> None:
    one, two = write(tmp_path / "1", b"one"), write(tmp_path / "2", b"two")
    first, second = DigestMemory(tmp_path / "m.json"), DigestMemory(tmp_path / "m.json")
    first.sha256(one)
    second.sha256(two)
    first.save()
    second.save()
    third = DigestMemory(tmp_path / "m.json")
    third.sha256(one)
    third.sha256(two)
    assert reads == [one, two]


@pytest.mark.usefixtures("aged")
def test_the_memory_is_bounded(tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "MOST", 5)
    files = [write(tmp_path / f"{number}", b"x") for number in range(6)]
    for part in (files[:5], [files[0], files[5]]):
        memory = DigestMemory(tmp_path / "m.json")
        for file in part:
            memory.sha256(file)
        memory.save()
    reads.clear()
    memory = DigestMemory(tmp_path / "m.json")
    for file in files:
        memory.sha256(file)
    # the one that nobody asked for longest has gone
    assert reads == [files[1]]


@pytest.mark.usefixtures("aged")
def test_the_memory_tells_no_path(tmp_path: Path) -> None:
    memory = DigestMemory(tmp_path / "m.json")
    memory.sha256(write(tmp_path / "patient-meier.png", b"x"))
    memory.save()
    assert b"meier" not in (tmp_path / "m.json").read_bytes()
    assert (tmp_path / "m.json").stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("aged")
def test_threads(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{number}", bytes([number])) for number in range(100)]
    memory = DigestMemory(tmp_path / "m.json")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(memory.sha256, files * 3))
    assert made == [hashlib.sha256(bytes([number])).hexdigest() for number in range(100)] * 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_are_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path / "pipe", Path(os.devnull), tmp_path):
        with pytest.raises(OSError, match=r"pipe, socket or device|a folder"):
            sha256_of(special)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_file_that_becomes_a_pipe_between_two_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    regular = (tmp_path / "file").touch() or os.stat(tmp_path / "file")
    monkeypatch.setattr(os, "stat", lambda path: regular)
    with pytest.raises(OSError, match="pipe"):
        open_regular(tmp_path / "pipe")


def test_live_images_differ_where_they_look_different() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    image = Image.fromarray(pixels)
    turned = Image.fromarray(pixels)
    turned.getexif()[0x0112] = 6
    palette = image.quantize(4)
    other_palette = palette.copy()
    other_palette.putpalette(bytes(range(12)))
    different = [
        image,
        turned,
        palette,
        other_palette,
        image.convert("L"),
        image.resize((3, 4)),
        pixels,
        pixels.reshape(4, 12),
        pixels.astype(np.int16),
        pixels[::-1],
    ]
    assert len({digest_of_live(one) for one in different}) == len(different)
    assert digest_of_live(image) == digest_of_live(image.copy())
    assert digest_of_live(pixels[::-1]) == digest_of_live(pixels[::-1].copy())


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(12.0).reshape(3, 2, 2).requires_grad_()
    assert digest_of_live(tensor) == digest_of_live(tensor.detach().numpy())
