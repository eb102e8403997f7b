"""What is written for LaTeX compiles, whatever names and captions hold."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from reportgen.figures.figure import Figure
from reportgen.report.document import Document, Reference
from reportgen.report.figure_files import write_figures
from reportgen.report.latex import bibliography, escaped, figure_environment, first_sentence
from reportgen.report.prose import methods, paragraphs
from reportgen.techniques import registry
from reportgen.text import verbatim
from tests.report.small import document
from tests.report.tex import faults

HOSTILE = (
    "\\ { } $ & # % _ ^ ~ < > | \" ' ` [x] ''a'' ,,b,, ?` a--b a---b \\input{/etc/passwd} %comment \\end{document} "
    "é Ł ß ñ ç ů ő ḍ i\u0308 × − ≤ · … – — “q” ‘r’ µ α Σ Λ ∂ → 猫 😀 שלום \u202e\u200b\x07 ½ ² № 1\u20092 1\u00a02 "
    + "layer.with_a-very/long:name"
    * 6
)


def test_escaping_character_by_character() -> None:
    assert escaped("a_b & 50 % #1 $x$ {y} \\z ^ ~") == (
        r"a\_b \& 50 \% \#1 \$x\$ \{y\} \textbackslash{}z \textasciicircum{} \textasciitilde{}"
    )
    assert escaped("a--b ''c'' [d]") == r"a-{}-b '{}'c'{}' {[}d{]}"
    assert escaped("é ï ß × − …") == r"\'{e} \"{\i} \ss{} \ensuremath{\times} \ensuremath{-} \ldots{}"
    assert escaped("e\u0301") == r"\'{e}"
    assert escaped("αΣΛ") == r"\ensuremath{\alpha}\ensuremath{\Sigma}\ensuremath{\Lambda}"
    assert escaped("猫\u202e") == r"\reportgenunicode{732B}\textbackslash{}u202e"
    assert escaped("猫", wide=True) == "猫"
    assert escaped("a\n\n b") == "a b"
    assert r"\allowbreak{}" in escaped("x" * 60)


def test_no_name_breaks_the_text() -> None:
    assert faults(escaped(HOSTILE)) == []
    made = figure_environment("a-b", HOSTILE, width=0.5)
    assert faults(made) == []
    assert r"\label{fig:a-b}" in made
    assert faults("{a")
    assert faults(r"\begin{a}")
    assert faults("a_b")
    assert faults("é")


def test_first_sentences() -> None:
    assert first_sentence("Kernels of layer conv1. Each is scaled.") == "Kernels of layer conv1"
    assert first_sentence("特征图。第二句。") == "特征图"
    assert len(first_sentence("word " * 90)) <= 160


def test_references_are_entries() -> None:
    listed = {reference.key: reference for cls in registry().values() for reference in cls.references}
    made = bibliography(listed.values())
    assert made.count("@") == len(listed)
    assert made.count("{") == made.count("}")
    assert r"Universit\'{e} de Montr\'{e}al" in made
    assert "@article{jiang2021," in made
    assert "@inproceedings{zhou2016," in made
    assert "author = {B. Zhou and A. Khosla and A. Lapedriza and A. Oliva and A. Torralba}" in made
    assert "year = {2016}" in made
    hostile = bibliography([Reference("k", "A_1, B & C", "50 % {x}", "J#", 1999)])
    assert r"A\_1 and B \& C" in hostile
    assert r"title = {{50 \% \{x\}}}" in hostile


def test_methods_are_the_words_of_the_report() -> None:
    made = document()
    text = methods(made)
    assert faults(text) == []
    for section in made.sections:
        told = paragraphs(made, section)
        assert [one.partition(".}")[0] for one in told[:3]] == [
            r"\textbf{What is shown",
            r"\textbf{How to read it",
            r"\textbf{What it cannot tell",
        ]
        assert r"\subsection*{" + section.title.template.format(**section.title.parameters) in text
    assert r"\cite{zeiler2014}" in text
    assert text.count(r"\begin{equation*}") == 4
    assert "<" not in text
    failed = tuple(replace(one, facts={**one.facts, "status": "failed"}) for one in made.sections)
    assert "subsection" not in methods(replace(made, sections=failed))


def hostile() -> Document:
    made = document()

    def renamed(figure: Figure) -> Figure:
        return replace(figure, caption=verbatim(HOSTILE), headings=tuple(verbatim(HOSTILE) for _ in figure.headings))

    sections = tuple(replace(one, figures=tuple(map(renamed, one.figures))) for one in made.sections)
    return replace(made, sections=sections)


def test_all_files_are_sound(tmp_path: Path) -> None:
    write_figures(tmp_path, hostile())
    found = sorted(tmp_path.glob("*.tex"))
    assert {path.name: faults(path.read_text("utf-8")) for path in found} == {path.name: [] for path in found}
    whole = (tmp_path / "figures.tex").read_text("ascii")
    for path in found:
        if path.name != "figures.tex":
            assert whole.count(rf"\input{{\reportgenpath {path.name}}}") == 1
            text = path.read_text("ascii")
            if path.name != "methods.tex":
                assert rf"\label{{fig:{path.stem}}}" in text
                assert (tmp_path / f"{path.stem}.pdf").is_file()


@pytest.mark.parametrize("engine", ["pdflatex", "xelatex"])
def test_it_compiles(tmp_path: Path, engine: str) -> None:
    if shutil.which(engine) is None:
        pytest.skip(f"{engine} is not installed (Debian: texlive-latex-recommended, texlive-xetex)")
    write_figures(tmp_path, hostile())
    thesis = (
        "\\documentclass{article}\n\\usepackage{graphicx,amsmath}\n\\begin{document}\n\\listoffigures\n"
        "\\input{methods}\n\\input{figures}\n\\ref{fig:filters-20}\n\\end{document}\n"
    )
    (tmp_path / "thesis.tex").write_text(thesis)
    for file in ("figures.tex", "thesis.tex"):
        for _time in range(2):  # the second reads the list of figures
            done = subprocess.run(
                [engine, "-interaction=nonstopmode", "-halt-on-error", file],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            assert done.returncode == 0, done.stdout[-3000:]
        assert "Missing character" not in done.stdout
        assert (tmp_path / file).with_suffix(".pdf").stat().st_size > 10_000
