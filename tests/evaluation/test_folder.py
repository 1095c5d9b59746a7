import json

import pytest

from selfie_adapters.config.settings import Settings
from selfie_adapters.errors import ConfigError, DataError, SelfieError
from selfie_adapters.evaluation.folder import EvaluationFolder
from selfie_adapters.evaluation.loss.protocol import LossRow

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
    with pytest.raises(ConfigError, match=r"different a\.json \(the hashes differ\)"):
        EvaluationFolder(tmp_path / "r", "loss", SETTINGS, {"a.json": "other"})
    (tmp_path / "f").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        opened(tmp_path / "f")
    (tmp_path / "r" / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match="not an evaluation's configuration"):
        opened(tmp_path / "r")


class _Earlier(Settings):
    seed: int


class _Later(_Earlier):
    scales: tuple[float, ...] = (1.0,)


def test_a_setting_that_an_earlier_version_did_not_have_counts_as_its_default(tmp_path):
    EvaluationFolder(tmp_path / "r", "loss", _Earlier(seed=1))
    EvaluationFolder(tmp_path / "r", "loss", _Later(seed=1))
    with pytest.raises(ConfigError, match=r"scales \[1\.0\]; now it is \[2\.0\]"):
        EvaluationFolder(tmp_path / "r", "loss", _Later(seed=1, scales=(2.0,)))
    with pytest.raises(ConfigError, match="seed 1; now it is 2"):
        EvaluationFolder(tmp_path / "r", "loss", _Later(seed=2))


class _Chat(Settings):
    model: str | None = None
    protocol: str = "openai"


class _Asking(Settings):
    chat: _Chat = _Chat()


def test_a_setting_that_a_section_inside_did_not_have_counts_as_its_default(tmp_path):
    earlier = EvaluationFolder(tmp_path / "r", "loss", {"chat": {"model": "m"}})
    EvaluationFolder(earlier.folder, "loss", _Asking(chat=_Chat(model="m")))
    for other in (_Chat(model="n"), _Chat(model="m", protocol="batches")):
        with pytest.raises(ConfigError, match="holds an evaluation with chat"):
            EvaluationFolder(earlier.folder, "loss", _Asking(chat=other))


def test_a_unit_is_done_once(tmp_path):
    folder = opened(tmp_path / "r")
    folder.add("x", {})
    with pytest.raises(ValueError, match="done already"):
        folder.add("x", {})


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"key": "y", "losses": [["a"]]}', r"losses\[0\]\[0\]"),
        ('{"key": "y", "losses": 1}', "losses"),
        ('{"key": "y"}', "losses"),
        ('{"key": 5, "losses": []}', "key: a string is expected, found 5"),
        ('{"losses": []}', "key: a string is expected, found None"),
        ('{"key": "y", "losses', "not JSON"),
        ("[]", "a JSON object is expected"),
        ("nonsense", "not JSON"),
    ],
)
def test_a_row_that_is_none_is_named_with_file_and_line(tmp_path, line, found):
    def loss_folder():
        return EvaluationFolder(tmp_path / "r", "loss", SETTINGS, kind=LossRow)

    loss_folder().add("x", {"losses": [[1.5]]})
    with (tmp_path / "r" / "rows.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=rf"rows\.jsonl, line 2[:,].*{found}"):
        loss_folder()


def test_a_row_of_the_right_kind_that_does_not_fit_can_be_named(tmp_path):
    opened(tmp_path / "r").add("x", {"loss": 1.5})
    error = opened(tmp_path / "r").damaged("x", "has 2 losses")
    assert "rows.jsonl, line 1: x has 2 losses. Remove the line" in str(error)


def test_an_input_that_is_known_late_is_recorded_and_checked(tmp_path):
    opened(tmp_path / "r").also_depends_on("model_weights", "ab")
    again = opened(tmp_path / "r")
    again.also_depends_on("model_weights", "ab")
    assert json.loads(again.finish({}).read_text())["inputs"] == {
        "a.json": "12ab",
        "model_weights": "ab",
    }
    with pytest.raises(ConfigError, match="different model weights"):
        opened(tmp_path / "r").also_depends_on("model_weights", "cd")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b'{"protocol": "loss"}', b'{"protocol": "loss", "settings": [], "inputs": {}}'],
)
def test_a_damaged_configuration_is_named(tmp_path, content):
    opened(tmp_path / "r")
    (tmp_path / "r" / "config.json").write_bytes(content)
    with pytest.raises(SelfieError, match=r"config\.json"):
        opened(tmp_path / "r")


def test_rows_of_an_unknown_evaluation_are_not_taken_over(tmp_path):
    opened(tmp_path / "r").add("x", {"loss": 1.5})
    (tmp_path / "r" / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"rows\.jsonl holds results, and config\.json"):
        opened(tmp_path / "r")
