import contextlib
import json
import re
from pathlib import Path

import pytest

from killed_eval import check_kill
from selfie_adapters.cli import main
from selfie_adapters.config.evaluation.bridge import BridgeSettings
from selfie_adapters.config.settings import read_config

ROOT = Path(__file__).parents[2]

QUESTION = {
    "uid": "q/1",
    "e1.value": "<b>&",
    "e2.value": "France",
    "e3.value": "euro",
    "e2.aliases": "(('France',),)",
    "r1(e1).prompt": "Its land is",
    "r2(r1(e1)).prompt": "A <b>&$ coin is",
}


def run(*arguments: str) -> None:
    with contextlib.suppress(SystemExit):  # a finished command may or may not end the process
        main(arguments)


@pytest.fixture
def config(tmp_path, golden_dir):
    (tmp_path / "q.jsonl").write_text(
        "".join(json.dumps({**QUESTION, "uid": f"q/{i}"}) + "\n" for i in range(2))
    )
    path = tmp_path / "bridge.yaml"
    values = {
        "questions": str(tmp_path / "q.jsonl"),
        "only_answered": False,
        "model": str(golden_dir / "model"),
        "dtype": "float32",
        "adapter": str(golden_dir / "adapters/scalar_affine_norm.safetensors"),
        "layers": "1",
        "samples": 1,
        "max_new_tokens": 2,
        "untrained_scales": [2.0],
        "random": False,
    }
    path.write_text(json.dumps(values))
    return path


def test_table_results_and_page(config, tmp_path, capsys):
    run("eval", "bridge", "--config", str(config), "--out", str(tmp_path / "out"))
    said = capsys.readouterr().out
    for words in (
        "trained",
        "untrained × 2",
        "zero vector",
        "logit lens",
        "questions 2",
        "0.0 [0.0",
    ):
        assert words in said
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["protocol"] == "bridge"
    # Both questions have one bridge: they count as one unit, and there is no other to compare with.
    assert results["conditions"][0]["decoded"]["n"] == 1
    assert results["conditions"][0]["decoded"]["low"] == 0
    assert 0.5 < results["conditions"][0]["decoded"]["high"] < 1
    assert results["targets"] == []
    page = (tmp_path / "out/bridge.html").read_text()
    assert "A &lt;b&gt;&amp;$ coin is" in page
    assert page.count("<svg") == 3  # the average and one a question
    assert not re.search(r"(?:src|href)=[\"']https?:", page)  # needs no other file
    before = (tmp_path / "out/results.json").read_bytes()
    run("eval", "bridge", "--config", str(config), "--out", str(tmp_path / "out"))
    assert (tmp_path / "out/results.json").read_bytes() == before


def test_killed_by_force_it_goes_on_to_the_same_results(config, tmp_path):
    check_kill(tmp_path, "bridge", config, ("results.json", "rows.jsonl", "bridge.html"))


def test_errors_are_one_red_line(config, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(
            ["eval", "bridge", "--config", str(config), "--out", str(tmp_path), "--set", "sample=3"]
        )
    assert 'Did you mean "samples"?' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["eval", "bridge", "--config", str(config), "--set", "questions=no.jsonl"])
    assert "no.jsonl" in capsys.readouterr().err


def test_the_settings_file_that_comes_along():
    given = read_config(ROOT / "evaluation/configs/bridge.yaml", BridgeSettings)
    assert given.questions == "facts"
    published = {"limit": 500, "samples": 10, "max_new_tokens": 20, "temperature": 0.7}
    assert {key: BridgeSettings.model_fields[key].default for key in published} == published
