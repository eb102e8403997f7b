"""A finished page that a user's templates had a hand in: does it still ask for nothing?"""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Final

from reportgen.errors import UsageError
from reportgen.text import line

_ADDRESSES: Final = frozenset(("src", "srcset", "poster", "data", "action", "formaction", "background", "ping", "href"))
_INERT: Final = ("data:", "#")


def check_page(page: str, policy: str, folder: str) -> None:
    """Raises UsageError unless the policy stands before whatever it rules, and no element has an address outside.

    Links that a reader follows by hand may lead anywhere.

    Args:
        folder: name of that of the templates, for messages.
    """
    reader = _Reader()
    reader.feed(page)
    reader.close()
    if reader.policies != [policy]:
        raise UsageError(
            f"the templates in {line(folder)!r} leave out the content security policy, or come before it",
            'keep <meta http-equiv="Content-Security-Policy" content="{{ policy }}"> first in the head',
        )
    if reader.asked:
        tag, address = reader.asked[0]
        raise UsageError(
            f"a template in {line(folder)!r} asks for {line(address, 80)!r} (<{tag}>)",
            "a report fetches nothing: embed it as data:, or leave it out",
        )


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.policies: list[str] = []
        self.asked: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        if tag == "meta" and told.get("http-equiv", "").lower() == "content-security-policy":
            self.policies.append(told.get("content", ""))
        elif tag == "meta" and told.get("http-equiv", "").lower() == "refresh":
            self.asked.append((tag, told.get("content", "")))
        elif tag in ("style", "script", "link", "img", "body") and not self.policies:
            self.policies.append("")  # it comes too late
        if tag == "a":
            return
        for name, value in told.items():
            if name.rpartition(":")[2] in _ADDRESSES and value and not value.startswith(_INERT):
                self.asked.append((tag, value))
