"""A mistake: the map of the predicted and of the true class beside each other on one scale, and their difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from reportgen.figures.figure import Colorbar, Figure, Panel, Row, slug
from reportgen.store import Array
from reportgen.techniques.technique import Case, Evidence
from reportgen.text import Message, _, signed, verbatim

DEEPEST = 2
"""So many layers are compared, the deepest: they are close to the decision."""
DIVERGING = "RdBu_r"


def mistaken(case: Case) -> tuple[int, int] | None:
    """Predicted and true class of an image where both are explained and differ."""
    known = dict(zip(case.known, case.targets, strict=False))
    if known.keys() >= {"predicted", "true"} and known["predicted"] != known["true"]:
        return known["predicted"], known["true"]
    return None


def contrast(
    technique: str,
    method: str,
    title: str,
    evidence: Evidence,
    case: Case,
    arrays: Mapping[str, Array],
    layers: Sequence[str],
) -> Figure | None:
    """Maps ``<method>/<layer>/<class>`` of the two classes of a mistake; None where the image is none.

    Args:
        technique: whose figure it is.
        method: prefix of the maps' names.
        title: the method, for captions.
        layers: that have such a map, from shallow to deep.
    """
    classes = mistaken(case)
    if classes is None or not layers:
        return None
    predicted, true = (evidence.resolution.label(one) for one in classes)
    rows = tuple(_row(title, method, evidence, case, arrays, layer, classes) for layer in layers[-DEEPEST:])
    return Figure(
        id=f"{technique}-{slug(case.name)}-contrast",
        technique=technique,
        rows=rows,
        caption=_(
            "{title} of {image}, a mistake: for the predicted class {predicted}, for the true class {true}, both from "
            "zero to the greater of their two maxima, and the first less the second. Red speaks for {predicted}, blue "
            "with stripes for {true}; what speaks for both alike stays empty. One row a layer. {reading}",
            title=title,
            image=case.name,
            predicted=predicted,
            true=true,
            reading=evidence.reading,
        ),
        columns=3,
        headings=(
            _("predicted: {label}", label=predicted),
            _("true: {label}", label=true),
            _("difference"),
        ),
        exhibit=case.name,
        colorbar=Colorbar(evidence.colormap, _("zero"), _("maximum of both")),
    )


def _row(
    title: str,
    method: str,
    evidence: Evidence,
    case: Case,
    arrays: Mapping[str, Array],
    layer: str,
    classes: tuple[int, int],
) -> Row:
    maps = [np.maximum(arrays[f"{method}/{layer}/{one}"].astype(np.float64), 0) for one in classes]
    high = max(float(one.max()) for one in maps)
    panels = [
        Panel(
            evidence.overlay(case, values, low=0.0, high=high),
            _maximum(values),
            _(
                "{title} at {layer} for {label}, on the scale of both",
                title=title,
                layer=layer,
                label=evidence.resolution.label(one),
            ),
            name=f"{slug(layer)}-{one}",
            layer=layer,
        )
        for one, values in zip(classes, maps, strict=True)
    ]
    difference = maps[0] - maps[1]
    panels.append(
        Panel(
            evidence.overlay(case, difference, low=-high, high=high, colormap=DIVERGING),
            verbatim(f"{signed(float(difference.min()), '.2g')} … {signed(float(difference.max()), '.2g')}"),
            _("{title} at {layer}: the map of the predicted class less that of the true one", title=title, layer=layer),
            name=f"{slug(layer)}-difference",
            layer=layer,
        )
    )
    return Row(tuple(panels), verbatim(layer))


def _maximum(values: Array) -> Message:
    high = float(values.max())
    return verbatim(f"{high:.2g}") if high > 0 else _("no positive value")
