"""The paragraphs of a section without its figures and tables, as LaTeX: what was done, how to read it, what it cannot
tell. They are those of the report, read back from what its templates say.
"""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any, Final

from markupsafe import Markup

from reportgen.figures.colour import gradient_png
from reportgen.figures.figure import Picture
from reportgen.figures.formula import formula_svg
from reportgen.language import translator
from reportgen.report.document import Document, Section
from reportgen.report.environment import context_of
from reportgen.report.latex import UNICODE, escaped
from reportgen.report.templates import rendered

_LEFT_OUT: Final = frozenset(("table", "figure", "svg", "dl", "style", "script", "details"))
_HEADINGS: Final = frozenset(("h3", "h4"))
_BLOCKS: Final = _HEADINGS | {"p", "div", "li", "section"}
_COMMANDS: Final = {"b": "textbf", "strong": "textbf", "i": "emph", "em": "emph", "code": "texttt"}


def methods(document: Document, *, wide: bool = False) -> str:
    r"""``methods.tex``: a section for each technique that was carried out, citing by ``\cite``.

    Args:
        wide: see `reportgen.report.latex.escaped`.
    """
    gettext = translator(document.style.lang)
    parts = []
    for section in document.sections:
        if section.facts["status"] == "complete":
            told = paragraphs(document, section, wide=wide)
            parts.append(
                "\n\n".join([rf"\subsection*{{{escaped(section.title.translated(gettext), wide=wide)}}}", *told])
            )
    text = "\n\n".join(parts)
    head = "% The methods in words; formulas need amsmath.\n" + (UNICODE + "\n" if "reportgenunicode" in text else "")
    return f"{head}\n{text}\n"


def paragraphs(document: Document, section: Section, *, wide: bool = False) -> list[str]:
    """The paragraphs of one section as LaTeX, formulas as displays."""

    def nothing(_picture: Picture, _alt: str) -> Markup:
        return Markup("")

    context: dict[str, Any] = dict(context_of(document, nothing, formula_svg, medium="tex", gradient=gradient_png))
    html = rendered(section.template, {**context, "section": section}, document.style)
    reader = _Reader(wide)
    reader.feed(html)
    reader.close()
    return reader.finished()


class _Reader(HTMLParser):
    """Collects paragraphs; leaves out what is no text."""

    def __init__(self, wide: bool) -> None:
        super().__init__()
        self.wide = wide
        self.done: list[str] = []
        self.parts: list[str] = []
        self.left_out: list[str] = []
        self.cited = False
        self.heading = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        if self.left_out:
            if tag == self.left_out[-1]:
                self.left_out.append(tag)
        elif tag in _LEFT_OUT or "numbers" in told.get("class", "").split():
            self.left_out.append(tag)
            self.heading = ""  # of what is left out
        elif tag in _BLOCKS:
            self._end()
            if "data-tex" in told:
                self._append("\\begin{equation*}\n  " + told["data-tex"] + "\n\\end{equation*}")
        elif tag in _COMMANDS:
            self.parts.append(rf"\{_COMMANDS[tag]}{{")
        elif tag == "a" and told.get("href", "").startswith("#ref-"):
            self.parts.append(rf"\cite{{{told['href'].removeprefix('#ref-')}}}")
            self.cited = True

    def handle_endtag(self, tag: str) -> None:
        if self.left_out:
            if tag == self.left_out[-1]:
                self.left_out.pop()
        elif tag in _HEADINGS:
            self.heading, self.parts = self._text(), []
        elif tag in _BLOCKS:
            self._end()
        elif tag in _COMMANDS:
            # words in bold that begin a paragraph are its heading
            heading = tag == "b" and len(self.parts) == 2 and self.parts[0] == r"\textbf{"
            self.parts.append((":} " if self.wide else ".} ") if heading else "}")
        elif tag == "a":
            self.cited = False

    def handle_data(self, data: str) -> None:
        if self.left_out or self.cited:
            return
        lead = " " if data[:1].isspace() else ""
        tail = " " if data[-1:].isspace() and data.strip() else ""
        self.parts.append(lead + escaped(data, wide=self.wide) + tail)

    def finished(self) -> list[str]:
        """All paragraphs."""
        self._end()
        return self.done

    def _end(self) -> None:
        if text := self._text():
            self._append(text)
        self.parts = []

    def _text(self) -> str:
        return " ".join("".join(self.parts).split())

    def _append(self, paragraph: str) -> None:
        """A heading comes with the first paragraph beneath it, or not at all."""
        if self.heading:
            self.done.append(rf"\subsubsection*{{{self.heading}}}")
        self.heading = ""
        self.done.append(paragraph)
