"""Versions of what results depend on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def library_versions() -> dict[str, str]:
    """Versions of the libraries that results depend on; read from their metadata, so nothing is imported."""
    found: dict[str, str] = {}
    for name in ("torch", "torchvision", "timm", "pillow", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
