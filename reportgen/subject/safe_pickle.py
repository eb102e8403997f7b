"""Reads a pickle without running anything it names: every global becomes an inert stand-in.

Unpickling means calling what the file names. Here nothing that a file names is imported or called: classes and
functions become
`Name`, their instances `Inert`, and tensors descriptions (`TensorSpec`) that are made real by our own code after
their bounds were
checked. Python's unpickler written in Python is used because its memo is a dictionary: the C one allocates what a
file asks for.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

MOST_BYTES = 512 * 2**20
"""A pickle larger than this holds no names and shapes."""

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
        *(f"torch.{kind}" for kind in _SCALARS),
        *(f"torch.{kind}Storage" for kind in (*_STORED, "ComplexFloat", "ComplexDouble")),
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


@dataclass(frozen=True)
class StorageSpec:
    """A block of bytes that tensors share.

    Attributes:
        key: its record in the archive.
        dtype: name of the element type, for example ``float32``; ``uint8`` for untyped storages.
        count: number of elements.
        typed: whether `count` counts elements of `dtype` rather than bytes.
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


def _ordered(*args: Any) -> OrderedDict[Any, Any]:
    if args and not isinstance(args[0], list | tuple | dict):
        raise MalformedPickle("an OrderedDict of something that is no list of pairs")
    return OrderedDict(*args[:1])


def _set(*args: Any) -> set[Any]:
    if args and not isinstance(args[0], list | tuple | set):
        raise MalformedPickle("a set of something that is no list")
    return set(*args[:1])


def _numbers(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or not all(type(item) is int and item >= 0 for item in value):
        raise MalformedPickle("a tensor whose shape is no tuple of numbers")
    return tuple(value)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_rest: Any, dtype: str | None = None) -> TensorSpec:
    if not isinstance(storage, StorageSpec) or type(offset) is not int or offset < 0:
        raise MalformedPickle("a tensor without a storage")
    size, stride = _numbers(size), _numbers(stride)
    if len(size) != len(stride):
        raise MalformedPickle("a tensor with more sizes than strides")
    return TensorSpec(storage, offset, size, stride, dtype)


def _tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_rest: Any
) -> TensorSpec:
    if not isinstance(dtype, Name):
        raise MalformedPickle("a tensor without an element type")
    return _tensor(storage, offset, size, stride, dtype=dtype.path.rpartition(".")[2])


def _parameter(data: Any, *_rest: Any) -> Any:
    if isinstance(data, TensorSpec):
        return TensorSpec(data.storage, data.offset, data.size, data.stride, data.dtype, True)
    return Inert("torch.nn.parameter.Parameter", (data,))


def _from_type(function: Any, _kind: Any, args: Any, _state: Any) -> Any:
    if not isinstance(function, Name) or not isinstance(args, tuple):
        raise MalformedPickle("a tensor subclass without its tensor")
    return function(*args)


def _size(value: Any = ()) -> tuple[int, ...]:
    return _numbers(value)


_BUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "__builtin__.set": _set,
    "builtins.set": _set,
    "__builtin__.frozenset": lambda *args: frozenset(_set(*args)),
    "builtins.frozenset": lambda *args: frozenset(_set(*args)),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.Size": _size,
}


def allowed(path: str) -> bool:
    """Whether a file may name this at all. Nothing named is ever called; what no weights need says what the file is."""
    return path in _BUILDERS or path in _NAMES or path.startswith(_PACKAGES)


# the machine
# -----------------------------------------------------------------------------------------------------------


class _Reader(pickle._Unpickler):
    """Python's own unpickler with every opcode that makes or changes an object replaced."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {**pickle._Unpickler.dispatch}

    def __init__(self, file: io.BufferedIOBase | io.BytesIO, storage: Callable[[Any], StorageSpec | Name]) -> None:
        super().__init__(file, encoding="utf-8", errors="surrogateescape")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}"
        if not allowed(path):
            raise ForbiddenGlobal(path)
        return Name(path)

    def persistent_load(self, pid: Any) -> Any:
        return self._storage(pid)

    def get_extension(self, code: int) -> Any:
        raise ForbiddenGlobal(f"extension {code}")

    def load_reduce(self) -> None:
        args, function = self.stack.pop(), self.stack[-1]  # type: ignore[attr-defined]
        if not isinstance(function, Name) or not isinstance(args, tuple):
            raise MalformedPickle("a call of something that is no name")
        self.stack[-1] = function(*args)  # type: ignore[attr-defined]

    def load_newobj(self) -> None:
        args, cls = self.stack.pop(), self.stack.pop()  # type: ignore[attr-defined]
        if not isinstance(cls, Name) or not isinstance(args, tuple):
            raise MalformedPickle("an instance of something that is no class")
        self.append(Inert(cls.path, args) if cls.path not in _BUILDERS else cls(*args))  # type: ignore[attr-defined]

    def load_newobj_ex(self) -> None:
        self.stack.pop()  # type: ignore[attr-defined]
        self.load_newobj()

    def _instantiate(self, cls: Any, args: Any) -> None:
        if not isinstance(cls, Name):
            raise MalformedPickle("an instance of something that is no class")
        self.append(Inert(cls.path, tuple(args)))  # type: ignore[attr-defined]

    def load_build(self) -> None:
        state = self.stack.pop()  # type: ignore[attr-defined]
        target = self.stack[-1]  # type: ignore[attr-defined]
        if isinstance(target, Inert):
            target.state = state
        elif not isinstance(target, OrderedDict | TensorSpec):  # an ordered dictionary carries torch's version numbers
            raise MalformedPickle("a state for something that has none")

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BUILD[0]] = load_build


def read_pickle(file: io.BufferedIOBase | io.BytesIO, storage: Callable[[Any], StorageSpec | Name]) -> Any:
    """The object tree of one pickle, read from `file` up to its end mark.

    Args:
        storage: turns a persistent id into the description of a storage; may raise MalformedPickle.

    Raises:
        ForbiddenGlobal: if it names what no weights need.
        MalformedPickle: if it is no pickle.
    """
    try:
        return _Reader(file, storage).load()
    except (ForbiddenGlobal, MalformedPickle):
        raise
    except Exception as error:  # a damaged pickle raises whatever the opcode at hand makes of it
        raise MalformedPickle(f"{type(error).__name__}: {str(error)[:120]}") from None


def walk(value: Any) -> Iterator[Any]:
    """Every object of a tree once, without recursion: a file chooses its own depth."""
    stack, seen = [value], set()
    while stack:
        one = stack.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, dict):
            stack.extend(one.keys())
            stack.extend(one.values())
        elif isinstance(one, list | tuple | set | frozenset):
            stack.extend(one)
        elif isinstance(one, Inert):
            stack.extend((one.args, one.state, one.items, one.members))
