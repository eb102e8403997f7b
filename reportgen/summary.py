"""Everything an audit learned, as the one dictionary that ``report.json`` holds, and the findings about the subject."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import reportgen
from reportgen.engine.resolution import Resolution
from reportgen.exhibits import WHY, Choice
from reportgen.figures.colour import UNIFORM
from reportgen.findings import Finding
from reportgen.job import Job
from reportgen.metrics import accuracy
from reportgen.report.terms import term
from reportgen.store import Array
from reportgen.subject.images import Skipped
from reportgen.subject.subject import Subject
from reportgen.subject.truth import Truth
from reportgen.text import Message, _, listed
from reportgen.versions import library_versions

SCHEMA_VERSION = 1
SHOWN_CLASSES = 5


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


def prediction_facts(one: Predicted, resolution: Resolution) -> dict[str, Any]:
    """One entry of ``predictions``."""
    row = one.row
    shown = min(SHOWN_CLASSES, len(row["index"]))
    top = [
        {
            "index": int(row["index"][i]),
            "label": resolution.label(int(row["index"][i])),
            "probability": float(row["probability"][i]),
            "logit": float(row["logits"][i]),
        }
        for i in range(shown)
    ]
    told: dict[str, Any] = {"image": one.name, "sha256": one.digest, "top": top, "entropy": float(row["entropy"])}
    if one.truth is not None:
        told["truth"] = {"index": one.truth.label, "label": resolution.label(one.truth.label)}
        told |= {name: value for name in ("group", "slice") if (value := getattr(one.truth, name)) is not None}
    return told


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
    over = hashlib.sha256()
    for digest in sorted(one.digest for one in used):
        over.update(digest.encode())
    return {
        "count": len(used) + len(skipped) + subject.left_out,
        "used": len(used),
        "left_out": subject.left_out,
        "digest": over.hexdigest(),
        "exhibits": [{"image": choice.name, "why": choice.why} for choice in choices],
        "sample": list(sample),
        "labelled": sum(one.truth is not None for one in used),
        "skipped": [{"file": one.name, "reason": one.reason} for one in skipped],
    }


def metrics_facts(used: Sequence[Predicted]) -> dict[str, Any]:
    """The entry ``metrics``: empty where no truth is known."""
    found = accuracy([(one.first, one.truth.label) for one in used if one.truth is not None])
    return {"accuracy": found} if found else {}


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


def subject_findings(
    subject: Subject,
    resolution: Resolution,
    used: Sequence[Predicted],
    skipped: Sequence[Skipped],
    unmatched: Sequence[str],
    colormap: str,
) -> list[Finding]:
    """What follows from how the subject was opened and read, and from the colours it is shown in."""
    found = [
        *_about_colours(colormap),
        *_about_preprocessing(resolution),
        *_about_file(subject, resolution),
        *_about_images(used, skipped, unmatched),
    ]
    return found


def _about_colours(colormap: str) -> list[Finding]:
    if colormap in UNIFORM:
        return []
    return [
        Finding(
            rule="colormap.not_uniform",
            about="method",
            severity="info",
            subject=colormap,
            title=_("The colours of heat maps are not perceptually uniform"),
            detail=_(
                "In {colormap}, equal steps of the value are unequal steps to the eye: bands appear where there are "
                "none, and in grey print the highest and the lowest values look alike. The default, inferno, does not "
                "do so.",
                colormap=colormap,
            ),
        )
    ]


def _about_preprocessing(resolution: Resolution) -> list[Finding]:
    assumed = list(resolution.pipeline.get("assumed") or ())
    if not assumed:
        return []
    sure = bool(resolution.model.get("head_published"))
    names = listed([term(one) for one in assumed])
    if sure:
        detail = _(
            "The file does not say how images are prepared. What the architecture's published weights expect was "
            "used for: "
            "{names}. Give --input-size, --resize, --mean and --std to decide otherwise.",
            names=names,
        )
    else:
        detail = _(
            "The file does not say how images are prepared, and its head is not that of published weights, so it "
            "was trained "
            "by somebody else, perhaps otherwise. Assumed: {names}. If the assumption is wrong, every result below "
            "is about "
            "images the model was not made for. Ask who trained it, and give --input-size, --resize, --mean and --std.",
            names=names,
        )
    return [
        Finding(
            rule="preprocessing.assumed",
            about="model",
            severity="notice" if sure else "warning",
            subject=str(names),
            title=_("Preprocessing was assumed"),
            detail=detail,
            value=len(assumed),
            threshold=1,
        )
    ]


def _about_file(subject: Subject, resolution: Resolution) -> list[Finding]:
    file = resolution.model
    found: list[Finding] = []
    if file.get("how") == "recognised":
        others = list(file.get("candidates") or ())
        also: Message = (
            _("It also fits: {names}.", names=", ".join(others)) if others else _("No other known architecture fits.")
        )
        found.append(
            Finding(
                rule="model.recognised",
                about="model",
                severity="info" if not others else "notice",
                subject=str(file["architecture"]),
                title=_("The architecture was recognised, not known"),
                detail=_(
                    "The names and shapes of the weights are those of {architecture}; the file itself does not "
                    "name it. {also} "
                    "Give --arch to decide.",
                    architecture=file["architecture"],
                    also=also,
                ),
                value=len(others),
            )
        )
    if file.get("stray"):
        stray = list(file["stray"])
        found.append(
            Finding(
                rule="model.stray_weights",
                about="model",
                severity="notice",
                subject=stray[0],
                title=_("The file holds weights that the architecture does not use"),
                detail=_("{n} keys were left aside, among them {names}.", n=len(stray), names=", ".join(stray[:3])),
                value=len(stray),
                threshold=1,
            )
        )
    if file.get("safe") is False:
        found.append(
            Finding(
                rule="model.trusted",
                about="run",
                severity="notice",
                subject=subject.model_name,
                title=_("The model file was trusted with running code"),
                detail=_("Opening it can run code of its author; --trust-model allowed it."),
            )
        )
    return found


def _about_images(used: Sequence[Predicted], skipped: Sequence[Skipped], unmatched: Sequence[str]) -> list[Finding]:
    found: list[Finding] = []
    broken = [one for one in skipped if not one.reason.startswith("not an image file")]
    if broken:
        found.append(
            Finding(
                rule="images.skipped",
                about="data",
                severity="notice",
                subject=broken[0].name,
                title=_("Some images could not be used"),
                detail=_(
                    "{n} of {all} were skipped; the appendix lists each with its reason.",
                    n=len(broken),
                    all=len(used) + len(skipped),
                ),
                value=len(broken),
                threshold=1,
                n=len(used) + len(skipped),
            )
        )
    if not any(one.truth is not None for one in used):
        found.append(
            Finding(
                rule="images.unlabelled",
                about="data",
                severity="info",
                subject="",
                title=_("No image has a known true class"),
                detail=_(
                    "Nothing can be said about accuracy or mistakes. Give --truth a table, or put images into "
                    "folders named by "
                    "class; {n} folders are called like no class.",
                    n=len(unmatched),
                )
                if unmatched
                else _(
                    "Nothing can be said about accuracy or mistakes. Give --truth a table, or put images into "
                    "folders named by "
                    "class."
                ),
            )
        )
    return found


def verdict(used: Sequence[Predicted], choices: Sequence[Choice], findings: Sequence[Finding]) -> Message:
    """One sentence that claims no more than was measured, and states its base."""
    labelled = [one for one in used if one.truth is not None]
    base = _("{exhibits} of {used} images examined in detail", exhibits=len(choices), used=len(used))
    if labelled:
        right = sum(one.first == one.truth.label for one in labelled if one.truth is not None)
        said = _("{right} of {n} labelled images are named correctly", right=right, n=len(labelled))
    else:
        said = _("No true classes given, so nothing is said about accuracy")
    worst = sum(one.severity in ("warning", "critical") and one.about in ("model", "data") for one in findings)
    warned = (
        _("{n} warnings about the model or the images", n=worst)
        if worst > 1
        else _("one warning about the model or the images")
        if worst
        else _("no warning about the model or the images")
    )
    return _("{said}; {base}; {warned}.", said=said, base=base, warned=warned)


def why(choice: Choice) -> Message:
    """Why an exhibit was chosen, in words."""
    return WHY[choice.why]
