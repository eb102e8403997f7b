"""One real forward, written down: which operations ran, in which module, and who consumed whose result.

Operations are caught where torch dispatches them to the device, so that it does not matter how they are written:
modules, functions, operators, in place, control flow, scripted parts. What is seen is the path that this one image
took, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from reportgen.engine.device import is_out_of_memory
from reportgen.engine.nested import tensors_in
from reportgen.engine.receptive_field import Reach, Window, reach_of, window_of
from reportgen.engine.structure import CallRecord, ModuleRecord, OperationRecord, Recording
from reportgen.errors import OutOfMemory, PassError

_COPIES = ("clone", "contiguous", "_to_copy", "_unsafe_view", "lift_fresh", "detach", "alias", "copy", "expand_copy")
"""They move numbers about in memory and compute nothing."""


def record(module: nn.Module, sample: Tensor) -> Recording:
    """Run one forward and note its operations.

    Multiply-accumulates are those of matrix products alone: convolutions (grouped and transposed ones too), linear
    layers, matmul, einsum and attention. Biases, normalisations, activations and poolings are not counted.

    Args:
        module: in evaluation mode; left exactly as it is, whatever happens.
        sample: (1, C, H, W), not constant.

    Returns:
        JSON values in the form of `reportgen.engine.structure.Recording`.

    Raises:
        PassError: for a TorchScript module, which takes no hooks; if the forward fails; if it returns no tensor.
        OutOfMemory: if it did not fit.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise PassError(
            "a TorchScript model cannot be recorded: it takes no hooks", "give its weights and --arch instead"
        )
    watch = _Watch(sample)
    calls = _Calls(module, watch)
    try:
        with torch.inference_mode(False), torch.no_grad(), _attention_in_the_open():
            x = sample.clone()  # the model may change its input
            watch.begin(x)
            with watch:
                output = module(x)
            watch.end(output)
    except (OutOfMemory, PassError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory from None
        words = (str(error).strip().splitlines() or [""])[0][:200]
        raise PassError(f"the model failed in its forward: {type(error).__name__}: {words}") from error
    finally:
        calls.remove()
    return Recording(
        input=list(sample.shape[1:]),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        macs=calls.macs(0),
        modules=calls.modules(),
        calls=calls.made,
        operations=watch.operations,
    )


@contextmanager
def _attention_in_the_open() -> Iterator[None]:
    """nn.MultiheadAttention as single operations: its fast path is one, of which the inside is not seen."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation that reaches the device.

    Attributes:
        operations: those that the image has a part in.
        macs: multiply-accumulates by call; of constants too (tables of positions), which are no operation.
        call: the call that runs.
    """

    def __init__(self, sample: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[OperationRecord] = []
        self.reaches: list[Reach] = []
        self.macs: dict[int, int] = {}
        self.call = -1
        # who wrote a piece of memory last; views share theirs, so that writing into a part is seen in the whole.
        # Memory is given away again and again: a result in new memory overwrites what stood here about the old
        self._writer: dict[int, int] = {}

    def begin(self, x: Tensor) -> None:
        """`x` is the input."""
        channels = int(x.shape[1])
        reach = Reach((1, 1), (1.0, 1.0), False, channels, x.numel() // channels)
        self._writer[_memory_of(x)] = self._add("input", [], x, reach)

    def end(self, output: object) -> None:
        """`output` is what the model returned."""
        tensors = list(tensors_in(output))
        if not tensors:
            raise PassError(f"the model returns {type(output).__name__}, in which there is no tensor")
        self.call = -1
        writers = self._writers(tensors)
        reach = self.reaches[writers[0]] if writers else self.reaches[0]
        self._add("output", writers, tensors[0], reach)

    def reach(self, tensor: Tensor) -> Reach | None:
        """How far a tensor sees; None where it does not depend on the image."""
        writer = self._writer.get(_memory_of(tensor))
        return None if writer is None else self.reaches[writer]

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        before = [tensor for tensor in tensors_in((args, named)) if tensor.numel()]
        result = func(*args, **named)
        self._note(func, args, named, before, result)
        return result

    def _note(
        self, func: Any, args: Sequence[Any], named: Mapping[str, Any], before: list[Tensor], result: object
    ) -> None:
        kind = func._schema.name.partition("::")[2]
        written = _written(func, args, named)
        kind = kind.rstrip("_") if written else kind
        returned = [tensor for tensor in tensors_in(result) if tensor.numel()]
        read = {_memory_of(tensor) for tensor in before}
        made = [tensor for tensor in returned if _memory_of(tensor) not in read]
        macs = _macs(kind, args, returned)
        self.macs[self.call] = self.macs.get(self.call, 0) + macs
        if kind == "copy" and _fills(written[0]):  # an assignment of everything leaves nothing of what was there
            before = before[1:]
        writers = self._writers(before)
        if not writers:
            for tensor in (*made, *(tensor for tensor in written if _fills(tensor))):
                self._writer.pop(_memory_of(tensor), None)
        elif kind in _COPIES and len(writers) == 1 and all(_fills(tensor) for tensor in written):
            for tensor in (*made, *written):
                self._writer[_memory_of(tensor)] = writers[0]
        elif made or written:
            main = (*made, *written)[0]
            seen = [(t, reach) for t in before if (reach := self.reach(t)) is not None]
            window = window_of(kind, args, named)
            number = self._add(kind, writers, main, reach_of(kind, args, window, seen, main), macs, window)
            for tensor in (*made, *written):
                self._writer[_memory_of(tensor)] = number

    def _writers(self, tensors: Sequence[Tensor]) -> list[int]:
        found = (self._writer.get(_memory_of(tensor)) for tensor in tensors)
        return list(dict.fromkeys(writer for writer in found if writer is not None))

    def _add(
        self, kind: str, inputs: list[int], made: Tensor, reach: Reach, macs: int = 0, window: Window | None = None
    ) -> int:
        self.operations.append(
            OperationRecord(
                kind=kind,
                call=self.call,
                inputs=inputs,
                shape=_without_batch(made),
                macs=macs,
                kernel=list(window.kernel) if window else [],
                stride=list(window.stride) if window else [],
                groups=window.groups if window else 0,
            )
        )
        self.reaches.append(reach)
        return len(self.operations) - 1


def _memory_of(tensor: Tensor) -> int:
    """What views of the same numbers have in common."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except NotImplementedError:  # sparse and the like have no storage
        return id(tensor)


def _fills(tensor: Tensor) -> bool:
    """Whether it is all there is in its memory, and not a part."""
    return bool(tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes())


def _written(func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> list[Tensor]:
    """The arguments that an operation writes to."""
    found: list[Tensor] = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else named.get(argument.name)
            found += [tensor for tensor in tensors_in(value) if tensor.numel()]
    return found


def _without_batch(tensor: Tensor) -> list[int]:
    sides = list(tensor.shape)
    return sides[1:] if sides[:1] == [1] else sides


def _macs(kind: str, args: Sequence[Any], returned: Sequence[Tensor]) -> int:
    """Multiply-accumulates of a matrix product; 0 for every other operation."""
    if kind == "convolution":
        x, weight, transposed = args[0], args[1], args[6]
        # every input (transposed) or output position meets one kernel of each channel of the other side
        positions = prod((x if transposed else returned[0]).shape[2:])
        return int(len(x) * positions * weight.numel())
    if kind in ("mm", "bmm", "mv", "dot"):
        return int(args[0].numel()) * (int(args[1].shape[-1]) if args[1].dim() > 1 and kind in ("mm", "bmm") else 1)
    if kind in ("addmm", "baddbmm", "_addmm_activation"):
        return int(args[1].numel()) * int(args[2].shape[-1])
    if kind == "addmv":
        return int(args[1].numel())
    if kind.startswith("_scaled_dot_product"):
        query, key, value = args[:3]
        return int(prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1]))
    return 0


class _Calls:
    """Hooks that follow which module runs.

    Attributes:
        made: every call, in order.
    """

    def __init__(self, root: nn.Module, watch: _Watch) -> None:
        self.made: list[CallRecord] = []
        self._watch = watch
        self._open: list[int] = []
        self._parts = list(root.named_modules())
        self._places = {part: place for place, (_name, part) in enumerate(self._parts)}
        self._outputs: dict[int, list[int]] = {}
        self._reaches: dict[int, Reach] = {}
        self._handles: list[RemovableHandle] = []
        for part in self._places:
            if not isinstance(part, torch.jit.ScriptModule):  # its operations count as those of what is around it
                self._handles.append(part.register_forward_pre_hook(self._enter))
                self._handles.append(part.register_forward_hook(self._leave(), always_call=True))

    def remove(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()

    def _enter(self, part: nn.Module, _args: object) -> None:
        self.made.append(CallRecord(module=self._places[part], parent=self._open[-1] if self._open else -1))
        self._open.append(len(self.made) - 1)
        self._watch.call = self._open[-1]

    def _leave(self) -> Callable[[nn.Module, object, object], None]:
        def leave(part: nn.Module, _args: object, output: object) -> None:
            if self._open:
                self._open.pop()
            self._watch.call = self._open[-1] if self._open else -1
            tensor = next(tensors_in(output), None)
            if tensor is not None:
                place = self._places[part]
                self._outputs[place] = _without_batch(tensor)
                reach = self._watch.reach(tensor)
                if reach is not None:
                    self._reaches[place] = reach

        return leave

    def macs(self, place: int) -> int:
        """Multiply-accumulates of all calls of a module, those of modules inside included."""
        return self._macs_by_module().get(place, 0)

    def _macs_by_module(self) -> dict[int, int]:
        totals: dict[int, int] = {}
        named = {name: place for place, (name, _part) in enumerate(self._parts)}
        for call, macs in self._watch.macs.items():
            inside: set[int] = set()  # a module that calls itself counts once
            while call >= 0:
                name = self._parts[self.made[call]["module"]][0]
                # lists and dicts of modules are never called; what they hold is theirs all the same
                ends = [place for place, letter in enumerate(name) if letter == "."]
                inside.update(named[part] for part in (*(name[:end] for end in ends), name, ""))
                call = self.made[call]["parent"]
            for place in inside:
                totals[place] = totals.get(place, 0) + macs
        return totals

    def modules(self) -> list[ModuleRecord]:
        """Every module with what is known of it."""
        macs = self._macs_by_module()
        times: dict[int, int] = {}
        for call in self.made:
            times[call["module"]] = times.get(call["module"], 0) + 1
        return [self._module(place, macs.get(place, 0), times.get(place, 0)) for place in range(len(self._parts))]

    def _module(self, place: int, macs: int, calls: int) -> ModuleRecord:
        name, part = self._parts[place]
        reach = self._reaches.get(place)
        return ModuleRecord(
            name=name,
            type=type(part).__name__,
            depth=name.count(".") + 1 if name else 0,
            calls=calls,
            output=self._outputs.get(place, []),
            parameters=sum(parameter.numel() for parameter in part.parameters()),
            own_parameters=sum(parameter.numel() for parameter in part.parameters(recurse=False)),
            macs=macs,
            field=list(reach.size) if reach and reach.size else None,
            stride=list(reach.step) if reach and reach.step else None,
            start=list(reach.start) if reach and reach.size else None,
            whole=reach.whole if reach else False,
        )
