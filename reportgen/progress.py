"""How far a run is: messages and bars on standard error, and events for whoever listens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One report of progress.

    Attributes:
        step: number of the step, from 1 to 6.
        name: of the step (``load``, ``plan``, ``scan``, ``examine``, ``draw``, ``write``).
        words: what is done, or what the step came to.
        done: how much of what the words tell is done; None where it is not counted.
        total: how much there is of it.
    """

    step: int
    name: str
    words: str
    done: int | None = None
    total: int | None = None


Listener = Callable[[Event], object]


class Stopped(BaseException):
    """A listener raised `error`. No Exception: what a technique raises is a section that says so, and this is not."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@dataclass
class Progress:
    """Where a run tells how far it is.

    Attributes:
        messages: write a line for every step.
        bars: draw bars (on a terminal).
        listener: called with every `Event`, in the thread of the run; what it raises ends the run.
    """

    messages: bool = False
    bars: bool = False
    listener: Listener | None = None
    _step: tuple[int, str] = (1, "load")

    @classmethod
    def on_terminal(cls, *, quiet: bool, always: bool) -> Progress:
        """Lines unless `quiet`; bars on a terminal only, or `always`."""
        return cls(messages=not quiet, bars=not quiet and (always or sys.stderr.isatty()))

    def step(self, number: int, name: str, words: str) -> None:
        """A line with the number of the step, as in the README."""
        self._step = number, name
        self._tell(words)
        if self.messages:
            print(f"{number} {name:8} {words}", file=sys.stderr)

    def note(self, words: str) -> None:
        """A line that belongs to no step."""
        self._tell(words)
        if self.messages:
            print(f"  {words}", file=sys.stderr)

    @contextmanager
    def bar(self, words: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """A bar; call what it yields with the number of units done since."""
        done = 0
        with self._drawn(words, total, unit) as draw:

            def tick(more: int) -> None:
                nonlocal done
                done += more
                draw(more)
                self._tell(words, done, total)

            yield tick

    @contextmanager
    def _drawn(self, words: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        if not self.bars or total == 0:
            yield lambda _done: None
            return
        from tqdm import tqdm

        with tqdm(total=total, desc=f"  {words}", unit=unit, file=sys.stderr, leave=False) as drawn:
            yield lambda done: void(drawn.update(done))

    def _tell(self, words: str, done: int | None = None, total: int | None = None) -> None:
        if self.listener is None:
            return
        try:
            self.listener(Event(*self._step, words, done, total))
        except Exception as error:
            raise Stopped(error) from error

    def each(self, items: Iterable[int], words: str, total: int, unit: str) -> None:
        """Run through `items`, each a number of units done."""
        with self.bar(words, total, unit) as tick:
            for done in items:
                tick(done)


def void(_value: object) -> None:
    """Drop a value."""
