"""Messages and bars on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a run tells how far it is.

    Attributes:
        messages: write a line for every step.
        bars: draw bars (on a terminal).
    """

    messages: bool = False
    bars: bool = False

    @classmethod
    def on_terminal(cls, *, quiet: bool, always: bool) -> Progress:
        """Lines unless `quiet`; bars on a terminal only, or `always`."""
        return cls(messages=not quiet, bars=not quiet and (always or sys.stderr.isatty()))

    def step(self, number: int, name: str, words: str) -> None:
        """A line with the number of the step, as in the README."""
        if self.messages:
            print(f"{number} {name:8} {words}", file=sys.stderr)

    def note(self, words: str) -> None:
        """A line that belongs to no step."""
        if self.messages:
            print(f"  {words}", file=sys.stderr)

    @contextmanager
    def bar(self, words: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """A bar; call what it yields with the number of units done since."""
        if not self.bars or total == 0:
            yield lambda _done: None
            return
        from tqdm import tqdm

        with tqdm(total=total, desc=f"  {words}", unit=unit, file=sys.stderr, leave=False) as drawn:
            yield lambda done: void(drawn.update(done))

    def each(self, items: Iterable[int], words: str, total: int, unit: str) -> None:
        """Run through `items`, each a number of units done."""
        with self.bar(words, total, unit) as tick:
            for done in items:
                tick(done)


SILENT = Progress()
"""Tells nothing."""


def void(_value: object) -> None:
    """Drop a value."""
