"""Cells of tables, and tables of differences side by side."""

from __future__ import annotations

import pytest

from selfie_adapters.evaluation.comparing import difference_cell, side_by_side
from selfie_adapters.evaluation.tables import one_line, shown


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        ("0.41\n0.35–0.47", "0.41 [0.35, 0.47]"),
        ("+1.2 [+0.1, +2.3]\np 0.03", "+1.2 [+0.1, +2.3] p 0.03"),
        ("zero vector", "zero vector"),
        ("–", "–"),
    ],
)
def test_a_cell_of_several_lines_fits_one(cell, line):
    assert one_line(cell) == line


def test_a_difference_has_signs_and_its_adjusted_p():
    found = {"mean": 0.1, "low": -0.05, "high": 0.25}
    assert difference_cell(found, 0.0301, 1, 100) == "+10.0 [-5.0, +25.0]\np 0.030"
    assert difference_cell(found, None) == "+0.10 [-0.05, +0.25]"
    assert difference_cell(None, None) == shown(None) == "–"


def test_many_columns_become_several_tables_and_a_missing_cell_a_dash():
    cells = {("zero", f"a{i}"): str(i) for i in range(7)} | {("a6", "a0"): "x"}
    first, second = side_by_side("Saved", "against", cells)
    assert list(first.columns) == ["against", "a0", "a1", "a2", "a3", "a4"]
    assert first.rows == [["zero", "0", "1", "2", "3", "4"], ["a6", "x", "–", "–", "–", "–"]]
    assert list(second.columns) == ["against", "a5", "a6"]
    assert second.rows == [["zero", "5", "6"]]
    assert not list(side_by_side("Saved", "against", {}))
