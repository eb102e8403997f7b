"""Exhibits whose last page would be all but empty, and what is done about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from reportgen.report.document import Document
from reportgen.report.environment import contents

_LITTLE: Final = 0.3
"""Of a page, margins included: what ends above stands alone on it."""


@dataclass(frozen=True)
class Leaves:
    """How exhibits are set that would not be set well as others are.

    Attributes:
        close: numbers of those whose pictures are smaller, counted from 0.
        parted: of those that are too long all the same, so that more of them goes to the next page.
    """

    close: frozenset[int] = frozenset()
    parted: frozenset[int] = frozenset()

    def after(self, pages: Sequence[Any], document: Document) -> Leaves:
        """What to do with the exhibits, seen how they were laid out; the same where it is well.

        Args:
            pages: those of WeasyPrint, which tell where anchors and links stand in pixels of CSS from the top.
        """
        short = frozenset(_short(pages, document))
        parted = short & self.close
        return replace(self, close=(self.close | short) - parted - self.parted, parted=self.parted | parted)


def exhibit_anchor(number: int) -> str:
    """Where an exhibit begins, counted from 0."""
    return f"exhibit-{number + 1}"


def _short(pages: Sequence[Any], document: Document) -> Iterator[int]:
    """Numbers of the exhibits of several pages with little on the last."""
    begins = {anchor: number for number, page in enumerate(pages) for anchor in page.anchors}
    chapters = [begins.get(entry.anchor) for entry in contents(document)]
    before = len(chapters) - 1 - len(document.exhibits)
    for number, (begin, end) in enumerate(pairwise(chapters[before:])):
        if begin is None or end is None or end - begin < 2:
            continue
        last = pages[end - 1]
        # places are rectangles, or points as in some versions: what comes last is how low they reach
        lowest = [place[-1] for place in last.anchors.values()] + [
            place[-1] for _kind, _target, place, _box in last.links
        ]
        if lowest and max(lowest) < _LITTLE * last.height:
            yield number
