"""A labelling run: a folder that can be killed at any moment and taken up again.

config.json          what was asked for, and hashes of the files it was asked of
binding.json         the model and prompt that wrote the labels
labels-00000.jsonl   shards (labelling/shards.py)
progress.json        how far the run is
controls.json        how vectors that mean nothing scored (labelling/controls.py)
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfie_adapters.adapters import find_adapter_file
from selfie_adapters.dataset.source import LabelSource
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.files import sha256, write_json
from selfie_adapters.json_lines import read_jsonl
from selfie_adapters.labelling.settings import LabelSettings
from selfie_adapters.labelling.shards import Shard, cut_into_shards, shard_state
from selfie_adapters.labelling.worker import ShardWorker

# These change how fast labels come, or what is shown beside them, not which come.
_FREE = ("batch_size", "ignore_binding")


@dataclass
class Progress:
    """Counts of vectors, for progress.json and for the bar."""

    vectors: int
    labelled: int = 0
    failed: int = 0

    @property
    def left(self) -> int:
        """Vectors that have no labels."""
        return self.vectors - self.labelled

    @property
    def complete(self) -> bool:
        return self.labelled == self.vectors


class LabelJob:
    """What of a run is done and what is not."""

    def __init__(self, folder: str | Path, settings: LabelSettings, source: LabelSource) -> None:
        """Nothing is written yet.

        Raises ConfigError if `folder` is a file, or holds a run with other settings or inputs;
        DataError if there is nothing to label.
        """
        self.folder = Path(folder)
        self.settings = settings
        self.source = source
        if self.folder.is_file() or self.folder.suffix in (".jsonl", ".json", ".csv"):
            raise ConfigError(
                f"{folder}: --out names a folder, and this looks like a file. Labels go into "
                "labels-00000.jsonl and so on in it; selfie export makes one file of them."
            )
        if not len(source):
            raise DataError(f"{settings.source}: no vector to label (split {settings.split}).")
        self.shards = cut_into_shards(folder, len(source), settings.shard_size)
        self._config = {
            "settings": settings.model_dump(mode="json"),
            "vectors": len(source),
            "inputs": _inputs(settings, source),
        }
        self._check_same_run()
        states = [shard_state(shard) for shard in self.shards]
        self._todo = [
            shard
            for shard, state in zip(self.shards, states, strict=True)
            if state is None or state[1]
        ]
        done = sum(state[0] for state in states if state is not None and not state[1])
        self.progress = Progress(len(source), done)
        self._written = 0.0

    def _check_same_run(self) -> None:
        path = self.folder / "config.json"
        if not path.exists():
            return
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
            pairs = [
                *((key, earlier["settings"].get(key), value) for key, value in self._decisive()),
                *((key, earlier.get(key), self._config[key]) for key in ("vectors", "inputs")),
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{path}: not a labelling run's configuration ({error}). Give another --out."
            ) from error
        for key, was, now in pairs:
            if was != now:
                raise ConfigError(
                    f"{self.folder} holds a run with {key} {was!r}; now {key} is {now!r}. Give "
                    "another --out, or the same settings to go on with that run."
                )

    def _decisive(self) -> list[tuple[str, Any]]:
        settings = self._config["settings"]
        return [(key, value) for key, value in settings.items() if key not in _FREE]

    def todo(self) -> list[Shard]:
        """Shards that are not complete, or hold failed vectors."""
        return list(self._todo)

    def first_failure(self) -> str:
        """Where and why the first failed vector failed; empty if none has."""
        for shard in self.shards:
            rows = read_jsonl(shard.path) if shard.path.exists() else []
            for row in rows:
                if "error" in row:
                    return f"row {row['index']}: {row['error']}"
        return ""

    def begin(self) -> None:
        """Make the folder and write config.json, if this is its first run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "config.json").exists():
            write_json(self.folder / "config.json", self._config)
        self.note(0, 0)

    def note(self, labelled: int, failed: int) -> None:
        """Count more vectors; progress.json follows, at most once a second until the end."""
        self.progress.labelled += labelled
        self.progress.failed += failed
        tried = self.progress.labelled + self.progress.failed
        if time.monotonic() - self._written > 1 or tried == self.progress.vectors:
            self._written = time.monotonic()
            counts = {**vars(self.progress), "complete": self.progress.complete}
            write_json(self.folder / "progress.json", counts)


def run_here(
    job: LabelJob, worker: ShardWorker, progress: Callable[[int], None] = lambda _vectors: None
) -> None:
    """Label every shard that is left, in this process. progress is told of tried vectors."""

    def note(labelled: int, failed: int) -> None:
        job.note(labelled, failed)
        progress(labelled + failed)

    worker.write_facts(job.folder)
    for shard in job.todo():
        worker.run(shard, note)


def _inputs(settings: LabelSettings, source: LabelSource) -> dict[str, str]:
    """Hashes of the files that decide what comes out."""
    inputs: dict[str, str] = {"vectors": _vectors_hash(source)}
    if settings.adapter is not None:
        inputs["adapter"] = sha256(find_adapter_file(settings.adapter))
    for key in ("mean", "confidence"):
        if (path := getattr(settings, key)) is not None:
            inputs[key] = sha256(path)
    return inputs


def _vectors_hash(source: LabelSource) -> str:
    """Which vectors, and a few of them: hashing all of a large SAE would take minutes."""
    digest = hashlib.sha256(json.dumps(source.places).encode())
    step = max(1, len(source) // 256)
    some = source.at(range(0, len(source), step))
    digest.update(some.numpy().tobytes())
    return digest.hexdigest()
