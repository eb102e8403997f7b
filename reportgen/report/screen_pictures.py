"""Pictures in an HTML file: each stored once, photographs as WebP."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from markupsafe import Markup
from PIL import Image, JpegImagePlugin

from reportgen.figures.figure import Picture
from reportgen.report.environment import KeptFiles
from reportgen.report.marks import Marks
from reportgen.text import shown_page

QUALITY: Final = 82
"""Of WebP: what is lost beside a JPEG of quality 85 is not seen at twice the size, and a third of the bytes saved."""
HALVED: Final = 2
"""What Pillow calls a JPEG whose colours have half the resolution (4:2:0), as those of WebP always have."""


class ScreenPictures:
    """Every picture once: what appears twice becomes a symbol that both places use.

    Args:
        marks: where pictures stand until all are known.
    """

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._counted: Counter[str] = Counter()
        self._shared: dict[str, Picture] = {}
        self._photographs: dict[str, Picture] = {}
        self._encoded: Mapping[str, bytes] = {}

    def show(self, picture: Picture, alt: str) -> Markup:
        """What stands for the element of a picture."""
        if picture.media != "image/svg+xml":
            for one in (picture,) if picture.over is None else (picture.over, picture):
                self._count(one)
        return self._marks.mark(partial(self._shown, picture, alt))

    def _count(self, picture: Picture) -> None:
        self._counted[picture.digest] += 1
        if picture.media == "image/jpeg":
            self._photographs[picture.digest] = picture
        if self._counted[picture.digest] > 1:
            self._shared[picture.digest] = picture

    def encode(self, kept: KeptFiles) -> None:
        """Prepare what is worth another encoding; several at a time."""

        def make() -> Mapping[str, bytes]:
            with ThreadPoolExecutor() as pool:
                made = zip(self._photographs, pool.map(_webp, self._photographs.values()), strict=True)
                return {digest: data for digest, data in made if data is not None}

        if self._photographs:
            self._encoded = kept({"webp": sorted(self._photographs), "quality": QUALITY}, make)

    def _shown(self, picture: Picture, alt: str) -> Iterator[str]:
        if picture.media == "image/svg+xml":
            svg = picture.data.decode("utf-8")
            begin = svg.index("<svg")
            yield shown_page(svg[begin:].replace("<svg", f'<svg role="img" aria-label="{Markup.escape(alt)}"', 1))
        elif picture.over is not None:
            yield shown_page(f'<span class="picture laid" role="img" aria-label="{Markup.escape(alt)}">')
            yield from self._element(picture.over, "", "")
            yield from self._element(picture, "", "heat")
            yield "</span>"
        else:
            yield from self._element(picture, alt, "picture")

    def _element(self, picture: Picture, alt: str, kind: str) -> Iterator[str]:
        kind += " pixelated" if picture.pixelated else ""
        words = shown_page(str(Markup.escape(alt)))
        if picture.digest in self._shared:
            # a strip of one pixel's height, such as a colour bar, fills the place it is given
            fill = ' preserveAspectRatio="none"' if picture.height == 1 else ""
            named = f'role="img" aria-label="{words}"' if alt else 'aria-hidden="true"'
            yield f'<svg class="{kind}" {named} viewBox="0 0 {picture.width} {picture.height}"{fill}>'
            yield f'<use href="#p-{picture.digest}"></use></svg>'
        else:
            yield f'<img class="{kind}" alt="{words}" width="{picture.width}" height="{picture.height}" src="'
            yield self._source(picture)
            yield '" loading="lazy" decoding="async">'

    def _source(self, picture: Picture) -> str:
        encoded = self._encoded.get(picture.digest)
        return _data(picture.data, picture.media) if encoded is None else _data(encoded, "image/webp")

    def symbols(self) -> Iterator[str]:
        """Definitions of the shared pictures."""
        if not self._shared:
            return
        yield '<svg class="symbols" aria-hidden="true" width="0" height="0">'
        for digest, p in sorted(self._shared.items()):
            size = f'width="{p.width}" height="{p.height}"'
            yield f'<symbol id="p-{digest}" viewBox="0 0 {p.width} {p.height}"><image {size} href="'
            yield self._source(p)
            yield '"></image></symbol>'
        yield "</svg>"


def _webp(picture: Picture) -> bytes | None:
    """A JPEG as WebP where that is smaller; one whose colours have the full resolution would lose it. Else None."""
    with Image.open(io.BytesIO(picture.data), formats=("JPEG",)) as image:
        if image.mode == "RGB" and JpegImagePlugin.get_sampling(image) == HALVED:
            file = io.BytesIO()
            image.save(file, "WEBP", quality=QUALITY, method=2)
            if file.tell() < len(picture.data):
                return file.getvalue()
    return None


def _data(data: bytes, media: str) -> str:
    return f"data:{media};base64,{base64.b64encode(data).decode()}"
