"""The same work by the peers' calls and by us, in turn: Captum, grad-cam, Lucent, torchinfo, matplotlib, WeasyPrint.

    python benchmarks/against_peers.py
    python benchmarks/against_peers.py --channels 2 --steps 16        # a quick look
    python benchmarks/against_peers.py --frozen                       # the peers, too, compute no gradient of a weight

The network is random with real statistics, images are generated. Peers are called as their documentation shows: on the
network as it is loaded and, where they take one, with a batch of images. Ours are whole audits without a cache
(opening, looking for layers, decoding, the scan, the maps, results written to disk), so that our own cost is in every
figure, except for steps of an ascent, where both sides are timed without what stands around them.
"""

from __future__ import annotations

import argparse
import html
import io
import tempfile
import warnings
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import subjects
import torch
from torch import Tensor, nn

import reportgen

LAYERS = ("layer1", "layer2", "layer3", "layer4")
EARLY, LATE = "layer1.2.conv3", "layer4.2.conv3"
METHODS = ("grad_cam", "grad_cam_pp", "layer_cam")
UNITS = 4
UNIT_IMAGES = 2
SIZE = 160
"""Side of the optimised pictures."""
BATCH = 4


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--channels", type=int, default=8, help="that are optimised at the last layer (%(default)s)")
    parser.add_argument("--steps", type=int, default=64, help="of the ascent (%(default)s)")
    parser.add_argument("--frozen", action="store_true", help="parameters that need no gradient, for the peers too")
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        print(f"resnet50, {flags.images} images of {subjects.SIZE} pixels, {subjects.machine()}\n")
        print("| work | peers, s | ours, s | peers ÷ ours |\n|---|---|---|---|")
        Bench(Path(folder), flags.images, flags.channels, flags.steps, frozen=flags.frozen).run()
    return 0


class Bench:
    """One network, its images, both sides."""

    def __init__(self, folder: Path, images: int, channels: int, steps: int, *, frozen: bool) -> None:
        self.folder, self.steps = folder, steps
        self.precision = "fp32"
        self.model: nn.Module = subjects.network("resnet50").requires_grad_(not frozen)
        self.frozen = frozen
        self.files = subjects.photographs(folder / "images", images)
        self.x: Tensor = subjects.inputs(self.files)
        self.channels = tuple(place * 2048 // channels for place in range(channels))
        self.pictures: dict[str, Any] = {}

    def run(self) -> None:
        """All rows. Of the totals, the peers' are sums, ours are audits that do everything in one go: with as many
        steps of the ascent, and with as many as reach the objective that Lucent reaches.
        """
        climbing = f"ascent: {len(self.channels)} channels of {LATE}, {self.steps} steps, {SIZE} pixels"
        rows: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
            ("class maps: 3 rules, 3 CAMs at 4 layers", self.peer_maps, self.our_maps),
            (f"units: 2 rules, {UNITS} units at 4 layers, {UNIT_IMAGES} images", self.peer_units, self.our_units),
            (climbing, self.peer_ascent, self.our_ascent),
            ("layer table", self.peer_table, self.our_table),
        ]
        spent: dict[str, float] = {}
        for work, theirs, ours in rows:
            first, second = subjects.seconds(theirs), subjects.seconds(ours)
            row(work, first, second)
            spent[work] = first
            # what the peers' calls do, too: maps of images that are open, by a model that is known
            if ours == self.our_maps:
                row("… without opening, looking at layers, scan and figures", first, self.examining)
            if ours == self.our_units:
                both = self.examining
                self.audit(self.files[:UNIT_IMAGES], **without_units())
                row("… without these, and without maps of the class", first, both - self.examining)
        peers = sum(spent.values()) + subjects.seconds(self.peer_document)
        for layer in (EARLY, LATE):
            self.step_by_step(layer)
        enough = self.until_lucent(spent[climbing])
        for steps, precision in ((self.steps, "fp32"), (self.steps, "bf16"), (enough, "fp32")):
            self.steps, self.precision = steps, precision
            words = f"everything in total, with figures and a PDF; {steps} steps of our ascent, {precision}"
            row(words, peers, subjects.seconds(self.our_document))

    # class maps
    # -----------------------------------------------------------------------------------------------------------

    def peer_maps(self) -> None:
        from captum.attr import Deconvolution, GuidedBackprop, Saliency
        from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, LayerCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        with torch.no_grad():
            classes = self.model(self.x).argmax(1)
        found = []
        for part, chosen in zip(self.x.split(BATCH), classes.split(BATCH), strict=True):
            for method in (Saliency, GuidedBackprop, Deconvolution):
                x = part.clone().requires_grad_(True)
                found.append(method(self.model).attribute(x, target=chosen).detach())
            targets = [ClassifierOutputTarget(int(index)) for index in chosen]
            for method in (GradCAM, GradCAMPlusPlus, LayerCAM):
                for layer in LAYERS:
                    with method(model=self.model, target_layers=[self.model.get_submodule(layer)]) as cam:
                        self.pictures[f"{method.__name__} {layer}"] = cam(
                            part.clone().requires_grad_(self.frozen), targets=targets
                        )
        self.pictures["rules"] = found

    def our_maps(self) -> None:
        self.audit(**self.maps(), **without_units())

    def maps(self) -> dict[str, Any]:
        return {"class_activation": {"methods": METHODS, "layers": LAYERS}, "gradient": {}}

    # units
    # -----------------------------------------------------------------------------------------------------------

    def peer_units(self) -> None:
        from captum.attr import NeuronDeconvolution, NeuronGuidedBackprop

        found = []
        for image in self.x[:UNIT_IMAGES].split(1):
            for layer in LAYERS:
                part = self.model.get_submodule(layer)
                maps = output_of(self.model, part, image)[0]
                for channel in range(0, len(maps), len(maps) // UNITS):
                    place = divmod(int(maps[channel].argmax()), maps.shape[2])
                    for method in (NeuronGuidedBackprop, NeuronDeconvolution):
                        x = image.clone().requires_grad_(True)
                        found.append(method(self.model, part).attribute(x, (channel, *place)).detach())
        self.pictures["units"] = found

    def our_units(self) -> None:
        self.audit(self.files[:UNIT_IMAGES], **units())

    # ascent
    # -----------------------------------------------------------------------------------------------------------

    def peer_ascent(self) -> None:
        self.pictures["ascent"] = [lucent(self.model, LATE, channel, self.steps) for channel in self.channels]

    def our_ascent(self) -> None:
        self.audit(**self.ascent())

    def ascent(self) -> dict[str, Any]:
        return {
            "max_activation": {
                "layers": (LATE,),
                "channels": ",".join(map(str, self.channels)),
                "methods": ("robust",),
                "steps": self.steps,
                "size": SIZE,
            }
        }

    def step_by_step(self, layer: str) -> None:
        """Seconds for one step of one channel: the difference of two runs, so that nothing else is in it."""
        few = max(self.steps // 8, 2)
        many = 3 * few
        channels = self.channels if layer == LATE else tuple(range(len(self.channels)))
        theirs = [subjects.seconds(lambda n=n: lucent(self.model, layer, channels[0], n)) for n in (few, many)]
        ours = [subjects.seconds(self.climbing(layer, channels, n)) for n in (few, many)]
        row(
            f"one step of one channel of {layer}, {len(channels)} together",
            (theirs[1] - theirs[0]) / (many - few),
            (ours[1] - ours[0]) / (many - few) / len(channels),
        )

    def climbing(self, layer: str, channels: tuple[int, ...], steps: int) -> Callable[[], Tensor]:
        """Our ascent alone; returns the pictures."""
        from dataclasses import asdict

        from reportgen.engine.ascent import Ascents
        from reportgen.engine.folding import Folding
        from reportgen.engine.passes import Passes
        from reportgen.engine.requests import Ascent
        from reportgen.engine.resolve import resolve
        from reportgen.engine.trace import Counts
        from reportgen.store import Store
        from reportgen.subject.preprocessing import Pipeline

        side = (subjects.SIZE, subjects.SIZE)
        pipeline = Pipeline(side, 3, "none", None, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        resolution = resolve(
            self.model,
            facts={},
            pipeline=asdict(pipeline),
            labels=(),
            output_kind="logits",
            device="cpu",
            batch_size=BATCH,
            counts=Counts(),
        )
        folding = Folding(self.model, resolution.folds)
        passes = Passes(self.model, resolution, torch.device("cpu"), Counts(), folding=folding)
        ascents = Ascents(passes, Store(None), BATCH, {"model": {}, "pipeline": {}, "numerics": {}}, {})
        return lambda: ascents.run(Ascent(layer, channels, "robust", steps, SIZE, 0)).images

    def until_lucent(self, theirs: float) -> int:
        """Seconds until the mean objective is that which Lucent ends with, for which it took `theirs`; of both,
        untouched pictures are measured. Returns the number of steps.
        """
        goal = float(self.objective(torch.cat(self.pictures["ascent"]), self.channels).mean())
        steps = 4
        while True:
            climb = self.climbing(LATE, self.channels, steps)
            found: list[Tensor] = []
            ours = subjects.seconds(lambda climb=climb, found=found: found.append(climb()))
            reached = float(self.objective(found[0], self.channels).mean())
            if reached >= goal or steps > 4 * self.steps:
                break
            steps += 4
        words = f"{reached:.3g} in {steps} steps" if reached >= goal else f"{reached:.3g}, never reached"
        row(f"until Lucent's objective of {self.steps} steps, {goal:.3g} ({words})", theirs, ours)
        return steps

    def objective(self, pictures: Tensor, channels: tuple[int, ...]) -> Tensor:
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = (pictures - mean[:, None, None]) / std[:, None, None]
        maps = output_of(self.model, self.model.get_submodule(LATE), x)
        return maps.mean(dim=(2, 3))[torch.arange(len(channels)), torch.tensor(channels)]

    # the layer table, figures and the document
    # -----------------------------------------------------------------------------------------------------------

    def peer_table(self) -> None:
        from torchinfo import summary

        self.pictures["table"] = str(summary(self.model, input_data=self.x[:1], depth=4, verbose=0))

    def our_table(self) -> None:
        self.audit(architecture={})

    def peer_document(self) -> None:
        """A picture for each image with its maps, for units and for optimised inputs, set by WeasyPrint."""
        import matplotlib

        matplotlib.use("Agg")
        import weasyprint

        figures = []
        cams = {name: maps for name, maps in self.pictures.items() if " layer" in name}
        for place, file in enumerate(self.files):
            rows = [self.shown(self.pictures["rules"][place // BATCH * 3 + rule][place % BATCH]) for rule in range(3)]
            figures.append(drawn({f"{file.name} {rule}": picture for rule, picture in enumerate(rows)}))
            figures.append(drawn({name: maps[place % len(maps)] for name, maps in cams.items()}, 4))
        shown = [self.shown(one[0]) for one in self.pictures["units"]]
        figures.append(drawn({str(place): picture for place, picture in enumerate(shown)}, 8))
        ascents = [one[0].permute(1, 2, 0).numpy() for one in self.pictures["ascent"]]
        figures.append(drawn({str(place): picture for place, picture in enumerate(ascents)}, 4))
        images = "".join(f'<img src="data:image/png;base64,{b64encode(one).decode()}" width=600>' for one in figures)
        page = f"<h1>Report</h1>{images}<pre>{html.escape(self.pictures['table'])}</pre>"
        weasyprint.HTML(string=page).write_pdf(self.folder / "peers.pdf")

    def shown(self, values: Tensor) -> np.ndarray:
        scaled = values / values.abs().max().clamp_min(1e-12) / 2 + 0.5
        return scaled.permute(1, 2, 0).numpy()

    def our_document(self) -> None:
        techniques = {**self.maps(), **units(), **self.ascent(), "architecture": {}}
        self.audit(**techniques).write(self.folder / "ours.pdf")

    def audit(self, files: Sequence[Path] = (), **techniques: Mapping[str, Any]) -> reportgen.Report:
        """An audit of all images, or of some."""
        files = files or self.files
        self.report = reportgen.audit(
            self.model,
            list(files),
            only=tuple(techniques),
            techniques={name: options for name, options in techniques.items() if options},
            exhibit=tuple(file.name for file in files),
            no_cache=True,
            precision=self.precision,
        )
        return self.report

    @property
    def examining(self) -> float:
        """Seconds that the last audit spent on results about the exhibits."""
        return float(self.report.facts["timings"]["examine"])


def row(work: str, theirs: float, ours: float) -> None:
    print(f"| {work} | {theirs:.3g} | {ours:.3g} | {theirs / ours:.1f} |", flush=True)


def without_units() -> dict[str, Any]:
    return {name: {"exhibits": 0} for name in ("guided_backprop", "deconvnet")}


def units() -> dict[str, Any]:
    few = {"layers": LAYERS, "channels": f"even:{UNITS}", "units": UNITS, "exhibits": UNIT_IMAGES}
    return {"guided_backprop": few, "deconvnet": few}


def lucent(model: nn.Module, layer: str, channel: int, steps: int) -> Tensor:
    """(1, 3, SIZE, SIZE) by Lucent's defaults."""
    from lucent.optvis import objectives, param, render

    torch.manual_seed(channel)
    np.random.seed(channel)
    (picture,) = render.render_vis(
        model,
        objectives.channel(layer.replace(".", "_"), channel),
        param_f=lambda: param.image(SIZE),
        thresholds=(steps,),
        progress=False,
        show_image=False,
    )
    return torch.from_numpy(picture).permute(0, 3, 1, 2)


def output_of(model: nn.Module, part: nn.Module, x: Tensor) -> Tensor:
    """What a part of the network returns for an input."""
    found: list[Tensor] = []
    handle = part.register_forward_hook(lambda _module, _args, output: found.append(output.detach().clone()))
    with torch.no_grad():
        model(x)
    handle.remove()
    return found[0]


def drawn(pictures: Mapping[str, np.ndarray], columns: int = 3) -> bytes:
    """A PNG with one panel a picture."""
    from matplotlib import pyplot

    rows = -(-len(pictures) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(2 * columns, 2 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, picture) in zip(axes.flat, pictures.items(), strict=False):
        axis.imshow(picture.clip(0, 1))
        axis.set_title(name, fontsize=6)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=150)
    pyplot.close(figure)
    return stream.getvalue()


if __name__ == "__main__":
    raise SystemExit(main())
