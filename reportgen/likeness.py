"""Images that are nearly the same, among many, by what they look like at 16 × 16 pixels.

Compared is how each place differs from its neighbours (the Laplacian, which knows neither brightness nor slow shading),
as a correlation. Copies that were compressed, scaled, brightened, blurred or made grey stay above 0.97; other
photographs of the same thing, mirrored and cropped ones do not. Images of which little but an even ground is left at
this size are near to one another whatever they show, and are not compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIKE = 0.97
"""Correlation from which on two images are taken for one. Of 10⁶ pairs of different handwritten digits one or two."""
FAINTEST = 6.0
"""Root mean square of the Laplacian, in grey levels, below which an image is even."""
FEWEST_PLACES = 9.0
"""So many places, in effect, must differ from their neighbours: a spot on an empty ground is like any other spot."""
MOST_NEIGHBOURS = 8
DIMENSIONS = 24
"""In which neighbours are looked for; distances in a projection are never longer."""

Values = NDArray[np.float64]


def features(looks: NDArray[Any]) -> tuple[Values, NDArray[np.bool_]]:
    """(n, D) unit vectors whose products are correlations, and (n,) which images can be compared.

    Args:
        looks: (n, side, side) grey levels.
    """
    grey = np.asarray(looks, np.float64)
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    edges = (4 * grey[:, 1:-1, 1:-1] - around).reshape(len(grey), -1)
    edges -= edges.mean(axis=1, keepdims=True)
    energy = (edges**2).sum(axis=1)
    places = energy**2 / np.maximum((edges**4).sum(axis=1), 1e-12)
    busy = (energy >= FAINTEST**2 * edges.shape[1]) & (places >= FEWEST_PLACES)
    return edges / np.sqrt(np.maximum(energy, 1e-12))[:, None], busy


def groups(looks: NDArray[Any], alike: float = ALIKE) -> list[tuple[int, ...]]:
    """Places of images that look the same, each group in order; every image is like some other of its group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # equal ones are joined beforehand: a thousand of them would hide all other neighbours
    distinct, same = np.unique(looks.reshape(len(looks), -1), axis=0, return_inverse=True)
    vectors, busy = features(distinct.reshape(-1, *looks.shape[1:]))
    there = np.flatnonzero(busy)
    pairs = there[_pairs(vectors[there], vectors[there], alike, MOST_NEIGHBOURS + 1)]
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(distinct),) * 2)
    part = connected_components(links, directed=False)[1][same.reshape(-1)]
    members: dict[int, list[int]] = {}
    for place in np.flatnonzero(busy[same.reshape(-1)]):
        members.setdefault(int(part[place]), []).append(int(place))
    return sorted(tuple(own) for own in members.values() if len(own) > 1)


def counterparts(looks: NDArray[Any], others: NDArray[Any], alike: float = ALIKE) -> list[tuple[int, int]]:
    """(place, place of the other that looks most like it), where one looks the same."""
    mine, busy = features(looks)
    theirs, theirs_busy = features(others)
    here, there = np.flatnonzero(busy), np.flatnonzero(theirs_busy)
    pairs = _pairs(mine[here], theirs[there], alike, 1)
    return [(int(here[one]), int(there[other])) for one, other in pairs]


def _pairs(mine: Values, theirs: Values, alike: float, most: int) -> NDArray[np.int64]:
    """(m, 2) places of vectors with a product of at least `alike`; of each the `most` nearest."""
    from scipy.spatial import cKDTree

    if not len(mine) or not len(theirs):
        return np.zeros((0, 2), np.int64)
    axes = _axes(theirs)
    reach = float(np.sqrt(2 * (1 - alike))) + 1e-9
    most = min(most, len(theirs))
    distance, found = cKDTree(theirs @ axes).query(mine @ axes, k=most, distance_upper_bound=reach)
    distance, found = distance.reshape(len(mine), most), found.reshape(len(mine), most)
    rows, columns = np.nonzero(np.isfinite(distance))
    partners = found[rows, columns]
    sure = np.einsum("ij,ij->i", mine[rows], theirs[partners]) >= alike
    return np.stack([rows[sure], partners[sure]], axis=1).astype(np.int64)


def _axes(vectors: Values) -> Values:
    """(D, `DIMENSIONS`) orthonormal directions in which they differ most."""
    some = vectors[:: max(len(vectors) // 4000, 1)]
    axes: Values = np.linalg.eigh(some.T @ some)[1][:, -DIMENSIONS:]
    return axes


def by_digest(digests: Sequence[str]) -> list[tuple[int, ...]]:
    """Places of images whose files are the same byte by byte."""
    members: dict[str, list[int]] = {}
    for place, digest in enumerate(digests):
        members.setdefault(digest, []).append(place)
    return [tuple(own) for own in members.values() if len(own) > 1]
