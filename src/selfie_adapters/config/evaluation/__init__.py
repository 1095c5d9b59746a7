"""Settings of the evaluation protocols: one module per protocol, named after it.

Each has one settings class, named after the protocol too; the first paragraph of its docstring is
the help of `selfie eval NAME`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from selfie_adapters.config.settings import Settings


def settings_of_protocols() -> dict[str, type[Settings]]:
    """The settings class of every protocol, by the protocol's name."""
    names = sorted(file.stem for folder in __path__ for file in Path(folder).glob("[!_]*.py"))
    return {
        name: getattr(import_module(f"{__package__}.{name}"), f"{name.title()}Settings")
        for name in names
    }
