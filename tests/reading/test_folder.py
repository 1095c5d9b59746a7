from __future__ import annotations

import json

import pytest

from selfie_adapters.errors import ConfigError, DataError, MissingFileError
from selfie_adapters.reading.folder import ReadingFolder
from selfie_adapters.reading.plan import PromptToken, ReadingPlan
from selfie_adapters.reading.read import Cell

LABELS = [
    'quote " here',
    "line\nbreak\u2028and \x1b[31m red",
    "<script>alert(1)</script>",
    "שלום 🦉",
]


@pytest.fixture
def plan():
    tokens = tuple(PromptToken(i, i, text, special=False) for i, text in enumerate("ab"))
    return ReadingPlan("ab", "none", tokens, (0, 3), (0, 1))


def cell(layer, position, label="owl"):
    return Cell(layer, position, label, label + '"', -1.5, 3, True, 0.5, None)


@pytest.fixture
def all_cells(plan):
    pairs = zip(plan.cells(), LABELS, strict=True)
    return [cell(*place, label) for place, label in pairs]


def test_a_whole_reading_is_one_file_with_every_label_whole(plan, all_cells, tmp_path):
    folder = ReadingFolder(tmp_path / "out", plan, {"model": "m"})
    folder.append(all_cells[:3])
    folder.append(all_cells[3:])
    assert folder.whole
    reading = folder.finish()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["reading.json"]
    content = json.loads((tmp_path / "out/reading.json").read_text(encoding="utf-8"))
    assert [row["label"] for row in content["cells"]] == LABELS
    assert content["settings"]["prompt"] == "ab"
    assert [token["text"] for token in content["tokens"]] == ["a", "b"]
    assert list(reading.cells) == all_cells


def test_what_a_killed_reading_wrote_is_kept(plan, all_cells, tmp_path):
    folder = ReadingFolder(tmp_path, plan, {"model": "m"})
    folder.append(all_cells[:2])
    with (tmp_path / "cells.jsonl").open("a") as file:  # killed in the middle of a line
        file.write('{"layer": 0, "posi')
    again = ReadingFolder(tmp_path, plan, {"model": "m"})
    assert list(again.cells.values()) == all_cells[:2]
    assert [again.done(*place) for place in plan.cells()] == [True, True, False, False]
    again.append(all_cells[2:])
    third = ReadingFolder(tmp_path, plan, {"model": "m"})
    assert third.whole
    assert list(third.finish().cells) == all_cells


def test_killed_in_the_first_line_it_starts_from_scratch(plan, tmp_path):
    (tmp_path / "cells.jsonl").write_text('{"settings": {"mod')
    assert ReadingFolder(tmp_path, plan, {"model": "m"}).cells == {}


def test_a_finished_reading_is_known(plan, all_cells, tmp_path):
    folder = ReadingFolder(tmp_path, plan, {"model": "m"})
    folder.append(all_cells)
    folder.finish()
    again = ReadingFolder(tmp_path, plan, {"model": "m"})
    assert again.whole
    assert [path.name for path in tmp_path.iterdir()] == ["reading.json"]


@pytest.mark.parametrize("finished", [False, True])
def test_another_reading_is_not_mixed_in(plan, all_cells, tmp_path, finished):
    folder = ReadingFolder(tmp_path, plan, {"model": "m", "mean": None})
    folder.append(all_cells)
    if finished:
        folder.finish()
    with pytest.raises(
        ConfigError, match="holds a reading with extra None; now it is 1. Give another --out"
    ):
        ReadingFolder(tmp_path, plan, {"model": "n", "mean": None, "extra": 1})


@pytest.mark.parametrize("finished", [False, True])
def test_a_reading_made_before_weights_were_recorded_is_resumed(
    plan, all_cells, tmp_path, finished
):
    old = ReadingFolder(tmp_path, plan, {"model": "m"})
    old.append(all_cells)
    if finished:
        old.finish()
    settings = {"model": "m", "weights_digest": "1"}
    assert ReadingFolder(tmp_path, plan, settings).whole
    with pytest.raises(ConfigError, match="model 'm'; now it is 'n'"):
        ReadingFolder(tmp_path, plan, {**settings, "model": "n"})


def test_a_reading_with_other_weights_is_refused(plan, tmp_path):
    ReadingFolder(tmp_path, plan, {"model": "m", "weights_digest": "1"})
    with pytest.raises(ConfigError, match="weights_digest '1'; now it is '2'"):
        ReadingFolder(tmp_path, plan, {"model": "m", "weights_digest": "2"})


def test_files_of_something_else_are_refused(plan, tmp_path):
    (tmp_path / "reading.json").write_text("no")
    with pytest.raises(DataError, match=r"reading\.json, line 1, column 3: not JSON"):
        ReadingFolder(tmp_path, plan, {})
    folder = ReadingFolder(tmp_path / "b", plan, {})
    content = {"settings": folder.settings, "cells": [{"label": "x"}]}
    (tmp_path / "b/cells.jsonl").unlink()
    (tmp_path / "b/reading.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="not a cell of a reading"):
        ReadingFolder(tmp_path / "b", plan, {})
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        ReadingFolder(tmp_path / "file", plan, {})


@pytest.mark.parametrize(
    "change",
    [
        {"layer": "0"},
        {"layer": 7},
        {"position": -1},
        {"label": None},
        {"gain": float("nan")},
        {"confidence": "high"},
        {"tokens": 1.5},
    ],
)
def test_a_damaged_cell_is_named_with_file_and_line(plan, all_cells, tmp_path, change):
    folder = ReadingFolder(tmp_path / "part", plan, {"model": "m"})
    folder.append(all_cells[:3])
    path = tmp_path / "part" / "cells.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")
    lines[2] = json.dumps({**json.loads(lines[2]), **change})
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"cells\.jsonl, line 3: "):
        ReadingFolder(tmp_path / "part", plan, {"model": "m"})
    whole = ReadingFolder(tmp_path / "whole", plan, {"model": "m"})
    whole.append(all_cells)
    whole.finish()
    path = tmp_path / "whole" / "reading.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["cells"][1] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"reading\.json, cell 2: "):
        ReadingFolder(tmp_path / "whole", plan, {"model": "m"})


def test_a_reading_that_lost_cells_is_completed_and_survives_another_kill(
    plan, all_cells, tmp_path
):
    whole = ReadingFolder(tmp_path, plan, {"model": "m"})
    whole.append(all_cells)
    whole.finish()
    content = json.loads((tmp_path / "reading.json").read_text(encoding="utf-8"))
    (tmp_path / "reading.json").write_text(json.dumps({**content, "cells": content["cells"][:2]}))
    again = ReadingFolder(tmp_path, plan, {"model": "m"})
    assert not again.whole
    again.append(all_cells[2:3])  # killed here
    third = ReadingFolder(tmp_path, plan, {"model": "m"})
    assert list(third.cells.values()) == all_cells[:3]
    third.append(all_cells[3:])
    assert list(third.finish().cells) == all_cells


def test_what_is_no_reading_is_refused(plan, tmp_path):
    for content in (b"[]", b"\xff", b"{}", b'{"settings": {}, "cells": 3}', b"[" * 9999):
        (tmp_path / "reading.json").write_bytes(content)
        with pytest.raises((ConfigError, DataError), match=r"reading\.json"):
            ReadingFolder(tmp_path, plan, {"model": "m"})
    (tmp_path / "reading.json").unlink()
    (tmp_path / "reading.json").mkdir()
    with pytest.raises(MissingFileError, match=r"reading\.json is a folder"):
        ReadingFolder(tmp_path, plan, {"model": "m"})
