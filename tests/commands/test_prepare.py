from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfie_adapters.commands.data import inspect
from selfie_adapters.commands.prepare import topics
from selfie_adapters.dataset import load_dataset, split_indices
from selfie_adapters.errors import DataError, MissingFileError, ModelError
from selfie_adapters.model import load_model
from selfie_adapters.sources import read_topics, topic_vectors
from selfie_adapters.sources.topics.reading import topic_texts

SAMPLE = Path(__file__).parents[2] / "data/sample/topics.jsonl"


def prepare(golden_dir, out, source=SAMPLE, **options):
    options = {"layers": [1], **options}
    topics(str(source), model=str(golden_dir / "model"), out=str(out), dtype="float32", **options)
    return load_dataset(out)


def test_the_sample_topics_become_a_training_file(golden_dir, tmp_path, capsys):
    out = tmp_path / "my_topics.json"
    dataset = prepare(golden_dir, out, layers=[0, 2])
    assert capsys.readouterr().out.replace("\n", "") == f"24 topics: {out}"
    assert [section.id for section in dataset.sections] == ["my_topics@l0", "my_topics@l2"]
    assert dataset.d_model == 48
    train, val = split_indices(range(24))
    assert [item.row for item in dataset.labelled("val")] == val * 2
    assert [item.row for item in dataset.labelled("train")] == train * 2
    assert dataset.labelled("train")[0].labels == list(read_topics(SAMPLE)[train[0]].labels)
    inspect(str(out))  # exits where something is wrong


def test_options_reach_the_capture(golden_dir, tmp_path):
    options = {"question": "Why {}?", "chat": "none", "positions": "-2", "val_fraction": 0.5}
    out = tmp_path / "t.json.gz"
    dataset = prepare(golden_dir, out, seed=5, **options)
    model = load_model(golden_dir / "model", "float32")
    texts = topic_texts(model, read_topics(SAMPLE), "Why {}?", "none")
    expected = topic_vectors(model, texts, [1], -2)[:, 0]
    train, val = split_indices(range(24), 0.5, 5)
    (mean,) = load_file(tmp_path / "t_mean.safetensors").values()
    assert mean.allclose(expected[train].mean(dim=0), atol=1e-6)
    assert dataset.sections[0].vectors.allclose(expected - mean, atol=1e-6)
    assert [item.row for item in dataset.labelled("val")] == val


def test_the_word_concepts_takes_the_packaged_ones(golden_dir, tmp_path, monkeypatch):
    few = read_topics(SAMPLE)[:5]
    monkeypatch.setattr("selfie_adapters.sources.topics.reading.packaged_topics", lambda: few)
    dataset = prepare(golden_dir, tmp_path / "c.json", source="concepts")
    assert len(dataset.labelled()) == 5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"source": "nowhere.jsonl"}, MissingFileError, "nowhere.jsonl"),
        ({"layers": [3]}, ModelError, "choose 0 to 2"),
        ({"layers": [1, 1]}, DataError, "give each once"),
        ({"question": "Tell me."}, DataError, 'no "{}"'),
        ({"val_fraction": 1.5}, DataError, "between 0 and 1"),
    ],
)
def test_what_cannot_be_prepared_leaves_no_file(options, error, message, golden_dir, tmp_path):
    with pytest.raises(error, match=message):
        prepare(golden_dir, tmp_path / "t.json", **options)
    assert not list(tmp_path.iterdir())


def test_training_vectors_have_mean_zero(golden_dir, tmp_path):
    dataset = prepare(golden_dir, tmp_path / "t.json")
    train = torch.tensor([item.row for item in dataset.labelled("train")])
    assert dataset.sections[0].vectors[train].mean(dim=0).abs().max() < 1e-5
