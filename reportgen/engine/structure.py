"""What a recording says, in JSON values: modules, their calls, and the operations of one forward.

Imports no torch: a technique reads recordings from the store.
"""

from __future__ import annotations

from typing import TypedDict


class ModuleRecord(TypedDict):
    """One module of the model, the model itself first.

    Attributes:
        name: dotted name; empty for the model itself.
        type: class name.
        depth: 0 for the model, 1 for its children.
        calls: how often the forward called it; 0 for what it did not reach (auxiliary classifiers), and for modules
            whose weights another one uses directly.
        output: shape of what its last call returned (of the first tensor), without the batch; empty where none.
        parameters: of the module and all it holds, shared ones once.
        own_parameters: those registered with the module itself.
        macs: multiply-accumulates of all its calls; see `reportgen.engine.recording`.
        field: receptive field (h, w) in input pixels of one position of its output, as convolutions and poolings along
            the longest path define it; None where they do not define it.
        stride: (h, w) distance in input pixels between neighbouring positions of its output; None with `field`.
        start: (y, x) in input pixels of the centre of what the first position sees, where a pixel reaches from its
            number to the next; None with `field`.
        whole: every position depends on the whole image, by global pooling, attention or a layer over all positions.
            With a `field` beside it: gates or statistics see the whole image, convolutions alone only the field.
    """

    name: str
    type: str
    depth: int
    calls: int
    output: list[int]
    parameters: int
    own_parameters: int
    macs: int
    field: list[int] | None
    stride: list[float] | None
    start: list[float] | None
    whole: bool


class CallRecord(TypedDict):
    """One call of a module: its place in ``modules``, and that of the call around it in ``calls`` (-1: none)."""

    module: int
    parent: int


class OperationRecord(TypedDict):
    """One operation that the input has a part in.

    Attributes:
        kind: its name in ATen without ``_`` for in place; ``input`` and ``output`` at the ends.
        call: the innermost call it ran in, its place in ``calls``; -1 for the ends.
        inputs: the operations whose results it reads, in order, each once.
        shape: of its result, without the batch.
        macs: multiply-accumulates.
        kernel, stride: of convolutions and poolings, (h, w); empty for others.
        groups: of convolutions; 0 for others.
    """

    kind: str
    call: int
    inputs: list[int]
    shape: list[int]
    macs: int
    kernel: list[int]
    stride: list[int]
    groups: int


class Recording(TypedDict):
    """One forward of one image.

    Attributes:
        input: (C, H, W).
        parameters: of the model, shared ones once.
        macs: of the forward.
        modules, calls, operations: in the order of registration, of calling, of execution. The first operation is the
            input, the last one the output.
    """

    input: list[int]
    parameters: int
    macs: int
    modules: list[ModuleRecord]
    calls: list[CallRecord]
    operations: list[OperationRecord]
