"""``reportgen inspect``: what is this file? Runs no image through it beyond the one look at its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reportgen.errors import ArchitectureError, ModelFileError, ReportgenError, UnsafeModelError
from reportgen.job import Job
from reportgen.laboratory import Laboratory
from reportgen.store import Store
from reportgen.subject.digests import sha256_of
from reportgen.subject.hub import shown_name, weights_of
from reportgen.subject.kinds import kind_of_file, kind_of_folder, program_of
from reportgen.subject.sharded import digest_of_model, files_of
from reportgen.subject.subject import Subject

if TYPE_CHECKING:
    from reportgen.subject.trusted import Opened

_FORMS = {
    "state-dict": "a state dict",
    "checkpoint": "a checkpoint",
    "module": "a whole pickled module",
    "safetensors": "weights in safetensors",
    "torchscript": "a TorchScript program",
    "exported": "a program of torch.export",
}
_MOST_NAMES = 20


def inspect(
    path: Path, *, arch: str | None = None, arch_args: Sequence[str] = (), trust: bool = False
) -> dict[str, Any]:
    """Everything that can be said about a model file, as JSON values; with ``error`` and ``remedy`` where it cannot
    be opened.

    Raises:
        ModelFileError: if there is no such file, or it cannot be read.
    """
    if not path.exists():
        raise ModelFileError(f"there is no model file {path.name!r} at the path given", "check the path")
    if not path.is_file() and not path.is_dir():
        raise ModelFileError(f"{path.name!r} is no file but a pipe, socket or device", "give the model file itself")
    job = Job.from_options({"arch": arch, "arch_arg": list(arch_args), "trust_model": trust})
    try:
        found, opened = _looked_into(path, arch, job.arch_arg, trust)
    except OSError as error:
        raise ModelFileError(f"cannot read {shown_name(path)!r}: {error.strerror}", "check its permissions") from None
    if opened is None:
        return found
    subject = Subject(path, None, found["sha256"], {"sha256": found["sha256"]}, (), (), 0, {})
    try:
        with Laboratory(subject, job, Store(None), 1, opened) as laboratory:
            resolution = laboratory.resolve(None)
    except ReportgenError as error:
        return {**found, "error": error.thing, "remedy": error.remedy}
    found["parameters"] = resolution.parameters
    found["input"] = dict(resolution.pipeline)
    found["classes"] = resolution.classes
    found["output_kind"] = resolution.output_kind
    found["default_layers"] = list(resolution.defaults)
    found["layers"] = [
        {
            "name": layer.name,
            "type": layer.type,
            "shape": list(layer.shape or layer.output),
            "parameters": layer.parameters,
        }
        for layer in resolution.layers
    ]
    return found


def inspect_file(
    path: Path, *, arch: str | None = None, arch_args: Mapping[str, object] | None = None, trust: bool = False
) -> dict[str, Any]:
    """Whatever can be said of a file without running the model in it, as JSON values; with ``error`` and ``remedy``
    where it cannot be opened as one.

    Raises:
        OSError: if it cannot be read.
    """
    return _looked_into(path, arch, arch_args or {}, trust)[0]


def _looked_into(
    path: Path, arch: str | None, arch_args: Mapping[str, object], trust: bool
) -> tuple[dict[str, Any], Opened | None]:
    """What `inspect_file` tells, and the module with its facts; None where it cannot be opened."""
    told: dict[str, Any] = {"file": shown_name(path)}
    try:
        weights = weights_of(path)
        files = files_of(weights)
        told["sha256"] = digest_of_model(weights, sha256_of)
        told["size"] = sum(file.stat().st_size for file in files)
        told["files"] = [file.name for file in files] if len(files) > 1 or path != weights else []
        _tell_contents(told, path, weights)
        return told, _tell_model(told, path, arch, arch_args, trust)
    except ReportgenError as error:
        told |= {"safe": False} if isinstance(error, UnsafeModelError) else {}
        told |= {"error": error.thing, "remedy": error.remedy}
        told.setdefault("what", _what(path, error.thing))
    return told, None


def _what(path: Path, error: str) -> str:
    """What a refused file or folder is, where that is why it was refused; else nothing."""
    kind = kind_of_folder(path) if path.is_dir() else kind_of_file(path)
    return kind.what if kind is not None and kind.what in error else ""


def _tell_contents(told: dict[str, Any], path: Path, weights: Path) -> None:
    """What lies in the file: read as data, whatever it is."""
    from reportgen.subject.contents import read_contents

    program = program_of(weights)
    if program is not None:
        told |= {"what": _FORMS[program], "format": program, "safe": False}
        return
    try:
        contents = read_contents(weights, told["file"])
    except UnsafeModelError:  # told by whoever opens the model
        return
    form = _FORMS[contents.format]
    told["what"] = f"{form} of {contents.framework}" if contents.framework else form
    told |= {"format": contents.format, "container": contents.container.kind, "safe": True}
    told |= {"framework": contents.framework, "entry": contents.place, "weights": contents.weights}
    told |= {"weights_there": list(contents.available), "beside": dict(contents.facts)}
    told["not_run"] = list(contents.container.foreign)
    told |= {"tensors": len(contents.state), "keys": list(contents.state)[:5]}
    told["named"] = contents.own.get("architecture")


def _tell_model(
    told: dict[str, Any], path: Path, arch: str | None, arch_args: Mapping[str, object], trust: bool
) -> Opened:
    """What the model is. Raises what opening it does; candidates are told where the architecture is in doubt."""
    from reportgen.subject.contents import read_contents
    from reportgen.subject.model_file import open_model
    from reportgen.subject.recognition import fitting

    try:
        module, facts = open_model(path, sha256=told["sha256"], arch=arch, arch_args=arch_args, trust=trust)
    except ArchitectureError:
        if told.get("safe"):
            told["candidates"] = list(fitting(read_contents(weights_of(path), told["file"]).shapes))[:_MOST_NAMES]
        raise
    told.setdefault("what", _FORMS.get(facts.format, facts.format))
    told |= {"format": facts.format, "safe": facts.safe}
    told |= {name: getattr(facts, name) for name in ("architecture", "how", "prefix", "num_classes", "channels_in")}
    told |= {"candidates": list(facts.candidates), "stray": list(facts.stray), "replaced": list(facts.replaced)}
    if facts.head:
        told["head"] = facts.head
        told["between"] = f"assumed: the pooling of {facts.architecture} and nothing but dropout"
        if facts.how == "verified":
            told["between"] = "as the program in the file: it answers alike"
    told |= {"labels_from": facts.labels_from, "labels": list(facts.labels or ())}
    return module, facts


_WITHIN = 8
"""Of a list, shown on the terminal."""


_COUNTED: Final = {"size": " bytes", "parameters": ""}


def _short(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def words(found: Mapping[str, Any]) -> str:
    """The same for the terminal: facts a line, then the layers that can be read as maps."""
    lines = []
    for name, value in found.items():
        if name == "layers" or value in (None, "", [], (), {}):
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{k}={_short(v)}" for k, v in value.items() if v not in (None, [], ()))
        elif name in _COUNTED:
            value = f"{value:,}{_COUNTED[name]}"
        elif isinstance(value, list | tuple):
            shown = ", ".join(str(item) for item in value[:_WITHIN])
            value = f"{shown}, … ({len(value)})" if len(value) > _WITHIN else shown
        lines.append(f"{name.replace('_', ' '):15} {value}")
    layers = [layer for layer in found.get("layers", ()) if len(layer["shape"]) == 3]
    if layers:
        lines.append(f"layers          {len(layers)} whose output reads as maps (channels × height × width):")
        defaults = set(found.get("default_layers", ()))
        for layer in layers:
            mark = "*" if layer["name"] in defaults else " "
            lines.append(f"  {mark} {layer['name']:40} {layer['type']:24} {' × '.join(map(str, layer['shape']))}")
        lines.append("  * shown by default")
    return "\n".join(lines)
