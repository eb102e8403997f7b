"""A model file opened: format, safety, weights, architecture, module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from reportgen.errors import ArchitectureError, ModelFileError, ReportgenError, UnsafeModelError
from reportgen.subject.apart import joined, named, refusal_of_head
from reportgen.subject.architectures import (
    IMAGENET_CLASSES,
    construct,
    imagenet_labels,
    meta,
    published,
    qualified,
)
from reportgen.subject.body_and_head import built as body_and_head
from reportgen.subject.body_and_head import is_body_and_head, recognised_body
from reportgen.subject.contents import Contents, own_words, read_contents, shape_of
from reportgen.subject.fitting import (
    REMEDY,
    Misfit,
    classes_of,
    fill,
    fitting_prefix,
    misfit_of,
    refit_head,
    stem_channels,
)
from reportgen.subject.hub import Settings, settings_of, shown_name, weights_of
from reportgen.subject.model_facts import ModelFacts
from reportgen.subject.modules import build, channels_of, unknown_classes
from reportgen.subject.recognition import Match, Shapes, described, prefixes, recognise, stripped
from reportgen.subject.resized import recognise_resized, size_argument
from reportgen.subject.sharded import files_of
from reportgen.subject.transformers_models import build as build_from_transformers
from reportgen.subject.transformers_models import check_is_classifier, labels_of
from reportgen.subject.trusted import Fit, Opened, open_trusted
from reportgen.subject.twins import twins_in
from reportgen.text import words_of

Settled = tuple[str, str, tuple[str, ...], str]
"""(qualified name, how it is known, other candidates, prefix of the keys)."""


def open_model(
    path: Path,
    *,
    sha256: str,
    arch: str | None = None,
    arch_args: Mapping[str, object] | None = None,
    weights: str | None = None,
    num_classes: int | None = None,
    channels_in: int | None = None,
    trust: bool = False,
) -> Opened:
    """The module in a file, in evaluation mode, float32, on the CPU, and what is known of it.

    Args:
        path: the file.
        sha256: of its bytes.
        arch: the user's word for the architecture.
        arch_args: further arguments of its constructor.
        weights: ``raw`` or ``ema``.
        num_classes: the user's word for the width of the head.
        channels_in: the user's word for the input channels.
        trust: the user's word that the file may run code.

    Raises:
        ModelFileError, UnsafeModelError, ArchitectureError: see there.
    """
    shown = shown_name(path)
    path = weights_of(path)
    size = sum(file.stat().st_size for file in files_of(path))

    def fit(contents: Contents, name: str | None) -> Opened:
        contents = replace(contents, state=named(contents.state, contents.shapes))
        return _from_weights(contents, shown, name, arch_args or {}, num_classes, channels_in)

    try:
        module, facts = _open_as_data(path, shown, arch, weights, trust, fit)
    except UnsafeModelError:
        if not trust:
            raise
        module, facts = open_trusted(path, shown, arch, weights, fit)
    return module, replace(facts, file=shown, sha256=sha256, size=size)


def _open_as_data(path: Path, shown: str, arch: str | None, weights: str | None, trust: bool, fit: Fit) -> Opened:
    """The same without running anything in the file. Raises UnsafeModelError where that is not enough."""
    settings = settings_of(path)
    by_transformers = arch is None and settings.of_transformers
    if by_transformers:
        check_is_classifier(settings, shown)
    contents = read_contents(path, shown, weights)
    if by_transformers:
        return _from_transformers(contents, settings, shown)
    if settings.of_timm:
        contents = replace(contents, own={**own_words(settings.own()), **contents.own})
    replaced: tuple[str, ...] = ()
    if arch is None and contents.module is not None:
        try:
            return _from_module(contents, shown)
        except UnsafeModelError as refusal:
            if trust:  # its own classes are wanted then
                raise
            replaced = _without_its_classes(contents, shown, refusal)
    if arch is None and is_body_and_head(contents.shapes):
        module, facts = _from_body_and_head(contents, shown)
    else:
        module, facts = fit(contents, arch)
    return module, replace(facts, replaced=replaced)


def _from_module(contents: Contents, shown: str) -> Opened:
    assert contents.module is not None
    try:
        module = build(contents.module, shown, contents.container.tensor).float()
        channels_of(module)
    except ReportgenError:
        raise
    except Exception as error:  # of a class whose instance lacks what its constructor puts there
        words = words_of(error)
        raise ModelFileError(f"{shown!r} is damaged: a module lacks a part ({words})", "get the file again") from error
    library = type(module).__module__.partition(".")[0]
    named = contents.own.get("architecture")
    try:
        match: Match | None = recognise(contents.shapes, shown, trusted=[f"timm:{named}"] if named else [])
    except ArchitectureError:
        match = None
    fitting = [name for name in (match.name, *match.candidates) if name.startswith(f"{library}:")] if match else []
    name = fitting[0] if fitting else contents.module.path
    facts = _facts(contents, name, "class", tuple(fitting[1:]), "", (), module)
    return module, replace(facts, replaced=twins_in(contents.container.foreign))


def _without_its_classes(contents: Contents, shown: str, refusal: UnsafeModelError) -> tuple[str, ...]:
    """The classes of a pickled module that the weights alone do without. Raises `refusal` where they do not."""
    assert contents.module is not None
    own = unknown_classes(contents.module)
    try:
        if own and is_body_and_head(contents.shapes):
            recognised_body(contents.shapes, shown)
        elif own:
            _settle_architecture(replace(contents, state=named(contents.state, contents.shapes)), shown, None)
        if own:
            return own
    except ArchitectureError:
        pass
    if contents.module.path.startswith("ultralytics.nn.tasks."):
        kind = contents.module.path.rpartition(".")[2]
        if kind != "ClassificationModel":
            raise ModelFileError(
                f"{shown!r} is a {kind} of Ultralytics, not an image classifier",
                "give a classifier of it, for example yolo11n-cls.pt",
            ) from None
    raise refusal


def _from_transformers(contents: Contents, settings: Settings, shown: str) -> Opened:
    from reportgen.subject.processors import published_beside

    state = {key: contents.container.tensor(value) for key, value in contents.state.items()}
    module, name, stray = build_from_transformers(settings, state, shown)
    facts = _facts(contents, name, "checkpoint", (), "", stray, module)
    classes = int(module.config.num_labels)  # type: ignore[union-attr, arg-type]
    labels = labels_of(settings.config)
    return module, replace(
        facts,
        num_classes=classes,
        published=published_beside(settings, classes),
        head_published=True,
        labels=labels,
        labels_from="file" if labels else None,
    )


def _from_weights(
    contents: Contents,
    shown: str,
    arch: str | None,
    arch_args: Mapping[str, object],
    num_classes: int | None,
    channels_in: int | None,
) -> Opened:
    name, how, candidates, prefix = _settle_architecture(contents, shown, arch)
    known = described(name)
    joint = joined(contents.shapes, prefix, known) if known else None
    if joint is None:
        return _loaded(contents, shown, (name, how, candidates, prefix), arch_args, num_classes, channels_in)
    together = replace(contents, state=joint.of(contents.state))
    module, facts = _loaded(together, shown, (name, how, candidates, ""), arch_args, num_classes, channels_in)
    stray = (*facts.stray, *joint.others(contents.state))
    return module, replace(facts, prefix=joint.prefix, head=joint.linear, stray=stray)


def _loaded(
    contents: Contents,
    shown: str,
    settled: Settled,
    arch_args: Mapping[str, object],
    num_classes: int | None,
    channels_in: int | None,
) -> Opened:
    """The network with weights that lie in the file as it has them, but for a prefix."""
    name, how, candidates, prefix = settled
    known = described(name)
    state = stripped(contents.state, prefix)
    shapes = {key: shape_of(value) for key, value in state.items()}
    classes = num_classes or classes_of(shapes, known.heads if known else ())
    if name.partition(":")[0] not in ("torchvision", "timm"):
        classes = channels_in = None  # own code is called with what --arch-arg says and nothing else
    if how == "checkpoint":
        arch_args = {**contents.own.get("model_args", {}), **arch_args}
    arch_args = {**size_argument(name, shapes, arch_args), **arch_args}
    if channels_in is not None:
        arch_args = {key: value for key, value in arch_args.items() if key != "in_chans"}
    module = construct(name, classes=classes, channels=channels_in, keys=state, arguments=arch_args)
    if known is None:
        prefix = fitting_prefix(module, contents.shapes)
        state = stripped(contents.state, prefix)
    if known and channels_in is None:
        own = stem_channels(module, known.stem, shapes)
        if own is not None:
            channels_in = own
            module = construct(name, classes=classes, channels=own, keys=state, arguments=arch_args)
    if known:
        refit_head(module, known.heads, shapes)
        own_head = misfit_of(module, shapes).is_head(known.heads)
        if own_head and (refusal := refusal_of_head(contents.shapes, prefix, known, shown)):
            raise refusal
    stray = fill(module, state, shown, name, contents.container.tensor, lambda: _advice(contents, shown, name, how))
    stray += [key for key in contents.state if prefix and not key.startswith(prefix)]
    facts = _facts(contents, name, how, candidates, prefix, tuple(stray), module)
    if known:  # whose first convolution may stand behind something that folds pixels into channels
        built_for = channels_in or arch_args.get("in_chans") or 3
        facts = replace(facts, channels_in=int(str(built_for)))
    return module.float().eval(), facts


def _from_body_and_head(contents: Contents, shown: str) -> Opened:
    match = recognised_body(contents.shapes, shown)
    module = body_and_head(match.name, contents.shapes)
    stray = fill(module, contents.state, shown, match.name, contents.container.tensor)
    facts = _facts(contents, match.name, "recognised", match.candidates, "", tuple(stray), module)
    outputs = [part.out_features for part in module.modules() if isinstance(part, nn.Linear)]
    return module.float().eval(), replace(facts, num_classes=outputs[-1] if outputs else None, head_published=False)


def _settle_architecture(contents: Contents, shown: str, arch: str | None) -> Settled:
    own = contents.own.get("architecture")
    trusted: list[str] = []
    if arch is None and isinstance(own, str):
        bare = own.partition(":")[2] or own
        trusted = [f"torchvision:{bare}", f"timm:{bare.partition('.')[0]}"]
        if "pretrained_cfg" in contents.own or contents.format == "safetensors":
            trusted.reverse()  # the entry is a convention of timm
    if arch is None:
        try:
            match = recognise(contents.shapes, shown, trusted=trusted)
        except ArchitectureError:
            misfits = {name: _misfit(name, contents) for name in trusted}
            believed = next((name for name, misfit in misfits.items() if misfit is not None and not misfit), None)
            if believed is None:
                for name, misfit in misfits.items():
                    if misfit:
                        misfit.check(shown, f"{name}, which it is said to be", "get the file again, or give --arch")
                resized = recognise_resized(contents.shapes, shown)
                if resized is None:
                    raise
                return resized.name, "recognised", resized.candidates, resized.prefix
            return believed, "checkpoint", (), _prefix_for(contents.shapes, believed)
        how = "checkpoint" if match.name in trusted else "recognised"
        return match.name, how, match.candidates, match.prefix
    name = qualified(arch)
    return name, "given", (), _prefix_for(contents.shapes, name)


def _advice(contents: Contents, shown: str, name: str, how: str) -> str:
    """What to do where weights do not fit the architecture named."""
    try:
        match = recognise(contents.shapes, shown) if how == "given" else None
    except ArchitectureError:
        match = None
    if match is not None and match.name != name:
        return f"they fit {match.name}: leave out --arch, or give the one of these weights"
    return REMEDY


def _misfit(name: str, contents: Contents) -> Misfit | None:
    """How the weights differ from an architecture that the file names but recognition did not find in them: one of a
    newer library, or one built with other arguments. None where there is no such architecture, and where its head
    alone is missing, of which recognition tells.
    """
    known, prefix = described(name), _prefix_for(contents.shapes, name)
    joint = joined(contents.shapes, prefix, known) if known else None
    shapes = joint.of(contents.shapes) if joint else stripped(contents.shapes, prefix)
    arguments = dict(contents.own.get("model_args", {}))
    classes = classes_of(shapes, known.heads) if known else None
    try:
        name = qualified(name)
        arguments |= size_argument(name, shapes, arguments)
        module = meta(name, classes=classes, channels=None, keys=shapes, arguments=arguments)
    except ArchitectureError:
        return None
    if known is None:
        shapes = stripped(contents.shapes, fitting_prefix(module, contents.shapes))
    misfit = misfit_of(module, shapes)
    if known:
        return None if misfit.is_head(known.heads) else misfit
    # without a description nobody knows which keys depend on the number of classes
    return replace(misfit, reshaped={})


def _prefix_for(shapes: Shapes, name: str) -> str:
    """The prefix under which most keys of a known architecture lie."""
    known = described(name)
    return next((p for p in prefixes(shapes) if known and known.stem and p + known.stem in shapes), "")


def _facts(
    contents: Contents,
    name: str,
    how: str,
    candidates: tuple[str, ...],
    prefix: str,
    stray: tuple[str, ...],
    module: nn.Module,
) -> ModelFacts:
    """What contents and module tell; of the file itself nothing yet."""
    known = described(name)
    linears = [part.out_features for part in module.modules() if isinstance(part, nn.Linear)]
    classes = classes_of(stripped(contents.shapes, prefix), known.heads) if known else next(reversed(linears), None)
    facts = published(name, contents.own.get("pretrained_cfg"))
    as_published = facts is not None and classes is not None and classes == facts.classes
    labels = contents.own.get("labels")
    source = "file" if labels else None
    if labels is None and as_published and classes == IMAGENET_CLASSES:
        labels, source = imagenet_labels(), "published"
    return ModelFacts(
        file="",
        sha256="",
        size=0,
        format=contents.format,
        container=contents.container.kind,
        safe=True,
        architecture=name,
        how=how,
        candidates=candidates,
        weights=contents.weights,
        prefix=prefix,
        stray=stray,
        num_classes=classes,
        channels_in=channels_of(module),
        published=facts,
        labels=labels,
        head_published=as_published,
        labels_from=source,
    )
