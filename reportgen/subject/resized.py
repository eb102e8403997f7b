"""Networks whose weights depend on the size of their input: position embeddings of another length than published."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import nn

from reportgen.errors import ArchitectureError
from reportgen.subject.apart import joined, linear_beside
from reportgen.subject.architectures import MOST_SIDE, meta
from reportgen.subject.fitting import classes_of, misfit_of
from reportgen.subject.recognition import Fit, Match, Shapes, choose, near, stripped

_POSITIONS = "pos_embed"
_NEAR = 0.9
_MOST_BUILT = 8


def recognise_resized(shapes: Shapes, shown: str) -> Match | None:
    """The architecture of weights that differ from it by the length of the position embedding alone, or None.

    Raises:
        ArchitectureError: if there are several that compute different things.
    """
    if not any(key.endswith(_POSITIONS) for key in shapes):
        return None
    close = [fit for fit in near(shapes) if fit.share >= _NEAR and fit.known.name.startswith("timm:")]
    headed = [fit for fit in close if fit.heads or linear_beside(shapes, fit.prefix)]
    found = [fit for fit in headed[:_MOST_BUILT] if _is_resized(fit, shapes)]
    return choose(found, shown, (), shapes) if found else None


def _is_resized(fit: Fit, whole: Shapes) -> bool:
    joint = joined(whole, fit.prefix, fit.known)
    shapes = joint.of(whole) if joint else stripped(whole, fit.prefix)
    argument = size_argument(fit.known.name, shapes, {})
    if not argument:
        return False
    classes = classes_of(shapes, fit.known.heads)
    try:
        module = meta(fit.known.name, classes=classes, channels=None, keys=shapes, arguments=argument)
    except ArchitectureError:
        return False
    return not misfit_of(module, shapes)


def size_argument(name: str, shapes: Shapes, arguments: Mapping[str, Any]) -> dict[str, int]:
    """``{"img_size": N}`` where the position embedding of a square input of N pixels has this length; otherwise empty.

    Args:
        name: qualified.
        arguments: what the constructor is given besides; nothing is added to a size.
    """
    if not name.startswith("timm:") or _POSITIONS not in shapes or "img_size" in arguments:
        return {}
    try:
        module = meta(name, classes=None, channels=None, keys=shapes, arguments=arguments)
    except ArchitectureError:
        return {}
    side = _side(module, shapes[_POSITIONS])
    return {"img_size": side} if side is not None else {}


def _side(module: nn.Module, there: tuple[int, ...]) -> int | None:
    usual = module.state_dict().get(_POSITIONS)
    patches = getattr(module, "patch_embed", None)
    patch, grid = getattr(patches, "patch_size", None), getattr(patches, "grid_size", None)
    if usual is None or usual.dim() != 3 or len(there) != 3 or there[1] == usual.shape[1] or not patch or not grid:
        return None
    prefix = usual.shape[1] - grid[0] * grid[1]  # a class token and registers, where they have positions
    rows = isqrt(max(there[1] - prefix, 0))
    side = rows * int(patch[0])
    square = rows * rows == there[1] - prefix and patch[0] == patch[1]
    return side if square and 0 < side <= MOST_SIDE else None
