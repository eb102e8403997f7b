"""Runs that are killed, interrupted, or run out of disk: nothing is lost, and the next run gives the same report.

More than the few of a usual test run, in about a second a processor each:

    python -m pytest tests/hostile/test_interruptions.py --kills 200 --every-write
    python -m pytest tests/hostile/test_interruptions.py --demo-kills 10 --demo-preset quick
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.hostile.runs import (
    Fault,
    Subject,
    Undisturbed,
    calls,
    documents,
    end_after,
    finished,
    leftovers,
    start,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked and killed")
FEW = 6
"""Writes at which a run is killed in a usual test run."""


def step_of(out: Path) -> str:
    """The step that a run was last heard of in."""
    said = re.findall(r"^\d (\w+)", (out / "log").read_text(), re.MULTILINE) if (out / "log").exists() else []
    return said[-1] if said else "begin"


def test_killed_at_a_random_moment(
    undisturbed: Undisturbed, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(0)
    seen: Counter[str] = Counter()
    wanted = request.config.getoption("--kills")
    while seen.total() < wanted:
        cache, out = tmp_path / "cache", tmp_path / "out"
        moment = Fault("moment", chance.uniform(0, undisturbed.seconds))
        if finished(undisturbed.context, undisturbed.subject, cache, out, moment) == -signal.SIGPROF:
            seen[step_of(out)] += 1  # otherwise it was done: no work was under way
            undisturbed.resumes(cache, out)
        for folder in (cache, out):
            shutil.rmtree(folder, ignore_errors=True)
    with capsys.disabled():
        if wanted > FEW:
            print("killed while at:", dict(seen))


@pytest.mark.parametrize("how", ["before", "after"])
def test_killed_at_a_write(how: str, undisturbed: Undisturbed, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    count = len(undisturbed.writes)
    places = range(count) if request.config.getoption("--every-write") else range(0, count, -(-count // (FEW // 2)))
    for place in places:
        cache, out = tmp_path / f"cache{place}", tmp_path / "out"
        status = finished(undisturbed.context, undisturbed.subject, cache, out, Fault(how, place))
        assert status == -signal.SIGKILL, place
        undisturbed.resumes(cache, out)
        shutil.rmtree(cache)


def demo(folder: Path, preset: str, end: float | None = None) -> int:
    """The demo as a user starts it, with all it keeps in one folder. Returns its exit status.

    Args:
        end: seconds of the processor's time after which it is killed.
    """
    folder.mkdir(exist_ok=True)
    told = {"REPORTGEN_CACHE_DIR": str(folder / "cache"), "SOURCE_DATE_EPOCH": "1700000000"}
    words = [sys.executable, "-m", "reportgen", "demo", "--directory", str(folder), "--preset", preset]
    before = None if end is None else partial(end_after, end)
    with (folder / "log").open("wb") as log:
        return subprocess.run(words, env={**os.environ, **told}, stdout=log, stderr=log, preexec_fn=before).returncode


def test_the_demo_killed_at_a_random_moment(
    tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, preset = request.config.getoption("--demo-kills"), request.config.getoption("--demo-preset")
    if not wanted:
        pytest.skip("it takes minutes: --demo-kills 10")
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert demo(tmp_path / "whole", preset) == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    expected = documents(tmp_path / "whole")
    assert set(expected) == {".html", ".pdf", ".json"}
    chance, done = random.Random(0), 0
    while done < wanted:
        folder, moment = tmp_path / "killed", chance.uniform(0, seconds)
        if demo(folder, preset, moment) == -signal.SIGPROF:  # otherwise it was done: no work was under way
            done += 1
            stored = len(list((folder / "cache").rglob("*.safetensors")))
            with capsys.disabled():
                print(f"killed after {moment:.0f} of {seconds:.0f} s, at {step_of(folder)}, {stored} entries stored")
            assert demo(folder, preset) == 0
            assert documents(folder) == expected
        shutil.rmtree(folder)


def test_writes_are_those_of_store_and_documents(undisturbed: Undisturbed) -> None:
    """So that a fault at each of them is a fault at every one there is."""
    kinds = Counter(undisturbed.writes)
    assert kinds["mkstemp"] == kinds["replace"] > 30
    assert kinds["fsync"] >= kinds["replace"] - 1  # the memory of digests may be lost


def test_interrupted_from_the_keyboard(undisturbed: Undisturbed, tmp_path: Path) -> None:
    for step in ("scan", "examine", "write"):
        cache, out = tmp_path / f"cache-{step}", tmp_path / f"out-{step}"
        process = start(undisturbed.context, undisturbed.subject, cache, out)
        while step_of(out) != step and process.is_alive():
            time.sleep(0.005)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGINT)
        process.join(60)
        assert process.exitcode == 130
        said = (out / "log").read_text().splitlines()
        assert not any("Traceback" in line for line in said)
        assert "reportgen: interrupted; what was computed is in the cache" in said
        assert not leftovers(out)
        undisturbed.resumes(cache, out)


def test_a_disk_without_room_for_the_store(undisturbed: Undisturbed, tmp_path: Path) -> None:
    quick = replace(undisturbed.subject, kinds=("html", "json"))
    for place in (0, len(undisturbed.writes) // 2):
        cache, out = tmp_path / f"cache{place}", tmp_path / f"out{place}"
        assert finished(undisturbed.context, quick, cache, out, Fault("full store", place)) == 0
        assert documents(out) == {kind: undisturbed.documents[kind] for kind in (".html", ".json")}
        assert "the cache cannot be written (No space left on device)" in (out / "log").read_text()
        undisturbed.resumes(cache, out)


def test_a_disk_without_room_for_the_report(undisturbed: Undisturbed, tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    out.mkdir()
    (out / "report.html").write_text("the old one")
    assert finished(undisturbed.context, undisturbed.subject, cache, out, Fault("full output")) == 1
    assert (out / "report.html").read_text() == "the old one"
    assert not leftovers(out)
    assert "No space left on device" in (out / "log").read_text().splitlines()[-2]
    undisturbed.resumes(cache, out)


def test_eight_runs_at_once(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """They all write the same, and the passes are those of one."""
    quick = replace(undisturbed.subject, kinds=("html", "json"))
    alone, together = tmp_path / "alone", tmp_path / "together"
    at_once(undisturbed.context, quick, alone, 1)
    outs = at_once(undisturbed.context, quick, together, 8)
    for out in outs:
        assert documents(out) == {kind: undisturbed.documents[kind] for kind in (".html", ".json")}
    (expected,) = [calls(out) for out in alone.glob("out*")]
    assert len(expected) > 10
    assert sorted(filter(None, map(calls, outs))) == [expected]


def test_locks_that_do_not_hold(undisturbed: Undisturbed, tmp_path: Path) -> None:
    quick = replace(undisturbed.subject, kinds=("html", "json"))
    outs = at_once(undisturbed.context, quick, tmp_path, 3, locks=False)
    for out in outs:
        assert documents(out) == {kind: undisturbed.documents[kind] for kind in (".html", ".json")}
    assert sum(1 for out in outs if calls(out)) > 1


def at_once(
    context: ForkServerContext, subject: Subject, folder: Path, count: int, *, locks: bool = True
) -> list[Path]:
    """Runs on one store that begin together; all end well."""
    outs = [folder / f"out{number}" for number in range(count)]
    processes = [start(context, subject, folder / "cache", out, locks=locks) for out in outs]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count
    assert not leftovers(folder)
    return outs
