"""Parts of photographs: what one position of a layer sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw

from reportgen.figures.colour import MID_GREY
from reportgen.figures.figure import Picture
from reportgen.figures.tiles import Pixels, fitted, jpeg, photograph_image, png

_QUALITY: Final = 85
_LARGE: Final = 0.5
"""A part that takes up more than this of the picture's sides does not tell where its middle lies: that is marked."""


@dataclass(frozen=True)
class Place:
    """A position of a layer in the image, in pixels.

    Attributes:
        box: (top, left, bottom, right) of what the position sees; beyond the image where it sees padding.
        cell: the same of the part that it stands for among its neighbours.
    """

    box: tuple[int, int, int, int]
    cell: tuple[int, int, int, int]

    @property
    def large(self) -> bool:
        """Whether its own place is to be marked; see `Patch`."""
        height, width = self.box[2] - self.box[0], self.box[3] - self.box[1]
        return (self.cell[2] - self.cell[0]) * (self.cell[3] - self.cell[1]) < (1 - _LARGE) * height * width


def patch(rgb: Pixels, place: Place, *, size: int = 112) -> Picture:
    """What a position sees, enlarged by a whole factor without smoothing where it is small; mid grey beyond the image.

    Its cell is framed where it is a small part of what it sees.

    Args:
        rgb: (H, W, 3) or (H, W) uint8, the picture as the network saw it.
        size: pixels of the longer side.

    Returns:
        JPEG, or PNG where enlarged.
    """
    top, left, bottom, right = place.box
    whole = photograph_image(rgb)
    image = Image.new(whole.mode, (right - left, bottom - top), MID_GREY if whole.mode == "L" else (MID_GREY,) * 3)
    image.paste(whole, (-left, -top))
    longer = max(image.size)
    enlarged = longer < size
    to = (image.width * -(-size // longer), image.height * -(-size // longer)) if enlarged else None
    scaled = image.resize(
        to or fitted(*image.size, size), Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX
    )
    if place.large:
        _frame(scaled, place)
    return png(scaled, pixelated=True) if enlarged else jpeg(scaled, quality=_QUALITY)


def where(shape: tuple[int, ...], place: Place, *, size: int = 112) -> Picture:
    """The same without the photograph: mid grey in the image's proportions, what the position sees framed.

    Args:
        shape: (H, W, …) of the picture.
    """
    height, width = shape[:2]
    to = fitted(width, height, size)
    image = Image.new("L", to, MID_GREY)
    draw = ImageDraw.Draw(image)
    for (top, left, bottom, right), shade in ((place.box, 200), (place.cell, 255)):
        across, down = to[0] / width, to[1] / height
        corners = (
            left * across,
            top * down,
            max(right * across - 1, left * across),
            max(bottom * down - 1, top * down),
        )
        draw.rectangle(corners, outline=shade)
    return png(image)


def _frame(image: Image.Image, place: Place) -> None:
    """A light line around the cell, with a dark one outside it: seen on any ground."""
    top, left, bottom, right = place.box
    across, down = image.width / (right - left), image.height / (bottom - top)
    begin = ((place.cell[1] - left) * across, (place.cell[0] - top) * down)
    end = ((place.cell[3] - left) * across - 1, (place.cell[2] - top) * down - 1)
    draw = ImageDraw.Draw(image)
    for grown, shade in ((1, 0), (0, 255)):
        corners = (begin[0] - grown, begin[1] - grown, max(end[0], begin[0]) + grown, max(end[1], begin[1]) + grown)
        draw.rectangle(corners, outline=shade if image.mode == "L" else (shade, shade, shade))
