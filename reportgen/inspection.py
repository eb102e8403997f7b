"""``reportgen inspect``: what is this file? Runs no image through it beyond the one look at its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reportgen.errors import ModelFileError, ReportgenError
from reportgen.job import Job
from reportgen.laboratory import Laboratory
from reportgen.store import Store
from reportgen.subject.digests import sha256_of
from reportgen.subject.hub import weights_of
from reportgen.subject.sharded import digest_of_model
from reportgen.subject.subject import Subject


def inspect(
    path: Path, *, arch: str | None = None, arch_args: Sequence[str] = (), trust: bool = False
) -> dict[str, Any]:
    """Everything that can be said about a model file, as JSON values; with ``error`` and ``remedy`` where it cannot
    be opened.

    Raises:
        ModelFileError: if there is no such file.
    """
    from reportgen.subject.model_file import inspect_file

    if not path.exists():
        raise ModelFileError(f"there is no model file {path.name!r} at the path given", "check the path")
    sha256 = digest_of_model(weights_of(path), sha256_of)
    job = Job.from_options({"arch": arch, "arch_arg": list(arch_args), "trust_model": trust})
    found = dict(inspect_file(path, sha256=sha256, arch=arch, arch_args=job.arch_arg, trust=trust))
    if found.get("error"):
        return found
    subject = Subject(path, None, sha256, {"sha256": sha256}, (), (), 0, {})
    try:
        with Laboratory(subject, job, Store(None), 1) as laboratory:
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


def words(found: Mapping[str, Any]) -> str:
    """The same for the terminal: facts a line, then the layers that can be read as maps."""
    lines = []
    for name, value in found.items():
        if name == "layers" or value in (None, "", [], ()):
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{k}={v}" for k, v in value.items() if v not in (None, [], ()))
        elif isinstance(value, list | tuple):
            shown = ", ".join(str(item) for item in value[:8])
            value = f"{shown}, … ({len(value)})" if len(value) > 8 else shown
        lines.append(f"{name:15} {value}")
    layers = [layer for layer in found.get("layers", ()) if len(layer["shape"]) == 3]
    if layers:
        lines.append(f"layers          {len(layers)} whose output reads as maps (channels × height × width):")
        defaults = set(found.get("default_layers", ()))
        for layer in layers:
            mark = "*" if layer["name"] in defaults else " "
            lines.append(f"  {mark} {layer['name']:40} {layer['type']:24} {' × '.join(map(str, layer['shape']))}")
        lines.append("  * shown by default")
    return "\n".join(lines)
