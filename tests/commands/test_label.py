from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from selfie_adapters.adapters import load_adapter
from selfie_adapters.commands.label import label
from selfie_adapters.dataset import load_dataset
from selfie_adapters.errors import AdapterError, ConfigError, DataError, ModelError
from selfie_adapters.files import read_jsonl
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import load_model

SAMPLE = Path(__file__).parents[2] / "data/sample/sample.json"


@pytest.fixture
def run(golden_dir, tmp_path):
    def run(vectors=SAMPLE, **options):
        out = tmp_path / "labels.jsonl"
        settings = {
            "adapter": str(golden_dir / "adapters/scalar_affine_norm.safetensors"),
            "model": str(golden_dir / "model"),
            "max_new_tokens": 8,
            "dtype": "float32",
            **options,
        }
        label(str(vectors), out=str(out), **settings)
        return read_jsonl(out)

    return run


def test_rows_say_what_was_labelled_and_how(run, capsys):
    rows = run(split="val", scales=[0.5, 2.0])
    items = load_dataset(SAMPLE).labelled("val")
    assert len(rows) == 2 * len(items)
    ids = [section.id for section in load_dataset(SAMPLE).sections]
    assert [(row["dataset"], row["index"]) for row in rows[::2]] == [
        (ids[item.section], item.row) for item in items
    ]
    assert [row["scale"] for row in rows[:4]] == [0.5, 2.0, 0.5, 2.0]
    assert all(row["log_prob"] < 0 < row["tokens"] <= 8 for row in rows)
    assert "24 labels for 12 vectors" in capsys.readouterr().out


def test_the_command_writes_what_the_library_gives(run, golden_dir):
    vectors = golden_dir / "vectors.safetensors"
    options = {"samples": 2, "temperature": 0.9, "top_p": 0.8, "seed": 5}
    rows = run(vectors, scales=[1.5], **options)
    adapter = load_adapter(golden_dir / "adapters/scalar_affine_norm.safetensors")
    labeller = Labeller(load_model(golden_dir / "model", "float32"), adapter)
    (tensor,) = load_file(vectors).values()
    answers = labeller.label(tensor, (1.5,), max_new_tokens=8, **options)
    assert [(row["text"], row["seed"]) for row in rows] == [
        (answer.text, answer.seed) for labels in answers for answer in labels
    ]
    assert [row["index"] for row in rows] == [i for i in range(8) for _ in range(2)]


def test_the_batch_size_changes_no_text(run):
    sampled = {"temperature": 1.0, "samples": 2, "seed": 3}
    texts = [[row["text"] for row in run(batch_size=size, **sampled)] for size in (1, 7, 64)]
    assert texts[0] == texts[1] == texts[2]
    assert len(set(texts[0])) > 1


def test_limit_takes_the_first(run):
    assert [row["index"] for row in run(limit=3)] == [row["index"] for row in run()[:3]]
    assert len(run(limit=10_000)) == 48


def test_a_file_of_vectors_alone_is_enough(run, golden_dir):
    rows = run(golden_dir / "vectors.safetensors")
    assert [row["index"] for row in rows] == list(range(8))
    assert "dataset" not in rows[0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": -1.0}, ConfigError, "temperature"),
        ({"top_p": 0.0}, ConfigError, "top_p"),
        ({"samples": 0}, ConfigError, "samples"),
        ({"max_new_tokens": 0}, ConfigError, "max_new_tokens"),
        ({"adapter": str(SAMPLE)}, AdapterError, "sample.json"),
        ({"model": "./nowhere"}, ModelError, "nowhere"),
    ],
)
def test_errors_leave_an_earlier_file_alone(options, error, message, run, tmp_path):
    (tmp_path / "labels.jsonl").write_text('{"kept": true}\n')
    with pytest.raises(error, match=message):
        run(**options)
    assert (tmp_path / "labels.jsonl").read_text() == '{"kept": true}\n'


def test_a_label_file_without_vectors_is_refused(run, tmp_path):
    path = tmp_path / "labels.json"
    metadata = {"dataset_name": "x", "layer": 1, "source": "s", "vector_type": "v"}
    item = {"index": 0, "labels": ["a"], "split": "train"}
    path.write_text(json.dumps([{"metadata": metadata, "vectors": [item]}]))
    with pytest.raises(DataError, match="filename"):
        run(path)
