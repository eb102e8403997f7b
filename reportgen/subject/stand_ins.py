"""What takes the place of the things that a pickle names, and what may be built of them by our own code.

Classes and functions become `Name`, their instances `Inert`, and tensors descriptions (`TensorSpec`) that are made real
after their bounds were checked. Nothing named is imported or called.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from reportgen.subject.pickle_names import PACKAGES, is_foreign, is_needed

MOST_LETTERS = 1000
"""Of a name: of a class, a weight, an attribute."""
MOST_DIMENSIONS = 64
_MOST_KEY = 64
_MOST_KEY_NUMBER = 2**60


class ForbiddenGlobal(Exception):
    """The pickle names something that no weights file needs.

    Attributes:
        name: dotted name of the class or function.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class MalformedPickle(Exception):
    """Not a pickle, or one whose parts do not fit together."""


class UnsupportedTensor(Exception):
    """Weights in a form that is not read: sparse, quantised, without data. The message names the form."""


@dataclass(frozen=True)
class StorageSpec:
    """A block of bytes that tensors share.

    Attributes:
        key: its record in the archive.
        dtype: name of the element type, for example ``float32``; ``uint8`` for untyped storages.
        count: number of elements.
    """

    key: str
    dtype: str
    count: int


@dataclass(frozen=True, eq=False)
class TensorSpec:
    """A tensor before its bytes are read.

    Attributes:
        storage: where its elements lie.
        offset: of the first element.
        size: shape.
        stride: distance of neighbours along each dimension, in elements.
        dtype: element type where it is not the storage's.
        parameter: it was an `nn.Parameter`.
    """

    storage: StorageSpec
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str | None = None
    parameter: bool = False


FROM_TYPE: Final = "torch._tensor._rebuild_from_type_v2"
"""The path of what calls another: (function, class, arguments, state)."""
MEMBER: Final = "builtins.getattr"
"""The path of what stands for a member of an enumeration that is given by its name."""


@dataclass(frozen=True)
class Name:
    """A class or function that a file names. It is never imported or called; calling the stand-in makes an `Inert`."""

    path: str

    def __call__(self, *args: Any) -> Any:
        build = _BUILDERS.get(self.path)
        return build(*args) if build is not None else Inert(self.path, args)


@dataclass(eq=False)
class Inert:
    """Where an object of a named class would stand.

    Attributes:
        path: dotted name of the class.
        args: what its constructor would have been given.
        state: its instance dictionary, or whatever the file gives it.
        items: what would have been put into it, if it were a mapping.
        members: what would have been appended to it, if it were a list.
    """

    path: str
    args: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    members: list[Any] = field(default_factory=list)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        """As a list would."""
        self.members.append(value)

    def extend(self, values: Any) -> None:
        """As a list would."""
        self.members.extend(values)

    def add(self, value: Any) -> None:
        """As a set would."""
        self.members.append(value)


# what may be built, by our own code
# ------------------------------------------------------------------------------------


def checked_key(value: Any, depth: int = 2) -> Any:
    """A key of a mapping or a member of a set: flat and small, since hashing a nested tuple walks all of it."""
    if isinstance(value, tuple) and depth and len(value) <= _MOST_KEY:
        for item in value:
            checked_key(item, depth - 1)
    elif value is not None and not isinstance(value, str | bytes | int | float | Name | Inert | TensorSpec):
        raise MalformedPickle(f"a {type(value).__name__} as a key")
    elif isinstance(value, int) and not -_MOST_KEY_NUMBER < value < _MOST_KEY_NUMBER:
        raise MalformedPickle("a number without end as a key")
    return value


def _ordered(*args: Any) -> OrderedDict[Any, Any]:
    pairs = args[0] if args else ()
    if isinstance(pairs, dict):
        return OrderedDict(pairs)
    if not isinstance(pairs, list | tuple) or not all(isinstance(two, list | tuple) and len(two) == 2 for two in pairs):
        raise MalformedPickle("an OrderedDict of something that is no list of pairs")
    return OrderedDict((checked_key(one), other) for one, other in pairs)


def _set(*args: Any) -> set[Any]:
    if args and not isinstance(args[0], list | tuple | set):
        raise MalformedPickle("a set of something that is no list")
    return {checked_key(item) for item in args[0]} if args else set()


def _frozen(*args: Any) -> frozenset[Any]:
    return frozenset(_set(*args))


def _numbers(value: Any) -> tuple[int, ...]:
    if (
        not isinstance(value, tuple | list)
        or len(value) > MOST_DIMENSIONS
        or not all(type(item) is int and 0 <= item < 2**63 for item in value)
    ):
        raise MalformedPickle("a tensor whose shape is no tuple of numbers")
    return tuple(value)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any, dtype: str | None = None) -> TensorSpec:
    marks = rest[2] if len(rest) > 2 else None
    if isinstance(marks, dict) and any(marks.values()):  # bytes stand for their negative or their conjugate
        raise UnsupportedTensor("negated or conjugated")
    if not isinstance(storage, StorageSpec) or type(offset) is not int or offset < 0:
        raise MalformedPickle("a tensor without a storage")
    size, stride = _numbers(size), _numbers(stride)
    if len(size) != len(stride):
        raise MalformedPickle("a tensor with more sizes than strides")
    return TensorSpec(storage, offset, size, stride, dtype)


def _tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> TensorSpec:
    if not isinstance(dtype, Name):
        raise MalformedPickle("a tensor without an element type")
    return _tensor(storage, offset, size, stride, grad, hooks, *rest, dtype=dtype.path.rpartition(".")[2])


def _parameter(data: Any, *_rest: Any) -> Any:
    if isinstance(data, TensorSpec):
        return TensorSpec(data.storage, data.offset, data.size, data.stride, data.dtype, True)
    return Inert("torch.nn.parameter.Parameter", (data,))


def _size(value: Any = ()) -> tuple[int, ...]:
    return _numbers(value)


def _unsupported(form: str) -> Callable[..., Any]:
    def refuse(*_args: Any) -> Any:
        raise UnsupportedTensor(form)

    return refuse


def _member(*args: Any) -> Inert:
    """What some Pythons (3.11.0 to 3.11.3) write for a member of an enumeration: ``getattr(Class, "NAME")``.

    Nothing is looked up: a stand-in notes class and name, and `reportgen.subject.modules` knows which it takes.
    """
    if len(args) != 2 or not isinstance(args[0], Name):
        raise ForbiddenGlobal("builtins.getattr")
    if not args[0].path.startswith(PACKAGES) and not is_foreign(args[0].path):
        raise ForbiddenGlobal("builtins.getattr")
    if not isinstance(args[1], str) or not args[1].isidentifier() or args[1].startswith("_"):
        raise ForbiddenGlobal("builtins.getattr")
    return Inert(MEMBER, args)


_BUILDERS: dict[str, Callable[..., Any]] = {
    "__builtin__.getattr": _member,
    "builtins.getattr": _member,
    "collections.OrderedDict": _ordered,
    "__builtin__.set": _set,
    "builtins.set": _set,
    "__builtin__.frozenset": _frozen,
    "builtins.frozenset": _frozen,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": _size,
    "torch._utils._rebuild_sparse_tensor": _unsupported("sparse"),
    "torch._utils._rebuild_qtensor": _unsupported("quantised"),
    "torch._utils._rebuild_nested_tensor": _unsupported("nested"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unsupported("empty (meta)"),
    "torch._utils._rebuild_wrapper_subclass": _unsupported("wrapped"),
}


def allowed(path: str) -> bool:
    """Whether a file may name this at all. Nothing named is ever called; what no weights need says what the file is."""
    return path in _BUILDERS or path == FROM_TYPE or is_needed(path)


def hashes(path: str) -> bool:
    """Whether what takes the place of this name makes keys or members of its first argument."""
    return _BUILDERS.get(path) in (_ordered, _set, _frozen)
