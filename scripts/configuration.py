"""Writes the tables of options in docs/configuration.md anew, from the options themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reportgen.cli import audit_parser
from reportgen.job import DOCUMENT, DONE, SUBJECT, Job, flag_of, table_of

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"
BEGIN, END = "<!-- options: scripts/configuration.py writes from here -->", "<!-- to here -->"


def tables() -> str:
    """One table for each group of ``--help``: name in TOML, default, meaning."""
    return "\n\n".join(f"### {group}\n\n" + "\n".join(_rows(group)) for group in (SUBJECT, DONE, DOCUMENT))


def _rows(group: str) -> Iterator[str]:
    yield "| option | value (default) | meaning |"
    yield "|---|---|---|"
    helped = {action.dest: action for action in audit_parser()._actions}
    for name, field in Job.model_fields.items():
        extra: Any = field.json_schema_extra
        if extra["group"] != group:
            continue
        flag = helped.get(name)
        key = table_of(name) or name.replace("_", "-")
        written = "a table" if table_of(name) else _value(flag, field.annotation)
        default = field.get_default()
        told = f" ({_toml(default)})" if default not in (None, (), "", {}) else ""
        flagged = f" (`{flag_of(name)}`)" if extra.get("flag") else ""
        words = (field.description or "").replace("; repeatable", "").replace("|", "\\|")
        yield f"| `{key}`{flagged} | {written}{told} | {words} |"


def _value(flag: Any, annotation: Any) -> str:
    if annotation is bool:
        return "true, false"
    if flag.choices:
        return ", ".join(f'"{choice}"' for choice in flag.choices)
    return str(flag.metavar).replace("|", "\\|")


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def renewed(page: str) -> str:
    """The page with the tables as they have to be."""
    before, _begin, rest = page.partition(BEGIN)
    _old, _end, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


if __name__ == "__main__":
    page = PAGE.read_text("utf-8")
    PAGE.write_text(renewed(page), "utf-8")
    sys.exit(0)
