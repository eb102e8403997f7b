"""What a laboratory or a reviewer brings to the document: read and checked before the work begins."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from PIL import Image

from reportgen.clock import today
from reportgen.errors import UsageError
from reportgen.figures.figure import Picture
from reportgen.figures.han import han_font
from reportgen.figures.tiles import png
from reportgen.job import Job
from reportgen.report.document import Style
from reportgen.report.notes import read_notes
from reportgen.report.stylesheet import read_css
from reportgen.report.templates import check_templates
from reportgen.subject.decoding import MAX_PIXELS, ImageError, decode_file
from reportgen.text import line

LOGO_SIDE: Final = 900
"""Pixels of a logo's longer side at most: three inches in print."""


def style_of(job: Job) -> Style:
    """How the document looks and what its cover says; no title where the job gives none.

    Raises:
        UsageError: if a file that the job names cannot be used.
    """
    if job.lang == "zh" and han_font() is None:
        raise UsageError(
            "--lang zh needs a font for Chinese, and there is none",
            "pip install 'reportgen[zh]', or install one such as Noto Sans CJK",
        )
    if job.template_dir is not None:
        check_templates(job.template_dir)
    return Style(
        title=job.title or "",
        author=job.author,
        date=job.date or today(),
        paper=job.paper,
        pdf_a=job.pdf_a,
        lang=job.lang,
        notes=read_notes(job.notes) if job.notes is not None else "",
        css=read_css(job.css) if job.css is not None else "",
        templates=job.template_dir,
        logo=read_logo(job.logo) if job.logo is not None else None,
        accent=job.accent,
    )


def read_logo(file: Path) -> Picture:
    """A logo as PNG without metadata, reduced to what print shows. Raises UsageError if it is no picture."""
    try:
        image = decode_file(file, MAX_PIXELS)
    except ImageError as error:
        raise UsageError(f"the logo {line(file.name)!r} cannot be used: {error.reason}", "give PNG or JPEG") from None
    transparent = image.mode in ("LA", "RGBA")
    image = image.convert("RGBA" if transparent else "RGB")
    image.thumbnail((LOGO_SIDE, LOGO_SIDE), Image.Resampling.LANCZOS)
    return png(image)
