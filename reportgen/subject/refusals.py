"""Files that are not opened as data, and what is said of each: what it is, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reportgen.errors import ModelFileError, UnsafeModelError
from reportgen.subject.kinds import GIVE, UNKNOWN, Kind, kind_of_file
from reportgen.subject.stand_ins import ForbiddenGlobal, Inert, MalformedPickle

_TRUST = "if you trust its author, add --trust-model; better, ask for a state dict (.safetensors)"


def unreadable(error: ForbiddenGlobal | MalformedPickle, path: Path, shown: str, *, bare: bool) -> ModelFileError:
    """What to say of a pickle that cannot be read as data.

    Args:
        shown: the file's name for messages.
        bare: it begins as the oldest pickles do, and many texts.
    """
    forbidden = error.name if isinstance(error, ForbiddenGlobal) else ""
    if bare and not forbidden.replace(".", "").isidentifier() and kind_of_file(path) != UNKNOWN:
        return not_ours(kind_of_file(path), shown)
    if not forbidden:
        return ModelFileError(f"{shown!r} is damaged: {error}", "get the file again")
    if forbidden == "torch.storage._load_from_bytes":  # so a tensor is written by pickle alone
        return UnsafeModelError(
            f"{shown!r} is a plain pickle with tensors in it: reading them means unpickling, which could run code",
            "if you trust its author, add --trust-model; better, ask for a file of torch.save or safetensors",
        )
    return UnsafeModelError(
        f"opening {shown!r} could run code: it names {forbidden}, which is not needed to read weights", _TRUST
    )


def not_ours(kind: Kind, shown: str) -> ModelFileError:
    """What to say of a file that is something else."""
    return ModelFileError(f"{shown!r} is {kind.what}, not a PyTorch model", kind.remedy)


def plain_pickle(root: Any, shown: str) -> ModelFileError:
    """What to say of a pickle that torch.save did not write."""
    what = root.path if isinstance(root, Inert) else f"a {type(root).__name__}"
    if isinstance(root, Inert) and not (isinstance(root.state, dict) and "_modules" in root.state):
        if root.path.endswith("multiarray._reconstruct"):
            what = "an array of NumPy"
        return ModelFileError(f"{shown!r} is a pickle of {what}, not a PyTorch model", GIVE)
    return UnsafeModelError(
        f"{shown!r} is a plain pickle of {what}, not a file of torch.save: what is in it only unpickling tells, which "
        f"could run code",
        _TRUST,
    )


def program(kind: str, shown: str) -> UnsafeModelError:
    """What to say of a program without the user's word."""
    what = "a TorchScript program" if kind == "torchscript" else "an exported program"
    return UnsafeModelError(f"{shown!r} is {what}: opening it means running its code", _TRUST)
