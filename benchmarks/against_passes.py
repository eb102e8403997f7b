"""What we add to the bare passes: our time divided by that of the forwards and backwards that the mathematics needs.

    python benchmarks/against_passes.py
    python benchmarks/against_passes.py --network resnet18 --runs 5

The bare passes run on the same network with its batch normalisations folded beforehand, with nothing around them: no
tap, no rule, no formula, no result copied, nothing stored. Ours is the whole unit of work: passes, rules, formulas, and
results written to a store on disk; where the table says so, the whole audit: looking for layers, decoding, the scan,
and the unit of work.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import subjects
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import reportgen
from reportgen.engine.ascent import Ascents
from reportgen.engine.folding import Folding
from reportgen.engine.local import Sight, Worker
from reportgen.engine.passes import Passes
from reportgen.engine.plan import plan_examination, settle
from reportgen.engine.requests import INPUT, Ascent
from reportgen.engine.resolve import resolve
from reportgen.engine.trace import Counts
from reportgen.store import Store
from reportgen.subject.preprocessing import Pipeline
from reportgen.techniques.class_activation import ClassActivation
from reportgen.techniques.deconvnet import Deconvnet
from reportgen.techniques.gradient import Gradient
from reportgen.techniques.guided_backprop import GuidedBackprop
from reportgen.techniques.technique import Case, Technique

METHODS = ("grad_cam", "grad_cam_pp", "layer_cam")
LAYERS = ("last:4",)
STEPS = 4
CHANNELS = 8


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet50", help="a torchvision classifier (%(default)s)")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3, help="the shortest counts (%(default)s)")
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        files = subjects.photographs(Path(folder) / "images", flags.images)
        bench = Bench(subjects.network(flags.network).requires_grad_(False), files, Path(folder), flags.runs)
        print(f"{flags.network}, {flags.images} images of {subjects.SIZE} pixels, {subjects.machine()}\n")
        print("| work | passes | bare, s | ours, s | ours ÷ bare |\n|---|---|---|---|---|")
        bench.maps()
        bench.units()
        bench.ascents()
    return 0


class Bench:
    """One network, its folded twin, and the images."""

    def __init__(self, model: nn.Module, files: list[Path], folder: Path, runs: int) -> None:
        self.model, self.files, self.folder, self.runs = model, files, folder, runs
        self.x = subjects.inputs(files)
        side = (subjects.SIZE, subjects.SIZE)
        pipeline = Pipeline(side, 3, "none", None, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        self.resolution = resolve(
            model,
            facts={},
            pipeline=asdict(pipeline),
            labels=(),
            output_kind="logits",
            device="cpu",
            batch_size=None,
            counts=Counts(),
        )
        self.batch = int(self.resolution.numerics["batch"])
        self.bare = folded(model, self.x[:1])
        self.cases = tuple(Case(file.name, f"{place:064x}", (1,), ("1",), place) for place, file in enumerate(files))

    def row(self, work: str, passes: str, bare: float, ours: float) -> None:
        print(f"| {work} | {passes} | {bare:.3f} | {ours:.3f} | {ours / bare:.2f} |", flush=True)

    def worker(self, store: Store) -> Worker:
        device = torch.device("cpu")
        folding = Folding(self.model, self.resolution.folds)
        passes = Passes(self.model, self.resolution, device, Counts(), folding=folding)
        look = np.zeros((16, 16), np.uint8)
        return Worker(passes, store, lambda digest: Sight(self.x[int(digest, 16)].numpy(), look), self.batch, 2, {})

    def examined(self, *techniques: Technique) -> Callable[[], None]:
        """All units of work of some techniques on all images, written to an empty store."""
        planned = settle(techniques, self.resolution, {})

        def run() -> None:
            with tempfile.TemporaryDirectory(dir=self.folder) as cache:
                store = Store(Path(cache))
                worker = self.worker(store)
                examination = plan_examination(planned, self.cases, store, self.batch)
                for batch in examination.batches:
                    inputs = {case.digest: worker.prepare(case.digest).values for case in batch.cases}
                    failed = worker.examine(batch, inputs)
                    assert not failed, failed
                for closeup in examination.closeups:
                    failed = worker.close_up(closeup, worker.prepare(closeup.case.digest).values)
                    assert not failed, failed

        return run

    def maps(self) -> None:
        """Class maps: three rules at the input, three formulas at four layers."""
        cam = ClassActivation(methods=METHODS, layers=LAYERS)
        rules = (Gradient(), GuidedBackprop(exhibits=0), Deconvnet(exhibits=0))

        def bare(backwards: int) -> Callable[[], None]:
            def run() -> None:
                for part in self.x.split(self.batch):
                    x = part.clone().requires_grad_(True)
                    score = self.bare(x)[:, 1].sum()
                    for left in reversed(range(backwards)):
                        torch.autograd.grad(score, x, retain_graph=left > 0)

            return run

        timed = {count: subjects.seconds(bare(count), self.runs, warm=True) for count in (1, 3)}
        ours = subjects.seconds(self.examined(cam, *rules), self.runs, warm=True)
        self.row("gradient, guided, deconvnet, 3 CAMs at 4 layers", "1 forward, 3 backwards", timed[3], ours)
        only = subjects.seconds(self.examined(cam), self.runs, warm=True)
        self.row("3 CAMs at 4 layers", "1 forward, 1 backward", timed[1], only)
        names = ("class_activation", "gradient", "guided_backprop", "deconvnet")
        options = {
            "class_activation": {"methods": METHODS, "layers": LAYERS},
            **{name: {"exhibits": 0} for name in names[2:]},
        }

        def audit() -> None:
            folder = self.folder / "images"
            exhibits = tuple(file.name for file in self.files)
            reportgen.audit(self.model, folder, only=names, techniques=options, exhibit=exhibits, no_cache=True)

        self.row("the same as a whole audit", "1 forward, 3 backwards", timed[3], subjects.seconds(audit, self.runs))

    def units(self) -> None:
        """Four units of each of four layers by two rules, one image."""
        channels = {layer: self.resolution.layer(layer).shape[0] for layer in self.resolution.select(LAYERS)}
        image = self.x[:1]

        def bare() -> None:
            for layer, count in channels.items():
                x = image.clone().requires_grad_(True)
                maps = output_of(self.bare, layer, x)
                for number in range(4):
                    for rule in range(2):
                        seed = maps[0, number * count // 4].max()
                        torch.autograd.grad(seed, x, retain_graph=number < 3 or rule < 1)

        few = {"layers": LAYERS, "channels": "even:4", "units": 4, "exhibits": 1}
        rules = (GuidedBackprop(**few), Deconvnet(**few))
        self.cases = self.cases[:1]
        with_classes = subjects.seconds(self.examined(*rules), self.runs, warm=True)
        without = subjects.seconds(self.examined(*(type(one)(exhibits=0) for one in rules)), self.runs, warm=True)
        self.row(
            "guided and deconvnet of 4 units at 4 layers, one image",
            "a forward to each layer, 32 backwards",
            subjects.seconds(bare, self.runs, warm=True),
            with_classes - without,
        )

    def ascents(self) -> None:
        """Steps of a batch of channels, pictures moved as robust ascent moves them."""
        side = 160
        grey = torch.rand(CHANNELS, 3, side, side).contiguous(memory_format=torch.channels_last)
        for name in self.resolution.select(("spread:2",)):
            layer = self.resolution.convolution(name) or name
            own = torch.arange(CHANNELS)

            def bare(layer: str = layer, own: Tensor = own) -> None:
                for _step in range(STEPS):
                    x = grey.clone().requires_grad_(True)
                    means = output_of(self.bare, layer, x).mean(dim=(2, 3))
                    torch.autograd.grad(means[own, own].sum(), x)

            def ours(steps: int, layer: str = layer) -> Callable[[], object]:
                request = Ascent(layer, tuple(range(CHANNELS)), "robust", steps, side, 0)
                basis = {"model": {}, "pipeline": {}, "numerics": {}}
                worker = self.worker(Store(None))
                return lambda: Ascents(worker.passes, Store(None), self.batch, basis, {}).run(request)

            few, more = (subjects.seconds(ours(steps), self.runs, warm=True) for steps in (STEPS, 2 * STEPS))
            self.row(
                f"{STEPS} steps of {CHANNELS} channels of {layer}",
                f"{STEPS} forwards to the layer, {STEPS} backwards",
                subjects.seconds(bare, self.runs, warm=True),
                more - few,
            )


def folded(model: nn.Module, x: Tensor) -> nn.Module:
    """The same function with batch normalisations folded beforehand, by torch, in channels-last layout."""
    twin = copy.deepcopy(model)
    for parent in list(twin.modules()):
        before: tuple[str, nn.Module] | None = None
        for name, part in list(parent.named_children()):
            if before is not None and isinstance(part, nn.BatchNorm2d) and isinstance(before[1], nn.Conv2d):
                setattr(parent, before[0], fuse_conv_bn_eval(before[1], part))
                setattr(parent, name, nn.Identity())
            before = name, part
    with torch.no_grad():
        difference = float((twin(x) - model(x)).abs().max() / model(x).abs().max())
    if difference > 1e-4:
        raise SystemExit("this network's normalisations do not stand behind their convolutions: choose another")
    return twin.to(memory_format=torch.channels_last).requires_grad_(False)


class _Reached(Exception):
    pass


def output_of(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    """What a layer of the folded network returns; the forward stops there."""
    found: dict[str, Tensor] = {}

    def stop(_module: Any, _args: Any, output: Tensor) -> None:
        found[INPUT] = output
        raise _Reached

    handle = model.get_submodule(layer).register_forward_hook(stop)
    try:
        model(x)
    except _Reached:
        pass
    finally:
        handle.remove()
    return found[INPUT]


if __name__ == "__main__":
    raise SystemExit(main())
