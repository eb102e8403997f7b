"""Flags to `Job`, exit codes. Nothing heavy is imported before it is known what is asked for."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from reportgen import __version__
from reportgen.errors import ImagesError, LabelsError, ReportgenError, UsageError

COMPLETE, FAILED, USAGE, SECTION_FAILED, STRICT, INTERRUPTED = 0, 1, 2, 3, 4, 130

SUBCOMMANDS = {
    "inspect": "what is this model file: format, safety, architecture, layers",
    "techniques": "list the techniques",
    "cache": "info, prune or verify the stored tensors",
    "demo": "make a model and images from installed packages and audit them",
    "schema": "print the JSON Schema of report.json, or of reportgen.toml",
}


class _Parser(argparse.ArgumentParser):
    """Refuses in two lines, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code (see the README)."""
    given = list(sys.argv[1:] if argv is None else argv)
    verbose = "-v" in given or "--verbose" in given
    try:
        if given and given[0] in SUBCOMMANDS:
            return _subcommand(given[0], given[1:])
        return _audit(given)
    except ReportgenError as error:
        if verbose:
            traceback.print_exc()
        _complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("reportgen: interrupted; what was computed is in the cache", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if verbose:
            raise
        first = (str(error).strip().splitlines() or [""])[0][:200]
        print(f"reportgen: a defect of the program: {type(error).__name__}: {first}", file=sys.stderr)
        print("  run it again with -v and report what it prints", file=sys.stderr)
        return FAILED


def _complain(error: ReportgenError) -> None:
    print(f"reportgen: {error.thing}", file=sys.stderr)
    if error.remedy:
        print(f"  {error.remedy}", file=sys.stderr)


# the audit
# -------------------------------------------------------------------------------------------------------------


def audit_parser() -> argparse.ArgumentParser:
    """Flags made from the fields of `Job`, in the groups that they name."""
    from reportgen.job import DOCUMENT, DONE, SUBJECT, Job, flag_of, table_of

    epilog = "subcommands:\n" + "\n".join(f"  reportgen {name:11} {words}" for name, words in SUBCOMMANDS.items())
    parser = _Parser(
        prog="reportgen",
        usage="reportgen MODEL IMAGES… -o OUT [-o OUT …] [options]",
        description="Look inside an image classifier and write down what it sees.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("model", metavar="MODEL", help="model file (.pt, .pth, .ckpt, .safetensors) or folder")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="image folders or files")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        action="append",
        help="report.html, .pdf or .json; repeatable (MODEL-report.html)",
    )
    groups = {name: parser.add_argument_group(name) for name in (SUBJECT, DONE, DOCUMENT)}
    groups[DONE].add_argument(
        "--config",
        metavar="FILE",
        help="TOML with the same names, [findings] and [[waivers]] (reportgen.toml, pyproject.toml)",
    )
    groups[DONE].add_argument("--plan", action="store_true", help="print what would run; run nothing")
    parser.add_argument("--progress", action="store_true", help="draw bars even where there is no terminal")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument("-v", "--verbose", action="store_true", help="show tracebacks")
    parser.add_argument("--version", action="version", version=f"reportgen {__version__}")
    for name, field in Job.model_fields.items():
        if table_of(name):
            continue
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        groups[str(extra["group"])].add_argument(
            flag_of(name), **_argument(name, field.annotation, field.description, extra)
        )
    return parser


def _argument(name: str, annotation: Any, words: str | None, extra: dict[str, Any]) -> dict[str, Any]:
    """How argparse reads a field; whether the value fits is for `Job` to say."""
    told: dict[str, Any] = {"dest": name, "help": words}
    if annotation is bool:
        return {**told, "action": "store_true"}
    choices = _choices(annotation)
    if choices:
        return {**told, "choices": choices}
    told["metavar"] = extra.get("metavar") or name.upper()
    if "repeatable" in (words or "") or name == "pythonpath":
        return {**told, "action": "append"}
    return told


def _choices(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return tuple(str(value) for value in get_args(annotation))
    return next((found for part in get_args(annotation) if (found := _choices(part))), ())


def _audit(given: list[str]) -> int:
    flags = vars(audit_parser().parse_args(given))
    from reportgen.configuration import read_toml
    from reportgen.job import Job

    model, images = flags.pop("model"), flags.pop("images")
    config, plan, quiet = flags.pop("config", None), flags.pop("plan", False), flags.pop("quiet", False)
    bars = flags.pop("progress", False)
    flags.pop("verbose", None)
    outputs = [Path(target) for target in flags.pop("output", [])] or [
        Path(f"{Path(model).resolve().stem}-report.html")
    ]
    toml = read_toml(Path(config) if config else None, Path.cwd())
    job = Job.from_options(_merged(toml, flags))
    if plan:
        from reportgen.pipeline import foresee

        print(foresee(model, images, job))
        return COMPLETE
    return _run(model, images, job, outputs, quiet=quiet, bars=bars)


def _merged(toml: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """Flags over TOML; options of single techniques are merged one by one."""
    from reportgen.job import Job

    merged = {**toml, **flags}
    if "techniques" in toml and "techniques" in flags:
        merged["techniques"] = {
            name: {**toml["techniques"].get(name, {}), **options}
            for name, options in {
                **toml["techniques"],
                **Job.from_options({"techniques": flags["techniques"]}).techniques,
            }.items()
        }
    return merged


def _run(model: str, images: list[str], job: Any, outputs: list[Path], *, quiet: bool, bars: bool) -> int:
    from reportgen.result import check_suffix

    for target in outputs:
        check_suffix(target)
    from reportgen.machine import keep_freed_memory, unreclaimed
    from reportgen.pipeline import audit
    from reportgen.progress import Progress
    from reportgen.report.output import check_writable

    for target in outputs:
        check_writable(target)
    if job.tensorboard is not None:
        from reportgen.report.tensorboard import check_directory

        check_directory(job.tensorboard)
    if job.figures is not None:
        from reportgen.report.figure_files import check_figure_folder

        check_figure_folder(job.figures)
    keep_freed_memory()
    progress = Progress.on_terminal(quiet=quiet, always=bars)
    try:
        report = audit(model, images, job, progress=progress, command=command_of(model, images, job))
    except ReportgenError as error:
        _record_refusal(error, outputs, job)
        raise
    for target in outputs:
        with unreclaimed():
            print(report.write(target))
    for folder in (job.figures, job.tensorboard):
        if folder is not None:
            print(folder)
    if not report.complete:
        failed = [name for name, one in report.document.facts["techniques"].items() if one["status"] == "failed"]
        print(f"reportgen: failed: {', '.join(failed)}; the report says why", file=sys.stderr)
        return SECTION_FAILED
    if job.strict and any(_counts(finding) for finding in report.document.facts["findings"]):
        print("reportgen: --strict: a finding about the model or the images is a warning or worse", file=sys.stderr)
        return STRICT
    return COMPLETE


def _counts(finding: dict[str, Any]) -> bool:
    grave = finding["severity"] in ("warning", "critical")
    return finding["about"] in ("model", "data") and grave and "waived" not in finding


def _record_refusal(error: ReportgenError, outputs: list[Path], job: Any) -> None:
    """A requested ``.json`` still records that there is no report, and why."""
    from reportgen.job import WITHHELD
    from reportgen.report.facts import json_bytes
    from reportgen.report.output import write_atomically
    from reportgen.summary import SCHEMA_VERSION, generator_facts

    # these name images and lines of tables; the terminal has told them
    withheld = job.names != "path" and isinstance(error, ImagesError | LabelsError | UsageError)
    reason = WITHHELD if withheld else error.thing
    refusal = {
        "schema": SCHEMA_VERSION,
        "generator": generator_facts(job),
        "refused": {"error": type(error).__name__, "reason": reason, "remedy": error.remedy},
    }
    for target in outputs:
        if target.suffix == ".json":
            write_atomically(target, json_bytes(refusal))


def command_of(model: str, images: Sequence[str], job: Any) -> str:
    """The command that makes the report again: options that differ from the default, files by their names alone."""
    from reportgen.job import flag_of, table_of

    # an image's own name, or a folder called after a person
    named = ["IMAGES"] if job.names != "path" else [Path(image).name or image for image in images]
    words = ["reportgen", Path(model).name, *named]
    # where code lies is nobody's business, but without it nothing is found
    words += [part for folder in job.pythonpath for part in ("--pythonpath", "." if str(folder) == "." else "DIR")]
    told = job.canonical()
    # tables have no flag, and names of classes that were given as such have no file
    without = {name for name in told if table_of(name) or (name == "labels" and isinstance(told[name], list))}
    if without:
        words += ["--config", "reportgen.toml"]
    for name, value in told.items():
        if name in without:
            continue
        if value is True:
            words.append(flag_of(name))
        elif isinstance(value, dict):
            pairs = _flat(value)
            words += [part for pair in pairs for part in (flag_of(name), pair)]
        elif isinstance(value, list):
            words += [flag_of(name), ",".join(str(item) for item in value)]
        else:
            words += [flag_of(name), str(value)]
    return shlex.join([*words, "-o", "report.pdf"])


def _flat(value: dict[str, Any]) -> list[str]:
    pairs: list[str] = []
    for key, item in value.items():
        if isinstance(item, dict):
            pairs += [f"{key}.{pair}" for pair in _flat(item)]
        else:
            pairs.append(f"{key}={','.join(map(str, item)) if isinstance(item, list) else item}")
    return pairs


# subcommands
# -----------------------------------------------------------------------------------------------------------


def _subcommand(name: str, given: list[str]) -> int:
    table: dict[str, Callable[[list[str]], int]] = {
        "inspect": _inspect,
        "techniques": _techniques,
        "cache": _cache,
        "demo": _demo,
        "schema": _schema,
    }
    return table[name](given)


def _parser(name: str) -> _Parser:
    return _Parser(prog=f"reportgen {name}", description=SUBCOMMANDS[name], allow_abbrev=False)


def _inspect(given: list[str]) -> int:
    parser = _parser("inspect")
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("-o", "--output", metavar="OUT.json", help="write it as JSON")
    parser.add_argument("--arch", metavar="NAME")
    parser.add_argument("--arch-arg", metavar="K=V", action="append", default=[], help="repeatable")
    parser.add_argument("--pythonpath", metavar="DIR", action="append", default=[], help="where own code lies")
    parser.add_argument("--trust-model", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true")
    flags = parser.parse_args(given)
    from reportgen.inspection import inspect, words
    from reportgen.subject.subject import importable

    with importable([Path(folder) for folder in flags.pythonpath]):
        found = inspect(Path(flags.model), arch=flags.arch, arch_args=flags.arch_arg, trust=flags.trust_model)
    if flags.output:
        from reportgen.report.facts import json_bytes
        from reportgen.report.output import write_atomically

        target = Path(flags.output)
        if target.suffix != ".json":
            raise UsageError(f"cannot write {target.name!r}: inspect writes JSON", "use a name that ends in .json")
        write_atomically(target, json_bytes(found))
        print(target)
    else:
        print(words(found))
    return FAILED if found.get("error") else COMPLETE


def _techniques(given: list[str]) -> int:
    parser = _parser("techniques")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the options and their defaults")
    flags = parser.parse_args(given)
    from dataclasses import fields

    from reportgen.techniques import registry

    for name, cls in registry().items():
        print(f"{name:18} {cls.scope:8} {cls.summary}")
        if flags.verbose:
            for field in fields(cls):
                value = ",".join(field.default) if isinstance(field.default, tuple) else field.default
                print(f"    --set {name}.{field.name}={value}")
    return COMPLETE


def _cache(given: list[str]) -> int:
    parser = _parser("cache")
    parser.add_argument("action", choices=("info", "prune", "verify"))
    parser.add_argument("--cache-dir", metavar="DIR")
    parser.add_argument("--cache-size", metavar="SIZE", default="0", help="prune: what may stay (0)")
    parser.add_argument("-v", "--verbose", action="store_true")
    flags = parser.parse_args(given)
    from reportgen.job import Job
    from reportgen.option_types import as_bytes
    from reportgen.pipeline import cache_directory
    from reportgen.store import Store

    directory = cache_directory(Job.from_options({"cache_dir": flags.cache_dir} if flags.cache_dir else {}))
    store = Store(directory)
    if flags.action == "prune":
        entries, freed = store.prune(as_bytes(flags.cache_size))
        print(f"removed {entries} entries, {freed / 1e6:.1f} MB")
    elif flags.action == "verify":
        sound, removed = store.verify()
        print(f"{sound} entries are sound, {removed} were removed")
    else:
        info = store.info()
        print(f"{directory}\n{info['entries']} entries, {info['bytes'] / 1e6:.1f} MB")
        for kind, one in info["kinds"].items():
            print(f"  {kind:18} {one['entries']:7} entries {one['bytes'] / 1e6:9.1f} MB")
    return COMPLETE


def _demo(given: list[str]) -> int:
    parser = _parser("demo")
    parser.add_argument("--directory", metavar="DIR", default="reportgen-demo", help="where (reportgen-demo)")
    parser.add_argument("-v", "--verbose", action="store_true")
    flags, rest = parser.parse_known_args(given)
    from reportgen.demo import run

    return run(Path(flags.directory), rest)


def _schema(given: list[str]) -> int:
    parser = _parser("schema")
    parser.add_argument("--config", action="store_true", help="that of reportgen.toml instead")
    if parser.parse_args(given).config:
        from reportgen.configuration import configuration_schema

        print(json.dumps(configuration_schema(), indent=2))
        return COMPLETE
    from reportgen.report.facts import schema
    from reportgen.techniques import registry

    print(json.dumps(schema({name: cls.results_schema for name, cls in registry().items()}), indent=2))
    return COMPLETE
