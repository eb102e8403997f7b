"""TensorBoard logs: the model's graph, the profiler's trace, and the panels of the figures as images.

Everything comes as bytes from the store. Records are written here rather than by a `SummaryWriter`: its files carry the
name of the machine, and the clock.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reportgen.errors import OutputError
from reportgen.figures.figure import Figure, Panel, slug
from reportgen.report.document import Document
from reportgen.report.output import check_folder, write_atomically

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

EVENTS: Final = "events.out.tfevents.0000000001.reportgen"
"""TensorBoard knows event files by ``tfevents`` in their names; a fixed name lets a later run replace its own."""

TRACE: Final = "reportgen.pt.trace.json.gz"
"""The plugin torch-tb-profiler knows traces by ``.pt.trace.json.gz``; what stands before is the worker."""


@dataclass(frozen=True)
class Recorded:
    """What only a pass can give; empty where there was none.

    Attributes:
        graph: a serialised ``GraphDef``.
        metadata: the ``TaggedRunMetadata`` that belongs to it.
        trace: a Chrome trace as gzipped JSON.
    """

    graph: bytes = b""
    metadata: bytes = b""
    trace: bytes = b""


def write_logs(directory: Path, document: Document, recorded: Recorded, *, moment: float) -> list[Path]:
    """Write a run, named by the model's file, into a folder for ``tensorboard --logdir``.

    Files of an earlier run of the same model are replaced; those of others stay, so that runs can be compared.

    Args:
        directory: made if it does not exist; any name.
        moment: seconds since the epoch that every record bears.

    Returns:
        The files written.

    Raises:
        OutputError: if they cannot be written.
    """
    folder = directory / slug(Path(str(document.facts["model"]["file"])).stem)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {directory.name!r}: {error.strerror}", "give another one") from None
    events = folder / EVENTS
    write_atomically(events, b"".join(_records(document, recorded, moment)))
    trace = folder / TRACE
    if not recorded.trace:
        trace.unlink(missing_ok=True)
        return [events]
    write_atomically(trace, recorded.trace)
    return [events, trace]


def check_directory(directory: Path) -> None:
    """Raises OutputError if no logs can be written there: better before the work than after it."""
    check_folder(directory, "the TensorBoard logs")


def _records(document: Document, recorded: Recorded, moment: float) -> Iterator[bytes]:
    from tensorboard.compat.proto.event_pb2 import Event, TaggedRunMetadata

    yield _record(Event(file_version="brain.Event:2", wall_time=moment))
    if recorded.graph:
        yield _record(Event(graph_def=recorded.graph, wall_time=moment))
        metadata = TaggedRunMetadata.FromString(recorded.metadata)
        yield _record(Event(tagged_run_metadata=metadata, wall_time=moment))
    taken: set[str] = set()
    for section in document.sections:
        for figure in section.figures:
            for panel in (panel for row in figure.rows for panel in row.panels if panel is not None):
                if panel.picture.media != "image/svg+xml":  # TensorBoard shows pixels only
                    yield _record(_image(figure, panel, _tag(figure, panel, taken), moment))


def _tag(figure: Figure, panel: Panel, taken: set[str]) -> str:
    """Technique, figure, panel: TensorBoard groups by what stands before the first slash."""
    words = [slug(figure.technique), figure.id.removeprefix(f"{figure.technique}-")]
    if panel.name:
        words.append(slug(panel.name))
    tag = base = "/".join(words)
    number = 2
    while tag in taken:
        tag, number = f"{base}-{number}", number + 1
    taken.add(tag)
    return tag


def _image(figure: Figure, panel: Panel, tag: str, moment: float) -> Event:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.image.metadata import create_summary_metadata

    picture = panel.picture
    parts = (str(picture.width).encode(), str(picture.height).encode(), picture.data)
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(parts))])
    words = f"{figure.caption}\n\n{panel.alt}".encode("utf-8", "backslashreplace").decode()
    value = Summary.Value(
        tag=tag,
        metadata=create_summary_metadata(display_name=tag.partition("/")[2], description=words),
        tensor=TensorProto(dtype=DT_STRING, string_val=parts, tensor_shape=shape),
    )
    return Event(summary=Summary(value=[value]), step=0, wall_time=moment)


def _record(event: Event) -> bytes:
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    RecordWriter(file).write(event.SerializeToString(deterministic=True))
    return file.getvalue()
