"""The errors a user can meet. Each names the thing that is wrong and the remedy, in one or two lines."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

from reportgen.text import line


class ReportgenError(Exception):
    """An expected failure: something about the input or the machine, not a defect of the program.

    Attributes:
        thing: what is wrong, naming the file, option or layer concerned.
        remedy: what the user can do about it; may be empty where nothing can be done.
        exit_code: the exit status of the command line (see the table of exit codes in the README).
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, thing: str, remedy: str = "") -> None:
        self.thing = line(thing)
        self.remedy = line(remedy)
        super().__init__(self.thing, self.remedy)

    def __str__(self) -> str:
        return f"{self.thing}\n{self.remedy}" if self.remedy else self.thing


class UsageError(ReportgenError):
    """An option that is unknown, malformed or contradicts another one."""

    exit_code = 2


class ModelFileError(ReportgenError):
    """A model file that is missing, damaged, or holds no usable weights."""


class UnsafeModelError(ModelFileError):
    """A model file whose opening could run code, without the user's word that it may."""


class ArchitectureError(ReportgenError):
    """Weights whose architecture is unknown or ambiguous, or that do not fit the architecture named."""


class ImagesError(ReportgenError):
    """No usable image at all, or an image source that cannot be read."""


class LabelsError(ReportgenError):
    """A label or truth file that cannot be read or does not fit the model."""


class LayerError(ReportgenError):
    """A layer or channel that the model does not have."""


class StoreError(ReportgenError):
    """The tensor store cannot be used."""


class OutputError(ReportgenError):
    """A document that cannot be written where it was asked for."""


class PassError(ReportgenError):
    """A pass through the model failed: it raised, or its output cannot be read as class scores."""


class OutOfMemory(ReportgenError):
    """A pass did not fit into memory. The pipeline tries again with half the batch; for one image it is an error."""

    def __init__(self) -> None:
        super().__init__(
            "memory ran out even for a single image", "give a smaller --input-size, fewer --layers, or another --device"
        )


class EntryVanished(ReportgenError):
    """A stored tensor that was there when the run was planned is damaged or gone; planning again finds out what to
    repeat.
    """

    def __init__(self) -> None:
        super().__init__("stored tensors keep vanishing while they are used", "give --cache-dir a directory of its own")


def nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    """The remedy for a name that is none of the `known` ones: that which is most like it, else `otherwise`."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else otherwise
