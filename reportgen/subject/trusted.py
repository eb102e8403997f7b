"""Files whose opening can run code, opened on the user's word: programs (TorchScript, `torch.export`) and pickles.

A program answers, and derivatives pass through it; what it computes inside cannot be looked at everywhere. Its weights
keep their names, though: where a known architecture with these weights answers exactly as the program does, that takes
its place, and every technique applies. Otherwise the layers of an exported program can be looked at, those of a script
cannot.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reportgen.errors import ArchitectureError, ModelFileError
from reportgen.subject.architectures import Published
from reportgen.subject.checkpoints import EMA, RAW, is_state, tensors_of
from reportgen.subject.containers import Container
from reportgen.subject.contents import Contents, own_words
from reportgen.subject.exported import FixedBatch, input_shape, same, tree_of
from reportgen.subject.kinds import program_of
from reportgen.subject.live import live_facts
from reportgen.subject.model_facts import ModelFacts
from reportgen.subject.modules import channels_of
from reportgen.subject.preprocessing import IMAGENET_MEAN, IMAGENET_STD, USUAL_SIZE
from reportgen.subject.recognition import fitting

Opened = tuple[nn.Module, ModelFacts]
Fit = Callable[[Contents, str | None], Opened]
"""Builds an architecture, the recognised one if none is named, around weights."""

_IMAGES = 2
"""To compare answers on."""
_MOST_TRIED = 16


def open_trusted(path: Path, shown: str, arch: str | None, weights: str | None, fit: Fit) -> Opened:
    """Open a file as torch does, running what code it holds. The facts lack what is known of the file itself.

    Args:
        shown: the file's name for messages.
        arch: the user's word for the architecture.
        weights: ``raw`` or ``ema``, for a checkpoint.
        fit: see `Fit`.

    Raises:
        ModelFileError: if torch cannot open it, or there is no model in it.
        ArchitectureError: if `arch` does not answer as the program does, or does not fit.
    """
    kind = program_of(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripts are announced to go; what the file's own code is warned of
        try:
            if kind == "torchscript":
                return _script(torch.jit.load(str(path), map_location="cpu"), shown, arch, fit)  # type: ignore[no-untyped-call]
            if kind == "exported":
                return _exported(torch.export.load(str(path)), shown, arch, fit)
            made = _unpickled(path)
        except (ArchitectureError, ModelFileError):
            raise
        except Exception as error:  # whatever the file's code raises
            words = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:100]}"
            raise ModelFileError(
                f"{shown!r} cannot be opened even with --trust-model ({words})", "open it where it was made"
            ) from error
    return _pickled(made, shown, arch, weights, fit)


def _unpickled(path: Path) -> Any:
    """What a file of torch.save holds, or a plain pickle."""
    with path.open("rb") as file:
        plain = file.read(2)[:1] == b"\x80"
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except RuntimeError:
        if not plain:
            raise
        with path.open("rb") as file:  # torch.load asks for a mark that pickle alone does not write
            return pickle.load(file)


def _pickled(made: Any, shown: str, arch: str | None, weights: str | None, fit: Fit) -> Opened:
    names = {"ema": EMA, "raw": RAW, None: (*EMA, *RAW)}[weights]
    if not isinstance(made, nn.Module | Mapping) and isinstance(getattr(made, "model", None), nn.Module):
        made = made.model  # a learner of fastai
    if isinstance(made, Mapping):
        inner = next((part for name in names if isinstance(part := made.get(name), nn.Module)), None)
        if inner is None:
            state: Mapping[Any, Any] = next((made[name] for name in names if is_state(made.get(name))), made)
            words = own_words(made)
            contents = Contents("checkpoint", _container(made), tensors_of(state), None, weights or "raw", words)
            module, facts = fit(contents, arch)
            return module, replace(facts, safe=False)
        made = inner
    if not isinstance(made, nn.Module):
        raise ModelFileError(
            f"{shown!r} holds a {type(made).__name__}, not a model", "give a state dict, a module or a checkpoint"
        )
    return made.float().eval(), _facts_of_program(made, "module", live_facts(made).architecture, channels_of(made))


def _container(made: Any) -> Container:
    return Container("trusted", made, {})


def _facts_of_program(module: nn.Module, kind: str, name: str, channels: int, shape: Sequence[int] = ()) -> ModelFacts:
    known = None
    if len(shape) == 3:
        size = (shape[0], shape[1], shape[2])
        known = Published(size, None, None, "center", "bilinear", IMAGENET_MEAN, IMAGENET_STD, 0, "the program")
    facts = replace(live_facts(module), format=kind, container="trusted", safe=False, how="class")
    return replace(facts, architecture=name, channels_in=channels, published=known)


# TorchScript
# -----------------------------------------------------------------------------------------------------------


def _script(script: Any, shown: str, arch: str | None, fit: Fit) -> Opened:
    script.eval()
    state = dict(script.state_dict())
    twin = _twin(script, "torchscript", state, (), _IMAGES, shown, arch, fit)
    if twin is not None:
        return twin
    name = f"{getattr(script, 'original_name', type(script).__name__)} (TorchScript)"
    return script, _facts_of_program(script, "torchscript", name, _channels(state))


def _channels(state: Mapping[str, Tensor]) -> int:
    """Input channels of the first convolution; 3 where the weights show none."""
    return next((int(value.shape[1]) for value in state.values() if value.dim() == 4), 3)


# exported programs
# -----------------------------------------------------------------------------------------------------


def _exported(program: Any, shown: str, arch: str | None, fit: Fit) -> Opened:
    shape = input_shape(program, shown)
    batch, size = shape[0], tuple(shape[1:])
    whole = program.module(check_guards=False) if batch is None else program.module()
    state = {key: value for key, value in program.state_dict.items() if isinstance(value, Tensor)}
    fixed = tuple(int(side) for side in size if side is not None)
    twin = _twin(whole, "exported", state, fixed, batch or _IMAGES, shown, arch, fit)
    if twin is not None:
        return twin
    fixed = fixed if len(fixed) == 3 else ()
    channels = int(size[0]) if size[0] is not None else _channels(state)
    images = _noise(_IMAGES, (channels, *(int(side or USUAL_SIZE) for side in size[1:])))
    pieces = FixedBatch(whole, batch) if batch is not None else whole
    module = tree_of(program, pieces, images) or pieces
    return module, _facts_of_program(module, "exported", "a program of torch.export", channels, fixed)


# twins
# -----------------------------------------------------------------------------------------------------------------


def _twin(
    program: nn.Module,
    kind: str,
    state: Mapping[str, Tensor],
    shape: tuple[int, ...],
    images: int,
    shown: str,
    arch: str | None,
    fit: Fit,
) -> Opened | None:
    """A known architecture that answers as the program does; None where there is none.

    Args:
        shape: (C, H, W) of the program's input where it is fixed.
        images: how many it takes at once.

    Raises:
        ArchitectureError: if the user's architecture does not.
    """
    contents = Contents(kind, _container(state), state, None, "raw", {})
    names = (arch,) if arch else fitting(contents.shapes)[:_MOST_TRIED]
    for name in names:
        try:
            module, facts = fit(contents, name)
        except ArchitectureError:
            if arch:
                raise
            continue
        own = shape if len(shape) == 3 else None
        usual = facts.published.input_size[1:] if facts.published else (USUAL_SIZE, USUAL_SIZE)
        if _answers_alike(program, module, _noise(images, own or (facts.channels_in, *usual))):
            return module, _facts_of_twin(facts, own, given=arch is not None)
    if arch:
        raise ArchitectureError(
            f"{arch} with the weights of {shown!r} does not answer as the program does", "leave out --arch"
        )
    return None


def _facts_of_twin(facts: ModelFacts, shape: tuple[int, ...] | None, *, given: bool) -> ModelFacts:
    known = facts.published
    if known is not None and shape is not None and shape != known.input_size:
        share = min(shape[1:]) / min(known.input_size[1:])
        resize = None if known.resize is None else round(known.resize * share)
        known = replace(known, input_size=(shape[0], shape[1], shape[2]), resize=resize)
    how = "given" if given else "verified"
    return replace(facts, container="trusted", safe=False, how=how, published=known)


def _answers_alike(program: nn.Module, module: nn.Module, images: Tensor) -> bool:
    try:
        with torch.no_grad():
            return same(program(images), module(images))
    except Exception:  # of a program for another size, or none for images
        return False


def _noise(images: int, shape: Sequence[int]) -> Tensor:
    return torch.randn(images, *shape, generator=torch.Generator().manual_seed(0))
