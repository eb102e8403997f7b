"""TensorBoard itself reads what was written: graph, profile and pictures."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import torch
from torch import Tensor, nn

import reportgen
from reportgen.engine.graph import tensorboard_graph
from reportgen.engine.passes import prepared
from reportgen.engine.profiling import measure
from reportgen.errors import OutputError
from reportgen.job import Job
from reportgen.pipeline import audit
from reportgen.progress import Progress
from reportgen.report.document import Document
from reportgen.report.tensorboard import EVENTS, TRACE, Recorded, check_directory, write_logs
from tests.engine.test_profiling import passes_of, small
from tests.networks import lively, noise
from tests.report.small import document, picture

PATIENCE = 60
"""Seconds until TensorBoard, which looks for runs every few seconds, must have found them."""


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    module = small()
    with prepared(module, torch.device("cpu")) as ready:
        passes = passes_of(ready)
        return Recorded(*tensorboard_graph(passes), measure(passes, repeats=1)["trace"])


def named(file: str) -> Document:
    made = document()
    return replace(made, facts={**made.facts, "model": {**made.facts["model"], "file": file}})


@pytest.fixture(scope="module")
def address(recorded: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A TensorBoard on a folder with a name that is not ASCII, ended with the last test."""
    logs = tmp_path_factory.mktemp("日志 é")
    write_logs(logs, named("my model.pt"), recorded, moment=1.0)
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--port", "0", "--host", "127.0.0.1"]
    told = logs.parent / "tensorboard.log"
    with told.open("wb") as log:
        started = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            yield waited(lambda: re.search(r"http://127\.0\.0\.1:\d+", told.read_text(errors="replace")))[0]
        finally:
            os.killpg(started.pid, signal.SIGKILL)  # the plugin starts processes of its own
            started.wait()


def waited(look: Any) -> Any:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.3)
    raise AssertionError("TensorBoard found nothing")


def asked(address: str, path: str, **query: str) -> bytes:
    try:
        with urlopen(f"{address}/data/plugin/{path}?{urlencode(query)}", timeout=10) as answer:
            return bytes(answer.read())
    except HTTPError:  # a run that is not read yet is not found
        return b""


def test_graph(address: str) -> None:
    runs = waited(lambda: json.loads(asked(address, "graphs/info") or "{}"))
    (run,) = runs
    assert run.startswith("my-model")
    assert runs[run]["run_graph"]
    assert b"Conv2d[0]" in asked(address, "graphs/graph", run=run)


def test_profile(address: str) -> None:
    runs = waited(lambda: json.loads(asked(address, "pytorch_profiler/runs") or "{}").get("runs"))
    (run,) = runs
    views = waited(lambda: json.loads(asked(address, "pytorch_profiler/views", run=run) or "[]"))
    assert {"Overview", "Operator", "Trace", "Memory"} <= set(views)
    workers = json.loads(asked(address, "pytorch_profiler/workers", run=run, view="Operator"))
    assert workers == ["reportgen"]
    place = {"run": run, "worker": "reportgen"}
    (span,) = json.loads(asked(address, "pytorch_profiler/spans", **place))
    table = asked(address, "pytorch_profiler/operation/table", **place, span=span, group_by="Operation")
    assert b"aten::conv2d" in table


def test_pictures(address: str) -> None:
    runs = waited(lambda: json.loads(asked(address, "images/tags") or "{}"))
    ((run, tags),) = runs.items()
    panels = [
        panel
        for section in document().sections
        for figure in section.figures
        for row in figure.rows
        for panel in row.panels
        if panel is not None
    ]
    assert len(tags) == len(panels)
    assert tags["filters/20/tile-3"]["displayName"] == "20/tile-3"
    (shown,) = json.loads(asked(address, "images/images", run=run, tag="filters/20/tile-3", sample="0"))
    with urlopen(f"{address}/data/plugin/images/individualImage?{shown['query']}", timeout=10) as answer:
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.read() == picture(2003).data


def test_nothing_tells_where_or_when(recorded: Recorded, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_logs(tmp_path / folder, document(), recorded, moment=86400.0)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()} for n in ("one", "two"))
    assert one == two
    assert set(one) == {EVENTS, TRACE}
    host = socket.gethostname()
    assert not any(host in str(path) for path in (tmp_path / "one").rglob("*")) or len(host) < 3
    assert str(tmp_path).encode() not in one[EVENTS]


def test_a_later_run_replaces_its_own(recorded: Recorded, tmp_path: Path) -> None:
    written = write_logs(tmp_path, named("a.pt"), recorded, moment=1.0)
    write_logs(tmp_path, named("b.pt"), recorded, moment=1.0)
    again = write_logs(tmp_path, named("a.pt"), Recorded(), moment=2.0)
    assert again == written[:1]
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(
        [f"a/{EVENTS}", f"b/{EVENTS}", f"b/{TRACE}"]
    )


def test_equal_names_get_tags_of_their_own(recorded: Recorded, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    made = document()
    section = made.sections[1]
    twice = replace(made, sections=(replace(section, figures=section.figures[:1] * 2),))
    (events,) = write_logs(tmp_path, twice, Recorded(), moment=1.0)
    tags = [value.tag for event in LegacyEventFileLoader(str(events)).Load() for value in event.summary.value]
    assert len(tags) == len(set(tags)) == 14


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="'file' is a file"):
        check_directory(tmp_path / "file" / "logs")
    with pytest.raises(OutputError, match="cannot make"):
        write_logs(tmp_path / "file", document(), Recorded(), moment=1.0)
    check_directory(tmp_path / "new" / "logs")
    assert not os.path.exists(tmp_path / "new")


def test_an_audit_writes_logs_and_a_warm_one_needs_no_model(tmp_path: Path) -> None:
    model = lively("resnet18", classes=7, size=64)
    options: dict[str, Any] = {"model_id": "one", "only": ["gradient", "profile"], "tensorboard": tmp_path / "日志"}
    images = [(noise(1, 64)[0], None, "one")]
    reportgen.audit(model, images, **options)
    (folder,) = (tmp_path / "日志").iterdir()
    first = (folder / EVENTS).read_bytes()
    assert b"layer4" in first
    assert (folder / TRACE).read_bytes().startswith(b"\x1f\x8b")
    (folder / EVENTS).unlink()
    report = reportgen.audit(model, images, **options)
    assert report.facts["passes"]["forward"]["batches"] == 0
    assert b"layer4" in (folder / EVENTS).read_bytes()
    assert "tensorboard" not in report.facts["generator"]["job"]


def test_a_model_that_cannot_be_traced_costs_a_notice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Fickle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Any:
            assert not torch.jit.is_tracing(), "not this one"
            return Answer(self.fc(x.mean(dim=(2, 3))))

    job = Job.from_options({"only": ["gradient"], "tensorboard": tmp_path / "logs"})
    report = audit(Fickle(), [(noise(1, 16)[0], None, "one")], job, progress=Progress(messages=True))
    assert "no graph for TensorBoard: the model cannot be traced" in capsys.readouterr().err
    assert report.complete
    (folder,) = (tmp_path / "logs").iterdir()
    assert (folder / EVENTS).exists()


@dataclass
class Answer:
    """An output that tracing cannot return."""

    logits: Tensor
