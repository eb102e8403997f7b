"""Every option exactly once. Flags, TOML and the Python API are views of `Job`.

A field's metadata says in which group of ``--help`` it stands and how its flag reads; its type says what is accepted.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from reportgen.errors import UsageError, nearest
from reportgen.figures.contrast import LEAST, WHITE, contrast
from reportgen.findings import Waiver
from reportgen.language import Language
from reportgen.option_types import (
    Assignments,
    Bytes,
    Channels,
    Day,
    Floats,
    Size,
    TechniqueOptions,
    Thresholds,
    Words,
)
from reportgen.text import line

Preset = Literal["quick", "standard", "full"]
OutputKind = Literal["auto", "logits", "softmax", "log-softmax", "sigmoid", "multilabel"]


@dataclass(frozen=True)
class PresetValues:
    """What a preset stands for where an option of the same name was not given."""

    layers: tuple[str, ...]
    channels: str
    exhibits: int
    sample: int


PRESETS: Mapping[Preset, PresetValues] = {
    "quick": PresetValues(layers=("last:2",), channels="even:8", exhibits=4, sample=0),
    "standard": PresetValues(layers=("default",), channels="even:16", exhibits=8, sample=64),
    "full": PresetValues(layers=("blocks",), channels="even:64", exhibits=24, sample=256),
}


LOCAL = frozenset({"cache_dir", "no_cache", "cache_size", "jobs", "pythonpath", "tensorboard", "figures"})
"""Options that say where and how fast, not what: no report tells them."""

MOST_LETTERS = 200
"""Of a title or an author: a cover holds no more."""

PATHS = (
    "labels", "truth", "masks", "reference", "cache_dir", "notes", "logo", "template_dir", "css", "tensorboard",
    "figures",
)  # fmt: skip
"""Options that name one file or folder."""

RUNS_CODE = ("trust_model", "transform", "pythonpath", "arch")
"""Options by which code of others may run: not by a file that merely lies in the folder where one works."""

WITHHELD = "(withheld)"
"""Stands for what ``--names`` does not allow to be told."""

SUBJECT, DONE, DOCUMENT = "Subject", "What is done", "The document"


def _option(
    default: Any,
    group: str,
    words: str,
    metavar: str | None = None,
    flag: str | None = None,
    table: str | None = None,
    **bounds: Any,
) -> Any:
    """A field of `Job`. One with a `table` has no flag: it stands in TOML under that head, and in the Python API."""
    extra: dict[str, Any] = {"group": group, "metavar": metavar, "flag": flag, "table": table}
    return Field(default, description=words, json_schema_extra=extra, **bounds)


class Job(BaseModel):
    """One validated set of options for an audit. Immutable.

    Raises:
        UsageError: from `from_options` and `from_toml`, for unknown names and values that do not fit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: str | None = _option(None, SUBJECT, "resnet50, torchvision:resnet50, timm:resnet50, package.module:callable")
    arch_arg: Assignments = _option({}, SUBJECT, "argument for the architecture; repeatable", "K=V")
    pythonpath: tuple[Path, ...] = _option((), SUBJECT, "where own code of --arch and --transform lies", "DIR")
    weights: Literal["raw", "ema"] | None = _option(
        None, SUBJECT, "which of a checkpoint's weights (EMA where present)"
    )
    num_classes: int | None = _option(None, SUBJECT, "number of classes", "N", ge=1)
    labels: Path | tuple[str, ...] | None = _option(
        None, SUBJECT, "class names: one a line, JSON list or dict, CSV of numbers and names", "FILE"
    )
    output_kind: OutputKind = _option("auto", SUBJECT, "what the model returns")
    input_size: Size | None = _option(None, SUBJECT, "input size of the model", "N|HxW")
    channels_in: int | None = _option(None, SUBJECT, "input channels", "N", ge=1)
    resize: Literal["crop", "squash", "pad", "none"] | None = _option(None, SUBJECT, "how images become that size")
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] | None = _option(
        None, SUBJECT, "resampling filter"
    )
    mean: Floats | None = _option(None, SUBJECT, "mean per channel, of values in 0..1", "M,M,M")
    std: Floats | None = _option(None, SUBJECT, "standard deviation per channel", "S,S,S")
    bgr: bool = _option(False, SUBJECT, "the model expects blue, green, red")
    transform: str | None = _option(
        None, SUBJECT, "own preprocessing: PIL image to (C,H,W) tensor", "package.module:callable"
    )
    truth: Path | None = _option(
        None,
        SUBJECT,
        "CSV with columns image,label[,group,slice], several labels as cat;dog or as columns of 0 and 1; otherwise "
        "class-named folders",
        "FILE.csv",
    )
    masks: Path | None = _option(
        None, SUBJECT, "segmentation masks, called as their images, to see how much of the maps lies inside", "DIR"
    )
    reference: Path | None = _option(
        None, SUBJECT, "images to compare with, such as a training set: those among IMAGES are told", "DIR"
    )
    max_images: int | None = _option(None, SUBJECT, "scan at most N images", "N", ge=1)
    sample: int | None = _option(
        None, SUBJECT, "images on which the quality of maps is measured (quick none, standard 64, full 256)", "N", ge=0
    )
    exhibits: int | None = _option(None, SUBJECT, "images shown in detail (quick 4, standard 8, full 24)", "N", ge=1)
    exhibit: Words = _option((), SUBJECT, "an image that must be shown in detail; repeatable", "FILE")
    trust_model: bool = _option(False, SUBJECT, "allow a file that can run code when opened")

    preset: Preset = _option("standard", DONE, "how much of everything")
    only: Words = _option((), DONE, "these techniques only", "T,…")
    skip: Words = _option((), DONE, "all techniques but these", "T,…")
    layers: Words | None = _option(None, DONE, "layers, for all techniques", "L,…")
    channels: Channels | None = _option(None, DONE, "channels, for all techniques", "even:16|top:16|0,10,20")
    techniques: TechniqueOptions = _option(
        {}, DONE, "any option of one technique; repeatable", "TECHNIQUE.FIELD=VALUE", flag="set"
    )
    target: Words = _option(
        ("predicted", "true"), DONE, "classes explained: predicted, true, names or indices", "CLASS,…"
    )
    device: str = _option("auto", DONE, "auto, cpu, cuda, cuda:1, mps")
    batch_size: int | None = _option(None, DONE, "images a pass (auto; halves itself when memory runs out)", "N", ge=1)
    precision: Literal["fp32", "bf16", "fp16"] = _option(
        "fp32", DONE, "of the scan and of ascents, where the machine is faster with less; maps are always fp32"
    )
    jobs: int | None = _option(None, DONE, "threads that decode images (cpu count)", "N", ge=1)
    seed: int = _option(0, DONE, "seed of every random choice", "N", ge=0)
    cache_dir: Path | None = _option(None, DONE, "where tensors are kept", "DIR")
    no_cache: bool = _option(False, DONE, "keep no tensors after the run")
    cache_size: Bytes = _option(20_000_000_000, DONE, "oldest tensors go beyond this", "SIZE")
    strict: bool = _option(False, DONE, "exit 4 when a finding about model or data is a warning or worse")
    findings: Thresholds = _option({}, DONE, "thresholds by the name of the rule", table="[findings]")
    waivers: tuple[Waiver, ...] = _option((), DONE, "findings that are known and accepted", table="[[waivers]]")

    title: str | None = _option(None, DOCUMENT, "title on the cover")
    author: str = _option("", DOCUMENT, "author on the cover")
    date: Day | None = _option(None, DOCUMENT, "date on the cover", "YYYY-MM-DD")
    notes: Path | None = _option(
        None, DOCUMENT, "the reviewer's scope, opinion and sign-off, set in the report", "FILE.md"
    )
    lang: Language = _option("en", DOCUMENT, "language of the document; report.json is always English")
    logo: Path | None = _option(None, DOCUMENT, "picture on the cover: PNG or JPEG", "FILE")
    accent: str = _option("#1f4e79", DOCUMENT, "colour of headings and rules, legible on white", "#RRGGBB")
    template_dir: Path | None = _option(None, DOCUMENT, "templates that replace or extend the report's own", "DIR")
    css: Path | None = _option(None, DOCUMENT, "style sheet that follows the report's own", "FILE")
    paper: Literal["a4", "letter"] = _option("a4", DOCUMENT, "paper of the PDF")
    pdf_a: bool = _option(False, DOCUMENT, "PDF/A-3u with report.json attached, for archives (PDF/UA-1)")
    names: Literal["path", "stem", "hash"] = _option(
        "path", DOCUMENT, "how images are called: by path, by name without folder and suffix, by a hash of the content"
    )
    no_originals: bool = _option(False, DOCUMENT, "show no photograph, and what is computed from one coarsely only")
    figures: Path | None = _option(None, DOCUMENT, "every figure as a file, with LaTeX to set it", "DIR")
    tensorboard: Path | None = _option(None, DOCUMENT, "graph, profile and figures as TensorBoard logs too", "DIR")
    colormap: Literal["inferno", "viridis", "magma", "cividis", "grey", "jet"] = _option(
        "inferno", DOCUMENT, "colours of heat maps; all but jet are perceptually uniform"
    )

    @field_validator("mean", "std")
    @classmethod
    def _finite(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and (not value or any(v != v or abs(v) == float("inf") for v in value)):
            raise ValueError("needs one finite number per channel")
        return value

    @field_validator("std")
    @classmethod
    def _positive(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and any(v <= 0 for v in value):
            raise ValueError("must be greater than zero")
        return value

    @field_validator("title", "author")
    @classmethod
    def _one_line(cls, value: str | None) -> str | None:
        if value is None:
            return None
        words = " ".join(value.split())
        if value and not words:
            raise ValueError("holds no word")
        if len(words) > MOST_LETTERS:
            raise ValueError(f"has more than {MOST_LETTERS} characters")
        return line(words)

    @field_validator("accent")
    @classmethod
    def _legible(cls, value: str) -> str:
        if not re.fullmatch(r"#[0-9A-Fa-f]{6}", value):
            raise ValueError("is no colour of the form #1f4e79")
        ratio = contrast(value, WHITE)
        if ratio < LEAST:
            raise ValueError(f"has a contrast of {ratio:.1f} to 1 with white; text needs {LEAST} to 1")
        return value.lower()

    @field_validator("date")
    @classmethod
    def _day(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
            raise ValueError("is not of the form YYYY-MM-DD")
        if value is not None:
            try:
                datetime.date.fromisoformat(value)
            except ValueError:
                raise ValueError("is no day of the calendar") from None
        return value

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """The job with these options; the others keep their defaults."""
        unknown = [name for name in options if name not in cls.model_fields]
        if unknown:
            raise UsageError(
                f"there is no option {unknown[0]!r}", nearest(unknown[0], cls.model_fields, "see reportgen --help")
            )
        try:
            return cls.model_validate(dict(options))
        except ValidationError as error:
            first = error.errors()[0]
            name = flag_of(str(first["loc"][0]))
            if name.startswith("["):
                name = " ".join((name, *map(str, first["loc"][1:])))
            words = str(first["msg"]).removeprefix("Value error, ")
            raise UsageError(f"{name} {first['input']!r}: {words}", "see reportgen --help") from None

    @property
    def preset_values(self) -> PresetValues:
        """The preset with what was given in so many words put in its place."""
        base = PRESETS[self.preset]
        return PresetValues(
            layers=self.layers or base.layers,
            channels=self.channels or base.channels,
            exhibits=self.exhibits or base.exhibits,
            sample=base.sample if self.sample is None else self.sample,
        )

    def canonical(self) -> dict[str, Any]:
        """What `report.json` tells of the options: those that differ from the default, no path but a file's name."""
        told: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name in LOCAL or value == field.default:
                continue
            if name == "exhibit" and self.names != "path":
                value = (WITHHELD,) * len(value)
            if name == "waivers":
                value = tuple(self._told(one) for one in value)
            told[name] = _without_folders(value)
        return told

    def _told(self, waiver: Waiver) -> dict[str, Any]:
        subject = WITHHELD if self.names != "path" and waiver.subject != "*" else waiver.subject
        return {"rule": waiver.rule, "subject": subject, **waiver.facts()}


def table_of(name: str) -> str | None:
    """The head of the TOML table of a field that has no flag; None for all others."""
    extra = Job.model_fields[name].json_schema_extra
    return str(extra["table"]) if isinstance(extra, dict) and extra.get("table") else None


def flag_of(name: str) -> str:
    """The command-line flag of a field, or the head of its table."""
    extra = Job.model_fields[name].json_schema_extra
    own = extra.get("flag") if isinstance(extra, dict) else None
    return table_of(name) or "--" + str(own or name).replace("_", "-")


def _without_folders(value: Any) -> Any:
    if isinstance(value, Path):
        return value.name
    if isinstance(value, Mapping):
        return {str(k): _without_folders(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(v) for v in value]
    return value
