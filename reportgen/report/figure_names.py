"""File names of figures and panels: made of their content, the same in every run, and fit for every file system."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from reportgen.figures.figure import Figure, Panel, slug

MOST: Final = 120
"""Characters of a name without its suffix: file systems allow 255 bytes, and a folder may be packed into another."""

# devices of Windows, whatever follows their name
_RESERVED: Final = frozenset(
    ("con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10)))
)


@dataclass(frozen=True)
class Named:
    """A figure with the stem of its files, and of those of its panels (None for one that is not written singly)."""

    figure: Figure
    stem: str
    panels: tuple[tuple[Panel, str], ...]


def named(figures: Sequence[Figure]) -> list[Named]:
    """Stems for all figures of a document, none used twice, whatever the case of letters.

    An image is called by its own stem, ``cat`` for ``cats/cat.jpg``, where no two images share it.
    """
    called = _called(dict.fromkeys(figure.exhibit for figure in figures if figure.exhibit))
    wanted: list[tuple[str, str]] = []
    owners: list[tuple[int, Panel | None]] = []
    for place, figure in enumerate(figures):
        wanted.append((_figure_name(figure, called), figure.id))
        owners.append((place, None))
        for name, panel in _panel_names(figure, called):
            wanted.append((name, f"{figure.id}/{name}"))
            owners.append((place, panel))
    stems = _apart(wanted)
    panels: dict[int, list[tuple[Panel, str]]] = {place: [] for place in range(len(figures))}
    whole: dict[int, str] = {}
    for (place, owner), stem in zip(owners, stems, strict=True):
        if owner is None:
            whole[place] = stem
        else:
            panels[place].append((owner, stem))
    return [Named(figure, whole[place], tuple(panels[place])) for place, figure in enumerate(figures)]


def _called(exhibits: Mapping[str, None]) -> dict[str, str]:
    short = {name: slug(PurePosixPath(name).stem.lower()) for name in exhibits}
    times = Counter(short.values())
    return {name: short[name] if times[short[name]] == 1 else slug(name) for name in exhibits}


def _figure_name(figure: Figure, called: Mapping[str, str]) -> str:
    return figure.id.replace(slug(figure.exhibit), called[figure.exhibit]) if figure.exhibit else figure.id


def _panel_names(figure: Figure, called: Mapping[str, str]) -> Iterator[tuple[str, Panel]]:
    """Panels that say something singly: not the only drawing of a figure, which is the figure."""
    panels = [panel for row in figure.rows for panel in row.panels if panel is not None]
    if len(panels) == 1 and panels[0].picture.media == "image/svg+xml":
        return
    base = _figure_name(figure, called)
    seen: Counter[str] = Counter()
    for panel in panels:
        name = slug(panel.name) if panel.name else "panel"
        if figure.exhibit:
            inner = name.replace(slug(figure.exhibit), called[figure.exhibit])
            subject = called[figure.exhibit]
            name = f"{figure.technique}-{inner}" if subject in inner else f"{figure.technique}-{inner}-{subject}"
        else:
            name = f"{base}-{name}"
        seen[name] += 1
        yield (name if seen[name] == 1 else f"{name}-{seen[name]}"), panel


def _apart(wanted: Sequence[tuple[str, str]]) -> list[str]:
    """File stems for (name, what tells it from all others); those that would meet bear a digest of the latter."""
    plain = [_fit(name) for name, _own in wanted]
    times = Counter(plain)
    return [
        stem if times[stem] == 1 else f"{stem[: MOST - 9]}-{_digest(own)}"
        for stem, (_name, own) in zip(plain, wanted, strict=True)
    ]


def _fit(name: str) -> str:
    """Lower case, no dots (TeX and Windows take what follows one for a suffix), not too long, no device."""
    stem = name.lower().replace(".", "-").strip("-") or "figure"
    if len(stem) > MOST:
        stem = f"{stem[: MOST - 9].rstrip('-')}-{_digest(name)}"
    return f"{stem}-" if stem in _RESERVED else stem


def _digest(words: str) -> str:
    return hashlib.sha256(words.encode(errors="replace")).hexdigest()[:8]
