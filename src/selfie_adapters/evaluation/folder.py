"""A folder of one evaluation: killed at any moment, it goes on with what is missing.

config.json    protocol, settings, hashes of the input files
rows.jsonl     one line a finished unit of work (a latent, a topic, a question), under its key
results.json   what came of it, with versions and counts; written last, and whole
"""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from selfie_adapters import installed
from selfie_adapters.errors import ConfigError
from selfie_adapters.files import atomic_path, write_json
from selfie_adapters.json_lines import append_jsonl, read_jsonl

Row = dict[str, Any]
_PACKAGES = ("selfie-adapters", "torch", "transformers", "sae-lens", "sentence-transformers")


def versions() -> dict[str, str]:
    """Installed versions of what a result depends on; packages that are absent are omitted."""
    return {"python": platform.python_version(), **installed.versions(_PACKAGES)}


class EvaluationFolder:
    """The rows that are done, and where the next ones go."""

    def __init__(
        self,
        folder: str | Path,
        protocol: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str] | None = None,
        free: Collection[str] = (),
    ) -> None:
        """Make the folder, or take up the evaluation that lives in it.

        settings: JSON values; free names those that do not change the results (a batch size).
        inputs: what the results depend on besides, as name → hash.
        Raises ConfigError if the folder holds another evaluation, or is a file.
        """
        self.folder = Path(folder)
        if self.folder.is_file():
            raise ConfigError(f"{folder} is a file; a folder for the results is expected.")
        self._record = {"protocol": protocol, "settings": settings, "inputs": inputs or {}}
        self._record = json.loads(json.dumps(self._record))  # as it will be read back
        self._check_same(free)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._config.exists():
            write_json(self._config, self._record)
        found = read_jsonl(self._file) if self._file.exists() else []
        self.rows: dict[str, Row] = {row.pop("key"): row for row in found}
        # A torn last line must not swallow the row that is appended next.
        with atomic_path(self._file) as temporary:
            for key, row in self.rows.items():
                append_jsonl(temporary, {"key": key, **row})

    @property
    def _config(self) -> Path:
        return self.folder / "config.json"

    @property
    def _file(self) -> Path:
        return self.folder / "rows.jsonl"

    def _check_same(self, free: Collection[str]) -> None:
        if not self._config.exists():
            return
        try:
            earlier = json.loads(self._config.read_text(encoding="utf-8"))
            was = {"protocol": earlier["protocol"], **earlier["settings"], **earlier["inputs"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self._config}: not an evaluation's configuration ({error!r}). Give another "
                "--out."
            ) from error
        record = self._record
        now = {"protocol": record["protocol"], **record["settings"], **record["inputs"]}
        for key in sorted({*was, *now} - set(free)):
            if was.get(key) != now.get(key):
                raise ConfigError(
                    f"{self.folder} holds an evaluation with {key} {was.get(key)!r}; now it is "
                    f"{now.get(key)!r}. Give another --out, or the same settings to go on with it."
                )

    def add(self, key: str, row: Row) -> None:
        """Keep a finished unit of work; `key` must not be among `rows` yet."""
        if key in self.rows:
            raise ValueError(f"{key} is done already")
        append_jsonl(self._file, {"key": key, **row})
        self.rows[key] = row

    def finish(self, results: Mapping[str, Any]) -> Path:
        """Write results.json: the record of the evaluation, versions, and `results`."""
        path = self.folder / "results.json"
        write_json(path, {**self._record, "versions": versions(), **results})
        return path
