"""Places in a text that are filled when it is written: what is large, or known only at the end."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator

from markupsafe import Markup


class Marks:
    """Each mark stands for pieces of HTML that are made when its turn comes.

    No word in a document can be taken for a mark: no one knows what marks are made of, and none is left.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_hex(16)
        self._made: list[Callable[[], Iterable[str]]] = []

    def mark(self, make: Callable[[], Iterable[str]]) -> Markup:
        """Stands for the pieces of HTML that `make` will give."""
        self._made.append(make)
        return Markup(f"{self._secret}-{len(self._made) - 1}.")

    def filled(self, text: str) -> Iterator[str]:
        """`text` in pieces, with what they stand for in place of marks."""
        for place, piece in enumerate(re.split(rf"{self._secret}-([0-9]+)\.", text)):
            yield from (piece,) if place % 2 == 0 else self._made[int(piece)]()
