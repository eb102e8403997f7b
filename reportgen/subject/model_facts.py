"""What is known of a model once it is open, whether it came from a file or was handed over in memory."""

from __future__ import annotations

from dataclasses import dataclass

from reportgen.subject.architectures import Published


@dataclass(frozen=True)
class ModelFacts:
    """What the report says of a model file.

    Attributes:
        file: its name, never a path; bytes that are no UTF-8 as ``\\xNN``.
        sha256: of its bytes; empty for a live module.
        size: in bytes.
        format: ``state-dict``, ``checkpoint``, ``module``, ``safetensors``, ``torchscript``, ``exported``,
        ``live-module``.
        container: ``zip``, ``legacy``, ``safetensors``, ``memory``, or ``trusted`` where torch itself opened it.
        safe: it was opened without running any code of the file.
        architecture: qualified name, or the class path of a module.
        how: ``checkpoint`` (its own entry), ``class`` (of a pickled module), ``recognised``, ``given``, or ``verified``
        (recognised, and it answers as the program in the file does).
        candidates: other architectures that fit as well.
        weights: ``raw`` or ``ema``.
        prefix: stripped from every key, or from those of the body.
        head: name that the file gives to the linear layer beside a body, which stands here in the place of the
            architecture's own classifier; empty where that was not apart.
        stray: keys that were not used.
        num_classes: width of the head, where the weights tell it.
        channels_in: of the first convolution.
        published: facts of the architecture's published weights.
        labels: class names found in the file, or the published ones where there are as many classes.
        labels_from: ``file``, ``published``, or None.
        head_published: the head has the published number of classes.
        replaced: classes of the file that were not run: a twin, or the recognised architecture, takes their place.
    """

    file: str
    sha256: str
    size: int
    format: str
    container: str
    safe: bool
    architecture: str
    how: str
    candidates: tuple[str, ...]
    weights: str
    prefix: str
    stray: tuple[str, ...]
    num_classes: int | None
    channels_in: int
    published: Published | None
    labels: tuple[str, ...] | None
    head_published: bool
    labels_from: str | None = None
    replaced: tuple[str, ...] = ()
    head: str = ""
