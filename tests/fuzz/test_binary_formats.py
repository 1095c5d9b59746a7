"""Damaged Parquet tables, files asked whether they are adapters, and GGUF vectors."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import save

from fuzz.harness import run
from fuzz.mutations import damage_bytes, damage_inside_zip, damage_safetensors
from selfie_adapters.adapters import create_adapter
from selfie_adapters.adapters.containers import is_adapter_file
from selfie_adapters.dataset.source import read_label_source
from selfie_adapters.files.table_rows import file_rows
from selfie_adapters.sources.labels.files import read_label_file
from selfie_adapters.sources.topics.topic import topic_of_row
from tiny_gguf import control_vector


def parquet_files() -> list[bytes]:
    rows = pa.table(
        {
            "name": ["owl", "bee é", "fog"],
            "labels": [["a bird"], ["an insect", "small"], ["mist"]],
            "split": ["train", "val", "train"],
        }
    )
    files = []
    for compression in ("none", "snappy", "gzip", "zstd"):
        target = io.BytesIO()
        parquet.write_table(rows, target, compression=compression)
        files.append(target.getvalue())
    return files


def test_parquet_topics(tmp_path):
    files = parquet_files()

    def read(path):
        for place, row in file_rows(path):
            assert topic_of_row(place, row).title.strip().encode()

    run(
        "topics.parquet",
        tmp_path,
        lambda rng: rng.choice(files),
        damage_bytes,
        read,
        file="x.parquet",
    )


def nla_tables() -> list[dict[str, bytes]]:
    rows = pa.table(
        {
            "response": ["<explanation>\nowl é\n</explanation>", "bees", ""],
            "activation_vector": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        }
    )
    sidecar = b"kind: nla_dataset\nextraction: {d_model: 2, layer_index: 5, norm: none}\n"
    found = []
    for compression in ("none", "zstd"):
        target = io.BytesIO()
        parquet.write_table(rows, target, compression=compression)
        found.append({"x.parquet": target.getvalue(), "x.parquet.nla_meta.yaml": sidecar})
    return found


def test_tables_of_vectors_and_explanations(tmp_path):
    tables = nla_tables()

    def read(folder):
        source = read_label_source(folder / "x.parquet")
        assert source.vectors(0, 4).dtype == torch.float32
        assert source.layer(0) is None or source.layer(0) >= 0
        for texts in read_label_file(folder / "x.parquet").labels.values():
            "".join(texts).encode()

    run(
        "nla.parquet",
        tmp_path,
        lambda rng: rng.choice(tables),
        damage_bytes,
        read,
        names_file=False,
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_whether_a_file_is_an_adapter(suffix, tmp_path):
    adapter = create_adapter("scalar_affine", 4)
    valid = adapter.save(tmp_path / f"a{suffix}").read_bytes()
    if suffix == ".pt":
        target = io.BytesIO()
        torch.save({"vectors": torch.ones(2, 3)}, target)
        other = target.getvalue()
    else:
        other = save({"vectors": torch.ones(2, 3)})
    damage = damage_safetensors if suffix == ".safetensors" else damage_inside_zip(damage_bytes)

    def read(path):
        assert type(is_adapter_file(path)) is bool

    run(
        f"is{suffix}",
        tmp_path,
        lambda rng: rng.choice((valid, other)),
        damage,
        read,
        file=f"x{suffix}",
    )


def test_gguf_vectors(tmp_path):
    files = []
    for dtype in (np.float32, np.float16):
        control_vector(tmp_path / "c.gguf", dtype, {1: [1.0, 2.0, 3.0], 2: [4.0, 5.0, 6.0]})
        files.append((tmp_path / "c.gguf").read_bytes())

    def read(path):
        source = read_label_source(path)
        assert len(source) >= 1
        assert source.vectors(0, 4).dtype == torch.float32
        assert [source.layer(i) for i in range(len(source))]

    run("vectors.gguf", tmp_path, lambda rng: rng.choice(files), damage_bytes, read, file="x.gguf")
