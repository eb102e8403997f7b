"""One forward for all techniques that scan: shared, repeated for none, survived by those that do not fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reportgen
from reportgen.engine.plan import bucket_of
from reportgen.engine.shards import Shards
from reportgen.errors import PassError
from reportgen.store import Store
from reportgen.techniques.channel_health import ChannelHealth
from reportgen.techniques.predictions import Predictions
from reportgen.techniques.technique import Technique
from tests import planted

SCANNING = ["predictions", "population", "channel_health", "preprocessing"]
OPTIONS: dict[str, Any] = {**planted.OPTIONS, "batch_size": 4, "exhibits": 1, "model_id": "one"}


def status(report: reportgen.Report) -> dict[str, str]:
    return {name: one["status"] for name, one in report.facts["techniques"].items()}


def test_all_share_one_forward(tmp_path: Path) -> None:
    images = planted.folder(tmp_path / "images", 10, mark=True)
    model = planted.network().eval()
    calls: list[int] = []
    model.register_forward_pre_hook(lambda _module, args: calls.append(len(args[0])))
    report = reportgen.audit(model, images, only=SCANNING, **OPTIONS)
    assert calls == [2, 4, 4, 4]
    assert set(status(report).values()) == {"complete"}
    calls.clear()
    reportgen.audit(model, images, only=SCANNING, **OPTIONS)
    assert calls == []


def test_what_is_asked_later_repeats_nothing_that_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = planted.folder(tmp_path / "images", 10, mark=True)
    model = planted.network().eval()
    first = reportgen.audit(model, images, only="predictions", **OPTIONS)

    def refuse(*_words: object) -> None:
        raise AssertionError("predicted again")

    monkeypatch.setattr(Predictions, "compute", refuse)
    second = reportgen.audit(model, images, only=SCANNING, **OPTIONS)
    assert set(status(second).values()) == {"complete"}
    assert second.facts["predictions"] == first.facts["predictions"]
    cached = {name: one["cached"] for name, one in second.facts["techniques"].items()}
    assert cached == {name: name == "predictions" for name in SCANNING}


def test_a_technique_that_fails_harms_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = planted.folder(tmp_path / "images", 10, mark=True)

    def broken(*_words: object) -> None:
        raise ValueError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(ChannelHealth, "compute", broken)
        report = reportgen.audit(planted.network().eval(), images, only=SCANNING, **OPTIONS)
    expected = dict.fromkeys(SCANNING, "complete")
    assert status(report) == expected | {"channel_health": "failed"}
    assert report.facts["techniques"]["channel_health"]["reason"] == "ValueError: planted"
    assert not report.complete
    # what failed is not stored, and tried again
    assert status(reportgen.audit(planted.network().eval(), images, only=SCANNING, **OPTIONS)) == expected
    monkeypatch.setattr(Predictions, "compute", broken)
    with pytest.raises(ValueError, match="planted"):
        reportgen.audit(planted.network().eval(), images, only=SCANNING, **OPTIONS | {"model_id": "two"})


class Shy(nn.Module):
    """A layer that dark images never reach."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.second = nn.Conv2d(4, 4, 3, 1, 1)
        self.head = nn.Linear(4, 2)
        self.broken = False

    def forward(self, x: Tensor) -> Tensor:
        if self.broken:
            raise RuntimeError("planted")
        maps = self.first(x).relu()
        if x.mean() > -1:
            maps = self.second(maps)
        return self.head(maps.mean(dim=(2, 3)))


def test_a_layer_that_is_not_reached_fails_those_that_look_at_it() -> None:
    dark = [(torch.full((3, 32, 32), -2.0) + number / 100, None, f"{number}") for number in range(3)]
    options: dict[str, Any] = {"only": ["predictions", "channel_health"], "exhibits": 1}
    model = Shy().eval()
    report = reportgen.audit(model, dark, layers="second", **options)
    assert status(report) == {"predictions": "complete", "channel_health": "failed"}
    assert "layer 'second' was not reached" in report.facts["techniques"]["channel_health"]["reason"]
    assert len(report.facts["predictions"]) == 3
    assert set(status(reportgen.audit(model, dark, layers="first", **options)).values()) == {"complete"}
    handle = model.second.register_forward_pre_hook(lambda *_words: setattr(model, "broken", True))
    with pytest.raises(PassError, match="planted"):
        reportgen.audit(model, dark, layers="first", **options)
    handle.remove()


def test_a_backward_that_fails_leaves_what_only_taps() -> None:
    """Population would need a backward here: this head is no linear layer."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16 * 16, 2)).eval()

    def cut(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0].detach(),)

    model[3].register_forward_pre_hook(cut)
    images = [(torch.rand(3, 32, 32), None, f"{number}") for number in range(3)]
    only = ["predictions", "population", "channel_health"]
    report = reportgen.audit(model, images, layers="1", techniques={"population": {"layers": "1"}}, only=only)
    assert status(report) == {"predictions": "complete", "population": "failed", "channel_health": "complete"}


def test_one_shard_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many images there are, and whatever is read: memory does not grow with them."""
    images = planted.folder(tmp_path / "images", 30, mark=True)
    held: list[int] = []
    made: list[Shards] = []
    plain = Shards.__init__, Shards._shard

    def watched(self: Shards, *words: Any, **options: Any) -> None:
        plain[0](self, *words, **options)
        made.append(self)

    def counted(self: Shards, bucket: int) -> Any:
        found = plain[1](self, bucket)
        if self.planned.name == "channel_health":
            held.append(len(self._shards))
        return found

    monkeypatch.setattr(Shards, "__init__", watched)
    monkeypatch.setattr(Shards, "_shard", counted)
    report = reportgen.audit(planted.network().eval(), images, only=SCANNING, **OPTIONS)
    buckets = {bucket_of(one["sha256"]) for one in report.facts["predictions"]}
    assert len(buckets) > 15
    assert held
    # what waits for the batch of four to be full, and the one that is looked at
    assert max(held) <= 5


def test_rows_that_vanish_are_computed_again(tmp_path: Path) -> None:
    images = planted.folder(tmp_path / "images", 6, mark=True)
    model, cache = planted.network().eval(), tmp_path / "cache"
    first = reportgen.audit(model, images, only=SCANNING, cache_dir=cache, **OPTIONS)
    store = Store(cache)
    for key in list(store.keys()):
        entry = store.get(key)
        assert entry is not None
        if entry.facts["kind"] in ("channel_health", "drawn"):
            store.path(key).unlink() if int(key[-1], 16) % 2 else store.path(key).write_bytes(b"\0" * 100)
    second = reportgen.audit(model, images, only=SCANNING, cache_dir=cache, **OPTIONS)
    for name in SCANNING:
        assert second.facts["techniques"][name]["results"] == first.facts["techniques"][name]["results"]


def test_every_technique_that_scans_can_fail_but_one() -> None:
    from reportgen.techniques import registry

    assert [name for name, one in registry().items() if one.essential] == ["predictions"]
    assert not Technique.essential
