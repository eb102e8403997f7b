"""Reads a pickle without running anything it names: every global becomes an inert stand-in.

Unpickling means calling what the file names. Here nothing that a file names is imported or called: see
`reportgen.subject.stand_ins`. Python's unpickler written in Python is used because its memo is a dictionary: the C one
allocates what a file asks for.

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
from typing import Any, ClassVar

from reportgen.subject.pickle_names import is_foreign
from reportgen.subject.stand_ins import (
    FROM_TYPE,
    MOST_LETTERS,
    ForbiddenGlobal,
    Inert,
    MalformedPickle,
    Name,
    StorageSpec,
    TensorSpec,
    UnsupportedTensor,
    allowed,
    checked_key,
    hashes,
)

MOST_BYTES = 512 * 2**20
"""A pickle larger than this holds no names and shapes."""
_MOST_STEPS = 3_000_000
"""Opcodes and copied elements; the largest classifier with its optimiser takes some hundred thousand."""
_MOST_NUMBERED = 100_000
"""Keys that are no words, and members of sets: numbers can be chosen so that a dictionary takes each for the others."""
_MOST_INTEGER = 255
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


class _Counted(dict[int, Callable[[Any], None]]):
    """A table of opcodes that counts how often it is asked; the unpickler asks it at each step."""

    left = _MOST_STEPS

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
        if number > _MOST_STEPS:
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
            if function.path != FROM_TYPE or len(args) != 4:
                break
            function, _class, args, _state = args
        if hashes(function.path) and args and isinstance(args[0], list | tuple | set):
            self._number(len(args[0]))
        return function(*args)

    def _number(self, count: int) -> None:
        self._numbered += count
        if self._numbered > _MOST_NUMBERED:
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
            target[checked_key(key)] = value

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
            target.add(checked_key(item))

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self._number(len(items))
        self.append(frozenset(checked_key(item) for item in items))  # type: ignore[attr-defined]

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
