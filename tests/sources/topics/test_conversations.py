"""A topic's name in a conversation, in place of a question."""

from __future__ import annotations

import json

import pytest

from selfie_adapters.chat.request import Message
from selfie_adapters.config.prepare import TopicSettings, read_positions
from selfie_adapters.dataset import load_dataset
from selfie_adapters.errors import DataError
from selfie_adapters.model import FrozenModel
from selfie_adapters.sources import Topic, topic_vectors
from selfie_adapters.sources.topics.dataset import write_topic_dataset
from selfie_adapters.sources.topics.reading import topic_texts
from selfie_adapters.tensor_files.safetensors_file import safetensors_metadata
from tiny import golden_tokenizer, tiny_network

MESSAGES = (Message("system", "Be short."), Message("user", "What is {}? Say what {} is."))
TOPICS = [Topic((name,), name=name) for name in ("owl", "bee", "fog", "saw")]
TOPICS.append(Topic(("soup",), prompt="the soup"))


@pytest.fixture(scope="module")
def model():
    return FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "m.json"
    path.write_text(json.dumps([message._asdict() for message in MESSAGES]))
    return path


def _by_hand(model, about):
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": f"What is {about}? Say what {about} is."},
    ]
    return model.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


def test_vectors_are_those_of_the_filled_conversation(model, file, tmp_path):
    settings = TopicSettings(layers=(1,), messages=str(file), val_fraction=0.2)
    path = write_topic_dataset(model, TOPICS, settings, tmp_path / "t.json")
    (section,) = load_dataset(path).sections
    texts = [_by_hand(model, about) for about in ("owl", "bee", "fog", "saw", "the soup")]
    assert topic_texts(model, TOPICS, "", "template", MESSAGES) == texts
    states = topic_vectors(model, texts, [1])[:, 0]
    train = [item.index for item in section.items if item.split == "train"]
    expected = states - states[train].mean(dim=0)
    for row in range(5):
        assert section.vectors[row].allclose(expected[row], atol=1e-5)
    assert section.metadata["messages"] == [message._asdict() for message in MESSAGES]
    assert "question" not in section.metadata
    facts = safetensors_metadata(tmp_path / "t_mean.safetensors")
    assert json.loads(facts["messages"]) == section.metadata["messages"]


def test_an_answered_conversation_is_read_as_it_is(model):
    messages = (Message("user", "Say {}."), Message("assistant", "{}!"))
    (text,) = topic_texts(model, TOPICS[:1], "", "template", messages)
    turns = [{"role": "user", "content": "Say owl."}, {"role": "assistant", "content": "owl!"}]
    assert text == model.tokenizer.apply_chat_template(turns, tokenize=False)


def test_a_conversation_without_a_place_is_refused(model):
    with pytest.raises(DataError, match='the messages have no "{}"'):
        topic_texts(model, TOPICS, "", "template", (Message("user", "Hello"),))


def test_a_conversation_is_not_another_chat_format(file):
    with pytest.raises(DataError, match="chat is 'bare', a format for a single text"):
        TopicSettings(layers=(1,), messages=str(file), chat="bare").check()


@pytest.mark.parametrize(
    ("text", "positions"),
    [
        ("0,5,9", (0, 5, 9)),
        ("-3:", (-3, -2, -1)),
        ("-3:0", (-3, -2, -1)),
        (":3", (0, 1, 2)),
        ("name", ("name",)),
        ("-1, name,2:4", (-1, "name", 2, 3)),
    ],
)
def test_positions_are_lists_ranges_and_the_name(text, positions):
    assert read_positions(text) == positions


@pytest.mark.parametrize("text", ["", "2:", "-2:3", "nme", "1.5", "5:2", ":", "-:", "--1"])
def test_other_positions_are_refused(text):
    with pytest.raises(DataError, match="position"):
        read_positions(text)
