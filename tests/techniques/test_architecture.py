"""Graphs of networks that differ in kind, and the section they stand in."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

import reportgen
from reportgen.diagrams import drawn, insides, overview
from reportgen.engine.hierarchy import Hierarchy
from reportgen.engine.recording import record
from reportgen.figures.graph import MOST_NODES, Drawing, Graph, draw_graph
from tests.networks import lively, noise

NETWORKS = {"resnet18": 64, "googlenet": 64, "densenet201": 64, "efficientnet_b0": 64, "vit_b_16": 224, "swin_t": 64}


def sound(drawing: Drawing) -> None:
    """Everything lies within the drawing, boxes of one frame do not overlap, and no style attribute is used."""
    svg = drawing.picture.data.decode()
    root = ElementTree.fromstring(svg)
    left, top, width, height = (float(word) for word in root.attrib["viewBox"].split())
    assert not any("style" in element.attrib or "id" in element.attrib for element in root.iter())
    plain = [box for box in drawing.boxes if not box.frame]
    for box in drawing.boxes:
        assert left <= box.x
        assert box.x + box.width <= left + width + 0.1
        assert top <= box.y
        assert box.y + box.height <= top + height + 0.1
    for place, one in enumerate(plain):
        for other in plain[place + 1 :]:
            apart = one.x + one.width <= other.x or other.x + other.width <= one.x
            assert apart or one.y + one.height <= other.y or other.y + other.height <= one.y, (one.key, other.key)


@pytest.mark.parametrize("name", NETWORKS)
def test_graphs_are_small_and_tidy(name: str) -> None:
    recording = record(lively(name, size=NETWORKS[name]), noise(1, NETWORKS[name]))
    hierarchy = Hierarchy(recording)
    seen = overview(hierarchy)
    assert 4 <= seen.diagram.graph.size <= MOST_NODES
    # a module in the overview and what it holds are not counted twice
    assert sum(seen.diagram.macs.values()) == recording["macs"]
    drawing = drawn(seen.diagram, recording["macs"])
    sound(drawing)
    assert drawing == drawn(overview(Hierarchy(recording)).diagram, recording["macs"])
    for inside in insides(hierarchy, seen):
        assert inside.diagram.graph.size <= MOST_NODES
        sound(draw_graph(Graph((inside.node,), ())))


def test_the_section_shows_graphs_and_table(tmp_path: Path) -> None:
    model = lively("resnet18", classes=7, size=64)
    report = reportgen.audit(model, [(noise(1, 64)[0], None, "one")], only=["architecture"])
    facts = report.facts["techniques"]["architecture"]
    assert facts["status"] == "complete"
    assert report.facts["model"]["macs"] == facts["results"]["macs"] > 10**8
    assert facts["results"]["parameters"] == report.facts["model"]["parameters"]
    assert "layer4.1.conv2" in {one["name"] for one in facts["results"]["modules"]}
    assert facts["figures"][0] == "architecture-overview"
    report.write(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Receptive field" in page
    assert "435 × 435" in page
