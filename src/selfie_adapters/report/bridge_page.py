"""Page and figures of the bridge protocol: where in layers × tokens the bridge is read."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfie_adapters.files.json_lines import iter_jsonl
from selfie_adapters.report.figures import heat_map, heat_map_figure, write_png
from selfie_adapters.report.page import write_page

_SHOWN = 100  # questions; each has a figure of its own


def write_bridge_page(path: Path, results: dict[str, Any], rows_file: Path) -> None:
    """Tables, averaged heat-map, and one of each question (the first 100, decoded ones first).

    results: results.json; rows_file: rows.jsonl in the same folder. Raises MissingExtraError.
    """
    lead = f"{results['lead']}/"
    # Read twice: all rows in memory would take many times the file.
    rows = heapq.nlargest(
        _SHOWN, _rows_of(lead, rows_file), key=lambda row: sum(map(sum, row["hits"]))
    )
    left_out = sum(1 for _ in _rows_of(lead, rows_file)) - len(rows)
    average = results["heat_map"]
    write_page(
        path,
        "bridge",
        {
            "interval": results["interval"],
            "lead": results["lead"],
            "conditions": results["conditions"],
            "differences": {
                one["second"]: one["difference"]
                for one in results["comparisons"]
                if one["measure"] == "bridge"
            },
            "targets": results["targets"],
            "parts": results["by_part"],
            "order": results["order"],
            "counts": results["counts"],
            "average": heat_map(
                average["share"],
                average["layers"],
                [str(place) for place in average["places"]],
                "token, counted from the question's last (0)",
            ),
            "questions": [_question(row) for row in rows],
            "left_out": left_out,
        },
    )


def _rows_of(lead: str, file: Path) -> Iterator[dict[str, Any]]:
    return (row for _, row in iter_jsonl(file) if row["key"].startswith(lead))


def write_question_heat_map(path: Path, row: dict[str, Any]) -> None:
    """The heat-map of one question as a PNG; `row` of rows.jsonl. Raises MissingExtraError."""
    write_png(path, heat_map_figure(*_heat_map_of(row)))


def _heat_map_of(row: dict[str, Any]) -> tuple[list[list[float]], list[int], list[str], str]:
    """Arguments of `heat_map` for a question."""
    samples = row["labels"] / (len(row["layers"]) * len(row["positions"]))
    share = [[hits / samples for hits in layer] for layer in row["hits"]]
    return share, row["layers"], [_shown(text) for text in row["tokens"]], "token"


def _question(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt": row["prompt"],
        "bridge": row["bridge"],
        "decoded": any(map(any, row["hits"])),
        "examples": row["examples"],
        "figure": heat_map(*_heat_map_of(row)),
    }


def _shown(token: str) -> str:
    """A token as an axis can show it: no line ends, and no mark that matplotlib takes for a
    formula."""
    return "".join(c if c.isprintable() else "·" for c in token).replace("$", r"\$")[:16] or "·"
