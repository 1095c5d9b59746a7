"""A configuration over the toy data of tests/training, and its rows read back."""

from __future__ import annotations

from selfie_adapters.config import TrainConfig
from selfie_adapters.files.json_lines import read_jsonl


def config_for(data, **changes):
    sections = {
        "experiment_name": "run",
        "model": {"name": "tiny"},
        "data": {"labels_file": str(data), "batch_size": 5},
        "projection": {"type": "scalar_affine", "init_scale": 3.0},
        "training": {
            "num_epochs": 2,
            "warmup_steps": 2,
            "validation_every_n_steps": 4,
            "checkpoint_dir": str(data.parent / "runs"),
        },
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            sections.setdefault(section, {})[name] = value
        else:
            sections[section] = value
    return TrainConfig.model_validate(sections)


def rows_of(run, event):
    return [row for row in read_jsonl(run / "metrics.jsonl") if row["event"] == event]
