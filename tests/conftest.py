"""What all tests share: no test touches the user's cache or opens a window."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("usual", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("usual"), max_examples=3000)
settings.load_profile("usual")

os.environ["MPLBACKEND"] = "Agg"


def pytest_addoption(parser: pytest.Parser) -> None:
    """What a test run can be asked to do besides, or more of."""
    parser.addoption("--rewrite-golden", action="store_true", help="write the golden documents and counts anew")
    parser.addoption("--kills", type=int, default=4, help="runs that are killed at a random moment (%(default)s)")
    parser.addoption(
        "--every-write", action="store_true", help="kill a run at each of its writes, damage each entry, not a few"
    )
    parser.addoption("--demo-kills", type=int, default=0, help="runs of the demo that are killed, minutes each (none)")
    parser.addoption("--demo-preset", default="standard", help="how much of the demo they do (%(default)s)")


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own for each test, also for the programs that it starts."""
    directory = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("REPORTGEN_CACHE_DIR", str(directory))
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    return directory
