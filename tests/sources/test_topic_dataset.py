from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfie_adapters.dataset import load_dataset, split_indices
from selfie_adapters.dataset.captured import Captured
from selfie_adapters.dataset.digest import vectors_digest
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.tokens import encode
from selfie_adapters.sources import Topic, topic_vectors
from selfie_adapters.sources.topic_dataset import TopicSettings, _split, write_topic_dataset
from selfie_adapters.sources.topics import topic_texts
from tiny import D_MODEL, golden_tokenizer, tiny_network

NAMES = "owl bee fog saw drum soup lemon otter bread violin choir frost".split()
TOPICS = [Topic((name, f"some {name}"), name=name) for name in NAMES]
SETTINGS = TopicSettings((0, 2), val_fraction=0.25, seed=3)


@pytest.fixture(scope="module")
def model():
    return FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")


@pytest.fixture(scope="module")
def captured(model):
    texts = topic_texts(model, TOPICS, SETTINGS.question, SETTINGS.chat)
    return topic_vectors(model, texts, SETTINGS.layers)


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("topics")
    return write_topic_dataset(model, TOPICS, SETTINGS, folder / "new/things.json.gz")


def test_one_section_a_layer_with_vectors_beside_the_file(written):
    assert written.name == "things.json.gz"
    names = {path.name for path in written.parent.iterdir()}
    layers = {"things_l0.safetensors", "things_l2.safetensors"}
    assert names == {"things.json.gz", "things_mean.safetensors", *layers}
    sections = load_dataset(written).sections
    assert [section.id for section in sections] == ["things@l0", "things@l2"]
    assert all(section.vectors.shape == (len(TOPICS), D_MODEL) for section in sections)


def test_vectors_and_mean_add_up_to_what_was_captured(written, captured):
    means = load_file(written.parent / "things_mean.safetensors")
    assert sorted(means) == ["layer_0", "layer_2"]
    for column, section in enumerate(load_dataset(written).sections):
        whole = section.vectors + means[f"layer_{section.layer}"]
        torch.testing.assert_close(whole, captured[:, column])


def test_file_and_means_state_how_the_vectors_were_captured(written):
    stated = Captured("template", "Tell me about {}.", -1)
    assert Captured.by_sections(load_dataset(written).sections) == stated
    assert Captured.by_mean_file(written.parent / "things_mean.safetensors") == stated


def test_the_mean_is_that_of_the_training_topics(written, captured):
    train, val = split_indices(range(len(TOPICS)), 0.25, 3)
    assert len(val) == 3
    means = load_file(written.parent / "things_mean.safetensors")
    for column, layer in enumerate(SETTINGS.layers):
        mean = means[f"layer_{layer}"]
        torch.testing.assert_close(mean, captured[train, column].mean(dim=0))
        assert not mean.allclose(captured[:, column].mean(dim=0), atol=1e-4)


def test_split_and_labels_are_those_of_the_rule_and_the_topics(written):
    train, val = split_indices(range(len(TOPICS)), 0.25, 3)
    for section in load_dataset(written).sections:
        assert [item.index for item in section.items] == [*train, *val]
        assert [item.split for item in section.items] == ["train"] * 9 + ["val"] * 3
        for item in section.items:
            assert item.labels == list(TOPICS[item.index].labels)


def test_metadata_says_how_the_vectors_were_made(written):
    section = load_dataset(written).sections[1]
    assert section.metadata == {
        "dataset_name": "things",
        "filename": "things_l2.safetensors",
        "layer": 2,
        "source": "topics",
        "vector_type": "topic",
        "model": "tiny",
        "model_dim": D_MODEL,
        "question": "Tell me about {}.",
        "chat": "template",
        "position": -1,
        "mean_file": "things_mean.safetensors",
        "vectors_digest": vectors_digest(section.vectors),
    }


@pytest.mark.parametrize(
    ("topics", "settings", "message"),
    [
        (TOPICS[:1], SETTINGS, "at least 2"),
        (TOPICS[:2], SETTINGS, "is the mean of the training topics"),
        (TOPICS[:1] * 8, SETTINGS, "at least 2 are needed"),
        (TOPICS, TopicSettings((1,), position=0), "a position after the topic's name"),
        (TOPICS, TopicSettings((1,), position=4), "position 4, is the mean"),
        (TOPICS, TopicSettings(()), "at least one"),
        (TOPICS, TopicSettings((1, 1)), "each layer once"),
        (TOPICS, TopicSettings((1,), val_fraction=0.0), "between 0 and 1"),
    ],
)
def test_what_would_say_nothing_about_a_topic_is_not_written(
    model, tmp_path, topics, settings, message
):
    with pytest.raises(DataError, match=message):
        write_topic_dataset(model, topics, settings, tmp_path / "t.json")
    assert not list(tmp_path.iterdir())


def test_vectors_that_are_not_finite_are_not_written(tmp_path):
    network, tokenizer = tiny_network("llama"), golden_tokenizer()
    with torch.no_grad():
        network.get_input_embeddings().weight[encode(tokenizer, "z")] = float("inf")
    broken = FrozenModel(network, tokenizer, "tiny")
    topics = [*TOPICS, Topic(("zoo",), name="zoo")]
    with pytest.raises(DataError, match="is NaN or infinite"):
        write_topic_dataset(broken, topics, SETTINGS, tmp_path / "t.json")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_split_is_refused_before_the_model_is_run(model, tmp_path, monkeypatch):
    monkeypatch.setattr("selfie_adapters.sources.topic_dataset.topic_vectors", None)
    with pytest.raises(DataError, match="val_fraction"):
        write_topic_dataset(model, TOPICS, TopicSettings((1,), val_fraction=2), tmp_path / "t.json")


def test_topics_that_come_with_a_split_keep_it(model, tmp_path):
    splits = ["test", "train", "train", "val", "train"]
    topics = [
        Topic((name,), name=name, split=split)
        for name, split in zip(["owl", "tin", "bee", "gnu", "fox"], splits, strict=True)
    ]
    settings = TopicSettings((1,), chat="none")
    data = load_dataset(write_topic_dataset(model, topics, settings, tmp_path / "t.json"))
    found = {item.row: item.split for item in data.labelled()}
    assert [found[i] for i in range(5)] == splits
    assert [item.row for item in data.labelled()] == [1, 2, 4, 3, 0]  # train, val, test
    with pytest.raises(DataError, match='"owl" has no split and 4 others have one'):
        write_topic_dataset(
            model, [Topic(("owl",), name="owl"), *topics[1:]], settings, tmp_path / "u.json"
        )
    with pytest.raises(DataError, match='no topic has the split "train"'):
        write_topic_dataset(model, [topics[0], topics[3]], settings, tmp_path / "u.json")


def test_a_topic_that_occurs_twice_is_never_in_both_splits():
    names = ["owl", "Owl ", "bee", "fog", "owl", "ant", "bee", "elk", "yak", "gnu"]
    topics = [Topic((name,), name=name) for name in names]
    topics.append(Topic(("x",), prompt="What is fog?"))
    topics.append(Topic(("y",), name="gnu", prompt="What is fog?"))
    for seed in range(30):
        train, val = _split(topics, TopicSettings((0,), val_fraction=0.3, seed=seed))
        assert sorted([*train, *val]) == list(range(len(topics)))
        sides = {i: "val" if i in val else "train" for i in range(len(topics))}
        for same in ((0, 1, 4), (2, 6), (9, 10, 11)):
            assert len({sides[i] for i in same}) == 1
    alone = [Topic((name,), name=name) for name in ("owl", "bee", "fog", "ant", "elk")]
    settings = TopicSettings((0,), val_fraction=0.4, seed=7)
    assert _split(alone, settings) == split_indices(range(5), 0.4, 7)  # as before
    with pytest.raises(DataError, match='"Owl" is in more than one split'):
        _split([Topic(("a",), "owl", split="train"), Topic(("b",), "Owl", split="val")], settings)


def test_existing_files_are_not_replaced_unless_asked(model, tmp_path):
    path = write_topic_dataset(model, TOPICS, SETTINGS, tmp_path / "t.json")
    written = path.read_bytes()
    files = set(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"t\.json exists.*--overwrite"):
        write_topic_dataset(model, TOPICS, SETTINGS, path)
    path.unlink()
    with pytest.raises(ConfigError, match=r"t_mean\.safetensors exists"):
        write_topic_dataset(model, TOPICS, SETTINGS, path)
    write_topic_dataset(model, TOPICS, SETTINGS, path, overwrite=True)
    assert path.read_bytes() == written
    assert set(tmp_path.iterdir()) == files


@pytest.mark.parametrize("killed_at", ["t_mean.safetensors", "t.json"])
def test_killed_over_an_older_result_no_mean_goes_with_labels_of_the_other(
    model, tmp_path, monkeypatch, killed_at
):
    path = write_topic_dataset(model, TOPICS, SETTINGS, tmp_path / "t.json")
    real = Path.replace

    class Killed(BaseException):
        pass

    def replace(self, target):
        if Path(target).name == killed_at:
            raise Killed
        return real(self, target)

    other = dataclasses.replace(SETTINGS, question="What is {}?")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(Killed):
            write_topic_dataset(model, TOPICS, other, path, overwrite=True)
    with pytest.raises(DataError, match="is not the vector file that these labels were written"):
        load_dataset(path)
    write_topic_dataset(model, TOPICS, other, path, overwrite=True)
    assert load_dataset(path).sections[0].metadata["question"] == "What is {}?"
