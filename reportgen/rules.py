"""Rules about how the subject was opened and read; those about what techniques saw stand beside these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reportgen.engine.resolution import Resolution
from reportgen.figures.colour import UNIFORM
from reportgen.findings import Finding
from reportgen.report.terms import term
from reportgen.subject.images import Skipped
from reportgen.subject.subject import Subject
from reportgen.summary import UNANSWERED, Predicted
from reportgen.text import Message, _, listed


def subject_findings(
    subject: Subject,
    resolution: Resolution,
    used: Sequence[Predicted],
    skipped: Sequence[Skipped],
    unmatched: Sequence[str],
    colormap: str,
) -> list[Finding]:
    """What follows from how the subject was opened and read, and from the colours it is shown in."""
    return [
        *_about_colours(colormap),
        *_about_preprocessing(resolution),
        *_about_file(subject, resolution),
        *_about_images(used, skipped, unmatched),
    ]


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
    if resolution.random:
        found.append(
            Finding(
                rule="model.random",
                about="model",
                severity="warning",
                subject=str(file["architecture"]),
                title=_("The model draws random numbers when it answers"),
                detail=_(
                    "Its answers differ from call to call. Here every pass begins with the same random state, so that "
                    "the report can be repeated; a single answer in use is another one. Dropout or noise that stayed "
                    "switched on is the usual reason."
                ),
            )
        )
    if file.get("replaced"):
        found.append(_about_replaced(file))
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


def _about_replaced(file: Mapping[str, Any]) -> Finding:
    """Classes of the file stand for code of its own, which nobody ran."""
    names = list(file["replaced"])
    guessed = file.get("how") != "class"
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    if guessed:
        detail = _(
            "The file holds a module of {names}. Its weights are those of {architecture}, which was taken in its "
            "place; whatever else that code computes is not in this report. Give --trust-model to run it.",
            names=shown,
            architecture=file["architecture"],
        )
    else:
        detail = _(
            "In place of {names} stand layers of reportgen that compute the same from the file's weights.",
            names=shown,
        )
    return Finding(
        rule="model.replaced_classes",
        about="model",
        severity="warning" if guessed else "info",
        subject=names[0],
        title=_("The file's own code was not run"),
        detail=detail,
        value=len(names),
        threshold=1,
    )


def _about_images(used: Sequence[Predicted], skipped: Sequence[Skipped], unmatched: Sequence[str]) -> list[Finding]:
    found: list[Finding] = []
    unanswered = [one for one in skipped if one.reason.startswith(UNANSWERED)]
    if unanswered:
        found.append(
            Finding(
                rule="model.unanswered",
                about="model",
                severity="warning",
                subject=unanswered[0].name,
                title=_("The model gives no answer for some images"),
                detail=_(
                    "It failed on {n} of {all} images; the appendix lists them. They are in no figure and no number of "
                    "this report. Find out what they have in common.",
                    n=len(unanswered),
                    all=len(used) + len(skipped),
                ),
                value=len(unanswered),
                threshold=1,
                n=len(used) + len(skipped),
            )
        )
    broken = [one for one in skipped if not one.reason.startswith("not an image file") and one not in unanswered]
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
