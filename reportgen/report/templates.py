"""Rendering of templates, among them a user's own: what is wrong with one of these is told with its file and line."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError

from reportgen.errors import UsageError
from reportgen.report.document import Style
from reportgen.report.environment import environment, template_folder
from reportgen.text import line

SUFFIX = ".j2"


def rendered(name: str, context: Mapping[str, Any], style: Style) -> str:
    """A template in the language of the document.

    Raises:
        UsageError: if a template of the user's is broken.
    """
    try:
        return environment(style.lang, style.templates).get_template(name).render(context)
    except Exception as error:
        if style.templates is None or isinstance(error, UsageError):
            raise
        told = _told(error, style.templates)
        if told is None:
            raise
        raise UsageError(told) from error


def check_templates(folder: Path) -> None:
    """Look at a user's templates before the work begins.

    Raises:
        UsageError: if there is no such folder, a template in it does not parse, or none of them would ever be used.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {line(folder.name)!r} with templates", "check the path of --template-dir")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob(f"*{SUFFIX}"))
    for name in names:
        try:
            environment("en", folder).get_template(name)
        except TemplateSyntaxError as error:
            raise UsageError(_words(Path(error.filename or name), error.lineno, error, folder)) from None
        except UnicodeDecodeError:
            raise UsageError(f"template {line(name)} is not UTF-8 text") from None
    own = sorted(path.relative_to(template_folder()).as_posix() for path in template_folder().rglob(f"*{SUFFIX}"))
    if not set(names) & set(own):
        raise UsageError(
            f"no file in {line(folder.name)!r} is called like a template of the report",
            f"call them {', '.join(name for name in own if '/' not in name)} or {own[-1]}",
        )


def _told(error: Exception, folder: Path) -> str | None:
    """Which line of a user's template is to blame; None if none is."""
    if isinstance(error, TemplateSyntaxError):
        return _words(Path(error.filename or ""), error.lineno, error, folder)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _within(Path(frame.filename), folder)]
    if not frames:
        return None
    return _words(Path(frames[-1].filename), frames[-1].lineno or 0, error, folder)


def _words(file: Path, number: int, error: Exception, folder: Path) -> str:
    name = file.resolve().relative_to(folder.resolve()).as_posix() if _within(file, folder) else file.name
    kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"template {name}, line {number}: {kind}{said}"


def _within(file: Path, folder: Path) -> bool:
    return file.resolve().is_relative_to(folder.resolve())
