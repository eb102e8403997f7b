"""``report.json``: its form, and its bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Part(BaseModel):
    # deferred: only the schema of `reportgen schema` is made of these classes
    model_config = ConfigDict(extra="forbid", defer_build=True)


class Generator(_Part):
    """What made the report, and with which options."""

    name: Literal["reportgen"]
    version: str
    job: dict[str, Any]
    seed: int
    preset: Literal["quick", "standard", "full"]


class Input(_Part):
    """The preprocessing."""

    size: tuple[int, int]
    channels: int
    resize: str
    resize_to: int | tuple[int, int] | None
    interpolation: str
    mean: list[float]
    std: list[float]
    bgr: bool
    transform: str | None
    assumed: list[str]
    head_published: bool


class LayerFacts(_Part):
    """One module."""

    name: str
    type: str
    shape: list[int]
    parameters: int


class Model(_Part):
    """The model file and what was found in it."""

    file: str
    sha256: str
    size: int
    format: str
    container: str
    safe: bool
    architecture: str
    how: str
    candidates: list[str]
    assumed: bool
    weights: str
    prefix: str
    head: str = ""
    stray: list[str]
    parameters: int
    macs: int | None = None
    input: Input
    output_kind: str
    classes: int
    classes_named: bool
    labels_from: str | None
    layers: list[LayerFacts]
    default_layers: list[str]


class Named(_Part):
    """An exhibit and the quota it was chosen under."""

    image: str
    why: str


class SkippedFile(_Part):
    """Something that could not be used."""

    file: str
    reason: str


class Sizes(_Part):
    """Smallest and largest height, and width, of the usable images, upright, in pixels."""

    height: tuple[int, int]
    width: tuple[int, int]


class Images(_Part):
    """The image set. `digest` is over the sorted digests of the usable images."""

    count: int
    used: int
    left_out: int
    sizes: Sizes | None = None
    digest: str
    exhibits: list[Named]
    sample: list[str]
    labelled: int
    skipped: list[SkippedFile]


class Class(_Part):
    """A class by number and name."""

    index: int
    label: str


class Scored(Class):
    """A class with what the model says of it."""

    probability: float = Field(ge=0, le=1)
    logit: float


class Prediction(_Part):
    """One image. Where it may show several classes, `truths` are those that it shows, and `named` those that the model
    gives a probability of at least one half; `truth` is left out.
    """

    image: str
    sha256: str
    top: list[Scored]
    entropy: float
    truth: Class | None = None
    truths: list[Class] | None = None
    named: list[Scored] | None = None
    group: str | None = None
    slice: str | None = None


class Measured(_Part):
    """A number in [0, 1] with its base and 95 % interval."""

    value: float
    n: int
    interval: tuple[float, float]


class ClassMetrics(Class):
    """How often a class is recognised, and how often its name is right; only what has a base. Where images may show
    several classes, also how many show this one, and how well its probability tells them from the others.
    """

    recall: Measured | None = None
    precision: Measured | None = None
    positives: int | None = None
    prevalence: Measured | None = None
    f1: Measured | None = None
    auroc: Measured | None = None
    average_precision: Measured | None = None


class SliceMetrics(_Part):
    """One named part of the data: accuracy, or the two others where images may show several classes."""

    slice: str
    accuracy: Measured | None = None
    exact_match: Measured | None = None
    micro_f1: Measured | None = None


class Metrics(_Part):
    """Numbers about the whole set; only where the truth is known. Where images may show several classes, each of these
    is decided by itself: accuracy, balanced accuracy and top 5 are left out, the area is the mean over classes, and the
    calibration error is that of all decisions.
    """

    accuracy: Measured | None = None
    balanced_accuracy: Measured | None = None
    auroc: Measured | None = None
    ece: Measured | None = None
    top5: Measured | None = None
    exact_match: Measured | None = None
    hamming_loss: Measured | None = None
    micro_f1: Measured | None = None
    macro_f1: Measured | None = None
    mean_average_precision: Measured | None = None
    per_class: list[ClassMetrics] | None = None
    per_slice: list[SliceMetrics] | None = None


class TechniqueFacts(_Part):
    """One technique."""

    status: Literal["complete", "failed", "not_applicable"]
    reason: str | None = None
    options: dict[str, Any]
    results: dict[str, Any]
    figures: list[str]
    seconds: float | None = None
    cached: bool | None = None


class Waived(_Part):
    """Why a finding does not count."""

    reason: str
    until: str | None = None


class FindingFacts(_Part):
    """One conclusion."""

    rule: str
    about: Literal["model", "data", "method", "run"]
    severity: Literal["info", "notice", "warning", "critical"]
    subject: str
    value: float | int | str | None
    threshold: float | None
    n: int | None
    interval: tuple[float, float] | None = None
    waived: Waived | None = None
    title: str
    detail: str
    figures: list[str]


class Count(_Part):
    """Passes of one kind."""

    batches: int
    samples: int


class PassCounts(_Part):
    """How often the model was called."""

    forward: Count
    backward: Count


class Facts(_Part):
    """The whole of ``report.json``."""

    schema_: int = Field(alias="schema")
    generator: Generator
    model: Model
    images: Images
    predictions: list[Prediction]
    metrics: Metrics
    techniques: dict[str, TechniqueFacts]
    findings: list[FindingFacts]
    notes: str | None = None
    environment: dict[str, str | int]
    passes: PassCounts | None = None
    timings: dict[str, float] | None = None


class Refusal(_Part):
    """What is recorded where no report could be made."""

    schema_: int = Field(alias="schema")
    generator: Generator
    refused: dict[str, str]


class Listed(Sequence[Any]):
    """A list whose entries are made when they are read, so that a million of them need not be held.

    Args:
        items: what they are made of.
        make: makes one.
    """

    def __init__(self, items: Sequence[Any], make: Callable[[Any], Mapping[str, Any]]) -> None:
        self._items = items
        self._make = make

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self._make(item) for item in self._items[place]]
        return self._make(self._items[place])


def json_bytes(facts: Mapping[str, Any]) -> bytes:
    """UTF-8, two spaces, a newline at the end. A number that JSON cannot say (infinite, undefined) becomes null."""
    return b"".join(json_parts(facts))


def json_parts(facts: Mapping[str, Any]) -> Iterator[bytes]:
    """The same piece by piece: of a `Listed` no more than one entry is in memory."""
    for text in json_texts(facts):
        yield text.encode("utf-8", "backslashreplace")
    yield b"\n"


def json_texts(facts: Mapping[str, Any], *, indent: int | None = 2, ascii_only: bool = False) -> Iterator[str]:
    """Pieces of the JSON of `facts`, as `json.dumps` writes them; without `indent` on one line without spaces."""
    separators = None if indent else (",", ":")

    def text(value: Any, depth: int) -> str:
        told = json.dumps(finite(value), indent=indent, separators=separators, ensure_ascii=ascii_only, allow_nan=False)
        return told.replace("\n", _line(indent, depth))  # inside strings JSON writes no line breaks

    before = "{"
    for name, value in facts.items():
        yield f"{before}{_line(indent, 1)}{text(str(name), 1)}:{' ' if indent else ''}"
        before = ","
        if isinstance(value, Listed) and len(value):
            for place, item in enumerate(value):
                yield ("," if place else "[") + _line(indent, 2) + text(item, 2)
            yield _line(indent, 1) + "]"
        else:
            yield text(value, 1)
    yield _line(indent, 0) + "}" if facts else "{}"


def _line(indent: int | None, depth: int) -> str:
    """The break before a line so deep in nested values."""
    return "\n" + " " * (indent * depth) if indent else ""


def finite(value: Any) -> Any:
    """`value` as JSON can say it: no infinities, no NaN, no tuples."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple | Listed):
        return [finite(item) for item in value]
    return value


def schema(technique_results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """JSON Schema of ``report.json``, with the results of each technique as that technique declares them."""
    made = TypeAdapter(Facts | Refusal).json_schema()
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = "report.json of reportgen"
    techniques = made["$defs"]["Facts"]["properties"]["techniques"]
    common = {"$ref": "#/$defs/TechniqueFacts"}
    techniques["properties"] = {
        name: {
            "allOf": [
                common,
                {
                    "if": {"properties": {"status": {"const": "complete"}}},
                    "then": {"properties": {"results": dict(results)}},
                },
            ]
        }
        for name, results in technique_results.items()
    }
    return made
