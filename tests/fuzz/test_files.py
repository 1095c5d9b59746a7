"""Damaged training files, vectors, adapters, checkpoints, label files and topics."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import asdict
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import save

from fuzz.harness import run
from fuzz.mutations import (
    damage_bytes,
    damage_inside_gzip,
    damage_inside_zip,
    damage_json,
    damage_safetensors,
)
from selfie_adapters.adapters import create_adapter, load_adapter
from selfie_adapters.adapters.kinds import KINDS
from selfie_adapters.config import TrainingSection
from selfie_adapters.dataset import load_dataset
from selfie_adapters.dataset.editing import split_file
from selfie_adapters.dataset.inspection import inspect_file
from selfie_adapters.dataset.source import read_label_source
from selfie_adapters.files import sha256
from selfie_adapters.report.evaluation_figures import evaluation_figures
from selfie_adapters.report.model_card import model_card
from selfie_adapters.sources.labels.files import read_label_file
from selfie_adapters.sources.topics.reading import read_topics
from selfie_adapters.sources.topics.titles import read_titles
from selfie_adapters.training.checkpoints import (
    Checkpoints,
    TrainingState,
    checkpoint_tensors,
)
from selfie_adapters.training.step import make_optimizer

VECTORS = torch.arange(1.0, 13.0).reshape(4, 3)


def packed(damage):
    """`damage` on a file that is gzip half of the time."""

    def either(rng, data):
        if rng.random() < 0.5:
            return damage(rng, data)
        return damage_inside_gzip(damage)(rng, gzip.compress(data, 1, mtime=0))

    return either


def training_file() -> bytes:
    metadata = {"dataset_name": "d", "filename": "v.safetensors", "layer": 1, "source": "s"}
    items = [
        {"index": i, "labels": ["a", "é\U0001f600"][: i + 1], "split": "val" if i else "train"}
        for i in range(3)
    ]
    return json.dumps([{"metadata": {**metadata, "vector_type": "t"}, "vectors": items}]).encode()


def test_training_files(tmp_path):
    valid = training_file()
    (tmp_path / "fuzz").mkdir()
    (tmp_path / "fuzz" / "v.safetensors").write_bytes(save({"vectors": VECTORS}))

    def read(path):
        found = inspect_file(path)
        found.as_dict()
        if found.problems:
            with pytest.raises(ValueError, match="."):
                load_dataset(path)
        dataset = load_dataset(path)
        examples = dataset.examples("train")
        gathered = dataset.gather(examples.section, examples.row)
        assert torch.equal(gathered, VECTORS[examples.row])
        "".join(examples.labels).encode()  # can be written
        split_file(path, 0.5, out=tmp_path / "out.json", overwrite=True)

    run("training", tmp_path, lambda _rng: valid, packed(damage_json), read, file="x.json")


@cache
def vector_files(suffix: str) -> tuple[bytes, ...]:
    """Files of each dtype and layout."""
    found = []
    for dtype in (torch.float32, torch.float16, torch.float64):
        rows = VECTORS.to(dtype)
        target = io.BytesIO()
        if suffix == ".safetensors":
            found.append(save({"vectors": rows, "ids": torch.arange(4)}))
        elif suffix == ".npy":
            np.save(target, rows.numpy())
            found.append(target.getvalue())
        elif suffix == ".npz":
            for write in (np.savez, np.savez_compressed):
                target = io.BytesIO()
                write(target, vectors=rows.numpy(), names=np.array(list("abcd")))
                found.append(target.getvalue())
        else:
            for content in (rows, {"vectors": rows, "layer": 3}, {5: rows[0], 2: rows[1]}):
                target = io.BytesIO()
                torch.save(content, target, _use_new_zipfile_serialization=suffix == ".pt")
                found.append(target.getvalue())
    return tuple(found)


DAMAGE = {
    ".safetensors": damage_safetensors,
    ".npy": damage_bytes,
    ".npz": damage_inside_zip(damage_bytes),
    ".pt": damage_inside_zip(damage_bytes),
    ".pth": damage_bytes,
}


@pytest.mark.parametrize("suffix", DAMAGE)
def test_vector_files(suffix, tmp_path):
    def read(path):
        source = read_label_source(path)
        assert len(source) >= 1
        rows = source.vectors(0, 4)
        assert rows.dtype == torch.float32
        assert rows.shape[1] == source.d_model >= 1
        assert [source.layer(i) for i in range(len(rows))]

    files = vector_files(suffix)
    run(
        f"vectors{suffix}",
        tmp_path,
        lambda rng: rng.choice(files),
        DAMAGE[suffix],
        read,
        file=f"x{suffix}",
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_adapters(suffix, tmp_path):
    adapters = []
    for kind in KINDS:
        torch.manual_seed(0)
        adapter = create_adapter(kind, 4, low_rank_rank=2 if "low_rank" in kind else None)
        adapters.append(adapter.save(tmp_path / f"{kind}{suffix}").read_bytes())

    def read(path):
        adapter = load_adapter(path)
        for fact in (adapter.scale, adapter.bias_norm, adapter.singular_values):
            fact()
        adapter.low_rank_share()
        json.dumps(adapter.get_metadata())
        assert adapter.transform(torch.ones(2, adapter.dim)).shape == (2, adapter.dim)
        copy = load_adapter(adapter.save(tmp_path / "copy.safetensors"))
        for mine, theirs in zip(adapter.parameters(), copy.parameters(), strict=True):
            assert torch.equal(mine, theirs)

    run(
        f"adapter{suffix}",
        tmp_path,
        lambda rng: rng.choice(adapters),
        DAMAGE[suffix],
        read,
        file=f"x{suffix}",
    )


def test_checkpoints(tmp_path):
    adapter = create_adapter("scalar_affine", 4)
    settings = TrainingSection.model_construct(
        learning_rate=0.1,
        scale_learning_rate=None,
        direction_learning_rate=None,
        bias_learning_rate=None,
        weight_decay=0.01,
        optimizer_type="adamw",
    )

    def step(optimizer):
        optimizer.zero_grad()
        adapter.transform(torch.ones(1, 4)).sum().backward()
        optimizer.step()

    optimizer = make_optimizer(adapter, settings)
    step(optimizer)
    progress = TrainingState(1, 10, 1.5, True, 10, "abc")
    header = {"state_json": json.dumps(asdict(progress))}
    content = save(checkpoint_tensors(adapter, optimizer), header)
    start = {name: one.clone() for name, one in adapter.state_dict().items()}

    def read(path):
        adapter.load_state_dict(start)
        checkpoints = Checkpoints(path.parent)
        newest = checkpoints.read_newest()
        assert newest is not None
        found, tensors = newest
        assert type(found.step) is type(found.metrics_bytes) is int
        fresh = make_optimizer(adapter, settings)
        checkpoints.restore(adapter, fresh, tensors)
        step(fresh)

    run(
        "checkpoint",
        tmp_path,
        lambda rng: content,
        damage_safetensors,
        read,
        file="step_00000001.safetensors",
    )


def rows(*values):
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


LABELS = {
    "map.json": json.dumps({"0": "owl", "7": "bee \U0001f600", "12": ""}).encode(),
    "training.json": training_file(),
    "x.jsonl": rows(
        {"index": "0", "description": "owl", "modelId": "m", "layer": "l"},
        {"index": 7, "description": "bee", "explanationModelName": "g", "embedding": [0.5]},
    ),
}


@pytest.mark.parametrize("name", LABELS)
def test_label_files(name, tmp_path):
    def read(path):
        found = read_label_file(path)
        assert len(found) >= 1
        for latent, texts in found.labels.items():
            assert type(latent) is int
            assert latent >= 0
            assert "".join(texts).encode().strip()

    run(name, tmp_path, lambda rng: LABELS[name], packed(damage_json), read, file=name)


TOPICS = {
    "t.jsonl": rows(
        {"name": "owl", "labels": ["a bird"], "split": "train"},
        {"prompt": "Say fog.", "labels": ["fog"], "split": "val"},
    ),
    "t.csv": b'name,labels,split\r\nowl,"a bird|owl",train\r\nbee,"small, yellow",val\r\n',
}


@pytest.mark.parametrize("name", TOPICS)
def test_topics(name, tmp_path):
    damage = damage_json if name.endswith("l") else damage_bytes

    def read(path):
        for topic in read_topics(path):
            assert topic.title.encode()
            assert all(label.strip() for label in topic.labels)

    run(name, tmp_path, lambda rng: TOPICS[name], packed(damage), read, file=name)


TITLES = {
    "t.json": b'{"titles": ["Owl", "Bee \xc3\xa9"]}',
    "t.jsonl": rows("Owl", {"title": "Bee"}),
    "t.txt": "Owl\nBee é\n".encode(),
}


@pytest.mark.parametrize("name", TITLES)
def test_titles(name, tmp_path):
    damage = damage_bytes if name.endswith("txt") else damage_json

    def read(path):
        for title in read_titles(path):
            assert title.strip().encode()

    run(f"title{name}", tmp_path, lambda rng: TITLES[name], packed(damage), read, file=name)


def test_explanations_of_delphi(tmp_path):
    examples = [{"activating": True, "prediction": False}, {"activating": False, "prediction": 0.2}]
    valid = {
        "explanations/layers.5_latent3.txt": json.dumps("owls é").encode(),
        "explanations/layers.5_latent4.txt": json.dumps("bees").encode(),
        "scores/fuzz/layers.5_latent3.txt": json.dumps(examples).encode(),
    }

    def read(folder):
        found = read_label_file(folder / "explanations")
        "".join(
            [*found.report, *(text for texts in found.labels.values() for text in texts)]
        ).encode()

    run("delphi", tmp_path, lambda _rng: valid, damage_json, read, names_file=False)


def test_results_of_evaluations_on_a_card(tmp_path):
    adapter = create_adapter("scale_only", 4).save(tmp_path / "a.safetensors")
    interval = {"mean": 1.0, "low": 0.5, "high": 1.5, "n": 8}
    share = {"right": interval, "right or related": interval}
    own = sha256(adapter)
    results = [
        {
            "protocol": "loss",
            "settings": {"split": "test"},
            "inputs": {"adapter a": own},
            "cells": [
                {"adapter": "a", "dataset": "d", "vectors": 8, "loss": {"trained": interval}}
            ],
        },
        {
            "protocol": "naming",
            "settings": {"split": "test", "source": "x/y.json"},
            "inputs": {"adapter_file": own},
            "positions": [
                {
                    "position": "name",
                    "layers": [1, 2],
                    "conditions": [{"condition": "adapter", "vectors": 8, "share": share}],
                }
            ],
        },
        {
            "protocol": "retrieval",
            "settings": {
                "split": "val", "vectors": "v", "topics": None,
                "adapters": {"a": "x"}, "labels": {},
            },
            "inputs": {"adapter a": own},
            "counts": {"topics": 9},
            "conditions": [
                {"condition": "a", "queries": 8, "recall_at": {"1": interval, "10": interval}}
            ],
        },
    ]  # fmt: skip

    def read(folder):
        for figure in evaluation_figures(folder, adapter):
            assert figure.low <= figure.value + 1e300
        model_card("a/b", create_adapter("scale_only", 4), [], evaluation_figures(folder, adapter))

    run(
        "card",
        tmp_path,
        lambda rng: {"results.json": json.dumps(rng.choice(results)).encode()},
        damage_json,
        read,
        names_file=False,
    )
