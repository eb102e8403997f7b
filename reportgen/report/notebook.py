"""The report inside a notebook: one frame that can reach neither the notebook nor the network, and is never huge."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from reportgen.language import translator
from reportgen.report.document import Document
from reportgen.text import Message, _

MOST_BYTES: Final = 6_000_000
"""Of the page in a frame: a notebook keeps it in its file."""

Render = Callable[[Document], bytes]


def notebook_view(document: Document, render: Render, most: int = MOST_BYTES) -> str:
    """The page in a sandboxed frame; where it has more than `most` bytes without exhibits, figures, sections, whichever
    comes first, with a word about it.

    Args:
        render: makes a page of a document.
    """
    translate = translator(document.style.lang)
    for shorter, words in _shorter(document):
        page = render(shorter)
        if len(page) <= most:
            told = f"<p>{html.escape(words.translated(translate))}</p>" if words is not None else ""
            title = html.escape(document.style.title, quote=True)
            source = html.escape(page.decode("utf-8"), quote=True)
            return (
                f'{told}<iframe title="{title}" srcdoc="{source}" sandbox="allow-scripts" referrerpolicy="no-referrer" '
                'loading="lazy" width="100%" height="700"></iframe>'
            )
    words = _("{verdict} report.write('report.html') writes the whole report.", verdict=document.verdict)
    return f"<p>{html.escape(words.translated(translate))}</p>"


def _shorter(document: Document) -> Iterator[tuple[Document, Message | None]]:
    yield document, None
    without = replace(document, exhibits=())
    yield without, _("Without the pages of exhibits; report.write('report.html') writes the whole report.")
    without = replace(without, sections=tuple(replace(section, figures=()) for section in document.sections))
    yield without, _("Without figures; report.write('report.html') writes the whole report.")
    without = replace(without, sections=())
    yield without, _("The summary alone; report.write('report.html') writes the whole report.")
