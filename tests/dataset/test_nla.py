"""Tables of Natural Language Autoencoders with their sidecars."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from selfie_adapters.dataset import load_dataset
from selfie_adapters.dataset.nla import explanation, read_sidecar, sidecar_file
from selfie_adapters.dataset.source import read_label_source
from selfie_adapters.dataset.vectors import open_directions
from selfie_adapters.errors import DataError
from selfie_adapters.sources.labels.files import read_label_file

SIDECAR = {
    "kind": "nla_dataset",
    "schema_version": 2,
    "extraction": {"d_model": 3, "layer_index": 20, "injection_scale": 150.0, "norm": "none"},
    "tokens": {"injection_char": "㊗", "injection_token_id": 149705},
}


@pytest.fixture
def table(tmp_path):
    """Three rows as the published data generation writes them, the last without explanation."""
    path = tmp_path / "av_sft.parquet"
    prompt = [{"role": "user", "content": "<concept><INJECT></concept>"}]
    rows = {
        "prompt": [prompt] * 3,
        "response": ["<explanation>\nnight birds\n</explanation>", "thinking… bees", None],
        "activation_vector": pa.array(
            [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.5]], pa.list_(pa.float32())
        ),
        "other_vector": pa.array([[1.0]] * 3, pa.list_(pa.float32())),
        "activation_layer": [20] * 3,
    }
    parquet.write_table(pa.table(rows), path)
    sidecar_file(path).write_text(yaml.safe_dump(SIDECAR, allow_unicode=True), encoding="utf-8")
    return path


def test_vectors_and_their_layer_are_read(table):
    assert sidecar_file(table).name == "av_sft.parquet.nla_meta.yaml"
    rows, layers = open_directions(table)
    assert rows.tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.5]]
    assert layers == (20, 20, 20)
    assert read_label_source(table).layer(1) == 20
    sidecar_file(table).unlink()
    assert open_directions(table).layers is None


def test_explanations_are_labels_by_row(table):
    labels = read_label_file(table)
    assert labels.labels == {0: ["night birds"], 1: ["thinking… bees"]}
    assert labels.report == ["3 rows, 2 explanations", "1 empty explanations, dropped"]


def test_a_table_becomes_a_training_file(table, tmp_path):
    from selfie_adapters.commands.prepare import sae

    sae(
        output_name="mine",
        output_dir=str(tmp_path / "out"),
        sae_path=str(table),
        labels_json=str(table),
        layer=20,
        val_fraction=0.5,
    )
    (section,) = load_dataset(tmp_path / "out/mine_labels.json").sections
    assert section.layer == 20
    assert {item.index: item.labels for item in section.items} == {
        0: ["night birds"],
        1: ["thinking… bees"],
    }
    assert section.vectors[2].tolist() == [7.0, 8.0, 9.5]


def test_an_answer_without_tags_is_all_explanation():
    assert explanation("a <explanation> b\nc </explanation> d") == "b\nc"
    assert explanation(" just this ") == "just this"
    assert explanation("<explanation>never closed") == "<explanation>never closed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"extraction": {"d_model": 4}},
            r"width 3; av_sft\.parquet\.nla_meta\.yaml states d_model",
        ),
        ({"extraction": {"d_model": "3"}}, "extraction.d_model is '3'"),
        ({"extraction": {"layer_index": -1}}, "extraction.layer_index is -1"),
        ({"extraction": {"layer_index": True}}, "extraction.layer_index is True"),
        ({"extraction": {"d_model": 10**30}}, "extraction.d_model is 1000"),
        ({"extraction": [1]}, r"extraction is \[1\]"),
        ({"kind": "nla_model"}, "kind: nla_dataset is expected"),
    ],
)
def test_a_sidecar_of_another_table_is_refused(table, change, message):
    sidecar_file(table).write_text(yaml.safe_dump({**SIDECAR, **change}))
    with pytest.raises(DataError, match=message):
        open_directions(table)


def test_damaged_sidecars_and_tables_are_named(table):
    for content in ("", "[1]", "a: [", "&a [*a]", "\x00", json.dumps([SIDECAR])):
        sidecar_file(table).write_text(content)
        with pytest.raises(DataError, match=r"nla_meta\.yaml"):
            read_sidecar(table)
    parquet.write_table(pa.table({"response": [1, 2]}), table)
    with pytest.raises(DataError, match=r"av_sft\.parquet, row 1: response is 1"):
        read_label_file(table)
    parquet.write_table(pa.table({"text": ["a"]}), table)
    with pytest.raises(DataError, match="no column response; it has text"):
        read_label_file(table)
    parquet.write_table(pa.table({"response": [""]}), table)
    with pytest.raises(DataError, match="no explanations in its 1 rows"):
        read_label_file(table)
    table.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"av_sft\.parquet"):
        read_label_file(table)
