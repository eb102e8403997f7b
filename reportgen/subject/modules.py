"""A pickled module made real without its pickle: classes are ours or a library's, only data is the file's.

The classes are looked up in torch.nn, torchvision and timm, or have a twin (`reportgen.subject.twins`); their
constructors and ``__setstate__`` are not run. What the file gives is the instance dictionary, and of that only plain
values, tensors and submodules are taken. Whatever else an attribute holds is `Unread`: a network that uses it stops
instead of computing something else.
"""

from __future__ import annotations

import enum
import importlib
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reportgen.errors import ModelFileError, UnsafeModelError
from reportgen.subject.containers import MOST_TENSORS
from reportgen.subject.stand_ins import MEMBER, MOST_LETTERS, Inert, Name, TensorSpec
from reportgen.subject.twins import Twin, twin_of

_PACKAGES = ("torch.nn.", "torchvision.models.", "torchvision.ops.", "timm.models.", "timm.layers.")
_HOOKS = (
    "_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs", "_state_dict_hooks", "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip
_STRUCTURE = (
    "_parameters",
    "_buffers",
    "_modules",
    "training",
    "_non_persistent_buffers_set",
    "_is_full_backward_hook",
    *_HOOKS,
)
MOST_DEPTH = 200
MOST_VALUES = 1_000_000


def is_module(value: Any) -> bool:
    """Whether a stand-in is that of an `nn.Module`: its dictionary has a module's parts."""
    return (
        isinstance(value, Inert) and isinstance(value.state, dict) and {"_parameters", "_modules"} <= set(value.state)
    )


def state_of(root: Inert, *, whole: bool = False) -> OrderedDict[str, TensorSpec]:
    """Names to tensors of a stand-in module, as its ``state_dict`` would give them.

    Args:
        whole: with the buffers that it would leave out.
    """
    found: OrderedDict[str, TensorSpec] = OrderedDict()
    for prefix, module in _modules(root):
        hidden = module.state.get("_non_persistent_buffers_set") or ()
        for kind in ("_parameters", "_buffers"):
            for name, value in _mapping(module.state.get(kind)).items():
                if isinstance(value, TensorSpec) and (whole or not (kind == "_buffers" and name in hidden)):
                    found[f"{prefix}{name}"] = value
        if len(found) > MOST_TENSORS:
            raise ModelFileError("the pickled module is damaged: its weights have no end", "get the file again")
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ModelFileError("the pickled module is damaged: its parts have no names", "get the file again")
    return value


def _modules(root: Inert) -> Iterator[tuple[str, Inert]]:
    stack: list[tuple[str, Inert, int]] = [("", root, 0)]
    count = 0
    while stack:
        prefix, module, depth = stack.pop()
        # one module may hang in many places: what counts is how often it is looked at
        count += 1 + sum(len(value) for value in (module.state, *module.state.values()) if isinstance(value, dict))
        if count > MOST_VALUES or depth > MOST_DEPTH or len(prefix) > MOST_LETTERS:
            raise ModelFileError("the pickled module is damaged: its modules have no end", "get the file again")
        yield prefix, module
        children = [(name, part) for name, part in _mapping(module.state.get("_modules")).items() if is_module(part)]
        if any("." in name or not name for name, _part in children):
            raise ModelFileError("the pickled module is damaged: its parts have no names", "get the file again")
        stack.extend((f"{prefix}{name}.", part, depth + 1) for name, part in reversed(children))


def unknown_classes(root: Inert) -> tuple[str, ...]:
    """Classes of a stand-in module that nobody here has, in the order of their names.

    None are told where code hangs on an instance as well (hooks, an exchanged ``forward``): weights alone do not say
    then what the network computes.
    """
    found: set[str] = set()
    for _prefix, one in _modules(root):
        if any(one.state.get(hooks) for hooks in _HOOKS) or "forward" in one.state:
            return ()
        if not one.path.startswith(_PACKAGES) and twin_of(one.path) is None:
            found.add(one.path)
    return tuple(sorted(found))


def build(root: Inert, shown: str, tensor: Callable[[TensorSpec], Tensor]) -> nn.Module:
    """The module that a tree of stand-ins describes.

    Args:
        shown: the file's name for messages.
        tensor: makes a tensor real.

    Raises:
        UnsafeModelError: if it holds classes of its own, or puts functions where methods are looked up.
        ModelFileError: if it is damaged.
    """
    made: dict[int, nn.Module] = {}
    real: dict[int, Tensor | nn.Parameter] = {}
    values = _Values(shown, lambda spec: parameter(spec))

    def parameter(spec: TensorSpec) -> Tensor:
        if id(spec) not in real:
            value = tensor(spec)
            real[id(spec)] = (
                nn.Parameter(value, requires_grad=False) if spec.parameter and value.is_floating_point() else value
            )
        return real[id(spec)]

    def part(value: Any) -> Tensor | None:
        if value is not None and not isinstance(value, TensorSpec):
            raise ModelFileError(f"{shown!r} holds weights that are no tensors", "ask for a state dict (.safetensors)")
        return None if value is None else parameter(value)

    def weight(value: Any) -> nn.Parameter | None:
        found = part(value)
        if found is None or isinstance(found, nn.Parameter):
            return found
        if not found.is_floating_point():
            kind = str(found.dtype).removeprefix("torch.")
            raise ModelFileError(f"{shown!r} holds weights as {kind}", "save the weights as float32")
        return nn.Parameter(found, requires_grad=False)

    def module(one: Any, depth: int) -> nn.Module | None:
        if one is None:
            return None
        if not is_module(one) or depth > MOST_DEPTH:
            raise ModelFileError(f"{shown!r} is damaged: a submodule is none", "get the file again")
        if id(one) not in made:
            made[id(one)] = fill(one, depth)
        return made[id(one)]

    def fill(one: Inert, depth: int) -> nn.Module:
        cls = _class(one.path, shown)
        try:
            instance: nn.Module = cls.__new__(cls)
            nn.Module.__init__(instance)
        except Exception as error:  # of a class that is not made so
            raise _own_code(shown, f"{one.path} ({type(error).__name__})") from None
        for hooks in _HOOKS:
            if one.state.get(hooks):
                raise _own_code(shown, f"{one.path} with hooks")
        own = instance.__dict__
        for name, value in _mapping(one.state).items():
            if name in _STRUCTURE or (issubclass(cls, Twin) and name not in cls.takes and name != "forward"):
                continue
            if name.startswith("__") or (hasattr(nn.Module, name) and name not in ("call_super_init", "dump_patches")):
                raise _own_code(shown, f"{one.path} whose {name} is exchanged")
            if callable(getattr(cls, name, None)) or isinstance(getattr(cls, name, None), property):
                raise _own_code(shown, f"{one.path} whose {name} is exchanged")
            own[name] = values.of(value, f"{one.path}.{name}")
        instance._parameters.update({k: weight(v) for k, v in _mapping(one.state.get("_parameters")).items()})
        instance._buffers.update({k: part(v) for k, v in _mapping(one.state.get("_buffers")).items()})
        hidden = one.state.get("_non_persistent_buffers_set") or ()
        if not isinstance(hidden, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in hidden):
            raise ModelFileError(f"{shown!r} is damaged: its parts have no names", "get the file again")
        instance._non_persistent_buffers_set = set(hidden)
        instance._modules.update({k: module(v, depth + 1) for k, v in _mapping(one.state.get("_modules")).items()})
        return instance

    built = module(root, 0)
    assert built is not None
    return built.eval()


def channels_of(module: nn.Module) -> int:
    """Input channels of the first convolution that is registered; 3 where there is none.

    timm has networks where that convolution does not read the image: pixels are folded into channels before it (4 × 4
    in TResNet), or none is named as the first.
    """
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    told = getattr(module, "pretrained_cfg", None)
    if isinstance(told, Mapping) and told.get("first_conv", "unknown") in ((), [], None) and told.get("input_size"):
        return int(told["input_size"][0])
    taken = first.in_channels if first is not None else 3
    folded = any(type(part).__name__ == "SpaceToDepth" for part in module.modules())
    return max(1, taken // 16) if folded else taken


def _class(path: str, shown: str) -> type[nn.Module]:
    """A module class of torch, torchvision or timm, or a twin. Raises UnsafeModelError for every other."""
    twin = twin_of(path)
    if twin is not None:
        return twin
    if path.startswith(_PACKAGES):
        try:
            found = _imported(path)
        except ImportError:
            package = path.partition(".")[0]
            raise ModelFileError(
                f"{shown!r} needs {path}, which cannot be imported", f"pip install -U {package}"
            ) from None
        if isinstance(found, type) and issubclass(found, nn.Module) and all(map(_plain, found.__mro__)):
            return found
    raise _own_code(shown, path)


def _plain(cls: type) -> bool:
    """Whether a class is a part of a network and no more: no graph that holds code, no way to spread over machines."""
    return cls.__module__.startswith(_PACKAGES) or cls.__module__ in ("builtins", "abc", "typing", "collections.abc")


def _own_code(shown: str, what: str) -> UnsafeModelError:
    return UnsafeModelError(
        f"opening {shown!r} would need its own code: it holds {what}",
        "name its --arch and only its weights are used; or, if you trust its author, add --trust-model",
    )


def _imported(path: str) -> Any:
    """What a dotted name stands for in a library, or None. Raises ImportError where its module cannot be imported."""
    module, _dot, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        raise
    except Exception as error:  # of a module that is no part of the library's interface
        raise ImportError(str(error)) from None


class Unread:
    """Where an attribute was that is not taken from a file. Whoever calls or tests it or asks for a part is stopped."""

    def __init__(self, place: str, shown: str) -> None:
        self._why = (place, shown)

    def _stop(self, *_args: object, **_named: object) -> Any:
        place, shown = self._why
        raise _own_code(shown, f"{place}, which the network uses")

    __call__ = __bool__ = __len__ = __iter__ = __getitem__ = __int__ = __float__ = __index__ = _stop
    __add__ = __radd__ = __mul__ = __rmul__ = __sub__ = __rsub__ = __truediv__ = __rtruediv__ = __contains__ = _stop


class _Values:
    """Attributes made real, each object of the file once: it may hold itself, or one thing a billion times."""

    def __init__(self, shown: str, real: Callable[[TensorSpec], Tensor]) -> None:
        self._shown = shown
        self._real = real
        self._made: dict[int, Any] = {}
        self._left = MOST_VALUES

    def of(self, value: Any, place: str, depth: int = 0) -> Any:
        """Plain values as they are, functions of torch by their name, for everything else an `Unread`."""
        if value is None or isinstance(value, bool | int | float | str | bytes | complex):
            return value
        if isinstance(value, TensorSpec):
            return self._real(value)
        if id(value) in self._made:
            return self._made[id(value)]
        self._left -= 1 + (len(value) if isinstance(value, dict | list | tuple | set | frozenset) else 0)
        if depth > MOST_DEPTH or self._left < 0:
            raise ModelFileError(f"{self._shown!r} is damaged: {place} has no end", "get the file again")
        made = self._container(value, place, depth + 1)
        if made is None:
            made = _function(value.path) if isinstance(value, Name) else _enumeration(value)
        self._made[id(value)] = Unread(place, self._shown) if made is None else made
        return self._made[id(value)]

    def _container(self, value: Any, place: str, depth: int) -> Any:
        if isinstance(value, dict):
            return type(value)((self.of(k, place, depth), self.of(v, place, depth)) for k, v in value.items())
        if isinstance(value, list | tuple | set | frozenset):
            return type(value)(self.of(item, place, depth) for item in value)
        return None


def _function(path: str) -> Any:
    """A function, module class or element type of torch that a network keeps as an attribute (an activation, a layer
    to repeat).
    """
    module, _dot, name = path.rpartition(".")
    try:
        if module in ("torch.nn.functional", "torch._C._nn", "torch"):
            found = getattr(torch._C._nn, name, None) if module == "torch._C._nn" else _imported(path)
            ours = isinstance(found, types.FunctionType) and found.__module__ == module  # others only help it
            plain = (ours or isinstance(found, types.BuiltinFunctionType)) and not name.startswith("_")
            return found if plain or isinstance(found, torch.dtype) else None
        if path.startswith(("torch.nn.modules.", "torchvision.ops.", "timm.layers.")):
            found = _imported(path)
            return found if isinstance(found, type) and issubclass(found, nn.Module) else None
    except ImportError:
        return None
    return None


def _enumeration(value: Any) -> Any:
    """A member of a library's enumeration, by its value or by its name; or None."""
    if not isinstance(value, Inert):
        return None
    if value.path == MEMBER:
        kind = _known_enumeration(value.args[0].path)
        return None if kind is None else kind.__members__.get(value.args[1])
    if len(value.args) != 1 or not isinstance(value.args[0], str | int):
        return None
    kind = _known_enumeration(value.path)
    try:
        return None if kind is None else kind(value.args[0])
    except ValueError:
        return None


def _known_enumeration(path: str) -> type[enum.Enum] | None:
    if not path.startswith(("timm.layers.", "torchvision.ops.", "torch.nn.")):
        return None
    try:
        found = _imported(path)
    except ImportError:
        return None
    return found if isinstance(found, type) and issubclass(found, enum.Enum) else None
