"""Cells of tables, and tables of differences side by side."""

from __future__ import annotations

import pytest

from selfie_adapters.evaluation.comparing import (
    MeasureColumn,
    difference_cell,
    difference_tables,
    side_by_side,
)
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


def _compared(first, second, measure, mean, p):
    difference = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}
    return {"first": first, "second": second, "measure": measure} | {
        "difference": difference,
        "p_holm": p,
    }


MEASURES = {"hits": MeasureColumn("hits, points", 0), "area": MeasureColumn("area", 2, 1)}


def test_what_one_condition_is_compared_with_are_rows_and_measures_are_columns():
    found = [
        _compared("mine", "zero", "hits", 0.2, 0.02),
        _compared("mine", "mine: shuffled", "hits", 0.3, 0.0001),
        _compared("mine", "zero", "area", -0.25, 0.5),
        _compared("mine", "zero", "not shown", 9.0, 0.5),
    ]
    (table,) = difference_tables(found, MEASURES, names={"zero": "zero vector"})
    assert list(table.columns) == ["mine minus", "hits, points", "area"]
    assert table.rows == [
        ["zero vector", "+20 [+10, +30]\np 0.020", "-0.25 [-0.35, -0.15]\np 0.50"],
        ["shuffled", "+30 [+20, +40]\np < 0.001", "–"],
    ]


def test_several_first_conditions_are_columns_of_a_table_per_measure():
    found = [
        _compared("a", "a: shuffled", "hits", 0.2, 0.02),
        _compared("a", "b", "hits", 0.0, 1.0),
        _compared("b", "b: shuffled", "hits", 0.1, 0.3),
        _compared("b", "b: shuffled", "area", 0.1, 0.3),
    ]
    hits, area = difference_tables(found, MEASURES, "Block 3")
    assert (hits.title, list(hits.columns)) == ("Block 3: hits, points", ["minus", "a", "b"])
    assert hits.rows == [
        ["shuffled", "+20 [+10, +30]\np 0.020", "+10 [+0, +20]\np 0.30"],
        ["b", "+0 [-10, +10]\np 1.00", "–"],
    ]
    assert (area.title, list(area.columns)) == ("Block 3: area", ["minus", "b"])
    assert not list(difference_tables([], MEASURES))
