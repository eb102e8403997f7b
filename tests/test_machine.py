"""What is asked of the machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
from reportgen.machine import keep_freed_memory
if {kept}:
    keep_freed_memory()
for _ in range(40):
    b"x" * (40 << 20)  # larger than what glibc ever keeps of itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def faults(*, kept: bool, **environment: str) -> int:
    """Pages that the system had to clear for a process that takes and frees 40 MB again and again."""
    words = [sys.executable, "-c", FAULTS.format(kept=kept)]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    return int(subprocess.run(words, env={**plain, **environment}, capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_what_is_freed_is_kept_for_what_comes() -> None:
    without = faults(kept=False)
    assert faults(kept=True) < without / 4
    assert faults(kept=True, MALLOC_ARENA_MAX="2") > without / 2  # the user's own setting is not meddled with


KNOTS = """
import gc, weakref
from reportgen.machine import unreclaimed
class Knot: pass
def tie():
    one = Knot()
    one.itself = one
    return weakref.ref(one)
try:
    with unreclaimed():
        assert not gc.isenabled()
        meanwhile = tie()
        raise KeyError
except KeyError:
    pass
later = tie()
gc.collect()
print(gc.isenabled(), meanwhile() is not None, later() is not None)
"""


def test_garbage_made_meanwhile_is_never_looked_for() -> None:
    told = subprocess.run([sys.executable, "-c", KNOTS], capture_output=True, check=True, text=True).stdout
    assert told.split() == ["True", "True", "False"]
