"""`selfie eval NAME --config FILE`: one of the evaluation protocols, from its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from selfie_adapters.config.reading import read_config
from selfie_adapters.errors import ConfigError, nearest
from selfie_adapters.files import user_path
from selfie_adapters.files.locking import folder_lock

# name → module in this package with `Settings` (a Section) and
# `run(settings, folder, console)`, which prints a table and returns the path of results.json;
# `read(config, changes)` too, where there are published configurations beside this project's own
PROTOCOLS: dict[str, str] = {
    "bridge": "eval_bridge",
    "loss": "eval_loss",
    "retrieval": "eval_retrieval",
    "scoring": "eval_scoring",
    "taboo": "eval_taboo",
}


def evaluate(
    name: str,
    config: str,
    set_: Sequence[str] | None = None,
    out: str | None = None,
    device: str | None = None,
) -> None:
    """See `selfie eval --help`."""
    if name not in PROTOCOLS:
        raise ConfigError(f"selfie eval {name}: unknown protocol. {nearest(name, PROTOCOLS)}")
    protocol = import_module(f"selfie_adapters.commands.{PROTOCOLS[name]}")
    if hasattr(protocol, "read"):
        given: Any = protocol.read(config, set_ or [])
    else:
        given = read_config(config, protocol.Settings, set_ or [])
    folder = _folder(given, config, out)
    translated = hasattr(given, "settings")  # a published configuration: they are inside
    settings = given.settings if translated else given
    if device is not None:
        settings = settings.model_copy(update={"device": device})
        given = replace(given, settings=settings) if translated else settings
    # Not imported above: the command table imports this module, and nothing that loads torch.
    checking = import_module("selfie_adapters.commands.checking")
    checking.check_inputs(model=getattr(settings, "model", None), device=settings.device)
    console = Console()
    with folder_lock(folder):
        results = protocol.run(given, folder, console)
    console.print(f"results: {results}", highlight=False, markup=False)


def _folder(given: Any, config: str, out: str | None) -> Path:
    """Where the results go: --out, else the folder that a published file names, else results/."""
    if out is not None:
        return user_path(out)
    named = getattr(given, "output_folder", None)
    if named is None:
        return Path("results") / Path(config).stem
    folder = user_path(named)
    if not folder.parent.is_dir():
        raise ConfigError(
            f"{config}: output_dir is {named}, and the folder {folder.parent} does not exist. "
            "Create it, or give --out."
        )
    return folder
