"""Sentences a reader sees: marked where they are written, translated when a document is written.

``report.json`` and findings are language-neutral, so a sentence travels as a `Message` (template and parameters)
until a
document is rendered in some language. Plain ``str(message)`` is English.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

Translate = Callable[[str], str]


@dataclass(frozen=True)
class Message:
    """A translatable sentence.

    Attributes:
        template: the English sentence, with ``{name}`` fields in `str.format` syntax.
        parameters: values of the fields; a parameter may itself be a `Message`.
    """

    template: str
    parameters: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))

    def filled(self, **parameters: object) -> Message:
        """The same sentence with these parameters: for one that is written apart from its numbers."""
        return Message(self.template, MappingProxyType({**self.parameters, **parameters}))

    def translated(self, translate: Translate) -> str:
        """The sentence in the language of `translate` (a gettext function), parameters filled in."""
        template = translate(self.template) if self.template else ""
        filled = {k: v.translated(translate) if isinstance(v, Message) else v for k, v in self.parameters.items()}
        return template.format(**filled)

    def __str__(self) -> str:
        return self.translated(lambda template: template)

    def __hash__(self) -> int:
        return hash((self.template, tuple(sorted((k, str(v)) for k, v in self.parameters.items()))))


def _(template: str, **parameters: object) -> Message:
    """Mark a sentence for translation: ``_("{n} images skipped", n=3)``."""
    return Message(template, MappingProxyType(dict(parameters)))


def verbatim(words: str) -> Message:
    """Words that are nobody's to translate (a file name, a class name), as a `Message`."""
    return Message("{words}" if words else "", MappingProxyType({"words": words} if words else {}))


def listed(parts: Sequence[Message]) -> Message:
    """Several words in a row, with the commas of the language. At least one."""
    if len(parts) == 1:
        return parts[0]
    return _("{first}, {rest}", first=parts[0], rest=listed(parts[1:]))


def signed(value: float, places: str = ".3f") -> str:
    """A number as print has it: a sign for minus that is one, and none before zero.

    Args:
        places: a format such as ``.3f`` or ``.2g``.
    """
    return f"{value:z{places}}".replace("-", "−")


def counted(number: int, one: str) -> str:
    """A number and its noun, for lines of a terminal, which are English: ``1 image``, ``2 images``."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def line(words: str, most: int = 600) -> str:
    """Words from elsewhere as part of one line: what steers a terminal, breaks the line or is no character is escaped.

    A file's own names end up in messages and reports; a name may hold escape sequences, half characters, a megabyte.

    Args:
        most: characters that are kept.
    """
    shown = "".join(
        char.encode("unicode_escape", "surrogatepass").decode("ascii")
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else char
        for char in words[:most]
    )
    return f"{shown} …" if len(words) > most else shown


def words_of(error: BaseException, most: int = 160) -> str:
    """The first line of what an error of others says; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]


_UNSEEN = (
    "\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f"  # controls
    "\\ud800-\\udfff\\ufdd0-\\ufdef"  # half characters, and what is none
    + "".join(f"\\U{plane:04x}fffe\\U{plane:04x}ffff" for plane in range(17))
    + "\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff"  # ends of lines, turns of direction
)
_IN_NAMES = re.compile(f"[{_UNSEEN}\\t\\n]")
_IN_PAGES = re.compile(f"[{_UNSEEN}]")


def shown(words: str) -> str:
    """A name or a sentence as a reader may see it: what has no shape, breaks the line or turns the direction of writing
    is escaped (``\\n``, ``\\u202e``), so that no name says more than it is.
    """
    return _IN_NAMES.sub(_escaped, words)


def shown_page(text: str) -> str:
    """The same for a whole page, whose own ends of lines stay."""
    return _IN_PAGES.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "surrogatepass").decode("ascii")
