"""What WeasyPrint leaves to be done for a tagged PDF, before it is written (ISO 14289-1, ISO 32000-1 14.7 and 14.8).

Only the structure of the document is looked at; what is not as expected is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_PRINT: Final = 4
"""The flag of an annotation that is printed, too."""


def mend_tags(pdf: Any, words: Mapping[str, str]) -> None:
    """Mend the structure of a `pydyf.PDF` in place.

    - Links say where they lead in words (7.18.5), also those that hold no text of their own.
    - Cells of headings say whether they stand above a column or before a row (7.5), and those with names are listed.
    - Running heads and feet are artifacts (7.8), not text that belongs nowhere.

    Args:
        words: of the places that links lead to, by their anchors.
    """
    root = _at(pdf, pdf.catalog.get("StructTreeRoot"))
    if root is None:
        return
    elements = dict(_elements(pdf, root))
    _headings(pdf, root, elements)
    _links(pdf, elements, words)
    _furniture(pdf, root, elements)


def _at(pdf: Any, reference: Any) -> Any:
    """The object that a reference (``b"12 0 R"``) leads to."""
    number = reference.split()[0] if isinstance(reference, bytes) else b""
    return pdf.objects[int(number)] if number.isdigit() and int(number) < len(pdf.objects) else None


def _elements(pdf: Any, root: Any) -> Iterator[tuple[bytes, Any]]:
    """(reference, element) of all that hangs in the tree, in the order of the document."""
    waiting = list(reversed(root.get("K", ())))
    while waiting:
        reference = waiting.pop()
        element = _at(pdf, reference)
        if isinstance(element, dict) and element.get("Type") == "/StructElem":
            yield reference, element
            waiting += [kid for kid in reversed(element.get("K", ())) if isinstance(kid, bytes)]


def _headings(pdf: Any, root: Any, elements: Mapping[bytes, Any]) -> None:
    import pydyf

    named = {}
    for reference, element in elements.items():
        if element["S"] != "/TH":
            continue
        group = elements.get(elements.get(element["P"], {}).get("P"), {})
        scope = "/Column" if group.get("S") == "/THead" else "/Row"
        element.setdefault("A", pydyf.Dictionary({"O": "/Table"})).setdefault("Scope", scope)
        if "ID" in element:
            named[element["ID"].string] = element["ID"], reference
    if named and "IDTree" not in root:
        names = pydyf.Array()
        for _name, pair in sorted(named.items()):
            names += pair
        tree = pydyf.Dictionary({"Names": names})
        pdf.add_object(tree)
        root["IDTree"] = tree.reference


def _links(pdf: Any, elements: Mapping[bytes, Any], words: Mapping[str, str]) -> None:
    import pydyf

    for element in elements.values():
        if element["S"] != "/Link":
            continue
        told, held = "", False
        for kid in element.get("K", ()):
            annotation = _at(pdf, (_at(pdf, kid) or {}).get("Obj")) if isinstance(kid, bytes) else None
            if annotation is None:
                held = True
                continue
            annotation.setdefault("F", _PRINT)
            told = words.get(getattr(annotation.get("Dest"), "string", ""), "")
            if told:
                annotation["Contents"] = pydyf.String(told)
        if told and not held:
            element["Alt"] = pydyf.String(told)


def _furniture(pdf: Any, root: Any, elements: Mapping[bytes, Any]) -> None:
    """WeasyPrint gives the text of page margins elements that hang in no tree."""
    numbers = (_at(pdf, root.get("ParentTree")) or {}).get("Nums", ())
    owners = dict(zip(numbers[::2], numbers[1::2], strict=False))
    for number, reference in enumerate(pdf.pages["Kids"][::3]):
        page, owned = pdf.objects[reference], owners.get(number)
        stream = _at(pdf, page.get("Contents"))
        if stream is None or not isinstance(owned, list):
            continue
        loose = {mark for mark, owner in enumerate(owned) if owner not in elements}
        if not loose:
            continue
        height = page["MediaBox"][3] / 0.75
        for mark in _to_artifacts(stream.stream, loose, height):
            _at(pdf, owned[mark]).clear()
            owned[mark] = b"null"


def _to_artifacts(operators: list[Any], loose: set[int], height: float) -> Iterator[int]:
    """Turn the marked content with these numbers into artifacts of the page. Yields the numbers that were found."""
    for at, one in enumerate(operators):
        if isinstance(one, dict) and one.get("MCID") in loose and operators[at + 1 : at + 2] == [b"BDC"]:
            mark = one.pop("MCID")
            operators[at - 1] = "/Artifact"
            one.update({"Type": "/Pagination", "Subtype": _side(operators, at, height)})
            yield mark


def _side(operators: list[Any], begin: int, height: float) -> str:
    """Whether the text that begins there stands in the upper half of a page, whose ordinates grow downwards."""
    for one in operators[begin:]:
        if one == b"EMC":
            break
        if isinstance(one, bytes) and one.endswith(b" Tm"):
            return "/Header" if float(one.split()[5]) < height / 2 else "/Footer"
    return "/Footer"
