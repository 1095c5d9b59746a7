"""The run folder: the interface between a training run and everything that reads it.

config.yaml               the resolved configuration
metrics.jsonl             one row a step, one a validation
adapter_last.safetensors  the newest checkpoint
adapter_best.safetensors  the lowest validation loss so far
adapter_final.safetensors the end of training
failed_batch.json         only if a loss was not finite: the examples of that batch
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from selfie_adapters.errors import ConfigError
from selfie_adapters.files import write_text


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def failed_batch(self) -> Path:
        return self.path / "failed_batch.json"

    def adapter(self, which: str) -> Path:
        """Path of the adapter `which`: last, best or final."""
        return self.path / f"adapter_{which}.safetensors"

    @classmethod
    def create(cls, path: str | Path, config_yaml: str, overwrite: bool = False) -> RunFolder:
        """A fresh run folder with its config. Raises ConfigError if a run lives there already."""
        folder = cls(Path(path))
        mine = ["metrics.jsonl", "failed_batch.json"]
        mine += [folder.adapter(which).name for which in ("last", "best", "final")]
        if (folder.path / "config.yaml").exists():
            if not overwrite:
                raise ConfigError(
                    f"{folder.path} holds a run already. Give another "
                    "training.checkpoint_dir or experiment_name, or pass --overwrite."
                )
            for name in mine:
                (folder.path / name).unlink(missing_ok=True)
        write_text(folder.path / "config.yaml", config_yaml)
        return folder
