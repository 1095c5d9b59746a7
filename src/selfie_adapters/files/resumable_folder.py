"""A folder of results that is stopped at any moment and resumed with the settings it began with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.files.atomic import make_folder, write_json
from selfie_adapters.files.existing import exists, read_json

_LONGEST = 120  # characters of a value in a message


def differing(
    was: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = ()
) -> list[str]:
    """Names, sorted, whose values differ; a name that is absent has the value None. free: names
    that do not count."""
    return [k for k in sorted({*was, *now} - set(free)) if was.get(k) != now.get(k)]


class ResumableFolder:
    """What a folder of results was made with, and whether that is what is asked for now.

    `config.json` in it states what the results were made with. Processes keep each other out of
    the folder with `locking.folder_lock`.
    """

    def __init__(self, path: str | Path, holds: str) -> None:
        """holds: what messages call the content, such as "an evaluation".

        Raises ConfigError if `path` is a file.
        """
        self.path, self._holds = Path(path), holds
        if exists(self.path) and not self.path.is_dir():
            raise ConfigError(f"{path} is a file; --out must name a folder for {holds}.")

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    def earlier(self, results: str) -> Any:
        """The content of config.json; None where the folder has not been begun.

        results: pattern of the files that mean nothing without it. Raises ConfigError if there are
        such files and no config.json, DataError if that is not JSON or null.
        """
        if exists(self.config):
            if (content := read_json(self.config)) is None:
                raise DataError(
                    f"{self.config}: null; an object with the settings is expected. Restore the "
                    "file, or give another --out."
                )
            return content
        there = self.path.glob(results) if exists(self.path) else ()
        if found := min(there, default=None):
            raise ConfigError(
                f"{found} holds results, and {self.config.name} that states what they were made "
                "with is not in that folder. Restore that file, or give another --out."
            )
        return None

    def begin(self, content: Any) -> None:
        """Make the folder and write config.json, unless it has one. Raises StorageError."""
        make_folder(self.path)
        if not exists(self.config):
            write_json(self.config, content)

    def check_settings(
        self, was: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = ()
    ) -> None:
        """Raise ConfigError, naming one, if settings outside `free` differ."""
        for key in differing(was, now, free):
            before, after = (repr(values.get(key)) for values in (was, now))
            shown = f"{key} {before}; now it is {after}"
            if max(len(before), len(after)) > _LONGEST:
                shown = f"another {key}"
            raise ConfigError(
                f"{self.path} holds {self._holds} with {shown}. Give another --out, or the same "
                "settings to resume it."
            )

    def check_inputs(self, was: Mapping[str, str], now: Mapping[str, str]) -> None:
        """Raise ConfigError, naming one, if hashes of what the results depend on differ."""
        for name in differing(was, now):
            raise ConfigError(
                f"{self.path} holds {self._holds} with different {name.replace('_', ' ')} (the "
                "hashes differ). Give another --out, or restore it to resume."
            )
