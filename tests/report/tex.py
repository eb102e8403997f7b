"""Enough of TeX's grammar to tell text that cannot compile."""

from __future__ import annotations

import re

_ARGUMENTS = (
    r"\\(?:label|input|cite|includegraphics(?:\[[^\]]*\])?|documentclass(?:\[[^\]]*\])?|bibliography)\{[^{}]*\}"
)


def faults(text: str) -> list[str]:
    """What is wrong: braces and environments that do not match, characters that mean something to TeX and are bare."""
    found: list[str] = []
    depth = 0
    open_ones: list[str] = []
    text = re.sub(r"(?<!\\)%.*", "", text)
    for token in re.findall(r"\\(?:begin|end)\{[^}]*\}|\\[A-Za-z@]+\*?|\\.|[{}]", text, re.DOTALL):
        if token.startswith(r"\begin{"):
            open_ones.append(token[7:-1])
        elif token.startswith(r"\end{") and (not open_ones or open_ones.pop() != token[5:-1]):
            found.append(f"{token} ends nothing")
        depth += (token == "{") - (token == "}")
        if depth < 0:
            found.append("a brace closes nothing")
            depth = 0
    if depth or open_ones:
        found.append(f"{depth} braces and {open_ones} stay open")
    words = re.sub(r"\\begin\{equation\*\}.*?\\end\{equation\*\}", "", text, flags=re.DOTALL)
    words = re.sub(_ARGUMENTS, "", words)
    words = re.sub(r".*(?:reportgenunicode\\else|providecommand|newif).*", "", words)
    words = re.sub(r"\\ensuremath\{\^?\\?[A-Za-z-]+\}", "", words)
    words = re.sub(r"\\[\^\"'`=.]\{", "{", words)  # accents
    found += [f"a bare {bare}" for bare in re.findall(r"(?<!\\)[$&#^_\"`|<>]", words)]
    found += [f"not ASCII: {c!r}" for c in sorted(set(text)) if not c.isascii()]
    return found
