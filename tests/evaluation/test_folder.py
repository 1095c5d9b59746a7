import json

import pytest

from selfie_adapters.errors import ConfigError
from selfie_adapters.evaluation.folder import EvaluationFolder

SETTINGS = {"seed": 1, "batch_size": 8}


def opened(path, **changes):
    settings = {**SETTINGS, **changes}
    return EvaluationFolder(path, "loss", settings, {"a.json": "12ab"}, free=("batch_size",))


def test_rows_outlive_the_process_and_a_torn_last_line(tmp_path):
    first = opened(tmp_path / "r")
    first.add("x", {"loss": 1.5})
    first.add("y", {"loss": 2.5})
    with (tmp_path / "r" / "rows.jsonl").open("a") as file:
        file.write('{"key": "z", "lo')  # killed in the middle of it
    again = opened(tmp_path / "r", batch_size=2)
    assert again.rows == {"x": {"loss": 1.5}, "y": {"loss": 2.5}}
    again.add("z", {"loss": 3.5})
    assert list(opened(tmp_path / "r").rows) == ["x", "y", "z"]


def test_results_carry_protocol_settings_inputs_and_versions(tmp_path):
    path = opened(tmp_path / "r").finish({"loss": 2.0})
    found = json.loads(path.read_text())
    assert found["protocol"] == "loss"
    assert found["settings"] == SETTINGS
    assert found["inputs"] == {"a.json": "12ab"}
    assert found["loss"] == 2.0
    assert {"python", "torch", "transformers"} <= found["versions"].keys()


def test_another_evaluation_in_the_folder_is_refused(tmp_path):
    opened(tmp_path / "r")
    with pytest.raises(ConfigError, match="seed 1; now it is 2"):
        opened(tmp_path / "r", seed=2)
    with pytest.raises(ConfigError, match="protocol 'loss'"):
        EvaluationFolder(tmp_path / "r", "bridge", SETTINGS, {"a.json": "12ab"})
    with pytest.raises(ConfigError, match=r"a\.json '12ab'; now it is 'other'"):
        EvaluationFolder(tmp_path / "r", "loss", SETTINGS, {"a.json": "other"})
    (tmp_path / "f").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        opened(tmp_path / "f")
    (tmp_path / "r" / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match="not an evaluation's configuration"):
        opened(tmp_path / "r")


def test_a_unit_is_done_once(tmp_path):
    folder = opened(tmp_path / "r")
    folder.add("x", {})
    with pytest.raises(ValueError, match="done already"):
        folder.add("x", {})
