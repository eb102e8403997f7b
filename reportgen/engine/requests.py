"""What a technique may ask of the engine. Declares, computes nothing, and imports no torch.

The kinds are few on purpose: the planner merges equal requests of all techniques, so that one forward and one
backward per
distinct origin and rule serve everybody. The table in ``CONTRIBUTING.md`` shows which technique needs which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Rule = Literal["gradient", "deconvnet", "guided"]
AscentMethod = Literal["plain", "robust"]
Scope = Literal["scan", "exhibit", "sample", "model"]

INPUT = "input"
"""The name under which the model's input is tapped; no module can have it, since it is nobody's attribute path."""


@dataclass(frozen=True)
class Occlusion:
    """Inputs made from one: itself, then itself with a grey square over each cell of a grid, row by row.

    Attributes:
        rows: cells from top to bottom.
        columns: cells from left to right.
        side: of the square, in pixels; its centre is that of the cell, and it is cut off at the border.
    """

    rows: int
    columns: int
    side: int

    @property
    def count(self) -> int:
        """How many inputs one input yields."""
        return 1 + self.rows * self.columns


Derivation = Occlusion
"""Inputs made from the given ones. Planned besides: perturbed ones, and such with parts deleted by a stored map."""


@dataclass(frozen=True)
class Forward:
    """Activations at `taps` (module names), and the class scores if `scores`; stops past the last tap otherwise.

    With `inputs`, the class probabilities of inputs derived from each image.
    """

    taps: tuple[str, ...] = ()
    scores: bool = True
    inputs: Derivation | None = None


@dataclass(frozen=True)
class ClassScore:
    """Origin of a backward: the score of each explained class, before softmax or sigmoid."""


@dataclass(frozen=True)
class Units:
    """Origin of backwards: single units of a layer, on the first `exhibits` exhibits.

    Of `channels` the `most` with the strongest response in the image are taken, and of each the position of that
    response alone; 1 is sent back from there.
    """

    layer: str
    channels: tuple[int, ...]
    most: int
    exhibits: int


@dataclass(frozen=True)
class Backward:
    """Derivatives of `origin` with respect to `wrt` (`INPUT` or tapped layers; of units: `INPUT`) under `rule`."""

    wrt: tuple[str, ...]
    origin: ClassScore | Units = ClassScore()
    rule: Rule = "gradient"


@dataclass(frozen=True)
class Weights:
    """The weight of each of these layers, as it is."""

    layers: tuple[str, ...]


@dataclass(frozen=True)
class Ascent:
    """An optimisation of inputs: all `channels` of `layer` in batches of fixed shape.

    Attributes:
        method: how inputs are parametrised and moved: ``plain`` (pixels, nothing else) or ``robust`` (Fourier
            coefficients, random moves).
        steps: number of steps.
        size: shorter side of the input in pixels; at most that of the model's own.
        seed: of the noise that it starts from, and of the moves.
    """

    layer: str
    channels: tuple[int, ...]
    method: AscentMethod
    steps: int
    size: int
    seed: int = 0


@dataclass(frozen=True)
class Variant:
    """The same `requests` on a copy of the model whose last `randomised` weighted layers are drawn anew."""

    randomised: int
    requests: tuple[Forward | Backward, ...]


@dataclass(frozen=True)
class Look:
    """What each image itself looks like, 16 × 16 grey levels, made while it is decoded: it takes no pass."""


@dataclass(frozen=True)
class Upkeep:
    """The state of all weights and statistics, and which of them one forward of noise reads."""


@dataclass(frozen=True)
class Record:
    """The operations of one real forward, with the modules they belong to."""


@dataclass(frozen=True)
class Profile:
    """A profiled, warmed-up forward, and forward with backward if `backward`."""

    backward: bool = False


@dataclass(frozen=True)
class After:
    """What another technique stored for the same subject: planned first, read from the store."""

    technique: str


Request = Forward | Backward | Weights | Ascent | Variant | Look | Upkeep | Record | Profile | After
Needs = tuple[Request, ...]
