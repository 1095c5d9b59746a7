"""`selfie eval NAME`: one of the evaluation protocols, from options, a configuration, or both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from selfie_adapters.commands.options import Json, options
from selfie_adapters.commands.printing import print_json
from selfie_adapters.config.evaluation import settings_of_protocols
from selfie_adapters.config.settings import Settings
from selfie_adapters.errors import ConfigError
from selfie_adapters.files import read_json, user_path


def _command(name: str, kind: type[Settings]) -> Callable[..., None]:
    """The command of a protocol: its options are the fields of its settings."""

    def read(
        path: Path, _kind: type[Settings], changes: Sequence[str], given: Mapping[str, Any]
    ) -> Any:
        from selfie_adapters.evaluation.base import find_protocol

        return find_protocol(name).read(path, changes, given)

    @options(kind, config=True, read=read)
    def command(
        settings: Any, config: Path | None, *, out: str | None = None, json: Json = False
    ) -> None:
        """{summary} Stopped, it resumes where it was.

        Parameters
        ----------
        out
            Folder of the results; default: results/ and the name of the configuration, or of the
            protocol.
        """
        from selfie_adapters.commands.eval_running import run_protocol
        from selfie_adapters.evaluation.base import find_protocol

        folder = _folder(settings, config, out, name)
        run_protocol(find_protocol(name), settings, folder, Console(quiet=json))
        if json:
            print_json([read_json(folder / "results.json")])

    summary = (kind.__doc__ or "").partition("\n\n")[0]
    command.__doc__ = (command.__doc__ or "").replace("{summary}", summary)
    return command


PROTOCOLS = {name: _command(name, kind) for name, kind in settings_of_protocols().items()}


def __getattr__(name: str) -> Callable[..., None]:
    """The command of a protocol, as the command table names it."""
    if name not in PROTOCOLS:
        raise AttributeError(name)
    return PROTOCOLS[name]


def _folder(given: Any, config: Path | None, out: str | None, name: str) -> Path:
    """Where the results go: --out, else the folder that a published file names, else results/."""
    if out is not None:
        return user_path(out)
    named = getattr(given, "output_folder", None)
    if named is None:
        return Path("results") / (name if config is None else config.stem)
    folder = user_path(named)
    if not folder.parent.is_dir():
        raise ConfigError(
            f"{config}: output_dir is {named}, and the folder {folder.parent} does not exist. "
            "Create it, or give --out."
        )
    return folder
