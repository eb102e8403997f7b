"""Pixels in a PDF: photographs and maps as they are, read from where they lie when the file is written.

WeasyPrint takes pictures from the dictionary that it is given as its cache: whatever has a size, draws itself onto a
stream and gives the object that holds its pixels will do. It reads none of them itself then, decodes and encodes none,
and holds none.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any, Final, Protocol

from PIL import Image

from reportgen.figures.figure import Picture

_SPACES: Final = {"L": ("/DeviceGray", 1), "RGB": ("/DeviceRGB", 3), "CMYK": ("/DeviceCMYK", 4)}
_SIGNATURE: Final = 8


class Drawn(Protocol):
    """What WeasyPrint takes for a picture."""

    def get_intrinsic_size(self, resolution: float, font_size: float) -> tuple[float, float, float]:
        """Width and height in pixels of CSS, and the one over the other."""

    def draw(self, stream: Any, width: float, height: float, style: Any) -> None:
        """Into a rectangle at the origin of `stream`, whose ordinates grow downwards."""


class Pixels:
    """A photograph or a map.

    Attributes:
        id: a name for it in the file.
    """

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.id = picture.digest

    def get_intrinsic_size(self, resolution: float, font_size: float) -> tuple[float, float, float]:
        """As `Drawn` says."""
        width, height = self.picture.width, self.picture.height
        return width / resolution, height / resolution, width / height

    def draw(self, stream: Any, width: float, height: float, style: Any) -> None:
        """As `Drawn` says."""
        self.place(stream, 0, 0, width, height)

    def place(self, stream: Any, x: float, y: float, width: float, height: float) -> None:
        """Into a rectangle whose upper left corner is at `x`, `y`."""
        stream.set_matrix(width, 0, 0, -height, x, y + height)
        stream.draw_x_object(stream.add_image(self, not self.picture.pixelated, 1))

    def get_x_object(self, interpolate: bool, _ratio: float) -> Any:
        """The object of the file that holds the pixels."""
        import pydyf

        mode, scheme = _coding(self.picture)
        space, colours = _SPACES[mode]
        extra = {
            "Type": "/XObject",
            "Subtype": "/Image",
            "Width": self.picture.width,
            "Height": self.picture.height,
            "ColorSpace": space,
            "BitsPerComponent": 8,
            "Interpolate": "true" if interpolate else "false",
            "Filter": scheme,
        }
        if scheme == "/FlateDecode":
            parameters = {"Predictor": 15, "Columns": self.picture.width, "Colors": colours}
            extra["DecodeParms"] = pydyf.Dictionary(parameters)
        return pydyf.Stream([_unread(self.picture)], pydyf.Dictionary(extra))


def _unread(picture: Picture) -> Any:
    """The content of a stream of pydyf, read each time it is asked for: it is asked for when it is written."""
    import pydyf

    class Unread(pydyf.Object):  # type: ignore[misc]
        @property
        def data(self) -> bytes:
            return _content(picture)

    return Unread()


def _content(picture: Picture) -> bytes:
    """What the stream of a picture holds: a JPEG as it is; the pixels of a PNG, compressed as they were where they can
    be.
    """
    data = picture.data
    if picture.media == "image/jpeg":
        return data
    if _plain(data):
        return b"".join(part for name, part in _chunks(data) if name == b"IDAT")
    return b"".join(part for name, part in _chunks(_flat(data)) if name == b"IDAT")


def _coding(picture: Picture) -> tuple[str, str]:
    """(mode, filter) of a picture's stream."""
    data = picture.data
    if picture.media == "image/png" and not _plain(data):
        return "RGB", "/FlateDecode"
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
        return image.mode, "/DCTDecode" if picture.media == "image/jpeg" else "/FlateDecode"


def _plain(png: bytes) -> bool:
    """Whether a PNG is of eight bits, grey or RGB, and not interlaced: such a one can stand in a PDF as it is."""
    depth, colour, _compression, _filter, interlaced = struct.unpack_from(">5B", png, _SIGNATURE + 8 + 8)
    return (depth, interlaced) == (8, 0) and colour in (0, 2)


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of the parts of a PNG (ISO/IEC 15948, 5.3)."""
    at = _SIGNATURE
    while at < len(png):
        length, name = struct.unpack_from(">I4s", png, at)
        yield name, png[at + 8 : at + 8 + length]
        at += length + 12


def _flat(png: bytes) -> bytes:
    """Any PNG as one of eight bits and RGB, on white."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        whole = image.convert("RGBA")
        ground = Image.new("RGBA", whole.size, (255, 255, 255, 255))
        Image.alpha_composite(ground, whole).convert("RGB").save(file, "PNG")
    return file.getvalue()
