from __future__ import annotations

import gzip
import json

import pytest
import torch

from selfie_adapters.errors import DataError, MissingFileError, ModelError, PromptError
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.tokens import encode
from selfie_adapters.sources import Topic, read_topics, topic_vectors
from selfie_adapters.sources.topics import reading as topics_module
from selfie_adapters.sources.topics.reading import open_topics, packaged_topics, topic_texts
from selfie_adapters.sources.topics.topic import Topics
from tiny import D_MODEL, LAYERS, golden_tokenizer, tiny_network

OWL = Topic(("owl", "a night bird"), name="owl")
LONGER = "Tell me about the slow history of tin. "
TEXTS = ["owl", "a bee", LONGER * 3, "x" * 40, "a bee in June"]
CHAT = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
ANSWER = "<|start_header_id|>assistant<|end_header_id|>\n\n"


@pytest.fixture(scope="module")
def model():
    return FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")


def write(folder, content, name="t.jsonl"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


# reading


def test_jsonl_rows_with_blank_lines_between(tmp_path):
    rows = lines({"name": "owl", "labels": ["owl", "a night bird"]})
    rows += "\n" + lines({"prompt": "Hoot!", "labels": "owl", "group": "animal"})
    assert read_topics(write(tmp_path, rows)) == [OWL, Topic(("owl",), prompt="Hoot!")]


@pytest.mark.parametrize("name", ["t.jsonl.gz", "t.jsonl"])
def test_gzip_is_known_by_its_bytes(tmp_path, name):
    data = gzip.compress(lines({"name": "owl", "labels": ["owl", "a night bird"]}).encode())
    assert read_topics(write(tmp_path, data, name)) == [OWL]


def test_csv_labels_are_parted_by_bars(tmp_path):
    text = "name,labels\nowl,owl | a night bird\n"
    assert read_topics(write(tmp_path, text, "t.csv")) == [OWL]
    assert read_topics(write(tmp_path, gzip.compress(text.encode()), "t.csv.gz")) == [OWL]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_of_any_line_ends_with_quotes_byte_mark_and_blanks_in_the_header(tmp_path, end):
    text = end.join(["prompt, labels,name", '"Speak, owl",owl|a night bird,', ",,bee", ""])
    path = write(tmp_path, b"\xef\xbb\xbf" + text.encode(), "t.csv")
    speak = Topic(("owl", "a night bird"), prompt="Speak, owl")
    assert read_topics(path) == [speak, Topic(("bee",), name="bee")]


def test_the_name_is_the_label_where_there_is_none(tmp_path):
    assert read_topics(write(tmp_path, lines({"name": "owl"}))) == [Topic(("owl",), name="owl")]


@pytest.mark.parametrize("mark", ["\u2028", "\u0085"])
def test_a_label_may_hold_marks_that_unicode_counts_as_line_ends(tmp_path, mark):
    row = json.dumps({"name": "owl", "labels": [f"a{mark}b"]}, ensure_ascii=False)
    assert read_topics(write(tmp_path, row))[0].labels == (f"a{mark}b",)


@pytest.mark.parametrize(
    ("rows", "patterns"),
    [
        ('{"name": "owl"}\nowl\n', ["line 2", "not JSON", ".csv"]),
        ('{"name": "owl"}\n\n["owl"]\n', ["line 3", "JSON object"]),
        (lines({"nme": "owl", "labels": ["x"]}), ["line 1", "nme, labels", 'mean "name"?']),
        (lines({}), ["line 1", "found nothing"]),
        (lines({"name": "owl"}, {"name": "bee", "labels": ["b", " "]}), ["line 2", "' '"]),
        (lines({"name": "owl", "labels": []}), ["line 1", "[]"]),
        (lines({"name": "owl", "labels": [3]}), ["line 1", "label 3"]),
        (lines({"name": "owl", "labels": None}), ["line 1", "None"]),
        (lines({"prompt": "Hoot!"}), ["line 1", "labels"]),
        (lines({"name": "owl", "label": ["x"]}), ["line 1", '"label"', 'mean "labels"?']),
        (lines({"name": 3}), ["line 1", "name is 3"]),
        (lines({"name": " "}), ["line 1", "name is ' '"]),
        ("", ["no topics"]),
        ("\n \n", ["no topics"]),
    ],
)
def test_bad_jsonl_is_refused_with_its_line(tmp_path, rows, patterns):
    refused(write(tmp_path, rows), patterns)


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("name,labels\nowl,a bird\nbee,small, yellow\n", ["line 3", "more columns", "quotes"]),
        ("name,labels\nowl,owl|\n", ["line 2", "label ''"]),
        ("title,labels\nowl,owl\n", ["line 2", "title, labels"]),
        ("name,label\nowl,a bird\n", ["line 2", 'mean "labels"?']),
        ("name,labels\n" + "x" * 10_000_001 + ",b\n", ["not CSV", "limit"]),
        ("name,labels\n", ["no topics"]),
        ("", ["no topics"]),
    ],
)
def test_bad_csv_is_refused_with_its_line(tmp_path, text, patterns):
    refused(write(tmp_path, text, "t.csv"), patterns)


@pytest.mark.parametrize(
    ("data", "pattern"),
    [
        ('{"name": "Bär"}'.encode("latin-1"), "UTF-8"),
        (gzip.compress(lines({"name": "owl"}).encode(), mtime=0)[:-9], "gzip"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + b"\xff" * 30, "gzip"),
    ],
)
def test_bytes_that_are_no_text_are_refused(tmp_path, data, pattern):
    refused(write(tmp_path, data), [pattern])


def refused(path, patterns):
    with pytest.raises(DataError) as caught:
        read_topics(path)
    for pattern in [path.name, *patterns]:
        assert pattern in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="nowhere.jsonl"):
        read_topics(tmp_path / "nowhere.jsonl")


def test_the_packaged_concepts_are_8000_different_names_with_labels():
    concepts = packaged_topics()
    assert len({topic.name for topic in concepts}) == len(concepts) == 8000
    assert all(label.strip() for topic in concepts for label in topic.labels)
    assert open_topics("concepts") == concepts
    assert {topic.split for topic in concepts} == {"train", "val", "test"}


def test_further_packaged_concepts_are_other_nouns_to_train_on():
    more, names = open_topics("more-concepts"), {topic.name for topic in packaged_topics()}
    assert len({topic.name for topic in more} - names) == len(more) == 12000
    assert {topic.split for topic in more} == {"train"}


# texts


def test_a_chat_turn_by_the_tokenizers_own_template(model):
    texts = topic_texts(model, [OWL, Topic((), prompt="Hoot {}")], "What is {}?", "template")
    assert texts == [CHAT.format(user) + ANSWER for user in ("What is owl?", "Hoot {}")]


def test_a_bare_turn_brings_no_system_prompt(model, monkeypatch):
    turn = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>"
    system = "<|begin_of_text|>" + turn.format("system", "You are polite.")
    template = (
        system.replace("\n", "{{ '\\n' }}")
        + "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    )
    monkeypatch.setattr(model.tokenizer, "chat_template", template)
    assert topic_texts(model, [OWL], "{}?", "bare") == [CHAT.format("owl?") + ANSWER]
    full = CHAT.removeprefix("<|begin_of_text|>").format("owl?") + ANSWER
    assert topic_texts(model, [OWL], "{}?", "template") == [system + full]


def test_no_chat_leaves_the_text_alone(model):
    assert topic_texts(model, [OWL], "{}, {}!", "none") == ["owl, owl!"]


def test_a_question_without_a_place_for_the_name_is_refused(model):
    with pytest.raises(DataError, match='question .Tell me.. has no "{}"'):
        topic_texts(model, [OWL], "Tell me.", "none")


def test_a_tokenizer_without_a_chat_template_is_refused(model, monkeypatch):
    monkeypatch.setattr(model.tokenizer, "chat_template", None)
    with pytest.raises(PromptError, match="has no chat template. Pass chat='none'"):
        topic_texts(model, [OWL], "{}", "template")


def test_a_bare_turn_needs_a_known_chat_format(model, monkeypatch):
    monkeypatch.setattr(
        "selfie_adapters.model.chat_format.token_id", lambda _tokenizer, _token: None
    )
    monkeypatch.setattr(model.tokenizer, "chat_template", None)
    with pytest.raises(PromptError, match="no chat format known"):
        topic_texts(model, [OWL], "{}", "bare")


# vectors


@torch.no_grad()
def one_at_a_time(model, texts, layers, position):
    rows = []
    for text in texts:
        ids = torch.tensor([encode(model.tokenizer, text)])
        states = model.network(ids, output_hidden_states=True, use_cache=False).hidden_states
        rows.append(torch.stack([states[layer + 1][0, position] for layer in layers]))
    return torch.stack(rows)


@pytest.mark.parametrize("position", [-1, -2, 0, 2])
@pytest.mark.parametrize("layers", [(0,), (1,), (1, 0)])
@pytest.mark.parametrize("wrap", ["{}", CHAT + ANSWER])
@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral"])
def test_vectors_are_those_of_a_plain_forward_pass_over_each_text(family, wrap, layers, position):
    model = FrozenModel(tiny_network(family), golden_tokenizer(), "tiny")
    texts = [wrap.format(text) for text in TEXTS]
    found = topic_vectors(model, texts, layers, position)
    assert found.shape == (len(texts), len(layers), D_MODEL)
    assert found.dtype == torch.float32
    expected = one_at_a_time(model, texts, layers, position)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_the_last_block_is_taken_before_the_final_norm(model):
    (found,) = topic_vectors(model, TEXTS, [LAYERS - 1]).unbind(1)
    normed = one_at_a_time(model, TEXTS, [LAYERS - 1], -1)[:, 0]
    torch.testing.assert_close(model.network.model.norm(found), normed, atol=2e-5, rtol=1e-4)
    assert not found.allclose(normed, atol=1e-2)


@pytest.mark.parametrize("tokens", [1, 7, 60, 100_000])
def test_how_texts_are_cut_into_batches_changes_nothing(model, monkeypatch, tokens):
    texts = [CHAT.format(text) + ANSWER for text in TEXTS * 2]
    expected = topic_vectors(model, texts, [0, 2], -2)
    monkeypatch.setattr(topics_module, "_BATCH_TOKENS", tokens)
    progress = []
    found = topic_vectors(model, texts, [0, 2], -2, progress.append)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert sum(progress) == len(texts)
    assert (tokens < 8) == (progress == [1] * len(texts))
    if tokens == 100_000:
        assert progress == [len(texts)]


@pytest.mark.parametrize("texts", [["owl"], ["owl", "owl"], ["owl", "owls"], ["owls", "owl"]])
@pytest.mark.parametrize("position", [0, 2, -1, -3])
def test_texts_that_are_alike_or_begin_one_another(model, texts, position):
    found = topic_vectors(model, texts, [1], position)
    expected = one_at_a_time(model, texts, [1], position)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_no_texts_give_no_vectors(model):
    assert topic_vectors(model, [], [0, 1]).shape == (0, 2, D_MODEL)


@pytest.mark.parametrize("position", [3, -4])
def test_a_position_outside_a_text_is_refused(model, position):
    with pytest.raises(DataError, match=f"position {position} in a text of 3 tokens: 'owl'"):
        topic_vectors(model, ["a longer text", "owl"], [0], position)


def test_an_empty_text_is_refused(model):
    with pytest.raises(DataError, match="position -1 in a text of 0 tokens"):
        topic_vectors(model, ["owl", ""], [0])


def test_a_layer_that_is_not_there_is_refused(model):
    with pytest.raises(ModelError, match="layer 3"):
        topic_vectors(model, ["owl"], [3])


def test_published_titles_and_topic_rows_are_topics(tmp_path):
    (tmp_path / "titles.json").write_text('{"titles": ["Owl", "Green tea"]}')
    found = read_topics(tmp_path / "titles.json")
    assert [(topic.name, topic.labels) for topic in found] == [
        ("Owl", ("Owl",)),
        ("Green tea", ("Green tea",)),
    ]
    row = {"original_title": "Owl", "prompt": "Tell me about owls.", "labels": ["a bird"]}
    (tmp_path / "topics.jsonl").write_text(json.dumps({**row, "split": "val"}) + "\n")
    (topic,) = read_topics(tmp_path / "topics.jsonl")
    assert (topic.name, topic.prompt, topic.labels, topic.split) == (
        "Owl",
        "Tell me about owls.",
        ("a bird",),
        "val",
    )


def test_topics_in_columns_are_the_topics_that_went_in():
    topics = [
        Topic(("owl",), name="owl"),
        Topic(("a bird", "owl"), name="owl", split="test"),
        Topic(("owl", "a bird"), prompt="Hoot!", split="train"),
        Topic((), prompt="Hoot!"),
        Topic(("Ümlaut",), name="Ümlaut", prompt="Ü?", split="val"),
        Topic((), name="bee"),
    ]
    columns = Topics(topics)
    assert [*columns] == topics
    assert columns == topics
    assert columns[-2:] == topics[-2:]
