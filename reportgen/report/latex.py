r"""Figures and references for a LaTeX document: what is written compiles under pdfLaTeX, XeLaTeX and LuaLaTeX.

Only the kernel, ``graphicx`` and ``amsmath`` (for formulas) are needed. English text is ASCII: accents are commands,
and what has none is ``\reportgenunicode``, a character where the engine has all, and a code point where it has not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

from reportgen.report.document import Reference

_SPECIAL: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    "`": r"\symbol{96}",
    "[": "{[}",
    "]": "{]}",
    "\u00a0": "~",
    "\u2009": r"\,",
    "\u202f": r"\,",
    "\u200b": "",
    "–": "--",
    "—": "---",
    "‘": r"\textquoteleft{}",
    "’": r"\textquoteright{}",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "…": r"\ldots{}",
    "·": r"\ensuremath{\cdot}",
    "×": r"\ensuremath{\times}",
    "−": r"\ensuremath{-}",
    "±": r"\ensuremath{\pm}",
    "°": r"\ensuremath{^\circ}",
    "µ": r"\ensuremath{\mu}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "≠": r"\ensuremath{\neq}",
    "≈": r"\ensuremath{\approx}",
    "∞": r"\ensuremath{\infty}",
    "→": r"\ensuremath{\rightarrow}",
    "←": r"\ensuremath{\leftarrow}",
    "∂": r"\ensuremath{\partial}",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
    "§": r"\S{}",
}
_GREEK_NAMES: Final = (
    r"\alpha\beta\gamma\delta\epsilon\zeta\eta\theta\iota\kappa\lambda\mu\nu\xi\pi\rho\sigma\tau\upsilon\phi\chi\psi\omega"
    r"\Gamma\Delta\Theta\Lambda\Xi\Pi\Sigma\Upsilon\Phi\Psi\Omega"
)
_GREEK: Final = frozenset(re.findall(r"\\\w+", _GREEK_NAMES))
_ACCENTS: Final = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
    "\u0323": "d",
    "\u0331": "b",
}
_DOTTED: Final = {"i": r"\i", "j": r"\j"}

_LONG: Final = 24
"""Letters after which a word may be broken: names of layers and files know no hyphens."""

UNICODE: Final = (
    r"\ifdefined\reportgenunicode\else\DeclareRobustCommand*\reportgenunicode[1]"
    r"{\ifdefined\Umathchar\iffontchar\font" + '"#1 ' + r"\char" + '"#1' + r"\else\texttt{U+#1}\fi"
    r"\else\texttt{U+#1}\fi}\fi"
)
"""Defines the command for characters outside of what every engine can set; needed where a text uses it."""


def escaped(text: str, *, wide: bool = False) -> str:
    """Words as LaTeX that shows exactly these.

    Args:
        wide: leave Chinese, Japanese and Korean as they are, for documents that load a package for them.
    """
    told: list[str] = []
    before, run = "", 0
    for c in unicodedata.normalize("NFC", " ".join(text.split())):
        run = 0 if c == " " else run + 1
        if run > _LONG:
            told.append(r"\allowbreak{}")
            run = 0
        # two hyphens would become a dash, two commas or marks a quotation mark
        told.append(("{}" if c == before and c in "-,'" else "") + _character(c, wide))
        before = c
    return "".join(told)


def _character(c: str, wide: bool) -> str:
    if c in _SPECIAL:
        return _SPECIAL[c]
    if " " <= c <= "~":
        return c
    if unicodedata.category(c).startswith("C"):
        return rf"\textbackslash{{}}u{ord(c):04x}"
    if wide and unicodedata.east_asian_width(c) in "WF":
        return c
    return _accented(c) or _greek(c) or rf"\reportgenunicode{{{ord(c):04X}}}"


def _accented(c: str) -> str:
    parts = unicodedata.normalize("NFD", c)
    if len(parts) != 2 or not parts[0].isascii() or parts[1] not in _ACCENTS:
        return ""
    return rf"\{_ACCENTS[parts[1]]}{{{_DOTTED.get(parts[0], parts[0])}}}"


def _greek(c: str) -> str:
    kind, _letter, name = unicodedata.name(c, "").removeprefix("GREEK ").partition(" LETTER ")
    name = name.replace("LAMDA", "LAMBDA").lower()
    command = "\\" + (name.title() if kind == "CAPITAL" else name)
    return rf"\ensuremath{{{command}}}" if command in _GREEK else ""


def figure_environment(stem: str, caption: str, *, width: float, wide: bool = False) -> str:
    r"""The ``.tex`` of one figure.

    Args:
        stem: of its PDF; also its label, ``fig:`` before it.
        caption: its words, not escaped.
        width: share of the width of the text.
        wide: see `escaped`.
    """
    told = escaped(caption, wide=wide)
    short = escaped(first_sentence(caption), wide=wide)
    lines = [
        r"\providecommand*{\reportgenpath}{}% folder of these files, with a slash at its end",
        *([UNICODE] if r"\reportgenunicode" in told else []),
        r"\begin{figure}[!htbp]",
        r"  \centering",
        rf"  \includegraphics[width={width:.3f}\linewidth,height=0.8\textheight,keepaspectratio]"
        rf"{{\reportgenpath {stem}.pdf}}",
        rf"  \caption[{{{short}}}]{{{told}}}",
        rf"  \label{{fig:{stem}}}",
        r"\end{figure}",
    ]
    return "\n".join(lines) + "\n"


def first_sentence(text: str, most: int = 160) -> str:
    """What stands in a list of figures."""
    found = re.split(r"(?<=[^.\s]{2}\.)\s|(?<=[。:])", text.strip(), maxsplit=1)[0].rstrip(".。:")
    return found if len(found) <= most else found[: most - 1].rstrip() + "…"


def collection(groups: Sequence[tuple[str, Sequence[str]]], *, wide: bool = False) -> str:
    r"""``figures.tex``: a document of its own, and as well something to ``\input``.

    Args:
        groups: heading and stems of the figures beneath it.
        wide: see `escaped`.
    """
    alone = r"\ifreportgenalone"
    chinese = [rf"{alone}\usepackage[UTF8,scheme=plain]{{ctex}}\fi"] if wide else []
    lines = [
        r"% All figures. Compiles by itself (pdflatex or xelatex; bibtex in between), and can be \input into a",
        r"% document that loads graphicx and amsmath. Where this folder is not the current one, define its path there:",
        r"% \newcommand*{\reportgenpath}{figures/}",
        r"\providecommand*{\reportgenpath}{}",
        r"\makeatletter",
        # LaTeX forgets this complaint at \begin{document}
        r"\newif\ifreportgenalone \ifx\@nodocument\relax\reportgenalonefalse\else\reportgenalonetrue\fi",
        r"\makeatother",
        rf"{alone}\documentclass[a4paper]{{article}}\fi",
        rf"{alone}\usepackage[margin=22mm]{{geometry}}\fi",
        rf"{alone}\usepackage{{graphicx,amsmath}}\fi",
        *chinese,
        rf"{alone}\begin{{document}}\sloppy\fi",
        rf"{alone}\input{{\reportgenpath methods.tex}}\fi",
    ]
    for heading, stems in groups:
        lines += [rf"\clearpage\section*{{{escaped(heading, wide=wide)}}}"]
        for number, stem in enumerate(stems, 1):
            lines.append(rf"\input{{\reportgenpath {stem}.tex}}")
            if number % 6 == 0:  # LaTeX holds few figures at a time
                lines.append(r"\clearpage")
    lines += [
        rf"{alone}\bibliographystyle{{plain}}\fi",
        rf"{alone}\bibliography{{\reportgenpath references}}\fi",
        rf"{alone}\end{{document}}\fi",
    ]
    return "\n".join(lines) + "\n"


def bibliography(references: Iterable[Reference]) -> str:
    """``references.bib``, in the order given."""
    return "\n".join(_entry(reference) for reference in references)


def _entry(reference: Reference) -> str:
    kind, field = _kind(reference.venue)
    fields = {
        "author": " and ".join(escaped(name.strip()) for name in reference.authors.split(",") if name.strip()),
        "title": "{" + escaped(reference.title) + "}",
        field: escaped(reference.venue),
        "year": str(reference.year),
        "doi": reference.doi,
    }
    told = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items() if value)
    return f"@{kind}{{{reference.key},\n{told}}}\n"


def _kind(venue: str) -> tuple[str, str]:
    """(kind of entry, field that takes the venue)."""
    if re.search(r"Conference|Workshop|workshop|Advances|Symposium|Proceedings", venue):
        return "inproceedings", "booktitle"
    if re.search(r"report|arXiv|thesis", venue):
        return "misc", "howpublished"
    return "article", "journal"
