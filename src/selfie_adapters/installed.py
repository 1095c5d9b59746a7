"""Versions of installed packages, also where this project runs from its source tree alone."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

PACKAGE = "selfie-adapters"


def installed_version(package: str) -> str | None:
    """The version of an installed package; None where there is no metadata for it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def own_version() -> str:
    """This project's version: of the installed package, else of the source tree it runs from."""
    if found := installed_version(PACKAGE):
        return found
    import tomllib

    try:
        project = Path(__file__).parents[2] / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    except (OSError, ValueError, KeyError):  # neither installed nor in a source tree
        return "unknown"


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of those of `packages` that are there; this project is always there."""
    found = {name: installed_version(name) for name in packages}
    if PACKAGE in found:
        found[PACKAGE] = own_version()
    return {name: version for name, version in found.items() if version is not None}
