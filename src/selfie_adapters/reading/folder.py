"""A reading on disk: cells line by line while it runs, one JSON file when it is complete."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from selfie_adapters.errors import DataError
from selfie_adapters.files import read_json, write_json
from selfie_adapters.files.keyed_rows import KeyedRows
from selfie_adapters.files.resumable_folder import ResumableFolder
from selfie_adapters.reading.controls import RandomControl
from selfie_adapters.reading.plan import ReadingPlan
from selfie_adapters.reading.read import Cell, Reading

_REMOVE = "Remove the file, or name another --out."
CELLS, WHOLE = "cells.jsonl", "reading.json"
# Settings that the readings of earlier versions do not state: they are compared where stated.
_ADDED = {"weights_digest"}


class ReadingFolder:
    """`cells.jsonl` (what has been read, the settings in its first line), then `reading.json`.

    Stopped at any moment and opened again with the same settings, it knows what is done.
    """

    def __init__(self, folder: str | Path, plan: ReadingPlan, settings: dict[str, Any]) -> None:
        """settings: everything that the cells depend on, in plain JSON values.

        Raises ConfigError if the folder holds a reading made with other settings, DataError naming
        file and line for what is no cell of it.
        """
        self._folder = ResumableFolder(folder, "a reading")
        self.path = self._folder.path
        self.plan = plan
        self.settings = {**settings, "prompt": plan.prompt, "chat": plan.chat}
        self.settings |= {"layers": list(plan.layers), "positions": list(plan.positions)}
        self._wanted = set(plan.cells())
        self._checked = False
        self.finished = False
        """Whether reading.json was there with every cell."""
        self.control: RandomControl | None = None
        """That of a finished reading; None where an earlier version wrote it."""
        partial = self.path / CELLS
        self._rows = KeyedRows(
            partial, self._parsed, lambda _, cell: asdict(cell), {"settings": self.settings}
        )
        self.cells: Mapping[tuple[int, int], Cell] = self._rows
        """What has been read, by layer and position."""
        if not partial.exists():
            self.cells = self._of_whole()
            if self.whole:
                self.finished = True
                return
        self._checked = True  # a new folder's settings are these
        self._rows.replace(self.cells)
        self.cells = self._rows

    @property
    def whole(self) -> bool:
        return len(self.cells) == self.plan.n_cells

    def done(self, layer: int, position: int) -> bool:
        return (layer, position) in self.cells

    def append(self, cells: Sequence[Cell]) -> None:
        """Write finished cells; those of a writer killed in the middle are read again later."""
        self._rows.add({(cell.layer, cell.position): cell for cell in cells})

    def in_order(self) -> tuple[Cell, ...]:
        """All cells in the plan's order; they must have been read."""
        return tuple(self.cells[place] for place in self.plan.cells())

    def finish(self, control: RandomControl | None = None) -> Reading:
        """Write `reading.json` in place of `cells.jsonl`."""
        reading = Reading(self.plan, self.in_order(), control)
        write_json(self.path / WHOLE, {"settings": self.settings, **reading.as_dict()})
        (self.path / CELLS).unlink(missing_ok=True)
        return reading

    def _parsed(self, row: dict[str, Any], where: str) -> tuple[tuple[int, int], Cell] | None:
        """A row of cells.jsonl; its first one holds the settings."""
        if not self._checked:
            self._check(row.get("settings"))
            return None
        cell = self._cell(row, where)
        return (cell.layer, cell.position), cell

    def _of_whole(self) -> dict[tuple[int, int], Cell]:
        whole = self.path / WHOLE
        if not whole.exists():
            return {}
        match read_json(whole, _REMOVE):
            case {"settings": settings, "cells": [*rows], **more}:
                self._check(settings)
                self.control = self._random(more.get("random"), whole)
            case _:
                raise DataError(
                    f"{whole}: not a reading (settings and cells are expected). {_REMOVE}"
                )
        cells = [self._cell(row, f"{whole}, cell {n}") for n, row in enumerate(rows, start=1)]
        return {(cell.layer, cell.position): cell for cell in cells}

    def _random(self, found: Any, whole: Path) -> RandomControl | None:
        try:
            control = msgspec.convert(found, RandomControl | None)
        except msgspec.ValidationError as error:
            raise DataError(
                f"{whole}: random: not a reading's random control ({error}). {_REMOVE}"
            ) from error
        if control is not None and not all(map(math.isfinite, control.gains)):
            raise DataError(f"{whole}: random: a gain that is not finite. {_REMOVE}")
        return control

    def _cell(self, row: Any, where: str) -> Cell:
        try:
            cell = msgspec.convert(row, Cell)
        except msgspec.ValidationError as error:
            raise DataError(f"{where}: not a cell of a reading ({error}). {_REMOVE}") from error
        if (cell.layer, cell.position) not in self._wanted:
            raise DataError(
                f"{where}: layer {cell.layer} at token {cell.position} was not requested. {_REMOVE}"
            )
        for name in ("log_prob", "gain", "confidence", "explained"):
            value = getattr(cell, name)
            if value is not None and not math.isfinite(value):
                raise DataError(f"{where}: {name} is {value}. {_REMOVE}")
        return cell

    def _check(self, found: Any) -> None:
        was = found if isinstance(found, dict) else {}
        free = [name for name in _ADDED if name not in was]
        self._folder.check_settings(was, self.settings, free)
        self._checked = True
