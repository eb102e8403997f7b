"""Figures as files for somebody else's document: PDF, PNG, LaTeX; written wholly or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from reportgen.errors import OutputError
from reportgen.figures.composition import TEXT_WIDTH, Composition, alone, cell_width, compose, raster
from reportgen.language import translator
from reportgen.report import latex
from reportgen.report.document import Document
from reportgen.report.environment import numbered_references
from reportgen.report.figure_names import Named, named
from reportgen.report.figure_pdf import pdf_files
from reportgen.report.output import check_folder, write_atomically
from reportgen.report.pdf import identifier
from reportgen.report.prose import methods

MANIFEST: Final = ".reportgen-figures.json"
"""Names and digests of the files that are ours: a later run replaces these and no others."""


def check_figure_folder(directory: Path) -> None:
    """Raises OutputError if figures cannot be written there, or files of an earlier run were changed since: better
    before the work than after it.
    """
    check_folder(directory, "the figures")
    ours = _manifest(directory)
    changed = sorted(name for name, digest in ours.items() if _digest_of(directory / name) not in (digest, None))
    if changed:
        raise OutputError(
            f"{changed[0]!r} in {directory.name!r} was changed since it was written, and would be overwritten",
            "move it away, or give --figures another folder",
        )
    foreign = [name for name in ("figures.tex", "methods.tex", "references.bib") if name not in ours]
    _refuse(directory, [name for name in foreign if (directory / name).exists()])


def write_figures(directory: Path, document: Document) -> list[Path]:
    """Write all figures of a document into a folder, whole and panel by panel, with what LaTeX needs to set them.

    Files of an earlier run that are not written again are removed, unless they were changed; others are left alone.

    Returns:
        The files written.

    Raises:
        OutputError: if they cannot be written, or would replace files that are not of an earlier run.
    """
    check_figure_folder(directory)
    ours = _manifest(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".reportgen-", suffix=".part", dir=directory))
    except OSError as error:
        raise OutputError(f"cannot write into {directory.name!r}: {error.strerror}", "give another folder") from None
    try:
        digests: dict[str, str] = {}
        for name, data in _files(document):
            (made / name).write_bytes(data)
            digests[name] = hashlib.sha256(data).hexdigest()
        _refuse(directory, [name for name in digests if name not in ours and (directory / name).exists()])
        # what is ours is noted before it is there: an interrupted run leaves nothing that a later one would not know
        _note(directory, {**ours, **digests})
        for name in digests:
            os.replace(made / name, directory / name)
        for name, digest in ours.items():
            if name not in digests and _digest_of(directory / name) == digest:
                (directory / name).unlink()
        _note(directory, digests)
    except OSError as error:
        raise OutputError(f"cannot write into {directory.name!r}: {error.strerror}", "give another folder") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return [directory / name for name in digests]


def _refuse(directory: Path, foreign: Sequence[str]) -> None:
    if foreign:
        raise OutputError(
            f"{sorted(foreign)[0]!r} in {directory.name!r} is not of an earlier run, and would be overwritten",
            "give --figures a folder of its own",
        )


def _manifest(directory: Path) -> dict[str, str]:
    """Digests by name; empty where there is no manifest, or one that cannot be read."""
    try:
        told = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        # a name that leads elsewhere is none of ours
        return {name: str(digest) for name, digest in told["files"].items() if Path(name).name == name}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _note(directory: Path, digests: Mapping[str, str]) -> None:
    told = {"about": "files that reportgen wrote here and will replace", "files": dict(sorted(digests.items()))}
    write_atomically(directory / MANIFEST, (json.dumps(told, indent=1) + "\n").encode())


def _digest_of(file: Path) -> str | None:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None


# what is written
# ----------------------------------------------------------------------------------------------------------------


def _files(document: Document) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of every file."""
    figures = named([figure for section in document.sections for figure in section.figures])
    whole = [compose(one.figure, translator(document.style.lang)) for one in figures]
    yield from _pictures(document, figures, whole)
    yield from _texts(document, figures, whole)


def _pictures(
    document: Document, figures: Sequence[Named], whole: Sequence[Composition]
) -> Iterator[tuple[str, bytes]]:
    """Whole figures as PDF, those of pixels as PNG too; panels as what they are. A panel that stands in several figures
    of a technique is written once.
    """
    vectors = [(f"{one.stem}.pdf", composition) for one, composition in zip(figures, whole, strict=True)]
    written: set[tuple[str, str]] = set()
    # a panel of an image is called after that image, not after an overview that shows it too
    for one, composition in sorted(zip(figures, whole, strict=True), key=lambda pair: pair[0].figure.exhibit is None):
        if all(placed.picture.media != "image/svg+xml" for placed in composition.pictures):
            yield f"{one.stem}.png", raster(composition).data
        width = cell_width(one.figure)
        for panel, stem in one.panels:
            if (one.figure.technique, panel.picture.digest) in written:
                continue
            written.add((one.figure.technique, panel.picture.digest))
            single = alone(panel, width)
            if panel.picture.media == "image/svg+xml":
                vectors.append((f"{stem}.pdf", single))
            else:
                yield f"{stem}.png", raster(single).data
    made = pdf_files([composition for _name, composition in vectors], identifier(document.facts))
    for (name, _composition), data in zip(vectors, made, strict=True):
        yield name, data


def _texts(document: Document, figures: Sequence[Named], whole: Sequence[Composition]) -> Iterator[tuple[str, bytes]]:
    wide = document.style.lang != "en"
    gettext = translator(document.style.lang)
    for one, composition in zip(figures, whole, strict=True):
        caption = one.figure.caption.translated(gettext)
        if one.figure.colorbar is not None:
            caption = f"{caption} {one.figure.colorbar.words.translated(gettext)}"
        share = min(1.0, composition.width / TEXT_WIDTH)
        yield f"{one.stem}.tex", _encoded(latex.figure_environment(one.stem, caption, width=share, wide=wide))
    groups = [
        (section.title.translated(gettext), [one.stem for one in figures if one.figure.technique == section.name])
        for section in document.sections
        if section.figures
    ]
    yield "figures.tex", _encoded(latex.collection(groups, wide=wide))
    yield "methods.tex", _encoded(methods(document, wide=wide))
    yield "references.bib", _encoded(latex.bibliography(numbered_references(document.sections)[1]))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
