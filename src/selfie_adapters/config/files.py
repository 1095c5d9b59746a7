"""Configurations that come with the package, by name."""

from __future__ import annotations

from importlib.resources import files as package_files
from pathlib import Path

from selfie_adapters.errors import ConfigError, nearest
from selfie_adapters.files import user_path


def shipped_configs() -> dict[str, Path]:
    """The configurations of the package: "training/smollm2_topics" and so on, and their files."""
    folder = Path(str(package_files("selfie_adapters.config") / "shipped"))
    found = sorted(folder.glob("*/*.yaml"))
    return {f"{path.parent.name}/{path.stem}": path for path in found}


def find_config(name: str | Path) -> Path:
    """The file behind a path, or behind the name of a shipped configuration.

    A name may omit its folder and its suffix: smollm2_topics. What exists on disk wins.
    Raises ConfigError for a name that several shipped configurations have.
    """
    path = user_path(name)
    if path.exists():
        return path
    wanted = str(name).removesuffix(".yaml")
    shipped = shipped_configs()
    found = [file for known, file in shipped.items() if wanted in (known, known.split("/")[1])]
    if len(found) > 1:
        names = ", ".join(known for known in shipped if known.endswith(f"/{wanted}"))
        raise ConfigError(f"--config {name}: several configurations have this name: {names}.")
    if not found and path.name == str(name) and not path.suffix:
        raise ConfigError(
            f"--config {name}: no such file, and no configuration of the package. "
            f"{nearest(wanted, [known.split('/')[1] for known in shipped])} "
            "selfie configs lists them."
        )
    return found[0] if found else path
