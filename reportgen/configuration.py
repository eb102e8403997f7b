"""Options from TOML: found, checked, told with file and line where they are wrong; and their JSON Schema for editors.

``reportgen.toml``, ``[tool.reportgen]`` in ``pyproject.toml`` and ``--config FILE`` hold the names of `Job`, written
with hyphens or underscores.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reportgen.errors import UsageError, nearest
from reportgen.job import PATHS, RUNS_CODE, Job, table_of
from reportgen.text import line

OWN, SHARED, TABLE = "reportgen.toml", "pyproject.toml", ("tool", "reportgen")
_MOST = 2**18
"""Bytes of a configuration."""
_MOST_DOTS = 100
"""In one of its lines: keys of many parts take memory by the square of their number."""
_HEAD = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")

Where = tuple[str | int, ...]
"""The way to a value: keys of tables, numbers of array entries."""


@dataclass(frozen=True)
class _File:
    """A TOML file, and where in it the options stand."""

    name: str
    text: str
    below: tuple[str, ...] = ()

    def line(self, where: Where) -> int | None:
        """Number of the line where a value is set, or of the nearest table around it."""
        wanted = tuple(_plain(part) for part in (*self.below, *where))
        set_at = [(path[:end], number) for number, path in _lines(self.text) for end in range(len(path), 0, -1)]
        found = dict(reversed(set_at))
        return next((found[wanted[:end]] for end in range(len(wanted), 0, -1) if wanted[:end] in found), None)

    def wrong(self, where: Where, what: str, remedy: str) -> UsageError:
        number = self.line(where)
        at = self.name if number is None else f"{self.name}, line {number}"
        return UsageError(f"{at}: {what}", remedy)


def read_toml(file: Path | None, folder: Path) -> dict[str, Any]:
    """Options from `file`, else from ``reportgen.toml`` or ``[tool.reportgen]`` of ``pyproject.toml`` in `folder`.

    Relative paths in a configuration are relative to the file that names them.

    Raises:
        UsageError: if `file` is missing or no TOML, or holds an option that does not exist or a value that does not
            fit: with the line; or if one that nobody named asks to run code.
    """
    found = file or next((folder / name for name in (OWN, SHARED) if (folder / name).is_file()), None)
    if found is None:
        return {}
    opened, table = _opened(found)
    options = {str(key).replace("-", "_"): value for key, value in table.items()}
    if isinstance(options.get("pythonpath"), str):
        options["pythonpath"] = [options["pythonpath"]]
    if file is None:
        _without_code(opened, options)
    _check(opened, options)
    for name in PATHS:
        if isinstance(options.get(name), str):
            options[name] = found.parent / options[name]
    if "pythonpath" in options:
        options["pythonpath"] = [found.parent / str(part) for part in options["pythonpath"]]
    return options


def _without_code(file: _File, options: Mapping[str, Any]) -> None:
    """Models come in folders of others, and a configuration may lie beside them."""
    arch = str(options.get("arch", ""))
    named = ":" not in arch or arch.partition(":")[0] in ("torchvision", "timm")
    for name in RUNS_CODE:
        if options.get(name) and not (name == "arch" and named):
            what = f"asks to run code ({name.replace('_', '-')}), and nobody named this file"
            raise file.wrong((name,), what, f"if it is yours, add --config {file.name}")


def _opened(file: Path) -> tuple[_File, Mapping[str, Any]]:
    name = line(file.name)
    try:
        text = file.read_text(encoding="utf-8-sig")
        if len(text) > _MOST or any(words.count(".") > _MOST_DOTS for words in text.splitlines()):
            raise UsageError(f"{name} is too long", f"a configuration has at most {_MOST // 1024} KB")
        table: Any = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}", "give --config an existing TOML file") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not TOML: {error}", "docs/configuration.md shows an example") from None
    below = TABLE if file.name == SHARED else ()
    for part in below:
        table = table.get(part, {}) if isinstance(table, Mapping) else table
    opened = _File(name, text, below)
    if not isinstance(table, Mapping):
        raise opened.wrong((), "[tool.reportgen] is no table", "write options below that head")
    return opened, table


def _check(file: _File, options: Mapping[str, Any]) -> None:
    """Every option by itself, so that the message can name its line."""
    for name, value in options.items():
        if name not in Job.model_fields:
            known = [field.replace("_", "-") for field in Job.model_fields]
            remedy = nearest(name.replace("_", "-"), known, "reportgen --help lists the options")
            raise file.wrong((name,), f"there is no option {name!r}", remedy)
        try:
            Job.from_options({name: value})
        except UsageError as error:
            where = _inside(name, value, error)
            remedy = f"write it as {head}" if (head := table_of(name)) and where == (name,) else error.remedy
            raise file.wrong(where, error.thing, remedy) from None
    _check_techniques(file, options)


def _check_techniques(file: _File, options: Mapping[str, Any]) -> None:
    from reportgen.rules import RULES
    from reportgen.techniques import check_limits, check_options

    job = Job.from_options({name: options[name] for name in ("techniques", "findings") if name in options})
    for technique, own in job.techniques.items():
        for field, value in own.items():
            try:
                check_options(technique, {field: value})
            except UsageError as error:
                raise file.wrong(("techniques", technique, field), error.thing, error.remedy) from None
    for rule, value in job.findings.items():
        try:
            check_limits(Job.from_options({"findings": {rule: value}}), RULES)
        except UsageError as error:
            raise file.wrong(("findings", *rule.split(".")), error.thing, error.remedy) from None


def _inside(name: str, value: Any, error: UsageError) -> Where:
    """The entry of an option with several that is the wrong one."""
    if isinstance(value, list) and name == "waivers":
        for number, entry in enumerate(value):
            try:
                Job.from_options({name: [entry]})
            except UsageError:
                keys = entry if isinstance(entry, Mapping) else ()
                key = next((key for key in keys if f" {key} " in f" {error.thing} "), None)
                return (name, number, key) if key else (name, number)
    return (name,)


def _plain(part: str | int) -> str:
    return str(part).replace("-", "_")


def _lines(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(number, path) of every line that opens a table or sets a key, as far as single lines tell."""
    table: tuple[str, ...] = ()
    times: dict[tuple[str, ...], int] = {}
    quoted = ""
    for number, words in enumerate(text.splitlines(), 1):
        if quoted:  # inside a text of several lines
            quoted = "" if quoted in words else quoted
            continue
        if head := _HEAD.fullmatch(words):
            table = _path(head[2])
            if head[1] == "[[":
                times[table] = times.get(table, -1) + 1
                table = (*table, str(times[table]))
            yield number, table
        elif key := _KEY.match(words):
            yield number, (*table, *_path(key[1]))
            opened = [mark for mark in ('"' * 3, "'" * 3) if words.count(mark) % 2]
            quoted = opened[0] if opened else ""


def _path(words: str) -> tuple[str, ...]:
    return tuple(_plain(part.strip("\"'")) for part in _PART.findall(words))


# the schema ---------------------------------------------------------------------------------------------------------


def configuration_schema() -> dict[str, Any]:
    """JSON Schema of ``reportgen.toml``, of which editors make completion and marks."""
    from reportgen.rules import RULES
    from reportgen.techniques import registry

    made = Job.model_json_schema()
    properties = {name.replace("_", "-"): _accepting(name, part) for name, part in made["properties"].items()}
    techniques = {name: _options_schema(cls) for name, cls in registry().items()}
    every = (*RULES, *(rule for cls in registry().values() for rule in cls.rules))
    rules = sorted(rule.name for rule in every if rule.threshold is not None)
    properties["techniques"] = {
        "description": "options of single techniques",
        "type": "object",
        "properties": techniques,
        "additionalProperties": False,
    }
    properties["findings"] = {
        "description": "thresholds by the name of the rule",
        "type": "object",
        "properties": {rule: {"type": "number"} for rule in rules},
        "additionalProperties": {"type": "object", "additionalProperties": {"type": "number"}},
    }
    underscored = "|".join(name for name in Job.model_fields if "_" in name)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "reportgen.toml",
        "description": "Options of an audit by reportgen, by the names of its flags.",
        "type": "object",
        "properties": properties,
        "patternProperties": {f"^({underscored})$": {}},
        "additionalProperties": False,
        "$defs": made.get("$defs", {}),
    }


_ONE_OR_LIST = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": ["string", "integer"]}}]}
_ACCEPTING: Mapping[str, Mapping[str, Any]] = {
    "cache_size": {"type": ["integer", "string"]},
    "input_size": {
        "anyOf": [
            {"type": ["integer", "string"]},
            {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        ]
    },
    "channels": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]},
    "arch_arg": {"type": "object"},
    "pythonpath": _ONE_OR_LIST,
    **dict.fromkeys(("exhibit", "only", "skip", "layers", "target"), _ONE_OR_LIST),
    **{
        name: {"anyOf": [{"type": ["number", "string"]}, {"type": "array", "items": {"type": "number"}}]}
        for name in ("mean", "std")
    },
    "date": {},  # TOML has dates of its own
}
"""What is accepted besides what the type of a field says."""


def _accepting(name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: deepcopy(value) for key, value in part.items() if key in ("description", "default")}
    known = {"group", "metavar", "flag", "table", "title", *told}
    if told.get("default", 0) is None:
        del told["default"]
    if name in _ACCEPTING:
        return {**told, **deepcopy(dict(_ACCEPTING[name]))}
    return {**told, **{key: deepcopy(value) for key, value in part.items() if key not in known}}


def _options_schema(cls: type[Any]) -> dict[str, Any]:
    from pydantic import TypeAdapter

    made = TypeAdapter(cls).json_schema()
    properties = {}
    for name, part in made["properties"].items():
        several = part.get("type") == "array"
        properties[name] = {"anyOf": [part, {"type": "string"}], "default": part.get("default")} if several else part
    return {
        "description": cls.summary,
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
