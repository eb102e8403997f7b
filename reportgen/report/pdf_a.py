"""What WeasyPrint leaves to be done for PDF/A-3u (ISO 19005-3): options, the attachment, and the finish."""

from __future__ import annotations

import base64
import zlib
from datetime import datetime
from typing import Any, Final

from reportgen.report.document import Document
from reportgen.report.facts import json_bytes

_LINE_ENDS: Final = (10, 13)


def archival_options(document: Document) -> dict[str, Any]:
    """Arguments of `weasyprint.HTML.write_pdf` for a tagged PDF/A-3u that carries ``report.json``.

    A header of 1.4 keeps WeasyPrint from packing objects into streams, whose last byte nobody can choose; `finish` lets
    the catalog say 1.7, which is what counts (ISO 32000-1, 7.2.2).
    """
    import weasyprint

    moment = datetime.fromisoformat(document.style.date) if document.style.date else datetime(1970, 1, 1)
    attached = weasyprint.Attachment(
        string=json_bytes(document.facts),
        name="report.json",
        description="All facts of this report",
        created=moment,
        modified=moment,
        relationship="Data",
    )
    return {
        "pdf_variant": "pdf/a-3u",
        "pdf_tags": True,
        "pdf_version": "1.4",
        "attachments": [attached],
    }


def finish(pdf: Any) -> None:
    """Mend a `pydyf.PDF` in place, before it is written.

    - The metadata must be readable without decompression (ISO 19005-3, 6.6.2.1).
    - No image may ask to be interpolated (6.2.8).
    - ``Length`` must be exact (6.1.7.1): a stream whose last byte could be taken for the end of its line is written in
      ASCII, which ends in ``~>``.
    - A subset of a font needs no list of its glyphs, and one that is not complete is worse than none (6.2.11.4.2).
    """
    import pydyf

    pdf.catalog["Version"] = "/1.7"
    for one in pdf.objects:
        if isinstance(one, pydyf.Dictionary):
            one.pop("CIDSet", None)
        elif isinstance(one, pydyf.Stream):
            if one.extra.get("Type") == "/Metadata":
                one.compress = False
            elif _ends_like_a_line(one):
                _in_ascii(one)
            if one.extra.get("Subtype") == "/Image":
                one.extra["Interpolate"] = "false"


def _ends_like_a_line(stream: Any) -> bool:
    if stream.compress:
        # the last byte of a zlib stream is that of the checksum of what it holds
        return zlib.adler32(_content(stream)) & 0xFF in _LINE_ENDS
    content = _content(stream)
    return bool(content) and content[-1] in _LINE_ENDS


def _content(stream: Any) -> bytes:
    parts = (getattr(part, "data", part) for part in stream.stream)
    return b"\n".join(part if isinstance(part, bytes) else str(part).encode("ascii") for part in parts)


def _in_ascii(stream: Any) -> None:
    import pydyf

    content = _content(stream)
    filters = str(stream.extra.get("Filter", ""))
    if stream.compress:
        content, filters, stream.compress = zlib.compress(content, 9), "/FlateDecode", False
    stream.stream = [base64.a85encode(content) + b"~>"]
    stream.extra["Filter"] = f"[/ASCII85Decode {filters}]"
    if "DecodeParms" in stream.extra:
        stream.extra["DecodeParms"] = pydyf.Array(["null", stream.extra["DecodeParms"]])
