"""Makes the data by which weights are recognised: ``reportgen/subject/data/fingerprints.npz``.

Every architecture of torchvision and timm is built twice without memory for its weights, with two numbers of classes:
what
differs is its head. Run it again when either library brings new architectures. Takes some minutes on one core.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import zipfile
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from reportgen.errors import ArchitectureError
from reportgen.subject.architectures import construct, meta, names
from reportgen.subject.recognition import DATA, counts, number_of

TARGET = Path(__file__).parent.parent / "reportgen" / "subject" / "data" / DATA
# attributes that follow from the input size or say nothing about the function
SILENT = frozenset(
    (
        *("training", "transform_input", "p", "p_drop", "drop_rate", "default_cfg", "pretrained_cfg", "feature_info"),
        *("img_size", "image_size", "input_size", "input_resolution", "grid_size", "feat_size", "num_patches"),
        *(
            "dynamic_img_size",
            "seq_length",
            "window_size",
            "target_window_size",
            "window_area",
            "shift_size",
            "attn_area",
        ),
        *(
            "in_chans",
            "in_channels",
            "in_features",
            "out_features",
            "out_channels",
            "num_classes",
            "num_pooled_features",
        ),
        *("feature_size", "head_hidden_size", "global_pool", "init_values"),
    )
)


def plain(value: Any) -> Any:
    """A value as it enters the signature, or None where it says nothing that can be compared."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    return None


def function_of(model: nn.Module, heads: set[str]) -> str:
    """Signature of what a network computes: classes and settings of its modules in order, the head left out."""
    told = []
    for name, part in model.named_modules():
        if name.partition(".")[0] in heads:
            continue
        settings = {
            key: plain(value)
            for key, value in sorted(vars(part).items())
            if not key.startswith("_") and key not in SILENT and plain(value) is not None
        }
        told.append([name, "" if not name else type(part).__name__, settings])
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:12]


def built(name: str, classes: int) -> nn.Module:
    """The module without memory for its weights; with, where its constructor computes with tensors."""
    try:
        return meta(name, classes=classes, channels=None)
    except ArchitectureError:
        return construct(name, classes=classes, channels=None)


def describe(name: str) -> tuple[dict[str, Any], list[int]]:
    """One row of the table and the numbers of an architecture."""
    ten, eleven = built(name, 10), built(name, 11)
    shapes = {key: tuple(value.shape) for key, value in ten.state_dict().items()}
    other = {key: tuple(value.shape) for key, value in eleven.state_dict().items()}
    differing = [key for key in shapes if shapes[key] != other.get(key)]
    heads = {key.partition(".")[0] for key in differing}
    stem = next((f"{n}.weight" for n, part in ten.named_modules() if isinstance(part, nn.Conv2d)), "")
    numbers = []
    for key, shape in shapes.items():
        if not counts(key) or key.partition(".")[0] in heads:
            continue
        numbers.append(number_of(key, (shape[0], "*", *shape[2:]) if key == stem else shape))
    if not numbers or not heads:
        raise ValueError("no head that depends on the number of classes")
    row = {"name": name, "heads": sorted(heads), "stem": stem, "function": function_of(ten, heads)}
    return row, sorted(numbers)


def save(table: list[dict[str, Any]], numbers: list[int]) -> None:
    """Write the data so that equal content gives equal bytes."""
    TARGET.parent.mkdir(exist_ok=True)
    arrays = {
        "numbers": np.array(numbers, np.uint32),
        "table": np.frombuffer(json.dumps(table, separators=(",", ":")).encode(), np.uint8),
    }
    with zipfile.ZipFile(TARGET, "w") as archive:
        for name, array in arrays.items():
            buffer = BytesIO()
            np.save(buffer, array)
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, buffer.getvalue())


def main() -> int:
    torch.set_num_threads(1)
    table: list[dict[str, Any]] = []
    numbers: list[int] = []
    failed: list[str] = []
    begin = time.perf_counter()
    for name in names(tuple(sys.argv[1:]) or ("torchvision", "timm")):
        try:
            row, own = describe(name)
        except Exception as error:  # whatever a constructor raises: the architecture is left out and named
            failed.append(f"{name}: {type(error).__name__}: {str(error)[:80]}")
            continue
        table.append({**row, "start": len(numbers), "stop": len(numbers) + len(own)})
        numbers += own
    save(table, numbers)
    distinct = len({tuple(numbers[row["start"] : row["stop"]]) for row in table})
    print(
        f"torchvision {version('torchvision')}, timm {version('timm')}: {len(table)} architectures, {distinct} distinct"
    )
    print(
        f"{len(numbers)} numbers, {TARGET.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - begin:.0f} s; left out:"
    )
    print("\n".join(failed) or "none")
    return 0


if __name__ == "__main__":
    sys.exit(main())
