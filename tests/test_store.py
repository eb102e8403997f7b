"""The store believes nothing that is not exactly what was written, and survives what disks and users do."""

from __future__ import annotations

import errno
import gc
import os
import stat
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from reportgen import store as module
from reportgen.errors import StoreError
from reportgen.store import Store, key_of

ARRAYS = {
    "a/b": np.arange(12, dtype=np.float32).reshape(3, 4),
    "empty": np.zeros((0, 2), np.int64),
    "one": np.float16([1.5]),
}
FACTS = {"kind": "test", "words": 'a "quoted" ü', "list": [1, 2.5, None]}


def test_what_is_put_is_got(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key = key_of("x", n=1)
    assert store.get(key) is None
    store.put(key, ARRAYS, FACTS)
    entry = Store(tmp_path).get(key)
    assert entry is not None
    assert entry.facts == FACTS
    assert set(entry.arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert entry.arrays[name].dtype == array.dtype
        assert np.array_equal(entry.arrays[name], array)


def test_an_entry_may_hold_facts_alone(tmp_path: Path) -> None:
    Store(tmp_path).put(key_of("x"), {}, FACTS)
    entry = Store(tmp_path).get(key_of("x"))
    assert entry is not None
    assert (dict(entry.arrays), entry.facts) == ({}, FACTS)


def test_key_depends_on_every_part_and_not_on_order() -> None:
    assert key_of("x", a=1, b=2) == key_of("x", b=2, a=1)
    assert len({key_of("x", a=1), key_of("y", a=1), key_of("x", a=2), key_of("x", a="1"), key_of("x", b=1)}) == 5


def test_every_damaged_byte_is_a_miss(tmp_path: Path) -> None:
    store, key = Store(tmp_path), key_of("x")
    store.put(key, {"a": np.arange(4, dtype=np.uint8)}, {"kind": "test"})
    path = store.path(key)
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x20
        path.write_bytes(bytes(damaged))
        entry = store.get(key)
        # white space that pads the header may change without changing what it says
        assert entry is None or (entry.facts == {"kind": "test"} and entry.arrays["a"].tolist() == [0, 1, 2, 3]), place
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert store.get(key) is None
        assert not path.exists()


def test_arrays_are_read_one_by_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    arrays = {"b": np.arange(300, dtype=np.uint8), "a": np.zeros(0, np.uint8), "c": np.arange(7, dtype=np.int64)}
    store.put(key_of("x"), arrays, FACTS)
    opened = store.open(key_of("x"))
    assert opened is not None
    store.path(key_of("x")).unlink()
    assert {name: opened.read(name) for name in "cab"} == {name: array.tobytes() for name, array in arrays.items()}
    with pytest.raises(KeyError):
        opened.read("d")
    assert store.open(key_of("x")) is None


def test_an_opened_entry_closes_its_file_in_silence(tmp_path: Path) -> None:
    """Also where it goes as part of a cycle, in which its file may be looked at first."""
    store = Store(tmp_path)
    store.put(key_of("x"), {"a": np.ones(3, np.float32)}, {})
    opened = store.open(key_of("x"))
    assert opened is not None
    descriptor = opened._file.fileno()  # type: ignore[union-attr]
    ring: list[object] = [opened]
    ring.append(ring)
    opened.ring = ring  # type: ignore[attr-defined]
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        del opened, ring
        gc.collect()
    assert not complaints
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)


def test_only_what_is_sound_is_opened(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(key_of("x"), ARRAYS, FACTS)
    path = store.path(key_of("x"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert store.open(key_of("x")) is None
    assert not path.exists()


def test_what_is_read_alone_is_believed_by_itself(tmp_path: Path) -> None:
    """Whatever byte of the header or of this array is damaged, and though nobody looks at the others."""
    store, key = Store(tmp_path), key_of("x")
    facts = {"errors": {"some image": "truncated"}}
    store.put(key, {"index": np.arange(64, dtype=np.uint8).reshape(2, 32), "rows": np.zeros(9, np.float32)}, facts)
    whole = store.path(key).read_bytes()
    expected = np.arange(64).reshape(2, 32).tolist()
    answers = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x02
        store.path(key).write_bytes(bytes(damaged))
        found = store.peek(key, "index")
        if found is not None:
            answers += 1
            assert (found[0].tolist(), found[1]) == (expected, facts), place
    assert answers >= 36  # those of the other array do not count
    assert store.digest(key) is not None


@pytest.mark.parametrize("header", [b"{}", b"[]", b'{"__metadata__":{"facts":"[]"}}', b"no JSON"])
def test_a_file_that_is_no_entry_is_counted_as_damaged(header: bytes, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(key_of("x"), {}, {})
    path = store.path(key_of("x"))
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert store.info()["kinds"] == {"damaged": {"entries": 1, "bytes": path.stat().st_size}}


def test_the_digest_tells_contents_apart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.digest(key_of("x")) is None
    told = set()
    for value in (1, 2, 1):
        store.put(key_of("x"), {"a": np.array([value])}, FACTS)
        told.add(store.digest(key_of("x")))
    assert len(told) == 2
    store.path(key_of("x")).write_bytes(b"no header")
    assert store.digest(key_of("x")) is None


def test_an_entry_under_another_key_is_a_miss(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(key_of("x"), {}, FACTS)
    other = store.path(key_of("y"))
    other.parent.mkdir(exist_ok=True)
    os.replace(store.path(key_of("x")), other)
    assert store.get(key_of("y")) is None


def test_what_an_older_version_stored_is_never_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither under its own key nor, by whatever accident, under today's."""
    store = Store(tmp_path)
    monkeypatch.setattr(module, "SCHEMA", module.SCHEMA - 1)
    old = key_of("x", n=1)
    store.put(old, ARRAYS, FACTS)
    monkeypatch.undo()
    new = key_of("x", n=1)
    assert new != old
    assert store.get(new) is None
    store.path(new).parent.mkdir(exist_ok=True)
    metadata = {"key": new, "facts": "{}", "digest": "0" * 64}  # there were no marks then
    store.path(new).write_bytes(save({"a": np.zeros(3, np.uint8)}, metadata=metadata))
    assert (store.peek(new, "a"), store.digest(new), store.open(new)) == (None, None, None)
    assert not store.path(new).exists()


def test_full_disk_keeps_results_for_this_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)

    def full(_path: Path, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_write", full)
    store.put(key_of("x"), ARRAYS, FACTS)
    store.put(key_of("y"), ARRAYS, FACTS)
    assert store.get(key_of("x")) is not None
    assert store.has(key_of("y"))
    opened = store.open(key_of("x"))
    assert opened is not None
    assert {name: opened.read(name) for name in ARRAYS} == {name: one.tobytes() for name, one in ARRAYS.items()}
    assert store.digest(key_of("x")) is not None
    assert store.notices == ["the cache cannot be written (No space left on device): results of this run are not kept"]
    assert Store(tmp_path).get(key_of("x")) is None


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)

    def interrupted(_handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.put(key_of("x"), ARRAYS, FACTS)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "CACHEDIR.TAG"]


def test_readable_by_its_owner_only(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    store.put(key_of("x"), ARRAYS, FACTS)
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    assert stat.S_IMODE(store.path(key_of("x")).stat().st_mode) == 0o600


def test_oldest_go_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keys = [key_of("x", n=n) for n in range(4)]
    for age, key in enumerate(keys):
        store.put(key, ARRAYS, FACTS)
        os.utime(store.path(key), (1_000_000 + age, 1_000_000 + age))
    assert store.get(keys[0]) is not None  # used just now: the youngest
    size = store.path(keys[0]).stat().st_size
    entries, freed = store.prune(2 * size)
    assert (entries, freed) == (2, 2 * size)
    assert [store.has(key) for key in keys] == [True, False, False, True]


def test_limit_holds_after_a_run(tmp_path: Path) -> None:
    store = Store(tmp_path, limit=1)
    store.put(key_of("x"), ARRAYS, FACTS)
    store.close()
    assert not store.has(key_of("x"))


def test_info_and_verify(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for n in range(3):
        store.put(key_of("x", n=n), ARRAYS, FACTS)
    broken = store.path(key_of("x", n=1))
    broken.write_bytes(broken.read_bytes()[:-1])
    (broken.parent / "left.part").write_bytes(b"x")
    info = store.info()
    assert info["entries"] == 3
    assert info["kinds"]["test"]["entries"] == 3
    assert store.verify() == (2, 2)
    assert store.verify() == (2, 0)


def test_temporary_store_goes_with_its_object() -> None:
    store = Store(None)
    store.put(key_of("x"), ARRAYS, FACTS)
    base = store.base
    store.close()
    assert store.get(key_of("x")) is not None
    del store
    assert not base.exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("x")
    with pytest.raises(StoreError, match="cannot be used"):
        Store(tmp_path / "cache")
