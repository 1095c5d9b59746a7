"""Files that others get: their headers without the folders of the machine that wrote them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from selfie_adapters.adapters.containers import safetensors_bytes
from selfie_adapters.files import atomic_path
from selfie_adapters.files.json_text import parse_json

_FILES = frozenset({"labels_file", "checkpoint_dir"})  # of a training configuration: always paths


def without_folders(value: Any, key: str = "") -> Any:
    """A JSON value in which each path of this machine is its last name.

    Such paths are absolute (/… or ~…) wherever they are, and relative too in the fields of a
    training configuration that name files. Other strings stay: a hub's owner/name is no path.
    """
    if isinstance(value, dict):
        return {name: without_folders(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [without_folders(one, key) for one in value]
    if isinstance(value, str) and (key in _FILES or value.startswith(("/", "~"))):
        return Path(value).name or value
    return value


def shared_header(header: Mapping[str, str]) -> dict[str, str]:
    """A safetensors header (of an adapter or of means) as it may be shown to anybody."""
    return {name: _shared_entry(name, text) for name, text in header.items()}


def save_shared(source: Path, header: Mapping[str, str], target: Path) -> Path:
    """Write the tensors of the safetensors file `source` to `target`, atomically, with `header`."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(safetensors_bytes(load_file(source), dict(header)))
    return target


def _shared_entry(name: str, text: str) -> str:
    if not name.endswith("_json"):
        return without_folders(text, name)
    stated = parse_json(text, name)
    shared = without_folders(stated)
    return text if shared == stated else json.dumps(shared)
