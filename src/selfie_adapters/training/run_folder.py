"""The run folder: the interface between a training run and everything that reads it.

config.yaml               the resolved configuration
metrics.jsonl             one row per step, one per validation, …
run.json                  the run's id, by which mirrors find it again; digests of its inputs
checkpoints/              what --resume resumes from (state.py)
adapter_last.safetensors  the adapter of the newest checkpoint
adapter_best.safetensors  the lowest validation loss so far
adapter_final.safetensors the end of training
failed_batch.json         only if a loss was not finite: the examples of that batch
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfie_adapters.config import TrainConfig, dump_config, load_config
from selfie_adapters.errors import ConfigError, DataError, MissingFileError, TrainingError
from selfie_adapters.files import read_json, write_json, write_text
from selfie_adapters.files.locking import folder_lock


@dataclass
class RunFolder:
    """begun: whether the folder is this run's, and not an earlier one's that it will replace."""

    path: Path
    begun: bool = False

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def failed_batch(self) -> Path:
        return self.path / "failed_batch.json"

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    def adapter(self, which: str) -> Path:
        """Path of the adapter `which`: last, best or final."""
        return self.path / f"adapter_{which}.safetensors"

    def held(self, writes: bool) -> AbstractContextManager[None]:
        """Keeps other runs out of the folder; writes: whether this process writes to it."""
        return folder_lock(self.path) if writes else nullcontext()

    def check_free(self, overwrite: bool) -> None:
        """Raise ConfigError if a run lives here already and must not be replaced."""
        if not overwrite and self.config_file.exists():
            raise ConfigError(
                f"{self.path} holds a run already. Resume it: selfie train --resume "
                f"{self.path}; or give another training.checkpoint_dir or experiment_name, or pass "
                "--overwrite."
            )

    def clear(self) -> None:
        """Remove what an earlier run left: its configuration first, so that it is no run."""
        self.config_file.unlink(missing_ok=True)
        for file in self.checkpoints.glob("step_*.safetensors"):
            file.unlink()
        mine = [self.metrics, self.failed_batch]
        mine += [self.adapter(which) for which in ("last", "best", "final")]
        for file in mine:
            file.unlink(missing_ok=True)
        self._remove_leftovers()

    def begin(self, config: TrainConfig, inputs: Mapping[str, str]) -> None:
        """Write the configuration of a run into an empty folder.

        inputs: digests of what the run depends on, by name (inputs.py).
        """
        write_json(self.path / "run.json", {"id": uuid.uuid4().hex[:8], "inputs": dict(inputs)})
        write_text(self.config_file, dump_config(config))

    def config(self) -> TrainConfig:
        """The run's configuration. Raises MissingFileError if no run lives here."""
        if not self.config_file.is_file():
            raise MissingFileError(
                f"{self.path} holds no run (there is no config.yaml). A run stopped before its "
                "first step leaves none: start it again with selfie train --config FILE. "
                "selfie runs lists the runs there are."
            )
        return load_config(self.config_file)

    @property
    def run_id(self) -> str:
        return str(self._record().get("id"))

    def inputs(self) -> dict[str, str]:
        """Digests of the inputs the run began with; empty for runs of earlier versions."""
        return self._record().get("inputs", {})

    def _record(self) -> dict[str, Any]:
        path = self.path / "run.json"
        record = read_json(path)
        if not isinstance(record, dict) or not isinstance(record.get("inputs", {}), dict):
            raise DataError(f"{path}: an object with id and inputs is expected. Restore the file.")
        return record

    def rewind(self, metrics_bytes: int) -> None:
        """Cut metrics.jsonl to its first `metrics_bytes`, and tidy up after a killed writer.

        Raises TrainingError if it is shorter than that.
        """
        size = self.metrics.stat().st_size if self.metrics.exists() else 0
        if size < metrics_bytes:
            raise TrainingError(
                f"{self.metrics} has {size} bytes; the checkpoint recorded {metrics_bytes}: it was "
                "changed or lost. Put it back, or start the run from scratch with --overwrite."
            )
        if size > metrics_bytes:
            with self.metrics.open("rb+") as file:
                file.truncate(metrics_bytes)
        self.failed_batch.unlink(missing_ok=True)
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """Unfinished temporary files of writers that were killed."""
        for folder in (self.path, self.checkpoints):
            for file in folder.glob(".*.part"):
                file.unlink(missing_ok=True)
