"""Versions of what results depend on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType

RESULTS = ("torch", "torchvision", "timm", "pillow", "numpy")
"""What numbers depend on."""
DRAWINGS = ("pillow", "numpy", "matplotlib", "font-source-sans-pro")
"""What pictures depend on."""
PAGES = (
    "weasyprint", "pydyf", "fonttools", "tinycss2", "cssselect2", "tinyhtml5", "pillow", "matplotlib",
    "font-source-sans-pro", "font-source-serif-pro",
)  # fmt: skip
"""What pages depend on."""


def library_versions() -> dict[str, str]:
    """Versions of the libraries that results depend on; read from their metadata, so nothing is imported."""
    return dict(versions_of(RESULTS))


@cache
def versions_of(names: tuple[str, ...]) -> Mapping[str, str]:
    """Versions of the packages among `names` that are installed."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return MappingProxyType(found)
