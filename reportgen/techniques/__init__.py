"""What is asked of a model: one file a technique, found by being there. Other packages add theirs by an entry point."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from reportgen.clock import reproducible
from reportgen.errors import UsageError, nearest
from reportgen.findings import FindingRule
from reportgen.techniques.technique import Technique

if TYPE_CHECKING:
    from reportgen.job import Job

GROUP = "reportgen.techniques"
"""Entry-point group: name = the technique's name, value = its class."""

_ORDER = (
    "predictions",
    "population",
    "class_activation",
    "occlusion",
    "gradient",
    "guided_backprop",
    "deconvnet",
    "feature_maps",
    "filters",
    "max_activation",
    "exemplars",
    "channel_health",
    "preprocessing",
    "architecture",
    "profile",
    "faithfulness",
    "sanity",
    "robustness",
    "duplicates",
    "hygiene",
)
"""Reading order of the report; techniques not named follow by name."""


@cache
def registry() -> Mapping[str, type[Technique]]:
    """All techniques by name, in reading order.

    Raises:
        UsageError: if a technique from another package is not one, or takes a name that is taken.
    """
    found: dict[str, type[Technique]] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name != "technique":
            loaded = importlib.import_module(f"{__name__}.{module.name}")
            for value in vars(loaded).values():
                own = isinstance(value, type) and value.__module__ == loaded.__name__
                if own and issubclass(value, Technique) and "name" in vars(value):  # a base of several has no name
                    _register(found, module.name, value)
    for point in entry_points(group=GROUP):
        _register(found, point.name, point.load())
    rank = {name: place for place, name in enumerate(_ORDER)}
    return dict(sorted(found.items(), key=lambda item: (rank.get(item[0], len(rank)), item[0])))


def _register(found: dict[str, type[Technique]], name: str, cls: type[Technique]) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Technique)) or getattr(cls, "name", None) != name:
        raise UsageError(f"technique {name!r} is not a Technique of that name", "mend or uninstall its package")
    if name in found:
        raise UsageError(f"two packages bring a technique named {name!r}", "uninstall one of them")
    found[name] = cls


def chosen(job: Job) -> tuple[Technique, ...]:
    """The techniques that a job asks for, with their options, in reading order.

    Raises:
        UsageError: for an unknown technique or option, or a value that does not fit.
    """
    known = registry()
    for name in (*job.only, *job.skip, *job.techniques):
        _known(name)
    names = [name for name in known if (not job.only or name in job.only) and name not in job.skip]
    if reproducible():
        names = [name for name in names if name in job.only or not known[name].measures_machine]
    if not job.preset_values.sample:
        asked = [name for name in names if name in job.only and known[name].scope == "sample"]
        if asked:
            raise UsageError(f"{asked[0]!r} is measured on a sample, and none is drawn", "give --sample 64")
        names = [name for name in names if known[name].scope != "sample"]
    if not names:
        raise UsageError("--only and --skip leave no technique", "reportgen techniques lists them")
    return tuple(_built(known[name], job) for name in names)


def check_limits(job: Job, others: Sequence[FindingRule]) -> None:
    """Raises UsageError if ``[findings]`` sets a threshold that no rule has: none of a technique, none of `others`."""
    every = (*others, *(rule for cls in registry().values() for rule in cls.rules))
    known = [rule.name for rule in every if rule.threshold is not None]
    for name in job.findings:
        if name not in known:
            remedy = nearest(name, known, f"those with one are {', '.join(sorted(known))}")
            raise UsageError(f"[findings] {name!r} is no rule with a threshold", remedy)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raises UsageError if there is no such technique, or it does not take these options."""
    _given(_known(name), options, {})


def _known(name: str) -> type[Technique]:
    known = registry()
    if name not in known:
        raise UsageError(f"there is no technique {name!r}", nearest(name, known, "reportgen techniques lists them"))
    return known[name]


def _built(cls: type[Technique], job: Job) -> Technique:
    own = {field.name: field for field in fields(cls)}
    preset = job.preset_values
    options: dict[str, Any] = dict(cls.presets.get(job.preset, {}))
    # a technique that looks at no layers or channels has empty defaults; one with a choice of its own keeps it
    # unless the user named layers or channels for all
    for name, general in (("layers", preset.layers), ("channels", preset.channels)):
        default = own[name].default
        common = name not in options and default == getattr(Technique, name)
        if default and (common or getattr(job, name) is not None):
            options[name] = general
    if "seed" in own:
        options["seed"] = job.seed
    return _given(cls, job.techniques.get(cls.name, {}), options)


def _given(cls: type[Technique], given: Mapping[str, Any], usual: Mapping[str, Any]) -> Technique:
    """The technique with the options that the user gave, over those that are usual. Raises UsageError."""
    own = {field.name: field for field in fields(cls)}
    options = dict(usual)
    for field, value in given.items():
        if field not in own:
            remedy = nearest(field, own, f"it has {', '.join(own)}")
            raise UsageError(f"technique {cls.name!r} has no option {field!r}", remedy)
        is_tuple = isinstance(own[field].default, tuple)
        options[field] = tuple(v.strip() for v in value.split(",")) if is_tuple and isinstance(value, str) else value
    try:
        return TypeAdapter(cls).validate_python(cls.completed(options, frozenset(given)))
    except ValidationError as error:
        first = error.errors()[0]
        words = str(first["msg"]).removeprefix("Value error, ")
        # where options do not fit together no single one is at fault, and the words name them
        where = f".{'.'.join(str(part) for part in first['loc'])} {first['input']!r}" if first["loc"] else ""
        raise UsageError(f"{cls.name}{where}: {words}", "reportgen techniques -v shows the options") from None
