"""What the machine refuses (memory, disk), said with what was saved and how to resume."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError

from selfie_adapters.config import TrainConfig
from selfie_adapters.errors import SelfieError, StorageError, TrainingError
from selfie_adapters.training.run_folder import RunFolder
from selfie_adapters.training.state import Checkpoints


@contextmanager
def failures_explained(run: RunFolder) -> Iterator[None]:
    """Turn running out of memory or disk into a TrainingError with advice."""
    try:
        yield
    except StorageError as error:
        raise TrainingError(_stopped_by(run, error)) from error
    except SelfieError:
        raise
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{run.path}: the GPU's memory is full. Try a smaller data.batch_size with more "
            "training.gradient_accumulation_steps, model.load_in_8bit, or "
            f"model.enable_gradient_checkpointing. {how_to_go_on(run)}"
        ) from error
    except (OSError, SafetensorError) as error:
        raise TrainingError(_stopped_by(run, error)) from error


def _stopped_by(run: RunFolder, error: Exception) -> str:
    return (
        f"{run.path}: {error} Training stopped there; no file was left half written. "
        f"{how_to_go_on(run)}"
    )


def not_finite(
    run: RunFolder,
    config: TrainConfig,
    step: int,
    what: str,
    rows: Sequence[Mapping[str, Any]],
    first: bool,
) -> TrainingError:
    """The error for a loss or gradient (`what`) that is not finite in the examples `rows`.

    step: steps done; first: whether no gradient of this run was finite before.
    """
    bits = "8" if config.model.load_in_8bit else "4" if config.model.load_in_4bit else None
    if not first:
        advice = "Try a smaller learning rate, or model.dtype: float32."
    elif bits:
        advice = f"It is the first step: the model in {bits} bits may not pass gradients on."
    else:
        advice = "It is the first step: try model.dtype: float32, and look at the vectors."
    example = rows[0]
    return TrainingError(
        f"step {step + 1}: the {what} is not finite in a batch of {len(rows)} examples (the "
        f"first: {example['dataset']}, index {example['index']}, {example['label']!r:.60}); all "
        f"are listed in {run.failed_batch}. The adapter of step {step} is saved in "
        f"{run.adapter('last')}. {advice}"
    )


def how_to_go_on(run: RunFolder) -> str:
    """The command that resumes the run, and from which step."""
    if not (run.begun and run.config_file.exists()):
        return "Nothing was trained yet. Run the same command again."
    command = f"selfie train --resume {shlex.quote(str(run.path))}"
    paths = Checkpoints(run.checkpoints).newest_first()
    if not paths:
        return f"There is no checkpoint yet. Start over with: {command}"
    step = int(paths[0].stem.removeprefix("step_"))
    return f"Resume from step {step} with: {command}"
