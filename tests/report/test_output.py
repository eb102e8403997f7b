"""A file is written wholly or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reportgen.errors import OutputError
from reportgen.report.output import check_writable, write_atomically

as_user = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")


def failing(*_words: object) -> None:
    raise OSError(28, "No space left on device")


def test_written_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_bytes(b"old")
    write_atomically(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_written_in_parts_or_not_at_all(tmp_path: Path) -> None:
    def parts(*, whole: bool) -> Iterator[bytes]:
        yield b"first "
        if not whole:
            raise ValueError("planted")
        yield b"second"

    target = tmp_path / "report.html"
    write_atomically(target, parts(whole=True))
    with pytest.raises(ValueError, match="planted"):
        write_atomically(target, parts(whole=False))
    assert target.read_bytes() == b"first second"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("function", ["fsync", "replace", "chmod"])
def test_a_failure_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    target = tmp_path / "report.html"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, function, failing)
    with pytest.raises(OutputError) as caught:
        write_atomically(target, b"new")
    assert "No space left" in caught.value.thing
    assert caught.value.remedy
    assert str(tmp_path) not in caught.value.thing
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def interrupted(*_words: object) -> None:
        raise error

    target = tmp_path / "report.html"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(error):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "report.html"
    real.write_bytes(b"old")
    link = tmp_path / "link.html"
    try:
        link.symlink_to(real)
    except OSError:
        pytest.skip("no symbolic links here")
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    dangling, lost, loop = (tmp_path / f"{name}.html" for name in ("dangling", "lost", "loop"))
    try:
        dangling.symlink_to(tmp_path / "not-yet.html")
        lost.symlink_to(tmp_path / "no-folder" / "report.html")
        loop.symlink_to(loop)
    except OSError:
        pytest.skip("no symbolic links here")
    check_writable(dangling)
    write_atomically(dangling, b"new")
    assert dangling.is_symlink()
    assert (tmp_path / "not-yet.html").read_bytes() == b"new"
    for target in (lost, loop):
        for attempt in (check_writable, lambda one: write_atomically(one, b"x")):
            with pytest.raises(OutputError) as caught:
                attempt(target)
            assert len(str(caught.value).splitlines()) == 2
            assert str(tmp_path) not in str(caught.value)
    assert loop.is_symlink()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["dangling.html", "loop.html", "lost.html", "not-yet.html"]


def test_a_target_that_changes_while_its_parts_are_made(tmp_path: Path) -> None:
    """It becomes a folder; its folder goes; the file itself goes, which is no reason not to write it."""

    def parts(change: Callable[[], object]) -> Iterator[bytes]:
        yield b"first "
        change()
        yield b"second"

    target = tmp_path / "sub" / "report.html"
    target.parent.mkdir()
    target.write_bytes(b"old")
    write_atomically(target, parts(target.unlink))
    assert target.read_bytes() == b"first second"
    target.unlink()
    with pytest.raises(OutputError, match=r"cannot write 'report\.html'"):
        write_atomically(target, parts(target.mkdir))
    assert list(target.parent.iterdir()) == [target]
    target.rmdir()
    with pytest.raises(OutputError, match=r"cannot write 'report\.html'"):
        write_atomically(target, parts(lambda: shutil.rmtree(target.parent)))
    assert not target.parent.exists()


@pytest.mark.skipif(os.name != "posix", reason="no file modes")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_mode_by_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "report.json", b"{}")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert (tmp_path / "report.json").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("name", ["n" * 240 + ".html", "猫" * 80 + ".pdf", '"><script>.json'])
def test_names_at_the_limit(tmp_path: Path, name: str) -> None:
    write_atomically(tmp_path / name, b"x")
    assert (tmp_path / name).read_bytes() == b"x"


def test_no_folder_no_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for target in (tmp_path / "sub", tmp_path / "absent" / "report.html"):
        with pytest.raises(OutputError):
            check_writable(target)
        with pytest.raises(OutputError):
            write_atomically(target, b"x")
    check_writable(tmp_path / "report.html")


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        check_writable(tmp_path / "file" / "report.html")


@as_user
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError):
            check_writable(tmp_path / "report.html")
    finally:
        tmp_path.chmod(0o700)
