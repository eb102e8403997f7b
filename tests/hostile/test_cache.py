"""A store that was damaged, taken away, made read-only or written by another version: never a wrong answer from it."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reportgen.store import Store
from tests.hostile.runs import Fault, Undisturbed, documents, finished

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")


def flipped(path: Path, chance: random.Random) -> None:
    """One bit of what it holds."""
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data) - len(data) // 4, len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def truncated(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def emptied(path: Path, _chance: random.Random) -> None:
    path.write_bytes(b"")


def zeroed(path: Path, _chance: random.Random) -> None:
    """As a file system leaves one whose bytes never reached the disk."""
    path.write_bytes(bytes(path.stat().st_size))


def exchanged(path: Path, chance: random.Random) -> None:
    """A sound entry under another's key."""
    others = sorted(other for other in path.parents[1].glob("??/*.safetensors") if other != path)
    shutil.copyfile(chance.choice(others), path)


def removed(path: Path, _chance: random.Random) -> None:
    path.unlink()


def a_folder(path: Path, _chance: random.Random) -> None:
    path.unlink()
    path.mkdir()


def a_link_to_nowhere(path: Path, _chance: random.Random) -> None:
    path.unlink()
    path.symlink_to("nowhere")


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    flipped,
    truncated,
    emptied,
    zeroed,
    exchanged,
    removed,
    a_folder,
    a_link_to_nowhere,
)


@pytest.fixture(scope="module")
def full(undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with everything in it."""
    folder = tmp_path_factory.mktemp("full")
    assert finished(undisturbed.context, undisturbed.subject, folder / "cache", folder / "out") == 0
    return folder / "cache"


def entries(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.safetensors"))


def answers(undisturbed: Undisturbed, cache: Path, out: Path, fault: Fault | None = None) -> None:
    """A run on this store writes what an undisturbed one does."""
    shutil.rmtree(out, ignore_errors=True)
    assert finished(undisturbed.context, undisturbed.subject, cache, out, fault) == 0, (out / "log").read_text()
    assert documents(out) == undisturbed.documents


def test_one_damaged_entry(
    undisturbed: Undisturbed, full: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Of every other kind of entry one, or each entry, in the one or the other way."""
    chance = random.Random(0)
    store = Store(full)
    first = {str((store.get(path.stem) or pytest.fail(path.name)).facts.get("kind")): path for path in entries(full)}
    chosen = entries(full) if request.config.getoption("--every-write") else list(first.values())[::2]
    for number, path in enumerate(chosen):
        cache = tmp_path / "cache"
        shutil.copytree(full, cache)
        damage = DAMAGES[number % len(DAMAGES)]
        damage(cache / path.relative_to(full), chance)
        answers(undisturbed, cache, tmp_path / "out")
        shutil.rmtree(cache)


def test_all_entries_damaged(undisturbed: Undisturbed, full: Path, tmp_path: Path) -> None:
    cache, chance = tmp_path / "cache", random.Random(1)
    shutil.copytree(full, cache)
    for path in entries(cache):
        chance.choice(DAMAGES[:-3])(path, chance)
    answers(undisturbed, cache, tmp_path / "out")


def test_a_store_that_vanishes_during_the_run(undisturbed: Undisturbed, tmp_path: Path) -> None:
    answers(undisturbed, tmp_path / "cache", tmp_path / "out", Fault("vanish", len(undisturbed.writes) // 2))
    assert "the cache cannot be written" in (tmp_path / "out" / "log").read_text()


def test_a_store_that_can_only_be_read(undisturbed: Undisturbed, full: Path, tmp_path: Path) -> None:
    cache = tmp_path / "half"
    shutil.copytree(full, cache)
    for path in entries(cache)[::2]:
        path.unlink()
    there = sorted(cache.rglob("*"))
    answers(undisturbed, cache, tmp_path / "out", Fault("read-only"))
    assert "the cache cannot be written (Read-only file system)" in (tmp_path / "out" / "log").read_text()
    assert sorted(cache.rglob("*")) == there


def test_a_store_full_of_what_others_left(undisturbed: Undisturbed, full: Path, tmp_path: Path) -> None:
    """Another layout, notes of another version, files of no one."""
    cache = tmp_path / "cache"
    shutil.copytree(full, cache)
    (cache / "digests.json").write_text('{"version": 0, "files": [1, 2]}')
    (cache / "objects" / "index.json").write_text("[]")
    (cache / "objects" / "zz").write_text("no folder")
    (cache / "objects" / "00").mkdir(exist_ok=True)
    (cache / "objects" / "00" / f"{'0' * 64}.safetensors").write_bytes(b"an entry of long ago")
    (cache / "CACHEDIR.TAG").unlink()
    answers(undisturbed, cache, tmp_path / "out")
