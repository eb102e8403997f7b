"""Rules about how the subject was opened and read; those about what techniques saw stand beside these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from reportgen.engine.resolution import Resolution
from reportgen.figures.colour import UNIFORM
from reportgen.findings import Finding, FindingRule, Limits
from reportgen.report.terms import term
from reportgen.subject.images import Skipped
from reportgen.subject.subject import Subject
from reportgen.summary import UNANSWERED, Predicted
from reportgen.text import Message, _, listed

COLOURS = FindingRule(
    "colormap.not_uniform", "method", "info", _("The colours of heat maps are not perceptually uniform")
)
ASSUMED = FindingRule("preprocessing.assumed", "model", "warning", _("Preprocessing was assumed"), 1)
RECOGNISED = FindingRule("model.recognised", "model", "notice", _("The architecture was recognised, not known"))
JOINED = FindingRule("model.joined", "model", "notice", _("Body and head were put together"))
STRAY = FindingRule(
    "model.stray_weights", "model", "notice", _("The file holds weights that the architecture does not use"), 1
)
RANDOM = FindingRule("model.random", "model", "warning", _("The model draws random numbers when it answers"))
ONE_VALUE = FindingRule("model.one_value", "model", "notice", _("The model returns a single value for an image"))
REPLACED = FindingRule("model.replaced_classes", "model", "warning", _("The file's own code was not run"), 1)
TRUSTED = FindingRule("model.trusted", "run", "notice", _("The model file was trusted with running code"))
SILENT = FindingRule("model.unanswered", "model", "warning", _("The model gives no answer for some images"), 1)
SKIPPED = FindingRule("images.skipped", "data", "notice", _("Some images could not be used"), 1)
UNLABELLED = FindingRule("images.unlabelled", "data", "info", _("No image has a known true class"))
RULES: Final = (
    COLOURS, ASSUMED, RECOGNISED, JOINED, STRAY, RANDOM, ONE_VALUE, REPLACED, TRUSTED, SILENT, SKIPPED, UNLABELLED,
)  # fmt: skip


def subject_findings(
    subject: Subject,
    resolution: Resolution,
    used: Sequence[Predicted],
    skipped: Sequence[Skipped],
    unmatched: Sequence[str],
    colormap: str,
    limits: Limits,
) -> list[Finding]:
    """What follows from how the subject was opened and read, and from the colours it is shown in."""
    return [
        *_about_colours(colormap),
        *_about_preprocessing(resolution, used, limits),
        *_about_file(subject, resolution, limits),
        *_about_output(resolution, used),
        *_about_images(used, skipped, limits),
        *_about_truth(used, unmatched, named=bool(resolution.labels)),
    ]


def _about_colours(colormap: str) -> Iterator[Finding]:
    if colormap not in UNIFORM:
        yield COLOURS.found(
            _(
                "In {colormap}, equal steps of the value are unequal steps to the eye: bands appear where there are "
                "none, and in grey print the highest and the lowest values look alike. The default, inferno, does not "
                "do so.",
                colormap=colormap,
            ),
            subject=colormap,
        )


def _about_preprocessing(resolution: Resolution, used: Sequence[Predicted], limits: Limits) -> Iterator[Finding]:
    assumed = list(resolution.pipeline.get("assumed") or ())
    limit = ASSUMED.limit(limits)
    if not assumed or len(assumed) < limit:
        return
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
    if "size" in assumed and (side := _enlarged(resolution.pipeline["size"], used)) is not None:
        detail = _(
            "{detail} At least half of the images have a shorter side of {side} pixels or less and are enlarged to "
            "{height} × {width}. A network that learned from such images usually takes them as they are: try "
            "--input-size {side} --resize squash.",
            detail=detail,
            side=side,
            height=resolution.pipeline["size"][0],
            width=resolution.pipeline["size"][1],
        )
    yield ASSUMED.found(
        detail,
        subject=str(names),
        value=len(assumed),
        threshold=limit,
        severity="notice" if sure else None,
    )


def _enlarged(size: Sequence[int], used: Sequence[Predicted]) -> int | None:
    """The shorter side, in pixels, that half of the images do not exceed, where it has to be doubled or more."""
    sides = sorted(min(one.size) for one in used)
    half = sides[(len(sides) - 1) // 2]
    return half if 2 * half <= min(size) else None


def _about_file(subject: Subject, resolution: Resolution, limits: Limits) -> Iterator[Finding]:
    file = resolution.model
    yield from _about_architecture(file)
    stray, limit = list(file.get("stray") or ()), STRAY.limit(limits)
    if stray and len(stray) >= limit:
        detail = _("Keys left aside: {n}, among them {names}.", n=len(stray), names=", ".join(stray[:3]))
        yield STRAY.found(detail, subject=stray[0], value=len(stray), threshold=limit)
    if resolution.random:
        yield RANDOM.found(
            _(
                "Its answers differ from call to call. Here every pass begins with the same random state, so that "
                "the report can be repeated; a single answer in use is another one. Dropout or noise that stayed "
                "switched on is the usual reason."
            ),
            subject=str(file["architecture"]),
        )
    limit = REPLACED.limit(limits)
    if len(file.get("replaced") or ()) >= max(limit, 1):
        yield _about_replaced(file, limit)
    if file.get("safe") is False:
        detail = _("Opening it can run code of its author; --trust-model allowed it.")
        yield TRUSTED.found(detail, subject=subject.model_name)


def _about_architecture(file: Mapping[str, Any]) -> Iterator[Finding]:
    """How it is known, and what was assumed to take the file's weights for it."""
    if file.get("how") == "recognised":
        others = list(file.get("candidates") or ())
        also: Message = (
            _("It also fits: {names}.", names=", ".join(others)) if others else _("No other known architecture fits.")
        )
        yield RECOGNISED.found(
            _(
                "The names and shapes of the weights are those of {architecture}; the file itself does not "
                "name it. {also} "
                "Give --arch to decide.",
                architecture=file["architecture"],
                also=also,
            ),
            subject=str(file["architecture"]),
            value=len(others),
            severity=None if others else "info",
        )
    if file.get("head") and file.get("how") != "verified":  # a program that answers alike has shown it
        yield JOINED.found(
            _(
                "The file holds the body of {architecture} under {prefix} and one linear layer beside it, {head}, but "
                "not what stands between them. The architecture's own pooling and nothing but dropout were assumed. If "
                "it is otherwise, name the network with --arch package.module:callable.",
                architecture=file["architecture"],
                prefix=file["prefix"],
                head=file["head"],
            ),
            subject=str(file["head"]),
        )


def _about_replaced(file: Mapping[str, Any], limit: float) -> Finding:
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
    return REPLACED.found(
        detail, subject=names[0], value=len(names), threshold=limit, severity=None if guessed else "info"
    )


def _about_output(resolution: Resolution, used: Sequence[Predicted]) -> Iterator[Finding]:
    """Whoever gives names or true classes, or a network that ends in a sigmoid, has said that there are classes."""
    told = resolution.labels or any(one.truth is not None for one in used)
    if resolution.outputs == 1 and resolution.output_kind == "logits" and not told:
        yield ONE_VALUE.found(
            _(
                "It was taken for the score of class 1 against class 0, and its sigmoid for the probability. A network "
                "that estimates a quantity looks the same, and for such a one nothing in this report holds. Give "
                "--labels or --truth if it tells classes apart."
            )
        )


def _skipped(broken: int, others: int, every: int) -> Message:
    """`others` are files that nobody took for images; the appendix lists them too."""
    if not others:
        return _("Skipped: {n} of {all} files. The appendix lists each with its reason.", n=broken, all=every)
    return _(
        "Skipped: {n} of {all} files, and {others} more that are no image files. The appendix lists each with its "
        "reason.",
        n=broken,
        all=every,
        others=others,
    )


def _about_images(used: Sequence[Predicted], skipped: Sequence[Skipped], limits: Limits) -> Iterator[Finding]:
    every = len(used) + len(skipped)
    unanswered = [one for one in skipped if one.reason.startswith(UNANSWERED)]
    broken = [one for one in skipped if not one.reason.startswith("not an image file") and one not in unanswered]
    told = {
        SILENT: _(
            "It failed on {n} of {all} images; the appendix lists them. They are in no figure and no number of "
            "this report. Find out what they have in common.",
            n=len(unanswered),
            all=every,
        ),
        SKIPPED: _skipped(len(broken), len(skipped) - len(unanswered) - len(broken), every),
    }
    for rule, concerned in ((SILENT, unanswered), (SKIPPED, broken)):
        limit = rule.limit(limits)
        if concerned and len(concerned) >= limit:
            yield rule.found(told[rule], subject=concerned[0].name, value=len(concerned), threshold=limit, n=every)


def _about_truth(used: Sequence[Predicted], unmatched: Sequence[str], *, named: bool) -> Iterator[Finding]:
    if any(one.truth is not None for one in used):
        return
    if not unmatched:
        detail = _(
            "Nothing can be said about accuracy or mistakes. Give --truth a table, or put images into folders named by "
            "class."
        )
    elif named:
        detail = _(
            "Nothing can be said about accuracy or mistakes. Give --truth a table, or put images into "
            "folders named by class. Folders that are called like no class: {n}.",
            n=len(unmatched),
        )
    else:
        detail = _(
            "Nothing can be said about accuracy or mistakes. Folders hold the images: {n}. If they are called by "
            "class, the model's classes need the same names: give --labels a file of them, in the order of the "
            "outputs. Or give --truth a table.",
            n=len(unmatched),
        )
    yield UNLABELLED.found(detail)
