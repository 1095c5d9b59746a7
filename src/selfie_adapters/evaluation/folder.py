"""A folder of one evaluation: killed at any moment, it resumes with what is missing.

config.json    protocol, settings, hashes of the input files
rows.jsonl     one line per finished unit of work (a latent, a topic, a question), under its key
results.json   what came of it, with versions and counts; written last, atomically
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
from pydantic_core import to_jsonable_python

from selfie_adapters import extras
from selfie_adapters.config.settings import Settings
from selfie_adapters.dataset import VectorLabelDataset
from selfie_adapters.dataset.source import LabelSource
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.files import sha256, write_json
from selfie_adapters.files.keyed_rows import KeyedRows
from selfie_adapters.files.resumable_folder import ResumableFolder
from selfie_adapters.labelling.run_record import vectors_hash

EvaluationRow = dict[str, Any]
LATE = {"model_weights", "chat_weights"}
"""Inputs that are known only when the model is loaded."""

_REDO = "Remove the line and run again: it is measured again."
_PACKAGES = ("selfie-adapters", "torch", "transformers", "sae-lens", "sentence-transformers")


def versions() -> dict[str, str]:
    """Installed versions of what a result depends on; packages that are absent are omitted."""
    return {"python": platform.python_version(), **extras.versions(_PACKAGES)}


class _AnyRow(msgspec.Struct):
    """Rows that nobody checks."""


def _defaults(kind: type[Settings]) -> dict[str, Any]:
    """Defaults of a section's optional settings, as JSON values."""
    optional = {name: one for name, one in kind.model_fields.items() if not one.is_required()}
    return {
        name: to_jsonable_python(one.get_default(call_default_factory=True, validated_data={}))
        for name, one in optional.items()
    }


def _filled(stated: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`stated` with the default of every setting, also inside sections, that it does not have."""
    found = {**defaults, **stated}
    for name, value in stated.items():
        if isinstance(value, dict) and isinstance(defaults.get(name), dict):
            found[name] = _filled(value, defaults[name])
    return found


class EvaluationFolder:
    """The rows that are done, and where the next ones go."""

    def __init__(
        self,
        folder: str | Path,
        protocol: str,
        settings: Settings | Mapping[str, Any],
        inputs: Mapping[str, str] | None = None,
        free: Collection[str] = (),
        kind: type[msgspec.Struct] = _AnyRow,
        removed: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Make the folder, or resume the evaluation that is in it.

        settings: a section, or JSON values; free names those that do not change the results (a
        batch size). A setting of a section that the folder does not state, because an earlier
        version did not have it, counts as its default.
        inputs: what else the results depend on, as name → hash. kind: what every row is. removed:
        settings of earlier versions, each with the reason why a folder that states it cannot be
        resumed.
        Raises ConfigError if the folder holds another evaluation, or is a file; DataError naming
        file and line for a row that is not of this kind.
        """
        self.folder = Path(folder)
        self._store = ResumableFolder(folder, "an evaluation")
        defaults: dict[str, Any] = {}
        if isinstance(settings, Settings):
            defaults = _defaults(type(settings))
            settings = settings.model_dump(mode="json")
        self._record = {"protocol": protocol, "settings": settings, "inputs": inputs or {}}
        self._record = json.loads(json.dumps(self._record))  # as it will be read back
        # The same results come of every device, up to rounding.
        self._check_same(defaults, {*free, "device"}, removed)
        self._rows = KeyedRows(
            self.folder / "rows.jsonl", partial(_parsed, kind), lambda key, row: {"key": key, **row}
        )
        self._store.begin(self._record)
        self._rows.add({})  # a torn last line is removed

    def _check_same(
        self, defaults: dict[str, Any], free: Collection[str], removed: Mapping[str, str]
    ) -> None:
        match earlier := self._store.earlier("rows.jsonl"):
            case None:
                return
            case {"protocol": str(), "settings": dict(), "inputs": dict()}:
                pass
            case _:
                raise ConfigError(
                    f"{self._store.config}: not an evaluation's configuration (protocol, settings "
                    "and inputs are expected). Give another --out."
                )
        for name in removed:
            if name in earlier["settings"]:
                raise ConfigError(
                    f"{self.folder} holds an evaluation of an earlier version: {removed[name]}. "
                    "Give another --out."
                )
        for name, digest in earlier["inputs"].items():  # in the file's order
            if name in LATE:
                self._record["inputs"].setdefault(name, str(digest))
        was, now = earlier, self._record
        stated = {"protocol": was["protocol"], **_filled(was["settings"], defaults)}
        self._store.check_settings(stated, {"protocol": now["protocol"], **now["settings"]}, free)
        self._store.check_inputs(was["inputs"], now["inputs"])

    @property
    def rows(self) -> Mapping[str, EvaluationRow]:
        """Finished units of work by key."""
        return self._rows

    def damaged(self, key: str, found: str) -> DataError:
        """The error for a row that is of the right kind and does not fit the evaluation."""
        return DataError(f"{self._rows.where(key)}: {key} {found}. {_REDO}")

    def also_depends_on(self, name: str, digest: str | None) -> None:
        """One more input, known only after the folder was opened; the first run records it.

        digest: None where it has none, such as the weights of a server.

        Raises ConfigError if the folder holds rows made with another one.
        """
        if digest is None:
            return
        known = self._record["inputs"].get(name)
        if known is None:
            self._record["inputs"][name] = digest
            write_json(self._store.config, self._record)
        else:
            self._store.check_inputs({name: known}, {name: digest})

    def add(self, key: str, row: EvaluationRow) -> None:
        """Keep a finished unit of work; `key` must not be among `rows` yet."""
        if key in self.rows:
            raise ValueError(f"{key} is done already")
        self._rows.add({key: row})

    def values(self, key: str, field: str, count: int, make: Callable[[], list[Any]]) -> list[Any]:
        """The results under `key`, made now if the folder does not have them yet.

        They are the row {field: results}. Raises DataError if there are not `count` of them.
        """
        if key not in self.rows:
            self.add(key, {field: make()})
        found = self.rows[key][field]
        if len(found) != count:
            raise self.damaged(key, f"has {len(found)} results; {count} are expected")
        return found

    def finish(self, results: Mapping[str, Any]) -> Path:
        """Write results.json: the record of the evaluation, versions, and `results`."""
        path = self.folder / "results.json"
        write_json(path, {**self._record, "versions": versions(), **results})
        return path


def _parsed(
    kind: type[msgspec.Struct], row: EvaluationRow, where: str
) -> tuple[str, EvaluationRow]:
    key = row.pop("key", None)
    try:
        if not isinstance(key, str):
            raise msgspec.ValidationError(f"key: a string is expected, found {key!r:.40}")
        msgspec.convert(row, kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{where}: not a row of this evaluation ({error}). {_REDO}") from error
    return key, row


def dataset_hash(dataset: VectorLabelDataset) -> str:
    """SHA-256 of a training file's vectors that have labels, of these and of their splits."""
    items = dataset.labelled()
    digest = hashlib.sha256(json.dumps([(item.split, item.labels) for item in items]).encode())
    places = [(item.section, item.row) for item in items]
    digest.update(vectors_hash(LabelSource(dataset, None, places)).encode())
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def file_hashes(files: Mapping[str, str | Path | None]) -> dict[str, str]:
    """SHA-256 of each file that is given, by name."""
    return {name: sha256(path) for name, path in files.items() if path is not None}
