"""Everything an audit learned, as the one dictionary that ``report.json`` holds."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import reportgen
from reportgen.engine.resolution import Resolution
from reportgen.exhibits import WHY, Choice
from reportgen.job import Job
from reportgen.multilabel import THRESHOLD
from reportgen.store import Array
from reportgen.subject.images import Skipped
from reportgen.subject.subject import Subject
from reportgen.subject.truth import Truth
from reportgen.text import Message
from reportgen.versions import library_versions

SCHEMA_VERSION = 1
SHOWN_CLASSES = 5


UNANSWERED = "the model failed in its forward"
"""How the reasons begin why an image was skipped that is not to blame."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """One usable image with what the model says of it."""

    name: str
    digest: str
    row: Mapping[str, Array]
    truth: Truth | None

    @property
    def first(self) -> int:
        """The predicted class."""
        return int(self.row["index"][0])

    @property
    def named(self) -> tuple[int, ...]:
        """The classes that are given `THRESHOLD` or more, strongest first, where every class is decided by itself."""
        return tuple(self.row["index"][self.row["probability"] >= THRESHOLD].tolist())

    @property
    def missed(self) -> tuple[int, ...]:
        """The true classes that are not named, least probable first."""
        lacking = set(self.truth.labels if self.truth is not None else ()).difference(self.named)
        return tuple(one for one in reversed(self.row["index"].tolist()) if one in lacking)

    @property
    def wrongly_named(self) -> tuple[int, ...]:
        """The classes that are named and are no true ones, strongest first; none where nothing is known."""
        true = set(self.named if self.truth is None else self.truth.labels)
        return tuple(one for one in self.named if one not in true)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright image, in pixels."""
        height, width = self.row["size"]
        return int(height), int(width)

    @property
    def answered(self) -> bool:
        """Whether its probabilities are numbers: what is made of them can be shown."""
        return bool(np.isfinite(self.row["probability"]).all())


def prediction_facts(one: Predicted, resolution: Resolution) -> dict[str, Any]:
    """One entry of ``predictions``."""
    row = one.row

    def scored(place: int) -> dict[str, Any]:
        return {
            **_class(int(row["index"][place]), resolution),
            "probability": float(row["probability"][place]),
            "logit": float(row["logits"][place]),
        }

    top = [scored(place) for place in range(min(SHOWN_CLASSES, len(row["index"])))]
    told: dict[str, Any] = {"image": one.name, "sha256": one.digest, "top": top, "entropy": float(row["entropy"])}
    if one.truth is not None:
        if one.truth.single is not None:
            told["truth"] = _class(one.truth.single, resolution)
        else:
            told["truths"] = [_class(index, resolution) for index in one.truth.labels]
            told["named"] = [scored(place) for place in range(len(one.named))]
        told |= {name: value for name in ("group", "slice") if (value := getattr(one.truth, name)) is not None}
    return told


def _class(index: int, resolution: Resolution) -> dict[str, Any]:
    return {"index": index, "label": resolution.label(index)}


def model_facts(subject: Subject, resolution: Resolution) -> dict[str, Any]:
    """The entry ``model``."""
    file = resolution.model
    told = {
        name: file.get(name) for name in ("format", "safe", "architecture", "how", "weights", "prefix", "container")
    }
    return {
        "file": subject.model_name,
        "sha256": subject.sha256,
        "size": file.get("size", 0),
        **told,
        "candidates": list(file.get("candidates") or ()),
        "assumed": file.get("how") == "recognised",
        "parameters": resolution.parameters,
        "input": {**resolution.pipeline, "head_published": bool(file.get("head_published"))},
        "output_kind": resolution.output_kind,
        "classes": resolution.classes,
        "classes_named": bool(resolution.labels),
        "labels_from": file.get("labels_from"),
        "head": str(file.get("head") or ""),
        "stray": list(file.get("stray") or ()),
        "layers": [
            {
                "name": layer.name,
                "type": layer.type,
                "shape": list(layer.shape or layer.output),
                "parameters": layer.parameters,
            }
            for layer in resolution.layers
        ],
        "default_layers": list(resolution.defaults),
    }


def image_facts(
    subject: Subject,
    used: Sequence[Predicted],
    skipped: Sequence[Skipped],
    choices: Sequence[Choice],
    sample: Sequence[str],
) -> dict[str, Any]:
    """The entry ``images``. Its digest is over the sorted digests of the usable images: the set, not the names."""
    tall, wide = sorted(one.size[0] for one in used), sorted(one.size[1] for one in used)
    over = hashlib.sha256()
    for digest in sorted(one.digest for one in used):
        over.update(digest.encode())
    return {
        "count": len(used) + len(skipped) + subject.left_out,
        "used": len(used),
        "left_out": subject.left_out,
        "sizes": {"height": [tall[0], tall[-1]], "width": [wide[0], wide[-1]]},
        "digest": over.hexdigest(),
        "exhibits": [{"image": choice.name, "why": choice.why} for choice in choices],
        "sample": list(sample),
        "labelled": sum(one.truth is not None for one in used),
        "skipped": [{"file": one.name, "reason": one.reason} for one in skipped],
    }


def generator_facts(job: Job) -> dict[str, Any]:
    """The entry ``generator``."""
    return {
        "name": "reportgen",
        "version": reportgen.__version__,
        "job": job.canonical(),
        "seed": job.seed,
        "preset": job.preset,
    }


def environment_facts(resolution: Resolution) -> dict[str, Any]:
    """The entry ``environment``: no host name, no user, no path."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        **library_versions(),
        "device": resolution.numerics["device"],
        "precision": resolution.numerics["precision"],
        "batch": resolution.numerics["batch"],
    }


def why(choice: Choice) -> Message:
    """Why an exhibit was chosen, in words."""
    return WHY[choice.why]
