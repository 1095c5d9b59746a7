from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfie_adapters.config.prepare import TopicSettings, read_positions
from selfie_adapters.dataset import load_dataset, split_indices
from selfie_adapters.dataset.captured import Captured
from selfie_adapters.dataset.vectors import vectors_digest
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.tokens import encode
from selfie_adapters.sources import Topic, topic_vectors
from selfie_adapters.sources.topics.dataset import write_topic_dataset
from selfie_adapters.sources.topics.reading import topic_texts
from selfie_adapters.sources.topics.topic import split_topics
from tiny import D_MODEL, golden_tokenizer, tiny_network

NAMES = "owl bee fog saw drum soup lemon otter bread violin choir frost".split()
TOPICS = [Topic((name, f"some {name}"), name=name) for name in NAMES]
SETTINGS = TopicSettings(layers=(0, 2), val_fraction=0.25, seed=3)


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
        (TOPICS, TopicSettings(layers=(1,), positions=(0,)), "a position after the topic's name"),
        (TOPICS, TopicSettings(layers=(1,), positions=(4,)), "position 4, is the mean"),
        (TOPICS, TopicSettings(layers=()), "at least one"),
        (TOPICS, TopicSettings(layers=(1, 1)), "give each once"),
        (TOPICS, TopicSettings(layers=(1,), val_fraction=0.0), "between 0 and 1"),
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
    monkeypatch.setattr("selfie_adapters.sources.topics.dataset.topic_vectors", None)
    with pytest.raises(DataError, match="val_fraction"):
        write_topic_dataset(
            model, TOPICS, TopicSettings(layers=(1,), val_fraction=2), tmp_path / "t.json"
        )


def test_topics_that_come_with_a_split_keep_it(model, tmp_path):
    splits = ["test", "train", "train", "val", "train"]
    topics = [
        Topic((name,), name=name, split=split)
        for name, split in zip(["owl", "tin", "bee", "gnu", "fox"], splits, strict=True)
    ]
    settings = TopicSettings(layers=(1,), chat="none")
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
        sides = split_topics(topics, 0.3, seed)
        assert len(sides) == len(topics)
        assert {"train", "val"} == set(sides)
        for same in ((0, 1, 4), (2, 6), (9, 10, 11)):
            assert len({sides[i] for i in same}) == 1
    alone = [Topic((name,), name=name) for name in ("owl", "bee", "fog", "ant", "elk")]
    _, val = split_indices(range(5), 0.4, 7)  # the published rule, as before
    assert [i for i, side in enumerate(split_topics(alone, 0.4, 7)) if side == "val"] == val
    twice = [Topic(("a",), "owl", split="train"), Topic(("b",), "Owl", split="val")]
    with pytest.raises(DataError, match='"Owl" is in more than one split'):
        split_topics(twice, 0.4, 7)


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

    other = SETTINGS.model_copy(update={"question": "What is {}?"})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(Killed):
            write_topic_dataset(model, TOPICS, other, path, overwrite=True)
    with pytest.raises(DataError, match="is not the vector file that these labels were written"):
        load_dataset(path)
    write_topic_dataset(model, TOPICS, other, path, overwrite=True)
    assert load_dataset(path).sections[0].metadata["question"] == "What is {}?"


SEVERAL = TopicSettings(
    layers=(0, 2),
    chat="none",
    positions=(-1, "name"),
    frames=str(Path(__file__).with_name("five_frames.txt")),
    no_concept=0.5,
    val_fraction=0.25,
    seed=3,
)


@pytest.fixture(scope="module")
def several(model, tmp_path_factory):
    return write_topic_dataset(
        model, TOPICS, SEVERAL, tmp_path_factory.mktemp("several") / "t.json"
    )


def test_one_section_a_layer_and_position_and_one_without_concepts(several):
    sections = load_dataset(several).sections
    assert [(s.layer, s.metadata["position"], s.metadata["vector_type"]) for s in sections] == [
        (0, -1, "topic"), (2, -1, "topic"), (0, "name", "topic"), (2, "name", "topic"),
        (0, "null", "null"), (2, "null", "null"),
    ]  # fmt: skip
    assert sections[2].metadata["filename"] == "t_l0_at_name.safetensors"
    assert {section.metadata["no_concept"] for section in sections} == {"nothing"}
    assert len({section.id for section in sections}) == 6


def test_at_a_name_the_state_of_its_last_token_is_taken(model, several):
    means = load_file(several.parent / "t_mean.safetensors")
    assert sorted(means) == [
        "layer_0_at_-1", "layer_0_at_name", "layer_2_at_-1", "layer_2_at_name",
    ]  # fmt: skip
    section = load_dataset(several).sections[3]
    whole = section.vectors + means["layer_2_at_name"]
    words = ("The", "An", "No", "One", "Of")
    for item in section.items:
        name = item.labels[0]
        # The last token of what comes up to the name: nothing after it is seen.
        texts = [f"{word} {name}" for word in words]
        candidates = topic_vectors(model, texts, [2])[:, 0]
        here = [torch.allclose(whole[item.index], one, atol=1e-5) for one in candidates]
        assert here[4] == (item.split != "train")  # the fifth sentence is held out
        assert sum(here) == 1
    counts = {split: sum(i.split == split for i in section.items) for split in ("train", "val")}
    assert counts == {"train": 9 * 2, "val": 3 * 1}


def test_vectors_without_a_concept_have_one_label(several):
    section = load_dataset(several).sections[5]
    assert {tuple(item.labels) for item in section.items} == {("nothing",)}
    splits = [item.split for item in section.items]
    assert splits.count("train") > 8  # half of 27 states, and of the empty prompts
    assert splits.count("val") > 1
    assert section.vectors.isfinite().all()
    assert len(section.vectors.unique(dim=0)) > 0.9 * len(section.vectors)


def test_a_file_of_several_positions_states_what_they_share(several):
    stated = Captured.by_sections(load_dataset(several).sections)
    assert stated == Captured("none", "Tell me about {}.", None, "nothing")


@pytest.mark.parametrize(
    ("text", "positions"),
    [
        ("-1", (-1,)),
        ("-1,name", (-1, "name")),
        ("-3:0, name", (-3, -2, -1, "name")),
        ("2:4", (2, 3)),
    ],
)
def test_positions_as_users_write_them(text, positions):
    assert read_positions(text) == positions


@pytest.mark.parametrize("text", ["last", "nam", "4:2", "-2:2", "1:1", "", "1.5", "-"])
def test_positions_that_are_none(text):
    with pytest.raises(DataError, match="positions"):
        read_positions(text)


def test_what_cannot_be_taken_is_refused(model, tmp_path):
    out = tmp_path / "t.json"
    prompts = [Topic((name,), prompt=f"About {name}.") for name in NAMES]
    for topics, settings, message in (
        (prompts, SEVERAL, 'topic 0 \\("owl"\\) has a prompt and no name'),
        (
            TOPICS,
            SEVERAL.model_copy(update={"positions": (-1,)}),
            "from the sentences around names",
        ),
        (TOPICS, SEVERAL.model_copy(update={"no_concept": 2.0}), "a share from 0 to 1"),
        (TOPICS, SEVERAL.model_copy(update={"positions": (-1, -1)}), "give each once"),
        (TOPICS, SEVERAL.model_copy(update={"frames_per_topic": 0}), "give 1 or more"),
    ):
        with pytest.raises(DataError, match=message):
            write_topic_dataset(model, topics, settings, out)
    assert not list(tmp_path.iterdir())


def test_names_alone_for_training_and_all_labels_to_judge_by(model, tmp_path):
    settings = SETTINGS.model_copy(update={"names_only": True})
    data = load_dataset(write_topic_dataset(model, TOPICS, settings, tmp_path / "t.json"))
    labels = {item.split: len(item.labels) for item in data.labelled()}
    assert labels == {"train": 1, "val": 2}
    assert {item.labels[0] for item in data.labelled()} == set(NAMES)
