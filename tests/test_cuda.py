"""On a GPU, where there is one: the same results as on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import reportgen
from tests.networks import lively
from tests.test_pipeline import photographs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

TECHNIQUES = ["predictions", "class_activation", "gradient", "guided_backprop", "deconvnet", "occlusion"]


@pytest.fixture(autouse=True)
def exact() -> Any:
    """TensorFloat-32 off: it keeps ten bits."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_a_gpu_tells_what_the_cpu_tells(tmp_path: Path) -> None:
    photographs(tmp_path / "images", 3)
    model = lively("mobilenet_v3_small", classes=10, size=64)  # no rectifier decides at random: few are exactly at 0
    options: dict[str, Any] = {"preset": "quick", "input_size": "64", "only": TECHNIQUES, "target": ("1",)}
    found = [
        reportgen.audit(model, tmp_path / "images", **options, device=device, no_cache=True)
        for device in ("cpu", "cuda")
    ]
    assert found[1].facts["environment"]["device"] == "cuda"
    assert next(model.parameters()).device.type == "cpu"
    for technique in TECHNIQUES:
        assert found[1].facts["techniques"][technique]["status"] == "complete"
        one, other = (report.tensors(technique, image="000.png") for report in found)
        for name, tensor in one.items():
            if tensor.is_floating_point():
                limit = 1e-3 * float(tensor.abs().max())
                assert float((tensor - other[name]).abs().max()) <= limit, (technique, name)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_ascents_climb_on_a_gpu(tmp_path: Path, precision: str) -> None:
    photographs(tmp_path / "images", 1)
    report = reportgen.audit(
        lively("resnet18", classes=10, size=64),
        tmp_path / "images",
        only=["max_activation"],
        device="cuda",
        precision=precision,
        no_cache=True,
        techniques={"max_activation": {"steps": 16, "size": 64, "layers": ["layer2"], "channels": "0,1"}},
    )
    tensors = report.tensors("max_activation")
    for name, final in tensors.items():
        if name.startswith("final/"):
            assert bool((final > tensors[name.replace("final", "start")]).all())
