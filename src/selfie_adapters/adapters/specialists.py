"""Adapters for states of one block and kind of position, in addition to the one for all of them.

A set of adapters is a folder of adapter files, each readable by itself:

    demo.safetensors                  for every state
    demo.layer_12_at_-1.safetensors   in its place for block 12, last token of the prompt
    demo.layer_8_at_name.safetensors  in its place for block 8, a concept's own last token
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from selfie_adapters.errors import AdapterError
from selfie_adapters.files import sha256

if TYPE_CHECKING:
    from selfie_adapters.adapters.base import Adapter

Place = tuple[int | None, str | None]
"""Zero-based block and kind of position of a state (dataset/captured.py), None: unknown."""

_NAME = re.compile(r"\.layer_(\d{1,4})_at_(-?\d{1,6}|name)$")


def is_specialist(path: Path) -> bool:
    """Whether a file's name says that it is for one place only."""
    return _NAME.search(path.stem) is not None


def specialist_file(adapter_file: str | Path, layer: int, kind: str) -> Path:
    """Where the specialist for one place is kept: next to the adapter's file."""
    path = Path(adapter_file)
    return path.with_name(f"{path.stem}.layer_{layer}_at_{kind}{path.suffix}")


def specialist_files(adapter_file: str | Path) -> dict[tuple[int, str], Path]:
    """The specialists next to an adapter's file, by layer and kind of position, in this order."""
    path = Path(adapter_file)
    if is_specialist(path):
        return {}
    found = {}
    for file in path.parent.glob("*.layer_*_at_*"):
        match = _NAME.search(file.stem)
        if match and file.suffix == path.suffix and file.stem[: match.start()] == path.stem:
            found[int(match[1]), match[2]] = file
    return dict(sorted(found.items()))


def adapter_digest(adapter_file: str | Path) -> str:
    """SHA-256 of an adapter's file; with specialists, of the digests of all files of the set."""
    own = sha256(adapter_file)
    beside = specialist_files(adapter_file)
    if not beside:
        return own
    lines = [own, *(f"{place} {sha256(file)}" for place, file in beside.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_specialist(specialist: Adapter, place: tuple[int, str], general: Adapter) -> None:
    """Raise AdapterError for a specialist of another width, or trained at another place."""
    layer, kind = place
    if specialist.dim != general.dim:
        raise AdapterError(
            f"{specialist.file}: maps vectors of width {specialist.dim}, and {general.file}, which "
            f"it belongs to, of width {general.dim}. Remove one of them."
        )
    mine, its = general.binding, specialist.binding
    if mine is None or its is None:
        return
    if mine.no_concept != its.no_concept:
        raise AdapterError(
            f"{specialist.file}: its label for no concept is {its.no_concept!r}, and that of "
            f"{general.file}, which it belongs to, is {mine.no_concept!r}. Train both on the same "
            "one."
        )
    position = None if its.position is None else str(its.position)
    if (its.layer, position) not in ((layer, kind), (None, None), (layer, None), (None, kind)):
        raise AdapterError(
            f"{specialist.file}: its name states block {layer}, position {kind}; it was trained on "
            f"block {its.layer}, position {position}. Rename it."
        )
