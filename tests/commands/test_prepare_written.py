import contextlib
import json
from pathlib import Path

import pytest

from chat_server import chat_server, writes_topics
from selfie_adapters.cli import main
from selfie_adapters.config.prepare import TopicWritingSettings
from selfie_adapters.config.settings import read_config
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.sources.topics.titles import read_titles

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> None:
    with contextlib.suppress(SystemExit):  # a finished command may or may not end the process
        main(arguments)


def test_costs_first_then_the_data_set(tmp_path, capsys):
    (tmp_path / "titles.txt").write_text("Owl\nFog\nBee\n")
    config = tmp_path / "c.yaml"
    out = str(tmp_path / "w")
    with chat_server(writes_topics) as server:
        writer = {"model": "w", "url": server.address, "input_price": 2.0, "output_price": 10.0}
        config.write_text(json.dumps({"titles": "titles.txt", "writer": writer, "max_tokens": 500}))
        command = ["prepare", "dataset", "--config", str(config), "--out", out]
        run(*command)
        said = " ".join(capsys.readouterr().out.split())
        assert "writing: 3 requests" in said
        assert "at most 1,500 out, at most 0.02 in all" in said
        assert "no request was sent" in said
        assert server.asked == []
        run(*command, "--yes")
        assert len(server.asked) == 6
        assert "topics 3, val 1" in " ".join(capsys.readouterr().out.split())
        run(*command)  # all is answered: nothing to be paid, nothing to be asked
        assert len(server.asked) == 6
    rows = read_jsonl(tmp_path / "w/topics.jsonl")
    assert [row["name"] for row in rows] == ["Owl", "Fog", "Bee"]
    assert rows[0]["prompt"] == "What is Owl?"


def test_errors_are_one_red_line(tmp_path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text("titels: t.txt\nwriter: {model: demo}\n")
    with pytest.raises(SystemExit) as caught:
        main(["prepare", "dataset", "--config", str(config), "--out", str(tmp_path / "w")])
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert 'titels: unknown key. Did you mean "titles"?' in error
    assert "titles: missing" in error
    assert "Traceback" not in error


def test_the_settings_file_that_comes_along():
    given = read_config(ROOT / "data_prep/configs/topics_from_titles.yaml", TopicWritingSettings)
    assert len(read_titles(ROOT / given.titles)) == 24
