"""A pickled module made real without its pickle: classes are ours or a library's, only data is the file's.

The classes are looked up in torch.nn, torchvision and timm; their constructors and ``__setstate__`` are not run. What
the file
gives is the instance dictionary, and of that only plain values, tensors and submodules are taken.
"""

from __future__ import annotations

import enum
import importlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reportgen.errors import ModelFileError, UnsafeModelError
from reportgen.subject.safe_pickle import Inert, Name, TensorSpec

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
MOST_MODULES = 100_000
MOST_DEPTH = 200


def is_module(value: Any) -> bool:
    """Whether a stand-in is that of an `nn.Module`: its dictionary has a module's parts."""
    return (
        isinstance(value, Inert) and isinstance(value.state, dict) and {"_parameters", "_modules"} <= set(value.state)
    )


def state_of(root: Inert) -> OrderedDict[str, TensorSpec]:
    """Names to tensors of a stand-in module, as its ``state_dict`` would give them."""
    found: OrderedDict[str, TensorSpec] = OrderedDict()
    for prefix, module in _modules(root):
        hidden = module.state.get("_non_persistent_buffers_set") or ()
        for kind in ("_parameters", "_buffers"):
            for name, value in _mapping(module.state.get(kind)).items():
                if isinstance(value, TensorSpec) and not (kind == "_buffers" and name in hidden):
                    found[f"{prefix}{name}"] = value
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
        count += 1
        if count > MOST_MODULES or depth > MOST_DEPTH:
            raise ModelFileError("the pickled module is damaged: its modules have no end", "get the file again")
        yield prefix, module
        children = [(name, part) for name, part in _mapping(module.state.get("_modules")).items() if is_module(part)]
        stack.extend((f"{prefix}{name}.", part, depth + 1) for name, part in reversed(children))


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

    def parameter(spec: TensorSpec) -> Tensor:
        if id(spec) not in real:
            value = tensor(spec)
            real[id(spec)] = (
                nn.Parameter(value, requires_grad=False) if spec.parameter and value.is_floating_point() else value
            )
        return real[id(spec)]

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
        instance: nn.Module = cls.__new__(cls)
        nn.Module.__init__(instance)
        for hooks in _HOOKS:
            if one.state.get(hooks):
                raise _own_code(shown, f"{one.path} with hooks")
        own = instance.__dict__
        for name, value in _mapping(one.state).items():
            if name in _STRUCTURE:
                continue
            if hasattr(nn.Module, name) and name not in ("call_super_init", "dump_patches"):
                raise _own_code(shown, f"{one.path} whose {name} is exchanged")
            if callable(getattr(cls, name, None)) or isinstance(getattr(cls, name, None), property):
                raise _own_code(shown, f"{one.path} whose {name} is exchanged")
            own[name] = _value(value, parameter)
        for key, value in _mapping(one.state.get("_parameters")).items():
            made_real = _tensor(value, parameter)
            instance._parameters[key] = made_real if isinstance(made_real, nn.Parameter) else None
        instance._buffers.update({k: _tensor(v, parameter) for k, v in _mapping(one.state.get("_buffers")).items()})
        hidden = one.state.get("_non_persistent_buffers_set") or ()
        instance._non_persistent_buffers_set = {str(name) for name in hidden}
        instance._modules.update({k: module(v, depth + 1) for k, v in _mapping(one.state.get("_modules")).items()})
        return instance

    built = module(root, 0)
    assert built is not None
    return built.eval()


def _tensor(value: Any, real: Callable[[TensorSpec], Tensor]) -> Tensor | None:
    return real(value) if isinstance(value, TensorSpec) else None


def _class(path: str, shown: str) -> type[nn.Module]:
    """A module class of torch, torchvision or timm. Raises UnsafeModelError for every other."""
    module, _dot, name = path.rpartition(".")
    if path.startswith(_PACKAGES):
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ImportError:
            package = path.partition(".")[0]
            raise ModelFileError(
                f"{shown!r} needs {path}, which cannot be imported", f"pip install -U {package}"
            ) from None
        if isinstance(found, type) and issubclass(found, nn.Module) and found.__module__.startswith(_PACKAGES):
            return found
    raise _own_code(shown, path)


def _own_code(shown: str, what: str) -> UnsafeModelError:
    return UnsafeModelError(
        f"opening {shown!r} would need its own code: it holds {what}",
        "if you trust its author, add --trust-model; better, ask for a state dict (.safetensors)",
    )


def _value(value: Any, real: Callable[[TensorSpec], Tensor]) -> Any:
    """An attribute: plain values as they are, functions of torch by their name, everything else dropped (None)."""
    if value is None or isinstance(value, bool | int | float | str | bytes | complex):
        return value
    if isinstance(value, TensorSpec):
        return real(value)
    if isinstance(value, dict):
        return type(value)((_value(k, real), _value(v, real)) for k, v in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(_value(item, real) for item in value)
    if isinstance(value, Name):
        return _function(value.path)
    if isinstance(value, Inert) and value.path.startswith(("timm.layers.", "torchvision.ops.", "torch.nn.")):
        return _enumeration(value)
    return None


def _function(path: str) -> Any:
    """A function or module class of torch that a network keeps as an attribute (an activation, a layer to repeat)."""
    module, _dot, name = path.rpartition(".")
    if module in ("torch.nn.functional", "torch._C._nn", "torch") and name.islower():
        found = getattr(torch._C._nn if module == "torch._C._nn" else importlib.import_module(module), name, None)
        return getattr(torch, name, None) if isinstance(getattr(torch, name, None), torch.dtype) else found
    if module.startswith(("torch.nn.modules", "torchvision.ops", "timm.layers")):
        found = getattr(importlib.import_module(module), name, None)
        return found if isinstance(found, type) and issubclass(found, nn.Module) else None
    return None


def _enumeration(value: Inert) -> Any:
    module, _dot, name = value.path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    if isinstance(found, type) and issubclass(found, enum.Enum):
        try:
            return found(*value.args)
        except ValueError:
            return None
    return None
