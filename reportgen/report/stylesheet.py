"""Style sheets: the report's own in the colour of a house, and one that a user adds, which may fetch nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from reportgen.errors import UsageError
from reportgen.figures.contrast import lightened
from reportgen.figures.fonts import HAN
from reportgen.figures.han import FAMILY
from reportgen.report.document import ACCENT, Style
from reportgen.text import line, shown_page

ACCENT_ON_DARK: Final = "#8ab8e6"
"""What the report's own style sheets call their one colour on a dark page."""

_LAST: Final = '"Report Mono"'
"""Every stack of fonts in the style sheet for print ends in it."""

_FETCHING: Final = frozenset(("url", "src", "image", "image-set", "-webkit-image-set", "cross-fade"))
_FAULTY: Final = {"bad-url": "a url() that does not end", "bad-string": "a string that does not end"}


def styled(css: str, style: Style) -> str:
    """A style sheet of the report in the colour of `style`, with what the user adds behind it."""
    if style.accent != ACCENT:
        css = css.replace(ACCENT, style.accent).replace(ACCENT_ON_DARK, lightened(style.accent))
    return f"{css}\n{style.css}" if style.css else css


def with_han(css: str) -> str:
    """A style sheet for print whose every stack of fonts ends in the one for Chinese."""
    face = f'@font-face {{ font-family: "{FAMILY}"; src: url(font:{HAN}) }}\n'
    stacks = re.sub(r"@font-face\s*\{[^}]*\}|" + _LAST, lambda hit: _followed(hit[0]), css)
    return face + stacks


def _followed(words: str) -> str:
    return f'{words}, "{FAMILY}"' if words == _LAST else words


def read_css(file: Path) -> str:
    """The text of a user's style sheet.

    Raises:
        UsageError: with file and line, if it cannot be read, is broken, would fetch anything, or could end the element
            that it stands in.
    """
    import tinycss2

    name = line(file.name)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read the style sheet {name!r}: {error.strerror}", "check the path of --css") from None
    except UnicodeDecodeError:
        raise UsageError(f"the style sheet {name!r} is not UTF-8 text", "save it as UTF-8") from None
    for number, row in enumerate(text.split("\n"), 1):
        if shown_page(row) != row:
            raise UsageError(
                f"{name}, line {number}: an unseen character", "write it as an escape of CSS, such as \\202e"
            )
        if "</style" in row.lower():
            raise UsageError(f"{name}, line {number}: a style sheet holds no </style", "remove it")
    _check(tinycss2.parse_stylesheet(text, skip_comments=True, skip_whitespace=True), name)
    return text


def _check(nodes: Iterable[Any], name: str) -> None:
    """Every token of a parsed style sheet, inner ones too."""
    for node in nodes:
        where = f"{name}, line {node.source_line}"
        if node.type == "error":
            raise UsageError(f"{where}: {_FAULTY.get(node.kind, node.message)}", "mend the style sheet")
        word = getattr(node, "lower_at_keyword", "") or getattr(node, "lower_name", "")
        fetches = node.type == "url" or (node.type == "function" and word in _FETCHING)
        if fetches or (node.type == "at-rule" and word == "import"):
            raise UsageError(f"{where}: a report fetches nothing, so url() and @import are not taken", "remove it")
        for inner in ("prelude", "content", "arguments"):
            _check(getattr(node, inner, None) or (), name)
