"""What the machine refuses (memory, disk), said with what was saved and how to go on."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

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


def how_to_go_on(run: RunFolder) -> str:
    """The command that resumes the run, and from which step."""
    paths = Checkpoints(run.checkpoints).newest_first()
    if not paths:
        return "There is no checkpoint yet."
    step = int(paths[0].stem.removeprefix("step_"))
    command = f"selfie train --resume {shlex.quote(str(run.path))}"
    return f"Go on from step {step} with: {command}"
