"""What an audit returns: facts, tensors, and documents on demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reportgen.album import kept_files, kept_formula, kept_pages
from reportgen.errors import UsageError
from reportgen.progress import Progress
from reportgen.report.document import Document
from reportgen.text import counted

if TYPE_CHECKING:
    from torch import Tensor

    from reportgen.blueprint import Blueprint
    from reportgen.pictures import Pictures
    from reportgen.scanned import Scanned
    from reportgen.store import Array, Store
    from reportgen.techniques.technique import Case, Technique

SUFFIXES = (".html", ".pdf", ".json")


@dataclass(frozen=True)
class Report:
    """A finished audit. Shows itself in a notebook.

    Attributes:
        document: everything the document writers need.
    """

    document: Document
    _made: Blueprint
    _scanned: Scanned
    _store: Store
    _pictures: Pictures
    _progress: Progress
    _graph: tuple[bytes, bytes] = (b"", b"")

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """The dictionary that ``report.json`` holds."""
        return {**self.document.facts, "predictions": list(self.document.facts["predictions"])}

    @property
    def complete(self) -> bool:
        """Whether no requested section failed."""
        return all(one["status"] != "failed" for one in self.document.facts["techniques"].values())

    def write(self, target: str | Path) -> Path:
        """Write the report as HTML, PDF or JSON, by the suffix of `target`. An earlier file stays until the new one
        is whole.

        Raises:
            UsageError: for another suffix.
            OutputError: if it cannot be written there.
        """
        from reportgen.report.output import write_atomically

        path = Path(target)
        check_suffix(path)
        write_atomically(path, self._parts(path.suffix))
        self._progress.step(6, "write", path.name)
        return path

    def write_tensorboard(self, directory: str | Path) -> Path:
        """Write profile trace and figures as logs for ``tensorboard --logdir``; the graph too, if the audit was asked
        for logs (``tensorboard=``): it takes the model.

        Raises:
            OutputError: if they cannot be written there.
        """
        from reportgen.clock import now
        from reportgen.report.tensorboard import Recorded, write_logs

        profiled = self.document.facts["techniques"].get("profile", {}).get("status") == "complete"
        trace = self._arrays("profile", None)["trace"].tobytes() if profiled else b""
        write_logs(Path(directory), self.document, Recorded(*self._graph, trace), moment=now())
        self._progress.step(6, "write", Path(directory).name)
        return Path(directory)

    def write_figures(self, directory: str | Path) -> Path:
        """Write every figure as a file named by its content, whole and panel by panel, with LaTeX to set it.

        Files of an earlier run are replaced; files that are not of one never are.

        Raises:
            OutputError: if they cannot be written there.
        """
        from reportgen.report.figure_files import write_figures

        written = write_figures(Path(directory), self.document)
        self._progress.step(6, "write", f"{Path(directory).name}: {counted(len(written), 'file')}")
        return Path(directory)

    def rendered(self, suffix: str) -> bytes:
        """The document as the bytes of a file with this suffix."""
        return b"".join(self._parts(suffix))

    def _parts(self, suffix: str) -> Iterable[bytes]:
        if suffix == ".json":
            from reportgen.report.facts import json_parts

            return json_parts(self.document.facts)
        if suffix == ".pdf":
            from reportgen.report.pdf import render_pdf

            return (render_pdf(self.document, kept_formula(self._store), partial(kept_pages, self._store)),)
        from reportgen.report.html import html_parts

        return html_parts(self.document, kept_formula(self._store), partial(kept_files, self._store))

    def tensors(self, technique: str, image: str | None = None) -> dict[str, Tensor]:
        """Stored tensors by name (the names stand in the docstring of the technique).

        Args:
            technique: its name.
            image: name of an exhibit, of an image of the sample or of any usable image, by the scope of the technique;
                None for techniques about the model.

        Raises:
            UsageError: if there is no such technique or image in this report, or the technique has no tensors.
        """
        import torch

        return {name: torch.from_numpy(np.array(array)) for name, array in self._arrays(technique, image).items()}

    def input(self, image: str) -> Tensor:
        """The (C,H,W) float32 tensor that went into the model for an exhibit. Raises UsageError."""
        import torch

        return torch.from_numpy(np.array(self._pictures.input(self._case(image).digest)))

    def _arrays(self, technique: str, image: str | None) -> Mapping[str, Array]:
        planned = next((p for p in self._made.planned if p.name == technique), None)
        if planned is None:
            names = ", ".join(p.name for p in self._made.planned)
            raise UsageError(f"this report has no technique {technique!r}", f"it has {names}")
        if planned.technique.scope == "scan":
            found = {one.name: one for one in self._scanned.used}
            if image is None and planned.keys(None):
                return planned.read(None, self._store) or {}
            if image is None or image not in found:
                raise UsageError(f"there is no usable image {image!r}", "name one of the images of this report")
            return found[image].row if technique == "predictions" else self._row(technique, found[image].digest)
        arrays = planned.read(self._looked_at(planned.technique, image), self._store)
        if not arrays:
            raise UsageError(
                f"{technique!r} left no tensors in this report", str(planned.reason or "run the audit again")
            )
        return arrays

    def _looked_at(self, technique: Technique, image: str | None) -> Case | None:
        if technique.scope == "model":
            return None
        if technique.scope != "sample":
            return self._case(image)
        for case in technique.of_sample(self._scanned.sample):
            if case.name == image:
                return case
        raise UsageError(
            f"{technique.name!r} was not measured on {image!r}", "name one of images.sample in the facts of this report"
        )

    def _row(self, technique: str, digest: str) -> Mapping[str, Array]:
        row = self._scanned.shards[technique].row(digest)
        assert row is not None
        return row

    def _case(self, image: str | None) -> Case:
        for case in self._scanned.cases:
            if case.name == image:
                return case
        raise UsageError(f"{image!r} is no exhibit of this report", f"choose it with exhibit=[{image!r}]")

    def _repr_html_(self) -> str:
        """The report in a frame, for notebooks; see `reportgen.report.notebook`."""
        from reportgen.report.html import render_html
        from reportgen.report.notebook import notebook_view

        def page(document: Document) -> bytes:
            return self.rendered(".html") if document is self.document else render_html(document)

        return notebook_view(self.document, page)

    def __repr__(self) -> str:
        images, techniques = self.document.facts["images"], self.document.facts["techniques"].values()
        failed = sum(one["status"] == "failed" for one in techniques)
        told = f", {failed} failed" if failed else ""
        return f"<Report on {counted(images['used'], 'image')}, {counted(len(techniques), 'technique')}{told}>"


def check_suffix(path: Path) -> None:
    """Raises UsageError unless a report can be written under this name."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"cannot write {path.name!r}: its suffix names no format", f"use one of {', '.join(SUFFIXES)}")
