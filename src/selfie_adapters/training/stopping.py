"""What ends training before its last step, and how the user is told to resume.

A signal is a request: the step in progress is finished and saved. Full memory, a full disk and a
loss that is not finite become a TrainingError that states what was saved.
"""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError

from selfie_adapters.config import TrainConfig
from selfie_adapters.errors import SelfieError, StorageError, TrainingError
from selfie_adapters.files import write_json
from selfie_adapters.interruption import catchable, signal_name
from selfie_adapters.training.checkpoints import Checkpoints
from selfie_adapters.training.run_folder import RunFolder


@dataclass
class StopRequest:
    """signal: number of the signal that asked to stop; 0 while none has."""

    signal: int = 0

    def __bool__(self) -> bool:
        return self.signal != 0

    @property
    def name(self) -> str:
        return signal_name(self.signal)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """While open, a first Ctrl-C, SIGTERM or SIGHUP only sets the request; a second interrupts.

    The second is answered as it would be outside: the command line ends with one line, and a
    program that calls `train` gets KeyboardInterrupt. Outside the main thread signals cannot be
    caught, and the request stays unset.
    """
    request = StopRequest()
    before = {number: signal.getsignal(number) for number in catchable()}

    def handler(number: int, frame: FrameType | None) -> None:
        if not request:
            request.signal = number
            return
        former = before[number]
        if callable(former):
            former(number, frame)
        raise KeyboardInterrupt

    try:
        for number in before:
            signal.signal(number, handler)
        yield request
    finally:
        for number, former in before.items():
            signal.signal(number, former)


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
            f"model.enable_gradient_checkpointing. {how_to_resume(run)}"
        ) from error
    except (OSError, SafetensorError) as error:
        raise TrainingError(_stopped_by(run, error)) from error


def _stopped_by(run: RunFolder, error: Exception) -> str:
    return (
        f"{run.path}: {error} Training stopped there; no file was left half written. "
        f"{how_to_resume(run)}"
    )


def not_finite(
    run: RunFolder,
    config: TrainConfig,
    step: int,
    what: str,
    rows: Sequence[Mapping[str, Any]],
    first: bool,
) -> TrainingError:
    """Write the examples `rows` to failed_batch.json, and return the error for them.

    step: steps done; what: "loss" or "gradient", which is not finite; first: whether no gradient
    of this run was finite before.
    """
    write_json(run.failed_batch, {"step": step + 1, "what": what, "examples": list(rows)})
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


def no_gradient(step: int, model: str) -> TrainingError:
    """The error for a first gradient of zero, after `step` steps."""
    return TrainingError(
        f"step {step + 1}: no gradient reaches the adapter through the model {model}. Packed "
        "weights (GGUF without dequantizing, some quantized formats) pass none on, and a "
        "training.max_loss below every token's loss leaves none."
    )


_part_of_another: ContextVar[bool] = ContextVar("part_of_another", default=False)


@contextmanager
def part_of_another_command() -> Iterator[None]:
    """What is trained in this block is only a part of a command, which resumes it: the user is not
    sent to `selfie train`."""
    token = _part_of_another.set(True)
    try:
        yield
    finally:
        _part_of_another.reset(token)


def how_to_resume(run: RunFolder) -> str:
    """The command that resumes the run, and from which step."""
    if _part_of_another.get():
        return "Run the same command again."
    if not (run.begun and run.config_file.exists()):
        return "Nothing was trained yet. Run the same command again."
    command = f"selfie train --resume {shlex.quote(str(run.path))}"
    paths = Checkpoints(run.checkpoints).newest_first()
    if not paths:
        return f"There is no checkpoint yet. Start over with: {command}"
    step = int(paths[0].stem.removeprefix("step_"))
    return f"Resume from step {step} with: {command}"
