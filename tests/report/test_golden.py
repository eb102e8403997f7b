"""Documents of a tiny audit, held against what was looked at and found right.

The network's weights are small whole numbers, so that its answers are the same on every machine. After a change that is
meant, look at the difference that ``pytest tests/report/test_golden.py --rewrite-golden`` makes, and commit it.
"""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pikepdf
import pytest
import torch
from PIL import Image
from torch import nn

import reportgen
from reportgen.report.document import Document
from reportgen.report.html import render_html
from reportgen.report.pdf import render_pdf

FOLDER = Path(__file__).parent / "golden"
TECHNIQUES = ("predictions", "class_activation", "gradient", "feature_maps", "filters")


def network() -> nn.Module:
    """Edges across and down, pooled and added up: three classes."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    across = torch.tensor([[-1.0, 0.0, 1.0]]).expand(3, 3)
    with torch.no_grad():
        model[0].weight.copy_(torch.stack([across, -across, across.T, -across.T])[:, None].expand(4, 3, 3, 3))
        model[0].bias.zero_()
        model[4].weight.copy_(torch.tensor([[2.0, 2.0, 0.0, 0.0], [0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0]]))
        model[4].bias.zero_()
    return model.eval()


def stripes(down: bool) -> Image.Image:
    """16 × 16 pixels: broad stripes."""
    line = np.repeat(np.array([0, 255], np.uint8), 4)
    pixels = np.tile(np.resize(line, 16), (16, 1))
    return Image.fromarray(np.stack([pixels.T if down else pixels] * 3, axis=-1))


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Document:
    labels = tmp_path_factory.mktemp("labels") / "labels.txt"
    labels.write_text("across\ndown\nboth\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        options: dict[str, Any] = {
            "labels": labels,
            "input_size": "16",
            "resize": "none",
            "mean": (0.5,),
            "std": (0.5,),
            "only": TECHNIQUES,
            "layers": ["0"],
            "title": "A tiny audit",
        }
        report = reportgen.audit(network(), [stripes(False), stripes(True)], **options)
    assert report.complete
    machine = dict.fromkeys(report.facts["environment"], "…")
    generator = {**report.facts["generator"], "version": "…"}
    return replace(
        report.document, facts={**report.facts, "environment": machine | {"device": "cpu"}, "generator": generator}
    )


def held(request: pytest.FixtureRequest, name: str, text: str) -> None:
    file = FOLDER / name
    if request.config.getoption("--rewrite-golden"):
        FOLDER.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="\n")
    assert text == file.read_text(encoding="utf-8")


def described(found: re.Match[str]) -> str:
    """A picture or a font inside a page: what it is, not its bytes, which change with the libraries that pack them."""
    data = base64.b64decode(found[2])
    if not found[1].startswith("image/"):
        return f"[{found[1]}]"
    with Image.open(io.BytesIO(data)) as image:
        return f"[{image.mode} {image.width}×{image.height}]"


def test_html(request: pytest.FixtureRequest, document: Document) -> None:
    text = render_html(document).decode("utf-8")
    text = re.sub(r"data:([a-z/+]+);base64,([A-Za-z0-9+/=]+)", described, text)
    text = re.sub(r"sha256-[A-Za-z0-9+/=]{44}", "sha256-…", text)
    text = re.sub(r"(#p-|p-)[0-9a-f]{20}", r"\1…", text)
    text = re.sub(r"(?s)(<style>).*?(</style>)|(<script[^>]*>).*?(</script>)", r"\1\2\3\4", text)
    text = re.sub(r'(<path [^>]*d=")[^"]*', r"\1…", text)
    held(request, "tiny.html", text)


def test_pdf(request: pytest.FixtureRequest, document: Document) -> None:
    """Pages, bookmarks, and the tree of tags with its alternative texts: what a reader who cannot see is told."""
    lines: list[str] = []

    def told(item: Any, depth: int) -> None:
        if isinstance(item, pikepdf.Array):
            for one in item:
                told(one, depth)
        elif isinstance(item, pikepdf.Dictionary) and "/S" in item:
            alt = f" {str(item['/Alt'])!r}" if "/Alt" in item else ""
            lines.append(f"{'  ' * depth}{str(item['/S'])[1:]}{alt}")
            told(item.get("/K", pikepdf.Array()), depth + 1)

    with pikepdf.open(io.BytesIO(render_pdf(document))) as made:
        with made.open_outline() as outline:
            for one in outline.root:
                lines.append(f"# {' '.join(one.title.split())}")
                lines += [f"## {' '.join(child.title.split())}" for child in one.children]
        lines.append(f"{len(made.pages)} pages")
        told(made.Root["/StructTreeRoot"]["/K"], 0)
    held(request, "tiny.pdf.txt", "\n".join(lines) + "\n")


def test_a_picture_of_a_few_pixels(document: Document) -> None:
    """The first feature map, worked out by hand: twice the step from dark to light, its negative, and nothing between.

    Beyond the border lies zero, half way between dark and light.
    """
    (first, *_others) = (figure for figure in document.exhibits[0].figures if figure.technique == "feature_maps")
    panel = first.rows[0].panels[0]
    assert panel is not None
    with Image.open(io.BytesIO(panel.picture.data)) as image:
        pixels = np.asarray(image)
    factor = len(pixels) // 16
    small = pixels[factor // 2 :: factor, factor // 2 :: factor]
    assert small[8].tolist() == [64, 128, 128, 255, 255, 128, 128, 0, 0, 128, 128, 255, 255, 128, 128, 64]
