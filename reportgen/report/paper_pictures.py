"""What a PDF shows, under the addresses by which its text asks for it, and how what is composed is drawn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

from markupsafe import Markup

from reportgen.figures.composition import Composition, Tone
from reportgen.figures.figure import Figure, Picture
from reportgen.figures.fonts import drawable
from reportgen.figures.han import FAMILY
from reportgen.figures.lettering import ASCENT, MM, POINT
from reportgen.report.pixels import Drawn, Pixels
from reportgen.report.plates import Paper, caption, composed, plate, side_by_side
from reportgen.text import Translate, _, shown

_PX: Final = 96 / MM
"""Pixels of CSS in a millimetre."""
_REST: Final = "#e3e6ea"
"""What a bar does not fill."""
_INK: Final = "#1a1c20"
_SOFT: Final = "#3c434d"
_FAMILIES: Final = ("Report Sans", "Report Mono")
"""In this order letters are looked for."""


class PaperPictures:
    """Everything that a document shows but drawings, under the addresses by which its text asks for it.

    Args:
        paper: the size of its pages.
        translate: a gettext function.
        accent: the colour of links and bars, ``#rrggbb``.

    Attributes:
        drawings: vectors, which WeasyPrint reads itself.
        close: exhibits whose pictures are set smaller.
    """

    def __init__(self, paper: Paper, translate: Translate, accent: str) -> None:
        self.drawings: dict[str, Picture] = {}
        self.close: frozenset[str] = frozenset()
        self._paper, self._translate, self._accent = paper, translate, accent
        self._pixels: dict[str, Pixels] = {}
        self._strips: dict[str, Composition] = {}
        self._bars: dict[str, Bar] = {}

    def show(self, picture: Picture, alt: str) -> Markup:
        """The element of a single picture."""
        if picture.media == "image/svg+xml":
            self.drawings[picture.digest] = picture
            return Markup('<img class="drawn" alt="{}" src="figure:{}" width="{}" height="{}">').format(
                alt, picture.digest, picture.width, picture.height
            )
        self._pixels[picture.digest] = Pixels(picture)
        return Markup('<img class="picture" alt="{}" src="figure:{}">').format(alt, picture.digest)

    def strips(self, figure: Figure, anchor: str) -> list[Markup]:
        """The elements of a figure's pictures, the first with this id; none where it has to be set panel by panel."""
        if not composed(figure):
            return []
        made = plate(figure, self._translate, self._paper, close=figure.exhibit in self.close)
        return [self._strip(strip, words, "" if k else anchor) for k, (strip, words) in enumerate(made)]

    def _strip(self, composition: Composition, words: str, anchor: str = "") -> Markup:
        name = name_of(composition)
        self._strips[name] = composition
        mark = Markup(' id="{}"').format(anchor) if anchor else ""
        return Markup('<img{} class="composed" alt="{}" src="figure:{}">').format(mark, shown(words), name)

    def side_by_side(self, pictures: Sequence[tuple[Picture, str, str]], exhibit: str) -> Markup:
        """The element of photographs of an exhibit, each with the words that replace it and those beneath it."""
        some = [(picture, drawable(label)) for picture, _alt, label in pictures]
        made = side_by_side(some, self._paper, close=exhibit in self.close)
        return self._strip(made, "; ".join(f"{alt} ({label})" for _picture, alt, label in pictures))

    def caption(self, figure: Figure, number: str, words: str, link: str = "", anchor: str = "") -> Markup:
        """The elements of a caption.

        Args:
            number: "Figure 12."
            link: words that lead to `anchor`; none leave it out.
        """
        made = caption(figure, drawable(number), drawable(words), drawable(link), self._paper)
        name = name_of(made.text)
        self._strips[name] = made.text
        # words alone are no picture: what holds them needs none that replace it
        text = Markup('<object data="figure:{}"></object>').format(name)
        if made.link is None:
            return text
        place = "left: {:.3f}mm; top: {:.3f}mm; width: {:.3f}mm; height: {:.3f}mm".format(*made.link)
        return text + Markup('<a href="#{}" style="{}"></a>').format(anchor, place)

    def bar(self, share: float) -> Markup:
        """The element of a bar that is filled up to `share`."""
        name = f"bar-{share:.4f}"
        self._bars[name] = Bar(share, self._accent)
        words = _("a bar of {share}", share=f"{100 * share:.1f}\u00a0%").translated(self._translate)
        return Markup('<img class="bar" alt="{}" src="figure:{}">').format(words, name)

    def cache(self, letters: Letters) -> dict[str, Drawn]:
        """What WeasyPrint finds in place of pictures that it read before."""
        drawn: dict[str, Drawn] = {**self._pixels, **self._bars}
        drawn.update((name, Strip(one, letters)) for name, one in self._strips.items())
        return {f"figure:{name}": one for name, one in drawn.items()}


class Strip:
    """Something composed: pictures and words in their places."""

    def __init__(self, composition: Composition, letters: Letters) -> None:
        self._composition, self._letters = composition, letters

    def get_intrinsic_size(self, resolution: float, font_size: float) -> tuple[float, float, float]:
        """As `Drawn` says."""
        width, height = self._composition.width * _PX, self._composition.height * _PX
        return width / resolution, height / resolution, width / height

    def draw(self, stream: Any, width: float, height: float, style: Any) -> None:
        """As `Drawn` says."""
        scale = width / (self._composition.width * _PX)
        stream.transform(a=scale, d=scale)
        for placed in self._composition.pictures:
            with stream.stacked():
                corner = placed.x * _PX, placed.y * _PX
                Pixels(placed.picture).place(stream, *corner, placed.width * _PX, placed.height * _PX)
        if not self._composition.words:
            return
        with stream.stacked():  # which font is set is nobody's business outside
            stream.begin_text()
            tone = None
            for words in self._composition.words:
                if words.tone != tone:
                    tone = words.tone
                    stream.set_color_rgb(*self._letters.colour(tone))
                size = words.size * POINT * _PX
                bold = tone == "strong"
                self._letters.draw(stream, words.text, words.x * _PX, words.y * _PX + ASCENT * size, size, bold=bold)
            stream.end_text()


class Bar:
    """A share of one as a bar.

    Args:
        accent: the colour of the filled part, ``#rrggbb``.
    """

    def __init__(self, share: float, accent: str) -> None:
        self._share, self._accent = min(max(share, 0.0), 1.0), accent

    def get_intrinsic_size(self, resolution: float, font_size: float) -> tuple[float, float, float]:
        """As `Drawn` says; the style sheet gives it another size."""
        return 100 / resolution, 6 / resolution, 100 / 6

    def draw(self, stream: Any, width: float, height: float, style: Any) -> None:
        """As `Drawn` says."""
        for colour, part in ((_REST, 1.0), (self._accent, self._share)):
            stream.set_color_rgb(*_rgb(colour))
            stream.rectangle(0, 0, part * width, height)
            stream.fill()


class Letters:
    """Sets single lines in the fonts of the report.

    Args:
        fonts: the `FontConfiguration` of the document.
        lang: its language.
        accent: the colour of words that lead elsewhere.
        han: whether there may be Chinese among them.
    """

    def __init__(self, fonts: Any, lang: str, accent: str, *, han: bool) -> None:
        self._fonts, self._lang, self._accent = fonts, lang, accent
        self._families = (*_FAMILIES, FAMILY) if han else _FAMILIES
        self._boxes: dict[tuple[float, bool], Any] = {}
        self._lines: dict[tuple[str, float, bool], list[bytes]] = {}

    def colour(self, tone: Tone) -> tuple[float, ...]:
        """Red, green and blue from 0 to 1."""
        if tone == "accent":
            return _rgb(self._accent)
        return _rgb(_SOFT if tone == "soft" else _INK)

    def draw(self, stream: Any, text: str, x: float, y: float, size: float, *, bold: bool) -> None:
        """One line; the left end of its base is at `x`, `y`. Words that come again are shaped once."""
        key = text, size, bold
        if key not in self._lines:
            self._lines[key] = self._line(stream.clone(), *key)
        stream.set_text_matrix(1, 0, 0, -1, x, y)
        stream.stream += self._lines[key]

    def _line(self, stream: Any, text: str, size: float, bold: bool) -> list[bytes]:
        """What sets the fonts and shows the glyphs of a line, wherever it stands."""
        from weasyprint.draw.text import draw_first_line
        from weasyprint.matrix import Matrix

        box = self._boxes.get((size, bold)) or self._boxes.setdefault((size, bold), self._box(size, bold))
        box.pango_layout.set_text(text)
        draw_first_line(stream, box, "none", "none", Matrix(d=-1))
        return list(stream.stream[1:])  # after the matrix, which is the place

    def _box(self, size: float, bold: bool) -> Any:
        from weasyprint.css.properties import INITIAL_VALUES
        from weasyprint.svg.text import Style, TextBox
        from weasyprint.text.line_break import Layout

        style = Style(INITIAL_VALUES)
        style.update(
            font_family=list(self._families), font_size=size, lang=self._lang, font_weight=600 if bold else 400
        )
        style.font_config = self._fonts
        return TextBox(Layout(style), style)


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(level / 255 for level in bytes.fromhex(colour[1:]))


def name_of(composition: Composition) -> str:
    """A digest of everything in it."""
    pictures = [(p.picture.digest, p.x, p.y, p.width, p.height) for p in composition.pictures]
    words = [(w.text, w.x, w.y, w.size, w.tone) for w in composition.words]
    told = json.dumps([composition.width, composition.height, pictures, words])
    return hashlib.sha256(told.encode()).hexdigest()[:20]
