"""What weights are when they are no known classifier's: those of something else, or of a part of one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reportgen.errors import ArchitectureError
from reportgen.subject.apart import refusal_of_head
from reportgen.subject.architectures import meta
from reportgen.subject.fitting import classes_of, misfit_of
from reportgen.subject.recognition import Fit, Shapes, stripped

_KINDS: tuple[tuple[str, str], ...] = (
    ("a detector", r"(^|\.)(rpn|roi_heads|bbox_embed|class_embed|bbox_head|regression_head|box_head|dfl)\."),
    ("a model that segments images", r"(^|\.)(decode_head|segmentation_head|mask_decoder|classifier\.0\.convs)\."),
    ("a model that compares images with texts", r"^(text_model|visual_projection|text_projection|logit_scale)"),
    ("a model that makes images", r"(^|\.)(time_embed|time_embedding|time_mlp)\."),
    (
        "a language model",
        r"(^|\.)(wte|embed_tokens|word_embeddings|tok_embeddings|token_embedding|lm_head|shared)\.weight$",
    ),
)
"""What a key tells, the most telling first: some models of one kind hold one of another."""
_COMES_NEAR = 0.3


def refusal(shapes: Shapes, nearest: Sequence[Fit], shown: str) -> ArchitectureError:
    """What to tell of weights that no known classifier has.

    Args:
        shapes: keys and shapes of the state dict.
        nearest: architectures by the share of their keys that it has, best first.
        shown: the file's name for messages.
    """
    found = _kind_of(shapes)
    if found is not None:
        kind, key = found
        return ArchitectureError(
            f"the weights in {shown!r} are those of {kind} (it has {key}), not of an image classifier",
            "give a classifier; if it is one of your own, name it with --arch package.module:callable",
        )
    best = nearest[0] if nearest else None
    if best is not None and best.share == 1:
        heads = ", ".join(best.known.heads)
        return refusal_of_head(shapes, best.prefix, best.known, shown) or ArchitectureError(
            f"the weights in {shown!r} are those of {best.known.name} without its head ({heads})",
            "give those of the whole classifier; with a head of your own, name it with --arch package.module:callable",
        )
    if best is not None and best.share >= _COMES_NEAR:
        told = _difference(shapes, best)
        if told:
            return ArchitectureError(
                f"the weights in {shown!r} are those of no known architecture; to be {best.known.name}, {told}",
                "if it is that, get the whole file again; if your own, name it with --arch package.module:callable",
            )
    return ArchitectureError(
        f"the weights in {shown!r} are those of no known architecture, and none comes near",
        "name it with --arch: resnet50, timm:NAME, or package.module:callable for your own",
    )


def _kind_of(shapes: Shapes) -> tuple[str, str] | None:
    """(kind, the first key that tells it) of what is no classifier."""
    for kind, pattern in _KINDS:
        key = next((key for key in shapes if re.search(pattern, key)), None)
        if key is not None:
            return kind, key
    return None


def _difference(shapes: Shapes, fit: Fit) -> str:
    """How the weights differ from an architecture; empty where it cannot be built."""
    own = stripped(shapes, fit.prefix)
    try:
        module = meta(fit.known.name, classes=classes_of(own, fit.known.heads), channels=None, keys=own)
    except ArchitectureError:
        return ""
    return misfit_of(module, own).words()
