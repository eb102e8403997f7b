"""Ascents on small networks: by hand, bit by bit, interrupted, and where nothing leads upwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reportgen.engine.ascent import Ascents, _generator, group_size, scaled
from reportgen.engine.parametrisation import affine, drawn_moves, moved
from reportgen.engine.passes import Passes, prepared
from reportgen.engine.requests import Ascent
from reportgen.engine.resolve import resolve
from reportgen.engine.trace import Counts
from reportgen.errors import OutOfMemory, PassError
from reportgen.store import Store
from tests.networks import enlivened

CPU = torch.device("cpu")
BASIS = {"model": {}, "pipeline": {}, "numerics": {}}


class Small(nn.Module):
    """Two convolutions and a head; counts the calls of its parts."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.two = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.fc = nn.Linear(8, 5)
        self.calls: list[tuple[int, ...]] = []
        self.ended = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(tuple(x.shape))
        x = self.two(self.norm(self.one(x)).relu_()).relu_()
        x = self.fc(x.mean(dim=(2, 3)))
        self.ended += 1
        return x


def small(channels: int = 3) -> Small:
    torch.manual_seed(3)
    model = Small(channels)
    if channels == 3:
        enlivened(model, size=24)
    model.eval().calls.clear()
    model.ended = 0
    return model


def ascents(
    model: nn.Module,
    *,
    size: tuple[int, int] = (24, 24),
    channels: int = 3,
    batch: int = 4,
    store: Store | None = None,
    tick: Callable[[int], object] = lambda _n: None,
    **pipeline: Any,
) -> Ascents:
    declared = {
        "size": size,
        "channels": channels,
        "mean": (0.4, 0.5, 0.6, 0.5, 0.5)[:channels],
        "std": (0.2, 0.25, 0.3, 0.2, 0.2)[:channels],
        "bgr": False,
        **pipeline,
    }
    counts = Counts()
    resolution = resolve(
        model,
        facts={},
        pipeline=declared,
        labels=(),
        output_kind="logits",
        device="cpu",
        batch_size=batch,
        counts=counts,
    )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return Ascents(Passes(model, resolution, CPU, counts), store or Store(None), batch, BASIS, {}, tick)


def responses(model: Small, picture: Tensor, channel: int) -> Tensor:
    """The objective for one picture in [0, 1], without the engine."""
    mean, std = torch.tensor((0.4, 0.5, 0.6))[:, None, None], torch.tensor((0.2, 0.25, 0.3))[:, None, None]
    x = model.norm(model.one(((picture - mean) / std)[None])).relu()
    return model.two(x)[0, channel].mean()


def test_plain_by_hand() -> None:
    model = small()
    request = Ascent("two", (5,), "plain", 6, 24)
    found = ascents(model).run(request)
    picture = (0.5 + 0.05 * torch.randn(3, 24, 24, generator=_generator(request, 5, "start"))).clamp(0, 1)
    history = []
    for _step in range(6):
        picture = picture.detach().requires_grad_(True)
        objective = responses(model, picture, 5)
        objective.backward()
        assert picture.grad is not None
        history.append(objective.item())
        length = picture.grad.norm() / picture.numel() ** 0.5
        picture = (picture.detach() + 0.02 * picture.grad / length).clamp(0, 1)
    assert torch.allclose(found.images[0], picture, atol=1e-4)
    assert found.objective[0].tolist() == pytest.approx(history, abs=1e-4)
    assert float(found.start[0]) == pytest.approx(history[0], abs=1e-5)
    assert float(found.final[0]) == pytest.approx(responses(model, picture, 5).item(), abs=1e-3)
    assert float(found.final[0]) == pytest.approx(float(found.responses[0, 5]), abs=1e-6)


def test_robust_looks_at_moved_pictures_each_by_its_own_draw() -> None:
    model = small()
    request = Ascent("two", (5, 2), "robust", 3, 24)
    seen: list[Tensor] = []
    handle = model.register_forward_pre_hook(lambda _m, args: seen.append(args[0].detach().clone()))
    runner = ascents(model, batch=2)
    seen.clear()
    found = runner.run(request)
    handle.remove()
    start, first, *_others, final = seen
    mean, std = torch.tensor((0.4, 0.5, 0.6))[:, None, None], torch.tensor((0.2, 0.25, 0.3))[:, None, None]
    for row, channel in enumerate((5, 2)):
        moves = drawn_moves(_generator(request, channel, "moves"), 3)
        expected = moved((start * std + mean)[row : row + 1], affine(moves[:1], 24, 24))
        assert torch.allclose((first * std + mean)[row], expected[0], atol=1e-5)
    assert torch.allclose(final * std + mean, found.images, atol=1e-5)  # what is measured in the end is not moved
    assert float(found.final[0]) == pytest.approx(responses(model, found.images[0], 5).item(), abs=1e-4)
    assert float(found.objective[0, -1]) != pytest.approx(float(found.final[0]), abs=1e-6)


@pytest.mark.parametrize("method", ["plain", "robust"])
def test_a_picture_does_not_depend_on_the_others(method: Any) -> None:
    model = small()
    alone = ascents(model).run(Ascent("two", (3,), method, 12, 20))
    among = ascents(model).run(Ascent("two", (0, 1, 2, 3, 4, 5, 6, 7), method, 12, 20))
    turned = ascents(model).run(Ascent("two", (7, 6, 3, 0, 1), method, 12, 20))
    again = ascents(model).run(Ascent("two", (3,), method, 12, 20))
    for name in ("images", "objective", "start", "final", "responses", "features"):
        one = getattr(alone, name)[0]
        assert torch.equal(one, getattr(among, name)[3]), name
        assert torch.equal(one, getattr(turned, name)[2]), name
        assert torch.equal(one, getattr(again, name)[0]), name
    other = ascents(model).run(Ascent("two", (3,), method, 12, 20, seed=1))
    assert not torch.equal(alone.images, other.images)
    assert bool((alone.final > alone.start).all())
    assert float(alone.images.min()) >= 0
    assert float(alone.images.max()) <= 1


def test_what_is_called_how_often() -> None:
    model = small()
    runner = ascents(model, batch=2)
    model.calls.clear()
    model.ended = 0
    before = runner.passes.counts.facts()
    ticks: list[int] = []
    counting = Ascents(runner.passes, runner.store, 2, BASIS, {}, ticks.append)
    counting.run(Ascent("one", (0, 1, 2, 3, 4, 5), "plain", 7, 16))
    # one try of the size, then for each group the start, the steps and the result; four have the pixels of two inputs
    assert model.calls == [(1, 3, 16, 16), *[(4, 3, 16, 16)] * 2 * (1 + 7 + 1)]
    assert model.ended == 0  # the deepest maps are enough, in the end too
    assert sum(ticks) == 6 * 7
    after = runner.passes.counts.facts()
    assert after["forward"]["samples"] - before["forward"]["samples"] == 1 + 6 * 9
    assert after["backward"] == {"batches": 14, "samples": 42}


@pytest.mark.parametrize(
    ("batch", "usual", "size", "expected"),
    [
        (4, (224, 224), (160, 160), 8),
        (4, (224, 224), (224, 224), 4),
        (32, (224, 224), (160, 160), 16),
        (1, (224, 224), (224, 224), 1),
        (1, (224, 224), (300, 300), 1),
        (4, (224, 224), (0, 0), 16),
    ],
)
def test_as_many_pictures_as_have_the_pixels_of_a_batch(
    batch: int, usual: tuple[int, int], size: tuple[int, int], expected: int
) -> None:
    assert group_size(batch, usual, size) == expected


def test_other_channels_reuse_what_is_stored_and_an_interruption_costs_one_group(tmp_path: Path) -> None:
    model = small()
    request = Ascent("two", (0, 1, 2, 3, 4, 5, 6, 7), "plain", 5, 24)

    def stop(_n: int) -> None:
        done.append(_n)
        if len(done) == 1 + 5 + 2:  # what is stored already, the first group, two steps of the second
            raise KeyboardInterrupt

    done: list[int] = []
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        ascents(model, store=store, tick=stop).run(request)
    resuming = ascents(model, store=Store(tmp_path))
    model.calls.clear()
    resumed = resuming.run(request)
    assert len(model.calls) == 5 + 2  # the second group alone
    assert torch.equal(resumed.images, ascents(model).run(request).images)
    model.calls.clear()
    resuming.run(Ascent("two", (6, 1), "plain", 5, 24))
    assert model.calls == []
    for changed in (
        Ascent("two", (6,), "robust", 5, 24),
        Ascent("two", (6,), "plain", 6, 24),
        Ascent("two", (6,), "plain", 5, 16),
        Ascent("two", (6,), "plain", 5, 24, seed=1),
        Ascent("one", (5,), "plain", 5, 24),
    ):
        model.calls.clear()
        resuming.run(changed)
        assert model.calls


@pytest.mark.parametrize("method", ["plain", "robust"])
def test_a_dead_channel_stays_where_it_was(method: Any) -> None:
    model = small()
    with torch.no_grad():
        model.two.weight[4] = 0
    found = ascents(model).run(Ascent("two", (3, 4), method, 5, 24))
    assert float(found.final[1]) == float(found.start[1])
    assert bool((found.final[0] > found.start[0]).all())
    assert bool(found.objective[1].eq(found.objective[1, 0]).all())


class Breaking(nn.Module):
    """Not a number once the first channel responds more than `most`."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def forward(self, x: Tensor) -> Tensor:
        broken = x[:, :1].mean(dim=(2, 3), keepdim=True) > self.most
        return x * torch.where(broken, torch.nan, 1.0)


def test_what_breaks_down_is_no_number() -> None:
    model = small()
    reached = ascents(model).run(Ascent("two", (0,), "plain", 8, 24))
    broken = small()
    broken.two = nn.Sequential(broken.two, Breaking(float(reached.start + reached.final) / 2))  # type: ignore[assignment]
    found = ascents(broken).run(Ascent("two", (0, 1), "plain", 8, 24))
    assert bool(found.final[0].isnan())
    assert bool((found.images[0] == 0.5).all())
    assert bool(found.objective[0].isnan().any())
    assert bool(found.images[1].isfinite().all())
    assert float(found.final[1]) > float(found.start[1])


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("method", ["plain", "robust"])
def test_inputs_of_other_channels_that_are_not_square(channels: int, method: Any) -> None:
    model = small(channels)
    found = ascents(model, channels=channels, size=(24, 37)).run(Ascent("two", (1, 2), method, 24, 16))
    assert found.images.shape == (2, channels, 16, 25)
    assert bool((found.final > found.start).all())
    assert scaled(24, 37, 16) == (16, 25)
    assert scaled(24, 37, 500) == (24, 37)


class OneSize(Small):
    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(tuple(x.shape))
        assert x.shape[2:] == (24, 24), "Input height doesn't match model"
        return super().forward(x)


def test_a_network_that_takes_its_own_size_only() -> None:
    torch.manual_seed(3)
    model = OneSize().eval()
    runner = ascents(model)
    model.calls.clear()
    found = runner.run(Ascent("two", (1, 2, 3, 4, 5), "plain", 2, 16))
    assert found.images.shape == (5, 3, 24, 24)
    assert [shape[2] for shape in model.calls].count(16) == 1  # tried once, before the loop
    model.two.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(PassError, match="ZeroDivisionError"):
        runner.run(Ascent("two", (6,), "plain", 2, 16))


class ChannelsLast(nn.Module):
    """Its layer gives (B, h, w, C); the same function as a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.mix = nn.Linear(8, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(self.conv(x).permute(0, 2, 3, 1))
        return self.fc(mixed.relu().mean(dim=(1, 2)))  # type: ignore[no-any-return]


def test_layers_with_channels_last() -> None:
    torch.manual_seed(0)
    model = ChannelsLast().eval()
    runner = ascents(model)
    assert runner.passes.resolution.layer("mix").layout == "channels-last"
    found = runner.run(Ascent("mix", (6,), "plain", 5, 16))
    mean, std = torch.tensor((0.4, 0.5, 0.6))[:, None, None], torch.tensor((0.2, 0.25, 0.3))[:, None, None]
    kept: list[Tensor] = []
    model.mix.register_forward_hook(lambda _m, _a, output: kept.append(output))
    model((found.images - mean) / std)
    assert kept[0][0, :, :, 6].mean().item() == pytest.approx(float(found.final[0]), abs=1e-5)


def test_blue_first() -> None:
    model = small()
    seen: list[Tensor] = []
    runner = ascents(model, bgr=True)
    model.register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone()))
    found = runner.run(Ascent("two", (0,), "plain", 2, 24))
    mean, std = torch.tensor((0.4, 0.5, 0.6))[:, None, None], torch.tensor((0.2, 0.25, 0.3))[:, None, None]
    assert torch.allclose((seen[-1][0] * std + mean).flip(0), found.images[0], atol=1e-5)


def test_whatever_the_caller_has_switched_off() -> None:
    model = small()
    request = Ascent("two", (0, 1), "robust", 3, 24)
    plainly = ascents(model).run(request).images
    for outer in (torch.no_grad, torch.inference_mode):
        runner = ascents(model)
        with outer():
            assert torch.equal(runner.run(request).images, plainly)


def test_the_module_is_left_as_it_was() -> None:
    model = small()
    runner = ascents(model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.train()
    model.norm.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with prepared(model, CPU):
        runner.run(Ascent("two", (0,), "robust", 3, 16))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert model.training
    assert not model.norm.training
    assert not any(part._forward_hooks for part in model.modules())


def test_memory_that_runs_out_and_layers_without_a_gradient() -> None:
    model = small()
    runner = ascents(model)

    def greedy(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if len(args[0]) > 1:
            raise torch.OutOfMemoryError("simulated")

    handle = model.register_forward_pre_hook(greedy)
    with pytest.raises(OutOfMemory):
        runner.run(Ascent("two", (0,), "plain", 3, 16))
    handle.remove()
    model.one.register_forward_hook(lambda _m, _a, output: output.detach())
    with pytest.raises(PassError, match="cannot be differentiated"):
        runner.run(Ascent("two", (0,), "plain", 3, 24))
