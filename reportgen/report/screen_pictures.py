"""Pictures in an HTML file: each stored once, photographs as WebP."""

from __future__ import annotations

import base64
import io
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from markupsafe import Markup
from PIL import Image, JpegImagePlugin

from reportgen.figures.figure import Picture

QUALITY: Final = 82
"""Of WebP: what is lost beside a JPEG of quality 85 is not seen at twice the size, and a third of the bytes saved."""
HALVED: Final = 2
"""What Pillow calls a JPEG whose colours have half the resolution (4:2:0), as those of WebP always have."""


class ScreenPictures:
    """Every picture once: what appears twice becomes a symbol that both places use."""

    def __init__(self) -> None:
        self._counted: Counter[str] = Counter()
        self._shared: dict[str, Picture] = {}
        self._photographs: dict[str, Picture] = {}
        self._sources: dict[str, str] = {}

    def count(self, picture: Picture, alt: str) -> Markup:
        """Stands in for `show` to find out what appears twice."""
        if picture.over is not None:
            self.count(picture.over, alt)
        if picture.media != "image/svg+xml":
            self._counted[picture.digest] += 1
            if picture.media == "image/jpeg":
                self._photographs[picture.digest] = picture
            if self._counted[picture.digest] > 1:
                self._shared[picture.digest] = picture
        return Markup("")

    def encode(self) -> None:
        """Prepare what is worth another encoding; several at a time."""
        with ThreadPoolExecutor() as pool:
            self._sources = dict(zip(self._photographs, pool.map(_photograph, self._photographs.values()), strict=True))

    def show(self, picture: Picture, alt: str) -> Markup:
        """The element of a picture."""
        if picture.media == "image/svg+xml":
            svg = picture.data.decode("utf-8")
            begin = svg.index("<svg")
            labelled = svg[begin:].replace("<svg", f'<svg role="img" aria-label="{Markup.escape(alt)}"', 1)
            return Markup(labelled)
        if picture.over is not None:
            return Markup('<span class="picture laid" role="img" aria-label="{}">{}{}</span>').format(
                alt, self._element(picture.over, "", ""), self._element(picture, "", "heat")
            )
        return self._element(picture, alt, "picture")

    def _element(self, picture: Picture, alt: str, kind: str) -> Markup:
        kind += " pixelated" if picture.pixelated else ""
        if picture.digest in self._shared:
            # a strip of one pixel's height, such as a colour bar, fills the place it is given
            fill = Markup(' preserveAspectRatio="none"') if picture.height == 1 else ""
            named = Markup('role="img" aria-label="{}"').format(alt) if alt else Markup('aria-hidden="true"')
            return Markup('<svg class="{}" {} viewBox="0 0 {} {}"{}><use href="#p-{}"></use></svg>').format(
                kind, named, picture.width, picture.height, fill, picture.digest
            )
        return Markup(
            '<img class="{}" alt="{}" width="{}" height="{}" src="{}" loading="lazy" decoding="async">'
        ).format(kind, alt, picture.width, picture.height, self._source(picture))

    def _source(self, picture: Picture) -> str:
        return self._sources.get(picture.digest) or _data(picture.data, picture.media)

    def symbols(self) -> Markup:
        """Definitions of the shared pictures."""
        if not self._shared:
            return Markup("")
        parts = [
            Markup(
                '<symbol id="p-{}" viewBox="0 0 {} {}"><image width="{}" height="{}" href="{}"></image></symbol>'
            ).format(digest, p.width, p.height, p.width, p.height, self._source(p))
            for digest, p in sorted(self._shared.items())
        ]
        return Markup('<svg class="symbols" aria-hidden="true" width="0" height="0">{}</svg>').format(
            Markup("").join(parts)
        )


def _photograph(picture: Picture) -> str:
    """A JPEG as WebP where that is smaller; one whose colours have the full resolution would lose it, and stays."""
    with Image.open(io.BytesIO(picture.data), formats=("JPEG",)) as image:
        if image.mode == "RGB" and JpegImagePlugin.get_sampling(image) == HALVED:
            file = io.BytesIO()
            image.save(file, "WEBP", quality=QUALITY, method=2)
            if file.tell() < len(picture.data):
                return _data(file.getvalue(), "image/webp")
    return _data(picture.data, picture.media)


def _data(data: bytes, media: str) -> str:
    return f"data:{media};base64,{base64.b64encode(data).decode()}"
