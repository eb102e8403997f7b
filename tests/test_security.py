"""The table in SECURITY.md counts right, and its commands run something.

After a change of the suites: ``python -m pytest tests/test_security.py --rewrite-golden`` writes the counts anew.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| `pytest ([^`]+)` \| (\d+) \|", re.MULTILINE)


def test_counts_of_tests(request: pytest.FixtureRequest) -> None:
    page = ROOT / "SECURITY.md"
    rows = [(files.split(), int(count)) for files, count in ROW.findall(page.read_text(encoding="utf-8"))]
    files = [file for listed, _count in rows for file in listed]
    assert len(files) == len(set(files)) > 10
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "addopts=--import-mode=importlib", *files]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = Counter(line.partition("::")[0] for line in said.splitlines() if "::" in line)
    counts = [sum(found[file] for file in listed) for listed, _count in rows]
    assert all(found[file] for file in files)
    if request.config.getoption("--rewrite-golden"):
        remaining = iter(counts)
        told = ROW.sub(lambda hit: f"| `pytest {hit[1]}` | {next(remaining)} |", page.read_text(encoding="utf-8"))
        page.write_text(told, encoding="utf-8")
    else:
        assert [count for _listed, count in rows] == counts
