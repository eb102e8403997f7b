"""Charts about predictions: which classes are taken for which, and whether confidence is deserved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from reportgen.figures.chart import INK, SERIES, chart, charts
from reportgen.figures.figure import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CLASSES: Final = 50
"""So many classes can be told apart on a page."""
_WITH_NUMBERS: Final = 20
_LONGEST: Final = 26
_STRONGEST: Final = 0.6
"""Opacity of a full cell: its number must stay legible on it."""


def confusion_chart(
    counts: Mapping[tuple[int, int], int], names: Sequence[str], *, true: str, predicted: str, han: bool = False
) -> Picture:
    """A cell for each pair that occurs, as strong as its share of the true class; rows are true classes.

    Args:
        counts: images by place of the true and of the predicted class among `names`.
        names: of the classes drawn, at most `MOST_CLASSES`.
        true: words for the rows.
        predicted: words for the columns.
    """
    size = len(names)
    totals = [sum(n for (row, _), n in counts.items() if row == place) for place in range(size)]

    def draw(axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        for (row, column), n in counts.items():
            share = n / totals[row]
            colour = SERIES[0] if row == column else SERIES[1]
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5), 1, 1, facecolor=colour, alpha=_STRONGEST * (0.12 + 0.88 * share), lw=0
                )
            )
            if size <= _WITH_NUMBERS:
                axes.text(column, row, str(n), ha="center", va="center", fontsize=7)
        axes.set_xlim(-0.5, size - 0.5)
        axes.set_ylim(size - 0.5, -0.5)
        axes.set_aspect("equal")
        shown = [name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…" for name in names]
        axes.set_xticks(range(size), shown, rotation=90)
        axes.set_yticks(range(size), shown)
        axes.tick_params(length=0, labelsize=7 if size <= 30 else 5.6)
        axes.set_xlabel(predicted)
        axes.set_ylabel(true)
        for spine in axes.spines.values():
            spine.set_visible(True)

    return chart(draw, height_mm=min(48 + 5.5 * size, 186), han=han)


def reliability_chart(
    bins: Sequence[Mapping[str, Any]], *, confidence: str, accuracy: str, images: str, han: bool = False
) -> Picture:
    """Accuracy over mean confidence of each bin with its interval, beside the number of images in each.

    Args:
        bins: as `reportgen.metrics.calibration_bins` makes them.
        confidence, accuracy, images: words for the axes.
    """

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
        left.plot([0, 1], [0, 1], color=INK, alpha=0.5, linewidth=0.6, linestyle=(0, (3, 2)))
        for one in bins:
            x, found = one["confidence"], one["accuracy"]
            left.plot([x, x], found["interval"], color=SERIES[0], linestyle="-", linewidth=0.9, alpha=0.7)
            left.plot([x], [found["value"]], color=SERIES[0], marker="o", linestyle="none")
        left.set_xlim(0, 1.01)
        left.set_ylim(0, 1.02)
        left.set_aspect("equal")
        left.grid()
        left.set_xlabel(confidence)
        left.set_ylabel(accuracy)
        width = bins[0]["high"] - bins[0]["low"]
        right.bar([one["low"] for one in bins], [one["accuracy"]["n"] for one in bins], width, align="edge", alpha=0.8)
        right.set_xlim(0, 1.01)
        right.yaxis.get_major_locator().set_params(integer=True)  # there are no halves of images
        right.set_xlabel(confidence)
        right.set_ylabel(images)

    return charts(draw, height_mm=62, han=han)
