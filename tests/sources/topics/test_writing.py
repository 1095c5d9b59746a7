from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import pytest

from chat_server import Reply, chat_server, says
from selfie_adapters.chat.request import Cost
from selfie_adapters.config.prepare import TopicWritingSettings
from selfie_adapters.dataset import split_indices
from selfie_adapters.errors import ConfigError, DataError, DownloadError
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.sources import open_topics
from selfie_adapters.sources.topics.writing import TopicWriting

TITLES = [f"Thing {i}" for i in range(12)]


def written(asked_text: str, seed: int) -> str:
    """What the writer or the judge says; label 2 is poor, label 3 the same for all topics."""
    title = json.loads(re.search(r"^Topic: (.*)$", asked_text, re.M).group(1))
    if "marks" in asked_text:
        labels = asked_text.split("Phrases:\n")[1].split("\n\n")[0].splitlines()
        marks = [2 if "poor" in label else 9 for label in labels]
        return json.dumps({"message": 2, "marks": marks})
    if title == "Thing 5":
        return "I would rather not."
    own = [f"{title} good {k} of run {seed}" for k in range(3)]
    labels = [f"first of {title}", f"poor {title}", "a thing", *own]
    return json.dumps({"prompts": [f"What is {title}?", f"Tell me of {title}."], "labels": labels})


def openai(asked):
    return says(written(asked.body["messages"][-1]["content"], asked.body["seed"]))


@pytest.fixture
def titles(tmp_path):
    path = tmp_path / "titles.json"
    path.write_text(json.dumps({"titles": TITLES}))
    return str(path)


def settings_for(titles, server, **changes):
    values = {"titles": titles, "writer": {"model": "w", "url": server.address}, "runs": 2}
    return TopicWritingSettings.model_validate({**values, **changes})


def test_topics_are_written_judged_filtered_and_split(titles, tmp_path):
    with chat_server(openai) as server:
        path = TopicWriting(settings_for(titles, server), tmp_path / "w").run()
        assert len(server.asked) == 12 * 2 + 11
    rows = read_jsonl(path)
    kept = [title for title in TITLES if title != "Thing 5"]
    assert [row["title"] for row in rows] == kept
    assert rows[0]["prompt"] == "Tell me of Thing 0."  # the judge's choice, not the first
    good = [f"Thing 0 good {k} of run {run}" for run in (0, 1) for k in range(3)]
    assert rows[0]["labels"] == ["first of Thing 0", *good]  # without the poor and the shared one
    assert rows[0]["coherence"] == 0.9
    _, val = split_indices(range(11), 0.1, 42)
    assert [i for i, row in enumerate(rows) if row["split"] == "val"] == val
    report = json.loads((tmp_path / "w/report.json").read_text())
    assert report["counts"] == {
        "titles": 12,
        "answers that could not be read": 2,
        "titles without any": 1,
        "labels written": 11 * 9,
        "labels of several topics": 11,
        "labels with a low mark": 11,
        "judgements that could not be read": 0,
        "topics with too few labels": 0,
        "topics": 11,
        "val": 1,
        "labels kept": 77,
    }
    assert report["mean coherence"] == 0.9


def test_the_file_is_read_as_topics(titles, tmp_path):
    with chat_server(openai) as server:
        path = TopicWriting(settings_for(titles, server), tmp_path / "w").run()
    topics = open_topics(str(path))
    assert [t.title for t in topics] == [row["title"] for row in read_jsonl(path)]
    assert topics[0].prompt == "Tell me of Thing 0."
    assert {t.split for t in topics} == {"train", "val"}


def test_costs_are_those_of_what_is_missing(titles, tmp_path):
    with chat_server(openai) as server:
        settings = settings_for(titles, server, max_tokens=100)
        first = TopicWriting(settings, tmp_path / "w")
        writing, judging = first.costs()
        assert server.asked == []
        assert (writing.requests, writing.output_tokens) == (24, 2400)
        assert 24 * 150 < writing.input_tokens < 24 * 300  # some 650 characters each
        assert judging.requests == 12
        first.run()
        writing, judging = TopicWriting(settings, tmp_path / "w").costs()
        assert writing.requests == judging.requests == 0
        writing, _ = TopicWriting(settings.model_copy(update={"runs": 3}), tmp_path / "w").costs()
        assert writing.requests == 12
    assert Cost(1, 2_000_000, 500_000).price(3.0, 15.0) == 13.5


def test_a_failing_server_loses_nothing(titles, tmp_path, monkeypatch):
    monkeypatch.setattr("selfie_adapters.http.FIRST_WAIT", 0.001)
    with chat_server(openai) as server:
        whole = TopicWriting(settings_for(titles, server), tmp_path / "whole").run().read_bytes()
    down = [False]

    def failing(asked):
        down[0] = down[0] or len(server.asked) > 15
        return Reply(b"", 400) if down[0] else openai(asked)

    with chat_server(failing) as server:
        settings = settings_for(titles, server)
        with pytest.raises(DownloadError):
            TopicWriting(settings, tmp_path / "w").run()
        answered = len(read_jsonl(tmp_path / "w/answers/answers.jsonl"))
        assert 10 < answered < 24
        server.reply, before = openai, len(server.asked)
        assert TopicWriting(settings, tmp_path / "w").run().read_bytes() == whole
        assert len(server.asked) - before == 24 + 11 - answered


class Batches:
    """The Anthropic protocol; batches end at the second look."""

    def __init__(self):
        self.batches, self.looks = [], {}

    def __call__(self, asked):
        if asked.method == "POST":
            self.batches.append(asked.body["requests"])
            return self.json({"id": f"b{len(self.batches) - 1}"})
        name = asked.path.split("/")[4]
        if asked.path.endswith("/results"):
            rows = [
                {
                    "custom_id": r["custom_id"],
                    "result": self.result(r),
                }
                for r in self.batches[int(name[1:])]
            ]
            return Reply("\n".join(map(json.dumps, rows)).encode())
        self.looks[name] = self.looks.get(name, 0) + 1
        status = "ended" if self.looks[name] > 1 else "in_progress"
        return self.json({"processing_status": status})

    @staticmethod
    def json(value):
        return Reply(json.dumps(value).encode())

    @staticmethod
    def result(row):
        text = written(row["params"]["messages"][0]["content"], 0)
        return {"type": "succeeded", "message": {"content": [{"type": "text", "text": text}]}}


_RUN = """
import sys
from selfie_adapters.cli import main
main(["prepare", "dataset", "--config", sys.argv[1], "--out", sys.argv[2], "--yes"])
"""


@pytest.mark.slow
def test_a_process_killed_while_a_batch_is_under_way(titles, tmp_path):
    config = tmp_path / "c.yaml"
    with chat_server(Batches()) as server:
        writer = {"model": "w", "url": server.address, "protocol": "anthropic_batches"}
        config.write_text(json.dumps({"titles": titles, "writer": writer}))
        command = [sys.executable, "-c", _RUN, str(config), str(tmp_path / "w")]
        process = subprocess.Popen(command)
        until = time.monotonic() + 60
        while not server.reply.looks and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [len(rows) for rows in server.reply.batches] == [12]
        assert len(read_jsonl(tmp_path / "w/answers/batches.jsonl")) == 1
        server.reply.looks["b1"] = 5  # the judging does not have to be waited for
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert [len(rows) for rows in server.reply.batches] == [12, 11]  # nothing paid twice
    rows = read_jsonl(tmp_path / "w/topics.jsonl")
    assert len(rows) == 11
    assert rows[0]["labels"][0] == "first of Thing 0"


def test_earlier_runs_are_merged(titles, tmp_path):
    with chat_server(openai) as server:
        first = settings_for(titles, server, runs=1)
        TopicWriting(first, tmp_path / "a").run()
        other = tmp_path / "other.txt"
        other.write_text("Thing 3\nNew thing\n")
        both = settings_for(
            str(other), server, runs=2, earlier=[str(tmp_path / "a/candidates.jsonl")]
        )
        rows = read_jsonl(TopicWriting(both, tmp_path / "b").run())
    assert len(rows) == 12
    by_title = {row["title"]: row["labels"] for row in rows}
    assert len(by_title["Thing 3"]) == 7  # two runs of this time; the earlier one is one of them
    assert len(by_title["Thing 4"]) == 4
    assert len(by_title["New thing"]) == 7


def test_without_a_judge_everything_but_shared_labels_is_kept(titles, tmp_path):
    with chat_server(openai) as server:
        settings = settings_for(titles, server, judged=False, runs=1, limit=4)
        rows = read_jsonl(TopicWriting(settings, tmp_path / "w").run())
        assert len(server.asked) == 4
    assert rows[0]["prompt"].startswith("What is")
    assert all(any("poor" in label for label in row["labels"]) for row in rows)
    assert all("coherence" not in row for row in rows)
    assert len(rows) in (3, 4)  # without Thing 5, if it was drawn
    chosen = [row["title"] for row in rows]
    assert chosen == [title for title in TITLES if title in chosen]


def test_nothing_usable_says_so(titles, tmp_path):
    with chat_server(lambda _asked: says("no")) as server:
        with pytest.raises(DataError, match=r"0 topics are left of 12 titles"):
            TopicWriting(settings_for(titles, server), tmp_path / "w").run()
        (tmp_path / "c.jsonl").write_text('{"title": "x", "prompts": [], "labels": ["y"]}\n')
        earlier = settings_for(titles, server, earlier=[str(tmp_path / "c.jsonl")])
        with pytest.raises(DataError, match="row 1: title, prompts and labels"):
            TopicWriting(earlier, tmp_path / "v")


@pytest.mark.parametrize(
    ("writer", "words"),
    [
        ({"model": "m", "protocol": "anthropic_batches"}, "needs url"),
        ({"model": "m", "input_price": 1}, "both input_price and output_price"),
        ({"url": "http://x/v1"}, "needs the model's name"),
    ],
)
def test_writers_that_make_no_sense(writer, words):
    with pytest.raises(ValueError, match=words):
        TopicWritingSettings.model_validate({"titles": "t", "writer": writer})


def test_no_model_at_all(titles, tmp_path):
    settings = TopicWritingSettings.model_validate({"titles": titles, "writer": {}})
    with pytest.raises(ConfigError, match="no chat model is named"):
        TopicWriting(settings, tmp_path / "w")
