from __future__ import annotations

import json

import pytest

from letters import LettersEmbedder
from selfie_adapters.config.evaluation.retrieval import RetrievalSettings
from selfie_adapters.config.evaluation.taboo import TabooSettings
from selfie_adapters.errors import ConfigError, DownloadError
from selfie_adapters.evaluation.retrieval.protocol import Retrieval
from selfie_adapters.evaluation.taboo.protocol import Taboo
from selfie_adapters.files.json_lines import read_jsonl

# what the model says holds the next topic's letters, so that redaction matters
SAID = {
    "owl": "An owl hoots.",
    "tin": "A grey metal, not tiny",
    "bee": "Bees: beetle-like",
    "ladder": "laddder",
    "gnu": "",
    "fox": "a Fox",
}
NAMES = list(SAID)


class FakeChat:
    name = "fake"
    weights: str | None = None

    def __init__(self, fails_after=None):
        self.asked = []
        self._fails_after = fails_after

    def answer(self, requests, done=lambda _number, _text: None):
        texts = []
        for number, request in enumerate(requests):
            if self._fails_after is not None and number == self._fails_after:
                raise DownloadError("no answer")
            (message,) = request.messages
            (name,) = [name for name in NAMES if f'"{name}"' in message.content]
            self.asked.append(name)
            texts.append(SAID[name])
            done(number, SAID[name])
        return texts


def run(settings, folder, chat):
    return Taboo.run(settings, folder, chat=chat, embedder=LettersEmbedder())


@pytest.fixture
def topics(tmp_path):
    path = tmp_path / "topics.jsonl"
    rows = [{"name": name, "labels": [name, f"the {name} itself"]} for name in NAMES]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def retrieval(tmp_path, topics):
    said = tmp_path / "said.jsonl"
    texts = ["owls", "tins", "wasps", "ladder"]
    rows = [{"topic": n, "label": t} for n, t in zip(NAMES[:4], texts, strict=True)]
    said.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = read_jsonl(topics)
    for i, row in enumerate(lines):
        row["split"] = "val" if i < 4 else "train"
    (tmp_path / "topics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    settings = RetrievalSettings(topics=topics, labels={"vectors": str(said)})
    Retrieval.run(settings, tmp_path / "retrieval", embedder=LettersEmbedder())
    return str(tmp_path / "retrieval")


def read(path):
    return json.loads(path.read_text()), read_jsonl(path.parent / "labels.jsonl")


def labels_of(table, condition):
    return [row["label"] for row in table if row["condition"] == condition]


def test_descriptions_lose_the_name_and_are_looked_up(tmp_path, topics):
    settings = TabooSettings(topics=topics)
    results, table = read(run(settings, tmp_path / "t", FakeChat()))
    assert labels_of(table, "description") == [
        "An ___ hoots.",
        "A grey metal, not tiny",
        "___: beetle-like",
        "laddder",
        "",
        "a ___",
    ]
    assert labels_of(table, "description, as written") == list(SAID.values())
    assert set(labels_of(table, "nothing said")) == {"___"}
    shuffled = labels_of(table, "description: shuffled")
    assert sorted(shuffled) == sorted(labels_of(table, "description"))
    assert labels_of(table, "training labels, redacted") == ["the ___ itself"] * 6
    assert results["answers_with_the_name"] == 3  # owl, bee, fox
    assert results["blank_answers"] == 1
    assert results["counts"] == {"topics": 6, "asked": 6}
    assert results["comparisons"] == []
    assert results["inputs"]["chat_model"] == "fake"


def test_labels_of_a_retrieval_are_compared_on_the_same_topics(tmp_path, topics, retrieval):
    settings = TabooSettings(topics=topics, retrieval=retrieval)
    chat = FakeChat()
    results, table = read(run(settings, tmp_path / "t", chat))
    assert chat.asked == NAMES[:4]
    assert labels_of(table, "vectors") == ["owls", "tins", "wasps", "ladder"]
    assert labels_of(table, "vectors, redacted") == ["___", "___", "wasps", "___"]
    first, bare = results["comparisons"]
    assert (first["first"], first["second"]) == ("vectors", "description")
    assert bare["first"] == "vectors, redacted"
    ranks = {
        name: [row["rank"] for row in table if row["condition"] == name]
        for name in ("vectors", "description")
    }
    at_1 = {name: sum(rank == 1 for rank in ranks[name]) / 4 for name in ranks}
    difference = first["difference"]["recall_at_1"]["mean"]
    assert difference == pytest.approx(at_1["vectors"] - at_1["description"])
    assert first["queries"] == 4
    # the retrieval's own ranks come out again
    rows = read_jsonl(f"{retrieval}/labels.jsonl")
    again = [row["rank"] for row in rows if row["condition"] == "vectors"]
    assert ranks["vectors"] == again


def test_labels_of_a_recipes_seeds_are_one_row(tmp_path, topics, retrieval):
    """The retrieval's results state which of its adapters differ in their seed alone."""
    folder = tmp_path / "retrieval"
    rows = [row for row in read_jsonl(folder / "labels.jsonl") if row["condition"] == "vectors"]
    labels = ({}, {"ladder": "gnu"})  # the second seed is wrong about it
    seeds = [
        {**row, "condition": f"r-{seed}", "label": labels[seed].get(row["topic"], row["label"])}
        for seed in (0, 1)
        for row in rows
    ]
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in seeds))
    results = json.loads((folder / "results.json").read_text())
    results["settings"] |= {"adapters": {"r-0": "x", "r-1": "y"}, "labels": {}}
    results["recipes"] = [{"recipe": "r", "adapters": ["r-0", "r-1"], "by_seed": [0.5, 0.25]}]
    (folder / "results.json").write_text(json.dumps(results))
    found, _ = read(
        run(TabooSettings(topics=topics, retrieval=retrieval), tmp_path / "t", FakeChat())
    )
    assert found["recipes"] == [{"recipe": "r", "adapters": ["r-0", "r-1"]}]
    conditions, minus, _ = Taboo.report(found)
    names = [row[0] for row in conditions.rows]
    assert names[-2:] == ["r, 2 seeds", "r, redacted, 2 seeds"]
    assert [row[0] for row in minus.rows] == names[-2:]
    at_1 = [one["difference"]["recall_at_1"]["mean"] for one in found["comparisons"][::2]]
    mean, low, high = (100 * one for one in (sum(at_1) / 2, min(at_1), max(at_1)))
    assert low < high
    assert minus.rows[0][1] == f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def test_a_limit_holds_for_the_labels_too(tmp_path, topics, retrieval):
    settings = TabooSettings(topics=topics, retrieval=retrieval, limit=2)
    results, table = read(run(settings, tmp_path / "t", FakeChat()))
    asked = [row["topic"] for row in table if row["condition"] == "description"]
    assert len(asked) == 2
    for condition in results["conditions"]:
        rows = [row for row in table if row["condition"] == condition["condition"]]
        assert [row["topic"] for row in rows] == asked


def test_answers_are_kept_when_the_server_fails(tmp_path, topics):
    settings = TabooSettings(topics=topics)
    path = run(settings, tmp_path / "whole", FakeChat())
    with pytest.raises(DownloadError):
        run(settings, tmp_path / "t", FakeChat(fails_after=2))
    again = FakeChat()
    resumed = run(settings, tmp_path / "t", again)
    assert again.asked == NAMES[2:]
    assert resumed.read_bytes() == path.read_bytes()
    table = (path.parent / "labels.jsonl").read_bytes()
    assert (resumed.parent / "labels.jsonl").read_bytes() == table


def test_another_retrieval_is_refused(tmp_path, topics, retrieval):
    with pytest.raises(ConfigError, match="made with index 'title'; here it is 'mean'"):
        run(
            TabooSettings(topics=topics, retrieval=retrieval, index="mean"),
            tmp_path / "t",
            FakeChat(),
        )
    (tmp_path / "topics.jsonl").write_text('{"name": "elk"}\n{"name": "owl"}\n')
    settings = TabooSettings(topics=topics, retrieval=retrieval)
    with pytest.raises(ConfigError, match='topic 0 was "owl" there'):
        run(settings, tmp_path / "t", FakeChat())
    (tmp_path / "retrieval/results.json").write_text('{"protocol": "loss", "settings": {}}')
    with pytest.raises(ConfigError, match="not the results of a retrieval"):
        run(settings, tmp_path / "t", FakeChat())


def test_other_weights_of_a_chat_model_in_this_process_are_noticed(tmp_path, topics):
    settings, chat = TabooSettings(topics=topics), FakeChat(fails_after=2)
    chat.weights = "a"
    with pytest.raises(DownloadError):
        run(settings, tmp_path / "t", chat)
    other = FakeChat()
    other.weights = "b"
    with pytest.raises(ConfigError, match="different chat weights"):
        run(settings, tmp_path / "t", other)
    assert not other.asked
    other.weights = "a"
    found = json.loads(run(settings, tmp_path / "t", other).read_text())
    assert found["inputs"]["chat_weights"] == "a"
    assert other.asked == NAMES[2:]
