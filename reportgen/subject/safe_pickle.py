"""Reads a pickle without running anything it names: every global becomes an inert stand-in.

Unpickling means calling what the file names. Here nothing that a file names is imported or called: classes and
functions become `Name`, their instances `Inert`, and tensors descriptions (`TensorSpec`) that are made real by our own
code after their bounds were checked. Python's unpickler written in Python is used because its memo is a dictionary: the
C one allocates what a file asks for.

A pickle is a program, and a short one can make a tree that takes for ever to walk: a thing put twice into each of forty
nested tuples. So its steps are counted, what it copies is counted as steps, and whatever later code hashes, compares or
prints (keys, numbers, names of storages) has to be flat and small when it is read.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from reportgen.subject.foreign import is_foreign

MOST_BYTES = 512 * 2**20
"""A pickle larger than this holds no names and shapes."""
MOST_STEPS = 3_000_000
"""Opcodes and copied elements; the largest classifier with its optimiser takes some hundred thousand."""
MOST_LETTERS = 1000
"""Of a name: of a class, a weight, an attribute."""
MOST_DIMENSIONS = 64
MOST_NUMBERED = 100_000
"""Keys that are no words, and members of sets: numbers can be chosen so that a dictionary takes each for the others."""
_MOST_KEY = 64
_MOST_KEY_NUMBER = 2**60
_MOST_INTEGER = 255
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)

_PACKAGES = (
    "torch.nn.",
    "torch.optim.",
    "torchvision.models.",
    "torchvision.ops.",
    "torchvision.transforms.",
    "timm.models.",
    "timm.layers.",
    "numpy.core.multiarray.",
    "numpy._core.multiarray.",
    "omegaconf.",
    "pathlib.",
    "datetime.",
)
"""Whole packages whose names weights, modules and the settings stored beside them use."""

_SCALARS = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_RARE = (
    "uint16",
    "uint32",
    "uint64",
    "complex32",
    "qint8",
    "quint8",
    "qint32",
    "complex64",
    "complex128",
    "float8_e4m3fn",
    "float8_e5m2",
)
_STORED = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool", "Untyped")
_PLAIN = ("object", "list", "dict", "tuple", "bool", "int", "float", "str", "bytes", "bytearray", "complex", "slice")
_NAMES = frozenset(
    (
        *("argparse.Namespace", "types.SimpleNamespace", "decimal.Decimal", "functools.partial", "uuid.UUID"),
        *("collections.defaultdict", "collections.Counter", "collections.deque"),
        *("_codecs.encode", "copyreg._reconstructor", "copy_reg._reconstructor"),
        *("numpy.dtype", "numpy.ndarray", "numpy.bool_", *(f"numpy.{kind}" for kind in _SCALARS)),
        *("torch.device", "torch.Tensor", "torch.torch_version.TorchVersion"),
        *("torch._C._nn.gelu", "torch.relu", "torch.sigmoid", "torch.tanh", "torch.flatten"),
        *(f"torch.{kind}" for kind in (*_SCALARS, *_RARE)),
        *(f"torch.{kind}Storage" for kind in (*_STORED, "ComplexFloat", "ComplexDouble", "QInt8", "QUInt8", "QInt32")),
        *("torch.serialization._get_layout", "torch.per_tensor_affine", "torch.per_channel_affine"),
        *("torch.storage.UntypedStorage", "torch.storage.TypedStorage"),
        *(f"{module}.{kind}" for module in ("__builtin__", "builtins") for kind in (*_PLAIN, "range", "type")),
        *("__builtin__.unicode", "__builtin__.long"),
    )
)


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


_FROM_TYPE: Final = "torch._tensor._rebuild_from_type_v2"
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


def _key(value: Any, depth: int = 2) -> Any:
    """A key of a mapping or a member of a set: flat and small, since hashing a nested tuple walks all of it."""
    if isinstance(value, tuple) and depth and len(value) <= _MOST_KEY:
        for item in value:
            _key(item, depth - 1)
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
    return OrderedDict((_key(one), other) for one, other in pairs)


def _set(*args: Any) -> set[Any]:
    if args and not isinstance(args[0], list | tuple | set):
        raise MalformedPickle("a set of something that is no list")
    return {_key(item) for item in args[0]} if args else set()


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
    if not args[0].path.startswith(_PACKAGES) and not is_foreign(args[0].path):
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
    return path in _BUILDERS or path in _NAMES or path == _FROM_TYPE or path.startswith(_PACKAGES)


# the machine
# -----------------------------------------------------------------------------------------------------------


class _Counted(dict[int, Callable[[Any], None]]):
    """A table of opcodes that counts how often it is asked; the unpickler asks it at each step."""

    left = MOST_STEPS

    def __getitem__(self, opcode: int) -> Callable[[Any], None]:
        self.spend(1)
        return super().__getitem__(opcode)

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise MalformedPickle("its pickle has no end")


class _Memo(dict[int, Any]):
    """What a pickle refers to again; it numbers it from 0."""

    def __setitem__(self, number: int, value: Any) -> None:
        if number > MOST_STEPS:
            raise MalformedPickle("a memory without end")
        super().__setitem__(number, value)


class _Reader(pickle._Unpickler):
    """Python's own unpickler with every opcode that makes or changes an object replaced."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {**pickle._Unpickler.dispatch}
    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(
        self,
        file: io.BufferedIOBase | io.BytesIO,
        storage: Callable[[Any], StorageSpec | Name],
        most: int,
        foreign: set[str] | None,
    ) -> None:
        super().__init__(file, encoding="utf-8", errors="surrogateescape")
        self._storage = storage
        self._foreign = foreign
        self._steps = _Counted(type(self).dispatch)
        self.dispatch = self._steps  # type: ignore[misc]
        self._numbered = 0
        self.memo = _Memo()

        def bounded(size: int) -> bytes:
            if size > most:  # asking for it would allocate it
                raise MalformedPickle("truncated")
            return file.read(size)

        self._file_read = bounded

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module[:MOST_LETTERS]}.{name[:MOST_LETTERS]}"
        if len(path) > MOST_LETTERS or not _DOTTED.fullmatch(path):
            raise ForbiddenGlobal(path)
        if not allowed(path):
            if self._foreign is None or not is_foreign(path):
                raise ForbiddenGlobal(path)
            self._foreign.add(path)
        return Name(path)

    def persistent_load(self, pid: Any) -> Any:
        return self._storage(pid)

    def get_extension(self, code: int) -> Any:
        raise ForbiddenGlobal(f"extension {code}")

    def _called(self, function: Any, args: Any, what: str) -> Any:
        """What a stand-in makes of its arguments; what it may copy of them is counted."""
        if self._foreign is not None and isinstance(function, Inert):  # what another stand-in would have made
            function = Name(function.path)
        while True:
            if not isinstance(function, Name) or not isinstance(args, tuple):
                raise MalformedPickle(what)
            self._steps.spend(len(args) + sum(len(one) for one in args if isinstance(one, list | tuple | dict | set)))
            if function.path != _FROM_TYPE or len(args) != 4:
                break
            function, _class, args, _state = args
        if (
            _BUILDERS.get(function.path) in (_ordered, _set, _frozen)
            and args
            and isinstance(args[0], list | tuple | set)
        ):
            self._number(len(args[0]))
        return function(*args)

    def _number(self, count: int) -> None:
        self._numbered += count
        if self._numbered > MOST_NUMBERED:
            raise MalformedPickle("more numbers as keys than there are classes")

    def load_reduce(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        self.append(self._called(function, args, "a call of something that is no name"))  # type: ignore[attr-defined]

    def load_newobj(self) -> None:
        args, cls = self.stack.pop(), self.stack.pop()
        self.append(self._called(cls, args, "an instance of something that is no class"))  # type: ignore[attr-defined]

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_newobj()

    def _instantiate(self, cls: Any, args: Any) -> None:
        self.append(self._called(cls, tuple(args), "an instance of something that is no class"))  # type: ignore[attr-defined]

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif not isinstance(target, OrderedDict | TensorSpec):  # an ordered dictionary carries torch's version numbers
            raise MalformedPickle("a state for something that has none")

    def _put(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict | Inert) or len(items) % 2:
            raise MalformedPickle("entries of something that is no dictionary")
        self._number(sum(not isinstance(key, str) for key in items[::2]))
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value])

    def load_setitems(self) -> None:
        self._put(self.pop_mark())

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})  # type: ignore[attr-defined]
        self._put(items)

    def load_additems(self) -> None:
        items = self.pop_mark()
        target = self.stack[-1]
        if not isinstance(target, set | Inert):
            raise MalformedPickle("members of something that is no set")
        self._number(len(items))
        for item in items:
            target.add(_key(item))

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self._number(len(items))
        self.append(frozenset(_key(item) for item in items))  # type: ignore[attr-defined]

    def load_int(self) -> None:
        super().load_int()  # type: ignore[misc]
        self._short()

    def load_long(self) -> None:
        super().load_long()  # type: ignore[misc]
        self._short()

    def _short(self) -> None:
        if self.stack[-1].bit_length() > 8 * _MOST_INTEGER:
            raise MalformedPickle("a number without end")

    def load_long4(self) -> None:
        (size,) = struct.unpack("<i", self.read(4))  # type: ignore[attr-defined]
        if not 0 <= size <= _MOST_INTEGER:
            raise MalformedPickle("a number without end")
        self.append(pickle.decode_long(self.read(size)))  # type: ignore[attr-defined]

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self.append(bytearray(self.read(size)))  # type: ignore[attr-defined]

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.FROZENSET[0]] = load_frozenset
    dispatch[pickle.INT[0]] = load_int
    dispatch[pickle.LONG[0]] = load_long
    dispatch[pickle.LONG4[0]] = load_long4
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def read_pickle(
    file: io.BufferedIOBase | io.BytesIO,
    storage: Callable[[Any], StorageSpec | Name],
    most: int = MOST_BYTES,
    foreign: set[str] | None = None,
) -> Any:
    """The object tree of one pickle, read from `file` up to its end mark.

    Args:
        storage: turns a persistent id into the description of a storage; may raise MalformedPickle.
        most: bytes that can be in the file.
        foreign: takes the names of other packages that stand-ins took the place of; None to forbid them.

    Raises:
        ForbiddenGlobal: if it names what no weights need.
        UnsupportedTensor: if it holds tensors in a form that is not read.
        MalformedPickle: if it is no pickle, or one that takes more steps than any weights do.
    """
    try:
        return _Reader(file, storage, most, foreign).load()
    except (ForbiddenGlobal, MalformedPickle, UnsupportedTensor):
        raise
    except Exception as error:  # a damaged pickle raises whatever the opcode at hand makes of it
        raise MalformedPickle(f"{type(error).__name__}: {str(error)[:120]}") from None
