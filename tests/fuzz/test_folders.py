"""Damaged run folders of every kind: labelling, reading, evaluation, training."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from fuzz.harness import run
from fuzz.mutations import damage_json, damage_yaml
from selfie_adapters.config import TrainConfig, dump_config
from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.evaluation.base import LabelsRow
from selfie_adapters.evaluation.bridge.results import BridgeRow
from selfie_adapters.evaluation.folder import EvaluationFolder
from selfie_adapters.evaluation.loss.protocol import LossRow
from selfie_adapters.evaluation.scoring.generation import ScoringRow
from selfie_adapters.evaluation.taboo.protocol import TabooRow
from selfie_adapters.labelling.export import to_csv, to_parquet
from selfie_adapters.labelling.finished_run import open_run
from selfie_adapters.labelling.inputs import open_source
from selfie_adapters.labelling.job import LabelJob
from selfie_adapters.labelling.neuronpedia import to_neuronpedia
from selfie_adapters.labelling.run_record import RunRecord, read_binding, read_controls
from selfie_adapters.labelling.shards import ShardFile
from selfie_adapters.reading.folder import ReadingFolder
from selfie_adapters.reading.plan import PromptToken, ReadingPlan
from selfie_adapters.reading.read import Cell
from selfie_adapters.training.run_folder import RunFolder
from selfie_adapters.training.run_reading import compare_runs, find_runs

importlib.import_module("pyarrow.parquet")  # its memory is not the inputs'

ROW = {
    "label": "größer 🦉",
    "raw": 'größer 🦉"',
    "scale": 1.0,
    "sample": 0,
    "seed": 2**62,
    "log_prob": -1.5,
    "zero_log_prob": -3.0,
    "gain": 0.75,
    "tokens": 2,
    "ended": True,
}
CONTROL = {
    "kind": "zero", "vectors": 1, "gain": 0.0, "confidence": 0.5, "concepts": 1, "example": "a",
}  # fmt: skip


def lines(rows) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def test_label_folders(tmp_path):
    save_file({"v": torch.randn(8, 4)}, tmp_path / "v.safetensors")
    settings = LabelSettings.checked(
        source=str(tmp_path / "v.safetensors"), model="m", shard_size=3
    )
    source = open_source(settings)
    record = RunRecord.of(settings, source)
    config = {
        "settings": settings.model_dump(mode="json"),
        "vectors": 8,
        "inputs": record.inputs,
    }
    rows = [{"index": i, **ROW} if i != 4 else {"index": 4, "error": "NaN"} for i in range(8)]
    parts = [{"position": i, "rows": [rows[i]]} for i in (6, 7)]
    valid = {
        "config.json": json.dumps(config).encode(),
        "controls.json": json.dumps([CONTROL]).encode(),
        "labels-00000.jsonl": lines(rows[:3]),
        "labels-00001.jsonl": lines(rows[3:6]),
        "labels-00002.jsonl.part": lines(parts),
    }

    def read(folder: Path) -> None:
        read_binding(folder)
        read_controls(folder)
        finished = open_run(folder)
        count = sum(1 for _ in finished.rows())
        read.number += 1
        if read.number % 10 == 0:  # written files are flushed to disk, which takes its time
            assert to_csv(finished, tmp_path / "x.csv") == count
            assert to_parquet(finished, tmp_path / "x.parquet") == count
            assert to_neuronpedia(finished, tmp_path / "x.jsonl", "m", "s") <= count
        job = LabelJob(folder, settings, source)
        for shard in job.todo():
            file = ShardFile(shard, source, 1, settings.rows_per_vector)
            assert len(file) + sum(map(len, file.missing())) == len(shard)

    read.number = 0
    run("label folder", tmp_path, lambda _: valid, damage_json, read)


PLAN = ReadingPlan(
    "ab",
    "none",
    tuple(PromptToken(i, i, text, special=False) for i, text in enumerate("ab")),
    layers=(0, 3),
    positions=(0, 1),
)
CELLS = [
    Cell(*place, "größer 🦉", 'größer 🦉"', -1.5, 3, True, 0.5, confidence)
    for place, confidence in zip(PLAN.cells(), (None, 0.0, 0.75, 1.0), strict=True)
]


def test_reading_folders(tmp_path):
    settings = {"model": "m", "adapter": "12", "layers": "0,3", "mean": None}

    def written(count: int) -> dict[str, bytes]:
        """What a reading leaves after `count` cells."""
        folder = ReadingFolder(tmp_path / str(count), PLAN, settings)
        folder.append(CELLS[:count])
        if folder.whole:
            folder.finish()
        return {file.name: file.read_bytes() for file in folder.path.iterdir()}

    stages = [written(count) for count in (0, 1, 3, 4)]

    def read(folder: Path) -> None:
        found = ReadingFolder(folder, PLAN, settings)
        found.append([cell for cell in CELLS if not found.done(cell.layer, cell.position)])
        assert found.whole
        reading = found.finish()
        assert [(cell.layer, cell.position) for cell in reading.cells] == PLAN.cells()
        again = ReadingFolder(folder, PLAN, settings)
        assert again.whole
        assert again.finish() == reading

    run("reading folder", tmp_path, lambda rng: rng.choice(stages), damage_json, read)


def test_evaluation_folders(tmp_path):
    conversation = {"text": "a", "anywhere": [0.5, 0.1], "content": [0.5, 0.0]}
    failed = {"text": "", "error": "no text"}
    kinds = {
        LossRow: {"losses": [[1.5, 2.5], [0.25]]},
        LabelsRow: {"labels": ["a", "größer"]},
        TabooRow: {"text": "it flies at night 🦉"},
        ScoringRow: {
            "latent": 3,
            "labels": [{"text": "a", "scale": 1.0, "conversations": [conversation, failed]}],
        },
        BridgeRow: {
            "meaning": "m",
            "hits": [[0, 1], [2, 0]],
            "labels": 8,
            "examples": [{"layer": 0, "position": 1, "label": "a"}],
        },
    }
    negative = {"noun": "owl", "conversation": conversation}
    config = {"protocol": "p", "settings": {"seed": 1}, "inputs": {"a": "12"}}

    def valid(rng):
        kind = rng.choice(list(kinds))
        rows = [{"key": f"unit/{i}", **kinds[kind]} for i in range(3)]
        if kind is ScoringRow:
            rows.append({"key": "negative:0", **negative})
        read.kind = kind
        return {"config.json": json.dumps(config).encode(), "rows.jsonl": lines(rows)}

    def read(folder: Path) -> None:
        kept = EvaluationFolder(folder, "p", {"seed": 1}, {"a": "12"}, kind=read.kind)
        kept.add("new", kinds[read.kind])
        again = EvaluationFolder(folder, "p", {"seed": 1}, {"a": "12"}, kind=read.kind)
        assert again.rows == kept.rows

    run("evaluation folder", tmp_path, valid, damage_json, read)


def test_training_folders(tmp_path):
    config = TrainConfig.model_validate({"data": {"labels_file": "x.json"}, "model": {"name": "m"}})
    metrics = [
        {"event": "step", "step": 1, "loss": 2.5},
        {"event": "validation", "step": 1, "val_loss": 2.25, "controls": {"zero": 3.0}},
        {"event": "step", "step": 2, "loss": 1.5},
    ]
    valid = {
        "config.yaml": dump_config(config).encode(),
        "run.json": json.dumps({"id": "ab12", "inputs": {"vectors": "12"}}).encode(),
        "metrics.jsonl": lines(metrics),
    }

    def mutate(rng, data: bytes) -> bytes:
        return (damage_json if data[:1] == b"{" else damage_yaml)(rng, data)

    def read(folder: Path) -> None:
        found = find_runs(folder)
        for one in found:
            json.dumps(one.as_dict())
            compare_runs(one, found[0])
        training = RunFolder(folder)
        training.config()
        assert isinstance(training.run_id, str)
        training.inputs()

    run("training run folder", tmp_path, lambda _: valid, mutate, read)
