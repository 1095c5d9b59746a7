"""Figures of `gpu.py`, written to one JSON file and one Markdown table after each of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Results:
    """Figures by section, written at once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.found: dict[str, dict[str, Any]] = {}
        self._started = time.perf_counter()

    def add(self, section: str, name: str, **figures: Any) -> None:
        self.found.setdefault(section, {})[name] = figures
        spent = time.perf_counter() - self._started
        print(f"{spent:6.1f} s  {section}: {name}: {figures}", flush=True)
        text = json.dumps(self.found, indent=1)
        (self._folder / "gpu.json").write_text(text, encoding="utf-8")
        (self._folder / "gpu.md").write_text(self._table(), encoding="utf-8")

    def attempt(self, section: str, name: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Add what `measure` returns; what fails is a figure too, and the rest is measured."""
        try:
            self.add(section, name, **measure())
        except Exception as error:
            self.add(section, name, failed=f"{type(error).__name__}: {str(error)[:300]}")

    def _table(self) -> str:
        lines = []
        for section, rows in self.found.items():
            columns = list(dict.fromkeys(key for row in rows.values() for key in row))
            lines += [f"| {section} | " + " | ".join(columns) + " |"]
            lines += ["|---" * (len(columns) + 1) + "|"]
            for name, row in rows.items():
                cells = (str(row.get(column, "")).replace("\n", " ") for column in columns)
                lines += [f"| {name} | " + " | ".join(cells) + " |"]
            lines += [""]
        return "\n".join(lines)
