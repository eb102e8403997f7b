"""Types of options: what is accepted for them besides what they hold, from flags, from TOML and from Python."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from reportgen.errors import UsageError


def _split(value: object) -> object:
    """A comma-separated string, or a list with such strings in it, as one flat tuple."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, list | tuple):
        value = [str(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in value]
    if isinstance(value, str):
        return tuple(part for part in (p.strip() for p in value.split(",")) if part)
    if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        return tuple(part for item in value for part in (p.strip() for p in item.split(",")) if part)
    return value


def _size(value: object) -> object:
    """``224`` and ``(224, 320)`` as the words that stand for them."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list | tuple) and len(value) == 2:
        return f"{value[0]}x{value[1]}"
    return value


def _channels(value: object) -> object:
    """``[0, 10, 20]`` as the words that stand for them."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


def _day(value: object) -> object:
    """TOML has dates of its own."""
    return value.isoformat() if type(value) is datetime.date else value


def _numbers(value: object) -> object:
    """``0.485,0.456`` or one number or a sequence of numbers, as something pydantic reads as floats."""
    if isinstance(value, int | float):
        return (value,)
    return value if isinstance(value, list | tuple) and not all(isinstance(v, str) for v in value) else _split(value)


def _assignments(value: object) -> object:
    """``["K=V", …]`` as a mapping; a mapping stays as it is."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        return value
    pairs = [str(item).partition("=") for item in value]
    for key, sign, _value in pairs:
        if not sign or not key.strip():
            raise ValueError(f"{key!r} is not of the form NAME=VALUE")
    return {key.strip(): text.strip() for key, _sign, text in pairs}


def _nested(value: object) -> object:
    """``{"technique.field": value}`` (from ``--set``) as ``{technique: {field: value}}``; nested mappings stay."""
    flat = _assignments(value)
    if not isinstance(flat, Mapping):
        return flat
    nested: dict[str, dict[str, Any]] = {}
    for key, item in flat.items():
        if isinstance(item, Mapping):
            nested.setdefault(key, {}).update(item)
            continue
        technique, dot, field = str(key).partition(".")
        if not dot:
            raise ValueError(f"{key!r} is not of the form TECHNIQUE.FIELD=VALUE")
        nested.setdefault(technique, {})[field] = item
    return nested


def _flat(value: object) -> object:
    """``{a: {b: 0.9}}``, as which TOML reads the key ``a.b``, as ``{a.b: 0.9}``."""
    if not isinstance(value, Mapping):
        return value
    flat: dict[str, Any] = {}
    for key, item in value.items():
        inside = _flat(item)
        flat |= {f"{key}.{k}": v for k, v in inside.items()} if isinstance(inside, Mapping) else {str(key): inside}
    return flat


def _bytes(value: object) -> object:
    """``20GB``, ``500 MB`` or a plain number of bytes, as an integer."""
    if not isinstance(value, str):
        return value
    text = value.strip().upper().replace(" ", "")
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    number, factor = text.removesuffix("B"), 1
    for unit, each in units.items():
        if text.endswith(unit):
            number, factor = text[: -len(unit)], each
            break
    if not re.fullmatch(r"\d+(\.\d+)?", number) or (factor == 1 and "." in number):
        raise ValueError("is no size such as 500MB or 20GB")
    return int(float(number) * factor) if factor > 1 else int(number)


def as_bytes(words: str) -> int:
    """``20GB``, ``500 MB`` or a number of bytes. Raises UsageError."""
    try:
        return int(str(_bytes(words)))
    except ValueError:
        raise UsageError(f"{words!r} is no size", "write 500MB or 20GB") from None


Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
Floats = Annotated[tuple[float, ...], BeforeValidator(_numbers)]
Assignments = Annotated[dict[str, Any], BeforeValidator(_assignments)]
TechniqueOptions = Annotated[dict[str, dict[str, Any]], BeforeValidator(_nested)]
Thresholds = Annotated[dict[str, Annotated[float, Field(allow_inf_nan=False)]], BeforeValidator(_flat)]
Size = Annotated[str, BeforeValidator(_size)]
Channels = Annotated[str, BeforeValidator(_channels)]
Day = Annotated[str, BeforeValidator(_day)]
Bytes = Annotated[int, BeforeValidator(_bytes), Field(gt=0)]
