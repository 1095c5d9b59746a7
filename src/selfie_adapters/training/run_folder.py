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

    def check_free(self, overwrite: bool) -> None:
        """Raise ConfigError if a run lives here already and must not be replaced."""
        if not overwrite and (self.path / "config.yaml").exists():
            raise ConfigError(
                f"{self.path} holds a run already. Give another training.checkpoint_dir or "
                "experiment_name, or pass --overwrite."
            )

    def begin(self, config_yaml: str) -> None:
        """Remove what an earlier run left and write the configuration of this one."""
        mine = [self.metrics, self.failed_batch]
        mine += [self.adapter(which) for which in ("last", "best", "final")]
        for file in mine:
            file.unlink(missing_ok=True)
        write_text(self.path / "config.yaml", config_yaml)
