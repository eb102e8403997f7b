"""What all tests share: no test touches the user's cache or opens a window."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["MPLBACKEND"] = "Agg"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--rewrite-golden``: write the documents that tests hold others against anew."""
    parser.addoption("--rewrite-golden", action="store_true", help="write the documents in tests/report/golden anew")


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own for each test, also for the programs that it starts."""
    directory = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("REPORTGEN_CACHE_DIR", str(directory))
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    return directory
