"""A reading on disk: cells line by line while it runs, one JSON file when it is complete."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.files import read_json, write_json
from selfie_adapters.files.json_lines import append_jsonl, iter_jsonl, write_jsonl
from selfie_adapters.reading.plan import ReadingPlan
from selfie_adapters.reading.read import Cell, Reading

_REMOVE = "Remove the file, or name another --out."
CELLS, WHOLE = "cells.jsonl", "reading.json"
# Not stated by readings that were made before it was recorded; they cannot be compared in it.
_ADDED = {"weights_digest"}


class ReadingFolder:
    """`cells.jsonl` (what has been read, the settings in its first line), then `reading.json`.

    Killed at any moment and opened again with the same settings, it knows what is done.
    """

    def __init__(self, folder: str | Path, plan: ReadingPlan, settings: dict[str, Any]) -> None:
        """settings: everything that the cells depend on, in plain JSON values.

        Raises ConfigError if the folder holds a reading made with other settings, DataError naming
        file and line for what is no cell of it.
        """
        self.path = Path(folder)
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path} is a file; --out must name a folder.")
        self.plan = plan
        self.settings = {**settings, "prompt": plan.prompt, "chat": plan.chat}
        self.settings |= {"layers": list(plan.layers), "positions": list(plan.positions)}
        self._wanted = set(plan.cells())
        self.cells: dict[tuple[int, int], Cell] = {}
        self._load()

    @property
    def whole(self) -> bool:
        return len(self.cells) == self.plan.n_cells

    def done(self, layer: int, position: int) -> bool:
        return (layer, position) in self.cells

    def append(self, cells: Sequence[Cell]) -> None:
        """Write finished cells; those of a writer killed in the middle are read again later."""
        append_jsonl(self.path / CELLS, *map(asdict, cells))
        self._take(cells)

    def finish(self) -> Reading:
        """Write `reading.json` in place of `cells.jsonl`."""
        cells = [self.cells[place] for place in self.plan.cells()]
        content = {
            "settings": self.settings,
            "tokens": [asdict(token) for token in self.plan.tokens],
            "cells": [asdict(cell) for cell in cells],
        }
        write_json(self.path / WHOLE, content)
        (self.path / CELLS).unlink(missing_ok=True)
        return Reading(self.plan, tuple(cells))

    def _load(self) -> None:
        whole, partial = self.path / WHOLE, self.path / CELLS
        if partial.exists():
            rows = list(iter_jsonl(partial))
            if rows:  # none: the writer was killed in its first line
                self._check(partial, rows[0][1].get("settings"))
                for line, row in rows[1:]:
                    self._take([self._cell(row, f"{partial}, line {line}")])
        elif whole.exists():
            match read_json(whole, _REMOVE):
                case {"settings": settings, "cells": [*cells]}:
                    self._check(whole, settings)
                    for number, row in enumerate(cells, start=1):
                        self._take([self._cell(row, f"{whole}, cell {number}")])
                case _:
                    raise DataError(
                        f"{whole}: not a reading (settings and cells are expected). {_REMOVE}"
                    )
            if self.whole:
                return
        cells = map(asdict, self.cells.values())
        write_jsonl(partial, [{"settings": self.settings}, *cells])

    def _cell(self, row: Any, where: str) -> Cell:
        try:
            cell = msgspec.convert(row, Cell)
        except msgspec.ValidationError as error:
            raise DataError(f"{where}: not a cell of a reading ({error}). {_REMOVE}") from error
        if (cell.layer, cell.position) not in self._wanted:
            raise DataError(
                f"{where}: layer {cell.layer} at token {cell.position} was not asked for. {_REMOVE}"
            )
        for name in ("log_prob", "gain", "confidence"):
            value = getattr(cell, name)
            if value is not None and not math.isfinite(value):
                raise DataError(f"{where}: {name} is {value}. {_REMOVE}")
        return cell

    def _take(self, cells: Sequence[Cell]) -> None:
        self.cells.update({(cell.layer, cell.position): cell for cell in cells})

    def _check(self, file: Path, found: Any) -> None:
        there = found if isinstance(found, dict) else {}
        names = [
            key
            for key, value in self.settings.items()
            if there.get(key) != value and (key in there or key not in _ADDED)
        ]
        names += [key for key in there if key not in self.settings]
        if names:
            raise ConfigError(
                f"{file} is a reading made with other settings ({', '.join(names)}). "
                "Name another --out, or remove that folder."
            )
