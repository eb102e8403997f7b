"""What a technique may ask of the engine. Declares, computes nothing, and imports no torch.

The kinds are few on purpose: the planner merges equal requests of all techniques, so that one forward and one
backward per
distinct origin and rule serve everybody. The table in ``CONTRIBUTING.md`` shows which technique needs which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

Rule = Literal["gradient", "deconvnet", "guided"]
AscentMethod = Literal["plain", "robust"]
Scope = Literal["scan", "exhibit", "sample", "model"]
FadingKind = Literal["deletion", "insertion", "masking"]
PerturbationKind = Literal["brightness", "blur", "noise", "jpeg", "shift"]

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
"""Inputs made from one image alone."""


@dataclass(frozen=True)
class Forward:
    """Activations at `taps` (module names), and the class scores if `scores`; stops past the last tap otherwise.

    With `inputs`, the class probabilities of inputs derived from each image. With `attention`, the attention of all
    blocks multiplied up, where the resolution has an `Attention`.
    """

    taps: tuple[str, ...] = ()
    scores: bool = True
    inputs: Derivation | None = None
    attention: bool = False


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
    """The weight of each of these layers, as it is, and of batch normalisations their running statistics."""

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
class Fading:
    """Class probabilities while images give way, or come back, in the order of maps, which are handed over later.

    Attributes:
        kind: ``deletion``: the pixels highest in the map first become the mean colour of the image; ``insertion``: they
            first come back from a blur; ``masking``: the image times the map, scaled to 0..1, on its mean colour.
        steps: into how many equal parts the pixels are divided; the ends are shared by all maps. 1 for ``masking``.
        maps: how many maps are asked about.
    """

    kind: FadingKind
    steps: int
    maps: int

    @property
    def count(self) -> int:
        """How many inputs one image yields: besides those between the ends the one end that is not the image."""
        return self.maps if self.kind == "masking" else 1 + self.maps * (self.steps - 1)


@dataclass(frozen=True)
class Perturbed:
    """An image changed mildly, as values in 0..1 before normalisation, and cut to that range.

    Attributes:
        amount: ``brightness``: added to all values. ``blur``: standard deviation of a Gaussian as a share of the
            shorter side. ``noise``: standard deviation of Gaussian noise, the same for all images. ``jpeg``: quality
            from 1 to 95. ``shift``: to the right and down as a share of the shorter side; the border is repeated.
    """

    kind: PerturbationKind
    amount: float

    def pixels(self, height: int, width: int) -> float | None:
        """What a blur or a shift comes to in an image of this size; None where the amount is no length."""
        length = self.amount * min(height, width)
        return {"blur": length, "shift": float(max(1, round(length)))}.get(self.kind)


@dataclass(frozen=True)
class Randomised:
    """Weights drawn anew in every layer that runs after the layer `above`; in all layers where that is None.

    Each tensor is drawn from a normal distribution with the mean and the spread of its own values, from `seed` and its
    name, so that a layer is the same in every cascade that reaches it. Statistics of normalisations stay.
    """

    above: str | None
    seed: int = 0


@dataclass(frozen=True)
class Look:
    """What each image itself looks like, 16 × 16 grey levels, and its size, found while it is decoded: it takes no
    pass.
    """


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


class Computing(Protocol):
    """The side of a technique that `After` needs; see `reportgen.techniques.technique.Technique`."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    def options(self) -> dict[str, Any]: ...

    def compute(self, probe: Any) -> dict[str, Any]: ...


@dataclass(frozen=True)
class After:
    """What another technique, with options of its own, makes of the same images: done once for all that ask for it.

    Attributes:
        technique: settled.
        needs: its own; they share the passes of whoever asks.
    """

    technique: Computing
    needs: Needs


@dataclass(frozen=True)
class Beside:
    """What another technique stored about the model, read when this one is drawn; nothing where it does not run."""

    technique: str


@dataclass(frozen=True)
class Variant:
    """The same `requests` under one change: on an altered copy of the model, or about altered images."""

    requests: Needs
    change: Randomised | Perturbed


Request = Forward | Backward | Fading | Weights | Ascent | Variant | Look | Upkeep | Record | Profile | After | Beside
Needs = tuple[Request, ...]
