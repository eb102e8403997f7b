"""Tags of a PDF beyond what WeasyPrint makes: links in words, cells of headings, running heads that are no text."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pikepdf
import pytest

from reportgen.report.environment import places
from reportgen.report.pdf import render_pdf
from reportgen.report.tags import mend_tags
from reportgen.text import shown
from tests.report.small import document

pytest.importorskip("weasyprint", exc_type=(ImportError, OSError))


@pytest.fixture(scope="module", params=["ua", "a"])
def opened(request: pytest.FixtureRequest) -> Iterator[pikepdf.Pdf]:
    with pikepdf.open(io.BytesIO(render_pdf(document(pdf_a=request.param == "a")))) as made:
        yield made


def elements(made: pikepdf.Pdf) -> Iterator[Any]:
    waiting: list[Any] = list(made.Root.StructTreeRoot.K)
    while waiting:
        one = waiting.pop()
        if isinstance(one, pikepdf.Dictionary) and one.get("/Type") == "/StructElem":
            yield one
            kids = one.get("/K", [])
            waiting += list(kids) if isinstance(kids, pikepdf.Array) else [kids]


def test_links_say_where_they_lead(opened: pikepdf.Pdf) -> None:
    words = {anchor: shown(str(one)) for anchor, one in places(document()).items()}
    assert words["class_activation"] == "3.4 Class activation"
    told = []
    for page in opened.pages:
        for one in page.get("/Annots", []):
            assert int(one.F) & 4
            assert str(one.Contents) == words[str(one.Dest)]
            told.append(str(one.Contents))
    assert {"1 Summary", "Reference 1"} <= set(told)
    assert any(one.startswith("Figure ") for one in told)


def test_every_link_holds_text_or_has_words(opened: pikepdf.Pdf) -> None:
    without = 0
    for one in elements(opened):
        if one.S == "/Link":
            held = [kid for kid in one.K if not (isinstance(kid, pikepdf.Dictionary) and kid.get("/Type") == "/OBJR")]
            without += not held
            assert held or str(one.Alt)
    assert without  # those of captions


def test_headings_of_tables_say_for_what(opened: pikepdf.Pdf) -> None:
    names: dict[str, Any] = {}
    scopes = []
    for one in elements(opened):
        if one.S == "/TH":
            scopes.append(str(one.A.Scope))
            group = one.P.P
            assert one.A.Scope == ("/Column" if group.S == "/THead" else "/Row")
            names[bytes(one.ID).decode("latin-1")] = one.objgen
        if one.S == "/TD":
            assert "/Headers" in one.A
    assert {"/Column", "/Row"} == set(scopes)
    listed = list(opened.Root.StructTreeRoot.IDTree.Names)
    keys = [bytes(key).decode("latin-1") for key in listed[::2]]
    assert keys == sorted(keys)
    assert {key: one.objgen for key, one in zip(keys, listed[1::2], strict=True)} == names


def marked(page: pikepdf.Page) -> Iterator[tuple[str, Any, list[Any]]]:
    """(tag, properties, operators in it) of the marked content of a page."""
    begun: list[tuple[str, Any, list[Any]]] = []
    for operands, operator in pikepdf.parse_content_stream(page):
        if str(operator) in ("BDC", "BMC"):
            begun.append((str(operands[0]), operands[1] if len(operands) > 1 else {}, []))
        elif str(operator) == "EMC":
            yield begun.pop()
        elif begun:
            begun[-1][2].append((operands, str(operator)))
    assert not begun


def test_running_heads_and_feet_are_artifacts(opened: pikepdf.Pdf) -> None:
    for number, page in enumerate(opened.pages):
        found = [one for one in marked(page) if one[0] == "/Artifact" and one[1].get("/Type") == "/Pagination"]
        sides = sorted(str(properties.Subtype) for _tag, properties, _inner in found)
        assert sides == ([] if number == 0 else ["/Footer", "/Footer", "/Header"])
        for _tag, properties, inner in found:
            [y] = [float(operands[5]) for operands, operator in inner if operator == "Tm"]
            assert (y < float(page.mediabox[3]) / 0.75 / 2) == (properties.Subtype == "/Header")


def test_what_is_numbered_hangs_in_the_tree(opened: pikepdf.Pdf) -> None:
    known = {one.objgen for one in elements(opened)}
    numbers = list(opened.Root.StructTreeRoot.ParentTree.Nums)
    owners = dict(zip(map(int, numbers[::2]), numbers[1::2], strict=True))
    for page in opened.pages:
        owned = owners[int(page.StructParents)]
        marks = [int(properties.MCID) for _tag, properties, _inner in marked(page) if "/MCID" in properties]
        assert len(marks) == len(set(marks))
        assert {mark for mark, owner in enumerate(owned) if owner is not None} == set(marks)
        assert all(owned[mark].objgen in known for mark in marks)


def test_documents_without_tags_are_left_alone() -> None:
    from pydyf import PDF

    plain, same = PDF(), PDF()
    mend_tags(plain, {})
    files = io.BytesIO(), io.BytesIO()
    for made, file in zip((plain, same), files, strict=True):
        made.write(file)
    assert files[0].getvalue() == files[1].getvalue()
