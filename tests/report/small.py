"""A small document of generated pictures: every kind of section, hostile names included."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from reportgen.figures.figure import Colorbar, Figure, Panel, Picture, Row, slug
from reportgen.report.document import Document, Exhibit, Reference, Section, Style
from reportgen.text import _, verbatim

SCRIPT = '"><script>alert(1)</script>'
LONG = "n" * 250
RIGHT_TO_LEFT = "שלום \u202eabc.png"
EMOJI_AND_CHINESE = "😀 猫.jpg"
NAMES = (SCRIPT, LONG, RIGHT_TO_LEFT, EMOJI_AND_CHINESE)
AWKWARD = (
    SCRIPT,
    LONG,
    RIGHT_TO_LEFT,
    EMOJI_AND_CHINESE,
    "'single' \"double\" `back`.png",
    "<b>bold</b> &amp; &#60;i&#62;",
    "</title></style></script><!--",
    "two\nlines\r\nand\ttabs.png",
    "\x00\x07\x1b[31mred\x7f\x85",
    "not utf-8 \udcff\udcfe.png",
    "\u2066isolated\u2069 \u200fmark \ufeffbom",
    "العربية ١٢٣.png",
    "हिन्दी ไทย 한국어",
    "e\u0301a\u0308o\u0303 Z\u0351\u0334\u0349algo",
    "👩\u200d🚀🏳️\u200d🌈",
    "{{ 7 * 7 }} {% raw %} {name} %(n)s %s",
    "../../etc/passwd",
    "C:\\temp\\new.png",
    " spaces  both ends ",
    "\uffff\ufffe\U0010ffff𝔘𝔫𝔦",
)
"""Names of images and of classes that nobody would choose but an adversary, or the world."""

LAYERS = ("layer1", "layer1", "layer2", "layer2")
TECHNIQUES = ("predictions", "feature_maps", "filters", "class_activation")


def picture(seed: int, *, pixelated: bool = False) -> Picture:
    """8 × 8 random pixels; equal seeds give equal pictures."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Picture(file.getvalue(), "image/png", 8, 8, pixelated)


def even(*colour: int) -> Picture:
    """8 × 8 pixels of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), tuple(colour)).save(file, "PNG")
    return Picture(file.getvalue(), "image/png", 8, 8)


def figure(
    technique: str,
    number: int,
    *,
    exhibit: str | None = None,
    layer: str | None = None,
    columns: tuple[str, str, str, str] = ("", "", "", ""),
) -> Figure:
    """Two rows of four columns, one place of them empty; the first picture is laid over another where the `columns`
    are of different layers.
    """
    panels = [
        Panel(
            picture(100 * number + place),
            verbatim(str(place)),
            _("tile {n}", n=place),
            f"tile-{place}",
            columns[place % 4],
        )
        for place in range(7)
    ]
    if any(columns):
        panels[0] = replace(panels[0], picture=replace(even(200, 40, 40), over=even(120, 120, 120)))
    rows = (Row(tuple(panels[:4]), verbatim("above")), Row((*panels[4:], None), verbatim("below")))
    return Figure(
        id=f"{technique}-{number}-{slug(exhibit)}" if exhibit else f"{technique}-{number}",
        technique=technique,
        rows=rows,
        caption=_("Tiles of {layer}, for {exhibit}.", layer=layer or "no layer", exhibit=exhibit or "all images"),
        columns=4,
        headings=tuple(verbatim(f"column {n}") for n in range(4)),
        exhibit=exhibit,
        layer=layer,
        colorbar=Colorbar("inferno", verbatim("0"), verbatim("largest")),
    )


def prediction(name: str, *, wrong: bool, label: str = SCRIPT) -> dict[str, Any]:
    """An entry of ``predictions``."""
    top = [
        {"index": 3, "label": label, "probability": 0.75, "logit": 2.0},
        {"index": 1, "label": "tabby", "probability": 0.25, "logit": 0.9},
    ]
    truth = {"index": 1, "label": "tabby"} if wrong else {"index": 3, "label": label}
    digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()
    return {"image": name, "sha256": digest, "top": top, "entropy": 0.5, "truth": truth}


def document(names: tuple[str, ...] = NAMES, **style: Any) -> Document:
    """One document with an exhibit for each of `names`; `style` overrides the fields of its `Style`."""
    sections = _sections(names)
    findings = (
        _finding("warning", "Preprocessing was assumed", f"Assumed for {SCRIPT}: mean.", "filters-20", "not-drawn"),
        _finding("info", "Something small", "Nothing to do."),
    )
    labels = (SCRIPT,) * len(names) if names == NAMES else names
    predictions = [
        prediction(name, wrong=number == 1, label=label)
        for number, (name, label) in enumerate(zip(names, labels, strict=True))
    ]
    facts: dict[str, Any] = {
        "schema": 1,
        "generator": {
            "name": "reportgen",
            "version": "0.0",
            "job": {"preset": "quick", "layers": ["a", "b"], "title": SCRIPT},
            "seed": 0,
            "preset": "quick",
        },
        "model": _model(),
        "images": {
            "count": 5,
            "used": 4,
            "left_out": 0,
            "digest": "b" * 64,
            "exhibits": [{"image": name, "why": "drawn"} for name in names],
            "sample": [],
            "labelled": 4,
            "skipped": [{"file": f"skipped {SCRIPT}", "reason": "not an image file"}],
        },
        "predictions": predictions,
        "metrics": _metrics(labels),
        "techniques": {section.name: dict(section.facts) for section in sections},
        "findings": list(findings),
        "environment": {"python": "3.11", "device": "cpu", "precision": "fp32", "batch": 4},
    }
    own = [one for section in sections for one in section.figures]
    exhibits = tuple(
        Exhibit(
            name=name,
            why=_("drawn at random"),
            picture=picture(number),
            original=picture(50 + number),
            prediction=predictions[number],
            figures=tuple(one for one in own if one.exhibit == name),
        )
        for number, name in enumerate(names)
    )
    return Document(
        facts=facts,
        verdict=_("3 of 4 labelled images are named correctly; {name}.", name=SCRIPT),
        findings=findings,
        sections=sections,
        exhibits=exhibits,
        style=Style(**{"title": f"Title {SCRIPT}", "author": f"Author {SCRIPT}", "date": "2023-11-14", **style}),
        command="reportgen model.pt images -o report.html",
    )


def _metrics(labels: tuple[str, ...]) -> dict[str, Any]:
    some = {"value": 0.75, "n": 4, "interval": [0.3, 0.954]}
    return {
        "accuracy": some,
        "balanced_accuracy": some,
        "auroc": some,
        "ece": some,
        "top5": some,
        "per_class": [
            {"index": 3, "label": labels[0], "recall": some, "precision": some},
            {"index": 4, "label": labels[-1], "recall": some},
            {"index": 5, "label": "never seen", "precision": some},
        ],
        "per_slice": [{"slice": name, "accuracy": some} for name in labels],
    }


def _sections(names: tuple[str, ...]) -> tuple[Section, ...]:
    mapped = Reference("zeiler2014", "M. Zeiler", "Visualizing", "ECCV", 2014, "10.1007/x")
    drawn = Reference("krizhevsky2012", "A. Krizhevsky", "ImageNet", "NeurIPS", 2012)
    cited = tuple(
        Reference(key, "A. Author", key, "Journal", 2016)
        for key in ("zhou2016", "selvaraju2017", "chattopadhay2018", "jiang2021", "draelos2020", "fu2020", "abnar2020")
    )
    statistics = tuple(
        Reference(key, "A. Author", key, "Journal", 1988) for key in ("wilson1927", "delong1988", "guo2017")
    )
    layers = {"layer1": {"shape": [8, 4, 4], "shown": 7, "minimum": 0.0, "maximum": 2.5, "zero_maps": 1}}
    maps = tuple(figure("feature_maps", n, exhibit=name, layer="layer1") for n, name in enumerate(names, 1))
    activation = tuple(figure("class_activation", n, exhibit=name, columns=LAYERS) for n, name in enumerate(names, 101))
    norm = {"smallest": 0.1, "median": 0.5, "largest": 1.0}
    kernels = {"conv1": {"shape": [64, 3, 7, 7], "norm": norm, "near_zero": [], "near_identical": 0}}
    return (
        _section("predictions", "Predictions", (), statistics, _predicted(names)),
        _section("feature_maps", "Feature maps", maps, (mapped,), {"layers": layers}),
        _section("filters", "Filters", (figure("filters", 20, layer="conv1"),), (drawn, mapped), {"layers": kernels}),
        _section(
            "class_activation",
            "Class activation",
            activation,
            cited,
            {
                "identity": {"layer": "layer4", "n": 4, "largest_difference": 1e-7, "scale": 0.5},
                "cam_omitted": False,
                "rollout": {"blocks": 12, "tokens": 198, "prefix": 2, "read": 2},
                "rollout_omitted": None,
            },
        ),
    )


def _predicted(names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "images": 4,
        "groups": 3,
        "confused": [{"true": name, "predicted": name, "n": 1, "share": 0.5} for name in names],
        "calibration": {"bins": 15, "by_chance": 0.1, "filled": []},
        "renaming": None,
        "channels": None,
    }


def _section(
    name: str, title: str, figures: tuple[Figure, ...], references: tuple[Reference, ...], results: dict[str, Any]
) -> Section:
    facts = {
        "status": "complete",
        "options": {"layers": ["layer1", SCRIPT], "channels": "even:8"},
        "results": results,
        "figures": [one.id for one in figures],
    }
    return Section(name, verbatim(title), f"techniques/{name}.html.j2", facts, figures, references)


def _finding(severity: str, title: str, detail: str, *figures: str) -> dict[str, Any]:
    return {
        "rule": "some.rule",
        "about": "model",
        "severity": severity,
        "subject": "x",
        "value": 1,
        "threshold": None,
        "n": None,
        "title": title,
        "detail": detail,
        "figures": list(figures),
    }


def _model() -> dict[str, Any]:
    return {
        "file": f"{SCRIPT}.pt",
        "sha256": "a" * 64,
        "size": 1_000_000,
        "format": "state-dict",
        "container": "zip",
        "safe": True,
        "architecture": "torchvision:resnet18",
        "how": "recognised",
        "candidates": ["torchvision:resnet34"],
        "assumed": True,
        "weights": "raw",
        "prefix": "",
        "head": "",
        "stray": [],
        "parameters": 11_689_512,
        "input": {
            "size": [224, 224],
            "channels": 3,
            "resize": "crop",
            "resize_to": 256,
            "interpolation": "bicubic",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "bgr": False,
            "transform": None,
            "assumed": ["mean", "std"],
            "head_published": False,
        },
        "output_kind": "logits",
        "classes": 5,
        "classes_named": True,
        "labels_from": None,
        "layers": [{"name": "layer1", "type": "Sequential", "shape": [8, 4, 4], "parameters": 10}],
        "default_layers": ["layer1"],
    }
