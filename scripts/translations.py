"""Bring the catalogues in reportgen/locale up to date with the sentences of the code and the templates.

New sentences come in without a translation, those that are gone go; what is left to be translated is told. Nothing is
guessed: a sentence that changed is a new one.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).parents[1]
LOCALES = ROOT / "reportgen" / "locale"
WIDTH = 110

HEAD = """\
# Sentences of reportgen; brought up to date by scripts/translations.py.
msgid ""
msgstr ""
"Language: {language}\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"

"""

Found = tuple[str, str]


def sentences() -> Iterator[Found]:
    """(sentence, file it stands in), by file."""
    # as the environment of the templates is set up, or sentences would not be found again
    templates = {"trim_blocks": "true", "lstrip_blocks": "true", "newstyle_gettext": "true"}
    for folder, method, options in (
        (ROOT / "reportgen", ("**.py", "python"), {}),
        (ROOT / "templates", ("**.j2", "jinja2"), {"**.j2": templates}),
    ):
        keywords = {"_": None, "gettext": None}
        for file, _line, message, _comments, _context in extract_from_dir(
            folder, [method], options_map=options, keywords=keywords
        ):
            yield str(message), (folder / file).relative_to(ROOT).as_posix()


def catalogue(file: Path) -> Catalog:
    """What is translated already."""
    return read_po(io.BytesIO(file.read_bytes()), file.parents[1].name)


def updated(old: Catalog) -> Catalog:
    """All sentences of today with the translations of `old`."""
    new = Catalog(locale=old.locale, charset="utf-8", fuzzy=False)
    for message, file in sorted(set(sentences()), key=lambda one: (one[1], one[0])):
        known = old.get(message)
        new.add(message, known.string if known and not known.fuzzy else "", locations=[(file, 0)])
    return new


def main() -> int:
    """Update every catalogue. Returns 1 if one lacks a translation."""
    lacking = 0
    for file in sorted(LOCALES.glob("*/LC_MESSAGES/reportgen.po")):
        made = updated(catalogue(file))
        # no dates and no line numbers: a catalogue changes when a sentence does
        text = io.BytesIO()
        write_po(text, made, width=WIDTH, omit_header=True, include_lineno=False)
        file.write_bytes(HEAD.format(language=made.locale).encode() + text.getvalue().strip() + b"\n")
        missing = [str(one.id) for one in made if one.id and not one.string]
        lacking += len(missing)
        print(f"{file.relative_to(ROOT)}: {len(made)} sentences, {len(missing)} not translated")
        for message in missing:
            print(f"  {message}")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
