"""Rows of a scan: stored by the first byte of the digest, found again, added to."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reportgen.engine.plan import Planned, bucket_of
from reportgen.engine.shards import Shards
from reportgen.store import Store
from reportgen.techniques.predictions import Predictions

FACTS = {"made": "2026-11-25"}


def shards(folder: Path) -> Shards:
    return Shards(Store(folder), Planned(Predictions(), (), {"technique": "predictions"}))


def row(number: int) -> dict[str, Any]:
    return {"logits": np.array([number, 0.5], np.float32), "entropy": np.array(number / 2)}


def digests(count: int) -> list[str]:
    """Of one shard, some with zeros at either end."""
    hashed = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]
    return [f"07{'00' * 31}", f"0700{hashed[0][4:62]}00", f"07{'ff' * 31}", *(f"07{one[2:]}" for one in hashed)]


def test_rows_are_found_again_and_added_to(tmp_path: Path) -> None:
    known = digests(20)
    order = np.random.default_rng(0).permutation(len(known)).tolist()
    written = shards(tmp_path)
    for part in (order[:9], order[9:]):
        for number in part:
            assert not written.knows(known[number])
            written.put(known[number], row(number))
        written.flush(7, FACTS)
    for read in (written, shards(tmp_path)):
        for number, digest in enumerate(known):
            found = read.row(digest)
            assert found is not None
            assert {name: array.tolist() for name, array in found.items()} == {
                "logits": [number, 0.5],
                "entropy": number / 2,
            }
            assert "digests" not in found
        assert read.row(f"07{'00' * 30}01") is None
        assert read.row(f"08{'00' * 31}") is None


def test_a_row_is_read_before_it_is_stored(tmp_path: Path) -> None:
    one = shards(tmp_path)
    one.put("07" * 32, row(1))
    assert one.knows("07" * 32)
    assert not shards(tmp_path).knows("07" * 32)


@pytest.mark.parametrize("others", [0, 2])
def test_reasons_are_stored_beside_rows(tmp_path: Path, others: int) -> None:
    written = shards(tmp_path)
    for number in range(others):
        written.put(digests(2)[number], row(number))
    written.put_error("07" * 32, "truncated")
    written.flush(bucket_of("07" * 32), FACTS)
    read = shards(tmp_path)
    assert read.error("07" * 32) == "truncated"
    assert read.row("07" * 32) is None
    assert read.knows("07" * 32)
    assert [read.knows(digest) for digest in digests(2)] == [number < others for number in range(5)]
