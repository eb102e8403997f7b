"""Chromium as the tests drive it: the system's own, headless; what it asks for and says is recorded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "google-chrome-stable"))), None)


@dataclass
class Opened:
    """A page of one file, and what it did."""

    page: Any
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser. Without one the tests fail where everything must be tested, and are skipped elsewhere."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: scripts/setup.sh test installs it")
        pytest.skip("no Chromium here: scripts/setup.sh test says how to install it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, file: Path, **context: Any) -> Iterator[Opened]:
    """`file` in a fresh window of 1280 × 900, unless `context` says otherwise."""
    made = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **context})
    try:
        told = Opened(made.new_page())
        told.page.set_default_timeout(20_000)
        told.page.on("request", lambda request: told.requests.append(request.url))
        told.page.on("console", lambda message: told.messages.append(message.text))
        told.page.on("pageerror", lambda error: told.messages.append(str(error)))
        told.page.goto(file.as_uri())
        yield told
    finally:
        made.close()
