"""Tensors inside whatever modules return: tuples, lists, mappings, dataclasses, in any depth."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

SCORES = ("logits", "out", "scores", "output")
"""What the part of an output with the class scores is usually called."""


def tensors_in(value: object) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists, dicts and dataclasses, in order; of other objects those called `SCORES`."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_in(getattr(value, field.name, None))
    elif value is not None and not isinstance(value, int | float | str):
        yield from (part for name in SCORES if isinstance(part := getattr(value, name, None), Tensor))


def first_tensor(output: object) -> Tensor | None:
    """The tensor that stands for a module's output: itself, or the first in it."""
    return next(tensors_in(output), None)


def exchanged(output: Any, old: Tensor, new: Tensor) -> Any:
    """`output` with `new` wherever `old` stood in it; what is not changed is the same object as before."""
    if output is old:
        return new
    if isinstance(output, Mapping):
        changed = {key: part for key, value in output.items() if (part := exchanged(value, old, new)) is not value}
        return _with_items(output, changed) if changed else output
    if isinstance(output, list | tuple):
        parts = [exchanged(value, old, new) for value in output]
        if all(part is value for part, value in zip(parts, output, strict=True)):
            return output
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    if is_dataclass(output) and not isinstance(output, type):
        return _with_fields(output, old, new)
    return output


def _with_items(output: Any, changed: Mapping[Any, Any]) -> Any:
    """A copy of a mapping, whose keys may be attributes too, as those of Hugging Face's ``ModelOutput`` are."""
    made = copy.copy(output)
    for key, value in changed.items():
        named = isinstance(key, str) and getattr(output, key, None) is output[key]
        made[key] = value
        if named:
            object.__setattr__(made, key, value)
    return made


def _with_fields(output: Any, old: Tensor, new: Tensor) -> Any:
    made = copy.copy(output)
    for field in fields(output):
        value = getattr(output, field.name, None)
        part = exchanged(value, old, new)
        if part is not value:
            object.__setattr__(made, field.name, part)  # frozen ones too: the copy is ours
    return made
