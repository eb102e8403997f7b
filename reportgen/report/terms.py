"""Words of ``report.json`` that a reader sees as they are: identifiers of settings, and reasons why files were skipped.

They are English there, whatever the language of the document; here they are known again and so can be translated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

from reportgen.text import Message, _, verbatim

TERMS: Final[Mapping[str, Message]] = {
    message.template: message
    for message in (
        _("info"),
        _("notice"),
        _("warning"),
        _("critical"),
        _("crop"),
        _("squash"),
        _("pad"),
        _("nearest"),
        _("bilinear"),
        _("bicubic"),
        _("lanczos"),
        _("box"),
        _("hamming"),
        _("logits"),
        _("softmax"),
        _("log-softmax"),
        _("sigmoid"),
        _("multilabel"),
        _("quick"),
        _("standard"),
        _("full"),
        _("size"),
        _("channels"),
        _("resize"),
        _("interpolation"),
        _("mean"),
        _("std"),
        _("random values"),
        _("edges"),
        _("centre"),
        _("Gradient"),
        _("Guided backpropagation"),
        _("Deconvolutional network"),
        _("darker"),
        _("brighter"),
        _("blurred"),
        _("noise added"),
        _("JPEG"),
        _("shifted"),
    )
}
"""Identifiers by themselves."""

FOREIGN: Final[Mapping[str, Message]] = {
    message.template: message
    for message in (
        _("a PDF document"),
        _("a ZIP archive or office document"),
        _("a gzip archive"),
        _("a Git LFS pointer; fetch the image itself with git lfs pull"),
        _("JPEG XL, which is not read"),
        _("JPEG 2000, which is not read"),
        _("a Photoshop document"),
        _("zeros"),
        _("of no known format"),
        _("a web page"),
        _("text"),
    )
}
"""What a file is that is no image."""

REASONS: Final[Sequence[Message]] = (
    _("a link that leads nowhere"),
    _("a folder"),
    _("a folder that cannot be read: {error}"),
    _("a format that is not read ({suffix})"),
    _("an array of {kind} is no image"),
    _("an array of shape {shape}: images are (H,W) or (H,W,C) with 1 to 4 channels, other inputs floats (C,H,W)"),
    _("cannot be read: {error}"),
    _("cannot be used"),
    _("colours of kind {mode}, which cannot be converted"),
    _("damaged ({error})"),
    _("damaged: {error}"),
    _("empty file"),
    _("floating-point values outside 0..1"),
    _("floating-point values, whose white is not known: save it with 8 or 16 bits"),
    _("has no pixels"),
    _("not a file but a pipe, socket or device"),
    _("not an image file"),
    _("not an image file (a hidden folder)"),
    _("not an image file (a link to a folder that is listed already)"),
    _("not an image file (hidden)"),
    _("not an image file (no suffix)"),
    _("not an image file ({suffix})"),
    _("not an image that is read: HEIC or a video"),
    _("not an image that is read: SVG"),
    _("not an image: {what}"),
    _("the data set gives another image each time: turn random transforms off"),
    _("the data set raised {error}"),
    _("too many pixels, more than {most} million"),
    _("truncated"),
    _("truncated or damaged: begins as {format}, and no image can be read from it"),
    _("vanished during the run"),
    _("{count} million pixels, more than {most} million"),
    _("{kind} values outside 0..255"),
    _("{size} pixels, a side longer than {most}"),
    _("{size} pixels, more than {most} million"),
    _("--transform raised {error}"),
    _("--transform made the shape {shape}, not {expected}: see --input-size and --channels-in"),
    _("--transform made values that are not finite"),
    _("the model failed in its forward: {error}"),
    _("the input has the shape {shape}, not {expected}: see --input-size and --channels-in"),
    _("the input has values that are not finite"),
    _("too large for the memory of this machine"),
    _("{bands} channels, and the model takes {channels}: give arrays (C,H,W), or --transform"),
    _("an array of {millions} million values, more than is read"),
    _("an array of objects, not of numbers"),
    _("not a NumPy array, as its name says"),
    _("{size} pixels, and --resize none needs {needed}"),
    _("{size} pixels, too elongated to be scaled"),
    _("32-bit integers, whose white is not known: save it with 8 or 16 bits"),
)
"""Reasons why a file was skipped. The fields are filled from the words themselves."""


def term(word: str) -> Message:
    """An identifier as a word of the reader's language, where it has one."""
    return TERMS.get(word) or verbatim(word)


def reason(words: str) -> Message:
    """Why a file was skipped as a sentence; words that are not known stay as they are."""
    for template, pattern in _patterns():
        found = pattern.fullmatch(words)
        if found:
            return template.filled(**{name: FOREIGN.get(value, value) for name, value in found.groupdict().items()})
    return verbatim(words)


@cache
def _patterns() -> tuple[tuple[Message, re.Pattern[str]], ...]:
    """Templates as patterns, those with the most letters of their own first."""
    ordered = sorted(REASONS, key=lambda one: -len(re.sub(r"\{\w+\}", "", one.template)))
    return tuple((one, _pattern(one.template)) for one in ordered)


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    joined = (re.escape(part) if place % 2 == 0 else f"(?P<{part}>.+)" for place, part in enumerate(parts))
    return re.compile("".join(joined), re.DOTALL)
