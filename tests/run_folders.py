"""Made-up run folders for tests of the report page: labelling, training, evaluation."""

from __future__ import annotations

import json
from pathlib import Path

from label_runs import row
from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.labelling.controls import ControlScores
from selfie_adapters.labelling.run_record import write_controls

HOSTILE = "</script><script>document.title='x'</script><img src=x onerror=alert(1)>\u202e&"


def write_lines(path: Path, rows) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")


def label_rows(count: int):
    """Labels with a given one each: two of three equal, every tenth withheld; one hostile."""
    for index in range(count):
        given = f"thing {index % 1000}"
        equal = index % 3 != 0
        withheld = {"withheld": "below threshold"} if index % 10 == 9 else {}
        confidence = 0.05 if withheld else round(0.5 + (index % 97) / 200, 4)
        label = given if equal else HOSTILE if index == 3 else f"other {index % 7}"
        yield row(
            index, label, dataset="things@l1", given=given, equal=equal,
            confidence=confidence, concept=not withheld, **withheld,
        )  # fmt: skip


def labelling_run(folder: Path, count: int = 60, calibrated: bool = True) -> Path:
    """A finished labelling run with controls."""
    folder.mkdir(parents=True)
    settings = LabelSettings.checked(
        source="things.json", model="demo", adapter="demo", shard_size=10**6,
        confidence="gone.json" if calibrated else None,
    ).model_dump(mode="json")  # fmt: skip
    record = {"settings": settings, "vectors": count, "inputs": {"adapter": "ab" * 32}}
    (folder / "config.json").write_text(json.dumps(record))
    write_lines(folder / "labels-00000.jsonl", label_rows(count))
    own, random = (1.0, 3.0, 2.0, 2.0), (0.5, 0.7, 0.6, 0.6)
    write_controls(
        folder,
        [
            ControlScores("vectors of this run", 4, 2.0, 0.6, 4, HOSTILE, own),
            ControlScores("zero", 1, -2e-06, None, 0, "nothing", (-0.0,)),
            ControlScores("random", 4, 0.6, 0.1, 0, "a word", random),
        ],
    )
    return folder


def training_run(folder: Path) -> Path:
    """A finished training run that sampled labels twice."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        "model: {name: demo}\nprojection: {type: scalar_affine}\ndata: {labels_file: a.json}\n"
    )
    rows = [{"event": "step", "step": n, "loss": 4.0 / n} for n in range(1, 9)]
    rows += [{"event": "validation", "step": n, "val_loss": 3.0 / n} for n in (4, 8)]
    for step, written in ((4, "early"), (8, "late")):
        sample = {"dataset": "a", "index": 0, "label": "owl", "written": f"{written} {HOSTILE}"}
        rows.append({"event": "samples", "step": step, "samples": [sample]})
    write_lines(folder / "metrics.jsonl", rows)
    (folder / "adapter_final.safetensors").touch()
    return folder


def interval(mean: float):
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 50}


def loss_run(folder: Path, losses: dict[str, dict[str, float]], digest: str = "") -> Path:
    """An evaluation of adapters (losses by adapter and data set); digest: of the data sets."""
    folder.mkdir(parents=True)
    controls = {"zero": 6.0, "shuffled": 5.0, "random": 5.5, "identity": 7.0, "untrained": 4.5}
    cells = [
        {
            "adapter": adapter,
            "dataset": data,
            "vectors": 40,
            "examples": 50,
            "loss": {name: interval(mean) for name, mean in {"trained": loss, **controls}.items()},
            "bias_share": interval(0.4),
            "untrained_scale": 2.1,
        }
        for adapter, of in losses.items()
        for data, loss in of.items()
    ]
    inputs = {f"adapter {one}": f"{one}-digest" for one in losses}
    inputs |= {f"data set {data}": digest + data for of in losses.values() for data in of}
    settings = {"model": "demo", "adapters": dict.fromkeys(losses, "a.safetensors"), "split": "val"}
    record = {"protocol": "loss", "settings": settings, "inputs": inputs}
    (folder / "config.json").write_text(json.dumps(record))
    content = {**record, "versions": {"torch": "2"}, "interval": "95 %", "cells": cells}
    (folder / "results.json").write_text(json.dumps(content))
    write_lines(
        folder / "examples.jsonl",
        (
            {"adapter": "a", "label": f"label {n}", "trained": n / 10, "shuffled": 5.0}
            for n in range(40)
        ),
    )
    return folder


def naming_run(folder: Path, shares: dict[str, float]) -> Path:
    """An evaluation of naming: share right or related by condition, at one block."""
    folder.mkdir(parents=True)
    measures = ("exact", "right or related", "shown", "right or related, of the shown")
    conditions = [
        {
            "condition": name,
            "meaning": f"what {name} is",
            "topics": 20,
            "vectors": 20,
            "share": {
                **dict.fromkeys(measures, interval(share)),
                "same first letter, of the wrong": None,
            },
        }
        for name, share in shares.items()
    ]
    place = {"position": "-1", "conditions": conditions}
    pooled = {**place, "layers": [12], "comparisons": []}
    section = {**place, "layer": 12, "retrieval": []}
    record = {
        "protocol": "naming",
        "settings": {"model": "demo", "adapter": "demo", "source": "/a/b/concepts.json"},
        "inputs": {"adapter": "cd" * 32, "source": "ef" * 32},
    }
    (folder / "config.json").write_text(json.dumps(record))
    content = {
        **record, "sections": [section], "positions": [pooled], "without_concept": None,
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(content))
    verdicts = ("right", "related", "wrong", "no concept")
    write_lines(
        folder / "labels.jsonl",
        (
            {
                "dataset": "c@l12", "layer": 12, "position": "-1", "index": n // 2,
                "condition": ("adapter", "zero vector")[n % 2], "name": f"name {n // 2}",
                "generated": f"label {n // 2}", "verdict": verdicts[n // 2 % 4],
                "shown": n // 2 % 4 != 3,
            }
            for n in range(40)
        ),
    )  # fmt: skip
    return folder
