"""The reviewer's own words: a Markdown file, set in the report. It is read as text from a stranger.

CommonMark with tables. Tags are shown as they were typed, pictures as their words; links keep the schemes that fetch
nothing by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from reportgen.errors import UsageError
from reportgen.text import line

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

MOST_BYTES: Final = 1_000_000
SHIFT: Final = 3
"""Notes stand below a heading of the third level: their first is the fourth, and nothing is below the sixth."""

_ALLOWED: Final = re.compile(r"(https?://|mailto:|#)", re.IGNORECASE)


def read_notes(file: Path) -> str:
    """The text of a notes file. Raises UsageError if it cannot be read, is no text, or is not of a size for notes."""
    name = line(file.name)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the notes {name!r}: {error.strerror}", "check the path of --notes") from None
    if len(data) > MOST_BYTES:
        raise UsageError(f"the notes {name!r} have more than {MOST_BYTES // 1000} kB", "give a shorter --notes")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise UsageError(f"the notes {name!r} are not UTF-8 text (line {number})", "save them as UTF-8") from None


def notes_html(markdown: str) -> Markup:
    """Notes as HTML that can stand in any document: no ids, no styles, no scripts, nothing that is fetched."""
    return Markup(_reader().render(markdown))


@cache
def _reader() -> MarkdownIt:
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    reader.validateLink = lambda url: bool(_ALLOWED.match(url))  # type: ignore[method-assign]
    for name, rule in (
        ("heading_open", _heading),
        ("heading_close", _heading),
        ("image", _words_of_picture),
        ("link_open", _link),
        ("th_open", _cell),
        ("td_open", _cell),
    ):
        reader.add_render_rule(name, rule)
    return reader


def _heading(self: Any, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
    token = tokens[place]
    token.tag = f"h{min(int(token.tag[1:]) + SHIFT, 6)}"
    return str(self.renderToken(tokens, place, options, env))


def _words_of_picture(self: Any, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
    return str(Markup("[{}]").format(self.renderInlineAsText(tokens[place].children or [], options, env)))


def _link(self: Any, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
    tokens[place].attrSet("rel", "noopener noreferrer")
    return str(self.renderToken(tokens, place, options, env))


def _cell(self: Any, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
    token = tokens[place]
    # the policy of the page forbids style attributes
    right = "right" in str(token.attrs.pop("style", ""))
    if right:
        token.attrSet("class", "r")
    return str(self.renderToken(tokens, place, options, env))
