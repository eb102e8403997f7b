"""In which language a document is written."""

from __future__ import annotations

import gettext
from functools import cache

from reportgen.text import Translate


@cache
def catalogue(lang: str) -> gettext.NullTranslations:
    """The translations of a language; English needs none."""
    return gettext.NullTranslations()


def translator(lang: str) -> Translate:
    """What turns an English sentence into one of `lang`."""
    return catalogue(lang).gettext
