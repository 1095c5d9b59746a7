"""A reading on disk: cells line by line while it runs, one JSON file when it is whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.files import write_json, write_text
from selfie_adapters.json_lines import append_jsonl, read_jsonl
from selfie_adapters.labelling.reading import Cell, Reading
from selfie_adapters.labelling.reading_plan import ReadingPlan

CELLS, WHOLE = "cells.jsonl", "reading.json"


class ReadingFolder:
    """`cells.jsonl` (what has been read, the settings in its first line), then `reading.json`.

    Killed at any moment and opened again with the same settings, it knows what is done.
    """

    def __init__(self, folder: str | Path, plan: ReadingPlan, settings: dict[str, Any]) -> None:
        """settings: everything that the cells depend on, in plain JSON values.

        Raises ConfigError if the folder holds a reading made with other settings.
        """
        self.path = Path(folder)
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path} is a file; --out must name a folder.")
        self.plan = plan
        self.settings = {**settings, "prompt": plan.prompt, "chat": plan.chat}
        self.settings |= {"layers": list(plan.layers), "positions": list(plan.positions)}
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
            rows = read_jsonl(partial)
            if rows:  # none: the writer was killed in its first line
                self._check(partial, rows[0].get("settings"))
                self._take(_cells(partial, rows[1:]))
        elif whole.exists():
            content = _json(whole)
            self._check(whole, content.get("settings"))
            self._take(_cells(whole, content.get("cells", [])))
            return
        # Written anew: a torn last line must not stay in front of what is appended.
        lines = [_line({"settings": self.settings})]
        write_text(partial, "".join(lines + [_line(asdict(c)) for c in self.cells.values()]))

    def _take(self, cells: Sequence[Cell]) -> None:
        self.cells.update({(cell.layer, cell.position): cell for cell in cells})

    def _check(self, file: Path, found: Any) -> None:
        if found == self.settings:
            return
        there = found if isinstance(found, dict) else {}
        names = [key for key, value in self.settings.items() if there.get(key) != value]
        names += [key for key in there if key not in self.settings]
        raise ConfigError(
            f"{file} is a reading made with other settings ({', '.join(names)}). "
            "Name another --out, or remove that folder."
        )


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: not JSON ({error}). Remove it, or name another --out.") from error
    return content if isinstance(content, dict) else {}


def _cells(file: Path, rows: list[dict[str, Any]]) -> list[Cell]:
    try:
        return [Cell(**row) for row in rows]
    except TypeError as error:
        raise DataError(
            f"{file}: not the cells of a reading ({error}). Remove it, or name another --out."
        ) from error
