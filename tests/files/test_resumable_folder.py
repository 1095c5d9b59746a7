from __future__ import annotations

import json

import pytest

from selfie_adapters.errors import ConfigError, DataError, StorageError
from selfie_adapters.files.resumable_folder import ResumableFolder, differing


def test_a_folder_is_begun_once(tmp_path):
    folder = ResumableFolder(tmp_path / "a/b", "a run")
    assert folder.earlier("*.jsonl") is None
    folder.begin({"seed": 1})
    folder.begin({"seed": 2})
    assert folder.earlier("*.jsonl") == {"seed": 1}


def test_results_without_the_file_that_states_their_settings_are_refused(tmp_path):
    (tmp_path / "rows-1.jsonl").write_text("")
    folder = ResumableFolder(tmp_path, "a run")
    assert folder.earlier("*.json") is None
    with pytest.raises(ConfigError, match=r"rows-1\.jsonl holds results, and config\.json"):
        folder.earlier("rows-*.jsonl")
    (tmp_path / "config.json").write_text(json.dumps([1]))
    assert folder.earlier("rows-*.jsonl") == [1]
    (tmp_path / "config.json").write_text("null")
    with pytest.raises(DataError, match=r"config\.json: null; an object"):
        folder.earlier("rows-*.jsonl")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(ConfigError, match="is a file; --out must name a folder for a run"):
        ResumableFolder(tmp_path / "a", "a run")


def test_a_setting_that_differs_is_named_with_both_values(tmp_path):
    folder = ResumableFolder(tmp_path, "a run")
    folder.check_settings({"a": 1, "b": None, "c": 3}, {"a": 1, "c": 4}, free=["c"])
    with pytest.raises(ConfigError, match="holds a run with c 3; now it is 4. Give another --out"):
        folder.check_settings({"a": 1, "c": 3}, {"a": 1, "c": 4})
    with pytest.raises(ConfigError, match="holds a run with another prompt. Give"):
        folder.check_settings({"prompt": "x" * 5000}, {"prompt": "y"})


def test_an_input_that_differs_is_named_without_its_hash(tmp_path):
    folder = ResumableFolder(tmp_path, "a run")
    folder.check_inputs({"vectors": "ab"}, {"vectors": "ab"})
    with pytest.raises(ConfigError, match=r"with different model weights \(the hashes differ\)"):
        folder.check_inputs({"model_weights": "ab"}, {"model_weights": "cd"})
    with pytest.raises(ConfigError, match="different mean"):
        folder.check_inputs({}, {"mean": "cd"})


def test_differing_names_are_sorted_and_an_absent_one_is_none():
    assert differing({"b": 1, "a": 2, "c": None}, {"b": 2, "a": 3, "d": None}) == ["a", "b"]
    assert differing({"b": 1}, {"b": 2}, free=["b"]) == []


def test_a_name_that_is_too_long_is_refused_without_a_traceback(tmp_path):
    folder = ResumableFolder(tmp_path / ("x" * 300), "a run")
    assert folder.earlier("*.jsonl") is None
    with pytest.raises(StorageError, match="File name too long"):
        folder.begin({})
