"""Runs read back from their folders: what was best, and where two of them differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from selfie_adapters.config.yaml_reading import read_yaml
from selfie_adapters.errors import DataError, MissingFileError
from selfie_adapters.files.json_lines import iter_jsonl
from selfie_adapters.files.memory import MemoryLimit
from selfie_adapters.files.number_types import NaturalNumber

_STRETCHES = 10  # of training losses in a comparison
_LOSS = 160  # bytes of a loss by its step


class _StepRow(msgspec.Struct):
    step: NaturalNumber
    loss: float


class _ValidationRow(msgspec.Struct):
    step: NaturalNumber
    val_loss: float


_KINDS = {"step": _StepRow, "validation": _ValidationRow}  # of metrics.jsonl, as read here


@dataclass(frozen=True)
class Run:
    """A run folder's configuration (dotted keys) and curves. Losses in nats per token."""

    path: Path
    config: dict[str, Any]
    training: dict[int, float]  # loss by step
    validation: dict[int, float]
    finished: bool

    @property
    def steps(self) -> int:
        """Optimizer steps that metrics.jsonl knows of."""
        return max([0, *self.training, *self.validation])

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and value of the lowest validation loss."""
        finite = {step: loss for step, loss in self.validation.items() if loss == loss}
        return min(finite.items(), key=lambda item: item[1]) if finite else None

    def as_dict(self) -> dict[str, Any]:
        step, loss = self.best or (None, None)
        return {
            "run": str(self.path),
            "adapter": self.config.get("projection.type"),
            "model": self.config.get("model.name"),
            "labels_file": self.config.get("data.labels_file"),
            "steps": self.steps,
            "finished": self.finished,
            "best_val_loss": loss,
            "best_step": step,
        }


def read_run(folder: str | Path) -> Run:
    """A run from its folder. Raises MissingFileError if there is none, DataError if it is bad."""
    path = Path(folder)
    if not _is_run(path):
        raise MissingFileError(
            f"{path} holds no run: config.yaml and metrics.jsonl are expected. "
            "selfie runs lists the runs there are."
        )
    config = read_yaml(path / "config.yaml")
    if not isinstance(config, dict):
        raise DataError(f"{path / 'config.yaml'}: sections are expected, found {config!r:.40}.")
    training, validation = {}, {}
    metrics = path / "metrics.jsonl"
    limit = MemoryLimit(str(metrics), metrics.stat().st_size)
    for number, fields in iter_jsonl(metrics):
        event = fields.get("event")
        if not isinstance(event, str):
            raise DataError(f"{metrics}, line {number}: a row without an event.")
        kind = _KINDS.get(event)
        if kind is None:
            continue
        try:
            row = msgspec.convert(fields, kind)
        except msgspec.ValidationError as error:
            raise DataError(f"{metrics}, line {number}: not a row of a run ({error}).") from error
        limit.take(_LOSS)
        if isinstance(row, _StepRow):
            training[row.step] = row.loss
        else:
            validation[row.step] = row.val_loss
    finished = (path / "adapter_final.safetensors").exists()
    return Run(path, flat(config), training, validation, finished)


def find_runs(folder: str | Path) -> list[Run]:
    """The runs in `folder` and below, lowest validation loss first, those without one last.

    Raises MissingFileError if there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise MissingFileError(
            f"{root}: no such folder. Runs are stored in training.checkpoint_dir, by default runs."
        )
    found = [read_run(path.parent) for path in root.rglob("metrics.jsonl") if _is_run(path.parent)]
    return sorted(
        found, key=lambda run: (run.best is None, run.best[1] if run.best else 0, str(run.path))
    )


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side: differing configuration keys, and curves at common steps.

    A curve row is (last step, loss of a, loss of b); training losses are means over stretches of
    the common steps.
    """

    a: Run
    b: Run
    config: dict[str, tuple[Any, Any]]
    validation: list[tuple[int, float, float]]
    training: list[tuple[int, float, float]]

    def as_dict(self) -> dict[str, Any]:
        return {
            "a": self.a.as_dict(),
            "b": self.b.as_dict(),
            **{k: v for k, v in asdict(self).items() if k in ("config", "validation", "training")},
        }


def compare_runs(a: Run, b: Run) -> Comparison:
    """Where two runs differ."""
    keys = dict.fromkeys([*a.config, *b.config])
    config = {
        key: (a.config.get(key), b.config.get(key))
        for key in keys
        if a.config.get(key) != b.config.get(key)
    }
    both = sorted(a.validation.keys() & b.validation.keys())
    validation = [(step, a.validation[step], b.validation[step]) for step in both]
    return Comparison(a, b, config, validation, list(_stretches(a.training, b.training)))


def _stretches(a: dict[int, float], b: dict[int, float]) -> Iterator[tuple[int, float, float]]:
    steps = sorted(a.keys() & b.keys())
    count = min(_STRETCHES, len(steps))
    for number in range(count):
        part = steps[number * len(steps) // count : (number + 1) * len(steps) // count]
        means = [sum(losses[step] for step in part) / len(part) for losses in (a, b)]
        yield part[-1], means[0], means[1]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _is_run(path: Path) -> bool:
    return (path / "config.yaml").is_file() and (path / "metrics.jsonl").is_file()
