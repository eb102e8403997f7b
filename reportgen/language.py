"""In which language a document is written: sentences are looked up when it is, never before."""

from __future__ import annotations

import gettext
import io
from functools import cache
from importlib.resources import files
from typing import Final, Literal

from reportgen.text import Translate

Language = Literal["en", "zh"]

DOMAIN: Final = "reportgen"


@cache
def catalogue(lang: str) -> gettext.NullTranslations:
    """The translations of a language; English, in which sentences are written, needs none."""
    if lang == "en":
        return gettext.NullTranslations()
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    compiled = io.BytesIO()
    write_mo(compiled, read_po(io.BytesIO(po_bytes(lang)), lang))
    return gettext.GNUTranslations(io.BytesIO(compiled.getvalue()))


def po_bytes(lang: str) -> bytes:
    """The catalogue as it is written and shipped."""
    return files("reportgen").joinpath("locale", lang, "LC_MESSAGES", f"{DOMAIN}.po").read_bytes()


def translator(lang: str) -> Translate:
    """What turns an English sentence into one of `lang`."""
    return catalogue(lang).gettext
