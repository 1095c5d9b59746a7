"""An SAE's own configuration file: its keys, each of the type it must have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfie_adapters.config.yaml_reading import read_yaml, shortened
from selfie_adapters.errors import DataError
from selfie_adapters.files import read_json

_PARTS = ("metadata", "trainer", "llm", "sae")  # mappings inside that hold what is asked for


@dataclass(frozen=True)
class SaeConfig:
    """Keys and values, the outer ones before those of nested parts. null counts as absent."""

    values: Mapping[str, Any]
    where: str
    """The file, for errors."""

    def whole(self, *keys: str, least: int = 1) -> int | None:
        """The first of `keys` that is present: a whole number of at least `least`."""
        found = self._first(keys)
        if found is None:
            return None
        key, value = found
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
            raise self._wrong(key, f"a whole number of at least {least}", value)
        return value

    def positive(self, *keys: str) -> float | None:
        """The first of `keys` that is present: a finite number above zero."""
        found = self._first(keys)
        return None if found is None else self._positive(*found)

    def product(self, width: int, factor: float) -> int:
        """The number of latents, where the file has only their ratio to the width."""
        if width * factor >= 2**31:
            raise self._wrong("expansion_factor", "such that d_sae is below 2³¹", factor)
        return int(width * factor)

    def text(self, *keys: str) -> str | None:
        """The first of `keys` that is present: text that is not empty."""
        found = self._first(keys)
        if found is None:
            return None
        key, value = found
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(key, "text", value)
        return value

    def flag_or_text(self, key: str) -> bool | str | None:
        """true, false or text."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, (bool, str)):
            raise self._wrong(key, "true, false or text", value)
        return value

    def positive_in(self, key: str, inner: str) -> float | None:
        """A finite number above zero under `inner` of the mapping `key`."""
        part = self.values.get(key)
        if part is None:
            return None
        if not isinstance(part, dict):
            raise self._wrong(key, f"a mapping with the key {inner}", part)
        value = part.get(inner)
        return None if value is None else self._positive(f"{key}.{inner}", value)

    def _first(self, keys: tuple[str, ...]) -> tuple[str, Any] | None:
        return next(((k, v) for k in keys if (v := self.values.get(k)) is not None), None)

    def _positive(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(key, "a number above zero", value)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not 0 < number < math.inf:
            raise self._wrong(key, "a finite number above zero", value)
        return number

    def _wrong(self, key: str, expected: str, value: Any) -> DataError:
        kind = {bool: "a flag", str: "text", dict: "a mapping", list: "a list"}.get(type(value))
        shown = shortened(repr(value), 60) if not isinstance(value, (dict, list)) else ""
        found = " ".join(part for part in (kind, shown) if part)
        return DataError(f"{self.where}: {key} must be {expected}, found {found}.")


def read_sae_config(file: Path | None, overrides: Mapping[str, Any] | None = None) -> SaeConfig:
    """The configuration in JSON or YAML, under the registry's overrides; empty without a file.

    Raises MissingFileError, or DataError for a file that is damaged or no mapping.
    """
    if file is None:
        return SaeConfig(dict(overrides or {}), "SAELens' registry")
    loaded = read_json(file) if file.suffix == ".json" else read_yaml(file)
    if not isinstance(loaded, dict):
        kind = "nothing" if loaded is None else f"a {type(loaded).__name__}"
        raise DataError(f"{file}: an SAE's configuration is a mapping with keys, found {kind}.")
    flat: dict[str, Any] = {}
    for part in _PARTS:
        if isinstance(inner := loaded.get(part), dict):
            flat |= inner
    # An outer null does not hide what a part says.
    flat |= {key: value for key, value in loaded.items() if value is not None}
    return SaeConfig(flat | dict(overrides or {}), str(file))
