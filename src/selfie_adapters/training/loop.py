"""Training: epochs of shuffled batches through the frozen model; only the adapter moves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from selfie_adapters.adapters import TrainingRecord
from selfie_adapters.config import TrainConfig
from selfie_adapters.dataset import VectorLabelDataset
from selfie_adapters.errors import TrainingError, TrainingStopped
from selfie_adapters.interruption import advice
from selfie_adapters.model import FrozenModel
from selfie_adapters.training.checkpoints import Checkpoints, TrainingState, checkpoint_tensors
from selfie_adapters.training.epochs import StepExamples
from selfie_adapters.training.mirrors import open_mirrors
from selfie_adapters.training.ranks import Ranks, joined_ranks
from selfie_adapters.training.run_folder import RunFolder
from selfie_adapters.training.setup import Setup, set_up
from selfie_adapters.training.start import Start, check_same_run, first_state, input_digests
from selfie_adapters.training.step import NotFiniteError, backward, make_optimizer, set_rates
from selfie_adapters.training.stopping import (
    StopRequest,
    failures_explained,
    how_to_resume,
    no_gradient,
    not_finite,
    stop_on_signals,
)
from selfie_adapters.training.tracking import Tracker, observe, show_mixture
from selfie_adapters.training.validation import (
    ValidationInterrupted,
    Validator,
    check_validation_cost,
)


def train(
    config: TrainConfig,
    model: FrozenModel | None = None,
    dataset: VectorLabelDataset | None = None,
    console: Console | None = None,
    overwrite: bool = False,
) -> Path:
    """Train an adapter as `config` specifies and return its run folder (see run_folder.py).

    model and dataset may be handed over when they are loaded already. console shows progress.
    Raises ConfigError for a setting that cannot be met, DataError for bad data, TrainingError if
    training cannot continue, TrainingStopped after Ctrl-C or SIGTERM; what was written stays.
    FolderInUseError while another process trains in the folder.
    """
    run = RunFolder(Path(config.training.checkpoint_dir) / config.experiment_name)
    with _joined(run, config) as ranks:
        if ranks.writes:
            run.check_free(overwrite)
        trainer = _Trainer(set_up(config, model, dataset, ranks), run, ranks, console)
        with failures_explained(run):
            trainer.begin()  # only now: what cannot start leaves no folder behind
            trainer.run_all()
    return run.path


def resume(
    folder: str | Path,
    model: FrozenModel | None = None,
    dataset: VectorLabelDataset | None = None,
    console: Console | None = None,
) -> Path:
    """Resume the run in `folder` from its newest checkpoint, as if it had never stopped.

    The configuration is the folder's own. Raises like `train`; MissingFileError if there is no run,
    TrainingError or BindingError if data or model are not the ones it began with.
    """
    run = RunFolder(Path(folder), begun=True)
    config = run.config()
    with _joined(run, config) as ranks:
        trainer = _Trainer(set_up(config, model, dataset, ranks), run, ranks, console)
        with failures_explained(run):
            trainer.restore()
            trainer.run_all()
    return run.path


@contextmanager
def _joined(run: RunFolder, config: TrainConfig) -> Iterator[Ranks]:
    """This process among those that train, and the folder held for them; a signal is answered with
    how to resume, up to the last moment."""
    with (
        advice(lambda: how_to_resume(run)),
        joined_ranks(config.model.device_map) as ranks,
        run.held(ranks.writes),
    ):
        yield ranks


class _Trainer:
    def __init__(self, setup: Setup, run: RunFolder, ranks: Ranks, console: Console | None) -> None:
        config = setup.config
        self.setup, self.config, self.run, self.ranks = setup, config, run, ranks
        self.adapter, self.order = setup.adapter, setup.order
        self.validator = Validator(setup, ranks)
        if self.adapter.num_parameters():
            check_validation_cost(setup, self.validator)
        self.optimizer = make_optimizer(self.adapter, config.training)
        self.checkpoints = Checkpoints(run.checkpoints, config.training.keep_last)
        shown = (run.metrics, console) if ranks.writes else (None, None)
        self.tracker = Tracker(*shown, config.logging.log_every_n_steps)
        self.stop = StopRequest()
        self.step = 0
        self.best: float | None = None
        self.validated = False
        self.examples_digest = setup.train.digest()
        self.inputs = input_digests(setup)
        self._gradient_seen = False

    # How a run starts

    def begin(self) -> None:
        """Start a new run, from the adapter file the configuration names if it names one."""
        start = self._start()
        self._agree()
        if self.ranks.writes:
            self.run.clear()
        self.run.begun = True
        if self.ranks.writes:
            self.run.begin(self.config, self.inputs)
        if start.event:
            self.tracker.event(**start.event)

    def restore(self) -> None:
        """Take the state of the newest checkpoint; without one, start at the beginning."""
        found = self.checkpoints.read_newest() if self.adapter.num_parameters() else None
        checkpoint = found[0] if found else None
        check_same_run(self.setup, self.run, checkpoint, self.examples_digest, self.inputs)
        start, cut = self._start() if found is None else None, 0
        if found is not None:
            progress, tensors = found
            self.checkpoints.restore(self.adapter, self.optimizer, tensors)
            self.step, self.best = progress.step, progress.best
            self.validated, cut = progress.validated, progress.metrics_bytes
        self._agree()
        if self.ranks.writes:
            self.run.rewind(cut)
        if start and start.event:
            self.tracker.event(**start.event)
        line = f"resumes after step {self.step} of {self.order.total_steps}"
        self.tracker.event("resume", line, step=self.step)

    def _start(self) -> Start:
        start = first_state(self.setup, self.optimizer)
        self.step, self.best = start.step, start.best
        return start

    def _agree(self) -> None:
        self.ranks.agree_on(
            step=self.step, total_steps=self.order.total_steps, examples=self.examples_digest
        )

    def run_all(self) -> None:
        """Train to the end, validate, and write the adapters."""
        title = f"{self.adapter.kind} ({self.adapter.num_parameters():,} numbers)"
        try:
            if self.ranks.writes:
                self.tracker.mirrors = open_mirrors(
                    self.config, self.run.path, self.run.run_id, self.tracker.say
                )
            with (
                stop_on_signals() as self.stop,
                self.tracker.showing(self.order.total_steps, title, self.step),
            ):
                if self.adapter.num_parameters():
                    self._steps()
                else:
                    self._validate()  # nothing to train: a baseline
            if self.config.training.save_final_checkpoint:
                self._save_adapter("final")
        finally:
            for mirror in self.tracker.mirrors:
                mirror.close()

    def _steps(self) -> None:
        settings = self.config.training
        if self.step and self.step % settings.validation_every_n_steps == 0 and not self.validated:
            self._validate()  # the run was stopped in it
        for examples in self.order.steps(self.step):
            if self.config.data.debug_dataset_mixing and self.step % self.order.epoch_steps == 0:
                show_mixture(self.setup, self.tracker, self.step, examples.epoch)
            stop = self._one_step(examples)
            if stop:
                self._stopped()
            if self.ranks.writes:
                observe(self.setup, self.tracker, self.step)
            if self.step % settings.validation_every_n_steps == 0:
                self._validate()
            if self.step % settings.checkpoint_every_n_steps == 0:
                self._checkpoint()
        if not self.validated:
            self._validate()
        self._checkpoint()

    def _one_step(self, examples: StepExamples) -> bool:
        """One update of the adapter, and its row. Returns whether training is asked to stop."""
        started = time.perf_counter()
        total = self.order.total_steps
        rates = set_rates(self.optimizer, self.config.training, self.step, total)
        try:
            result = backward(self.setup, self.ranks, examples, bool(self.stop))
            if not self._gradient_seen and result.gradient_norm == 0:
                raise no_gradient(self.step, self.setup.model.name)
        except Exception as error:
            # Nothing has moved yet: what is saved is the state after the last step.
            self._checkpoint()
            if isinstance(error, NotFiniteError):
                raise self._not_finite(error) from None
            raise
        self._gradient_seen = True
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.validated = False
        seconds = time.perf_counter() - started
        self.tracker.step(
            {
                "step": self.step,
                "epoch": examples.epoch,
                "loss": sum(result.batch_losses) / len(result.batch_losses),
                "batch_losses": result.batch_losses,
                "learning_rates": rates,
                "gradient_norm": result.gradient_norm,
                "clamped_tokens": result.clamped,
                "target_tokens": result.tokens,
                "examples": examples.rows.numel(),
                "seconds": round(seconds, 4),
                "examples_per_second": round(examples.rows.numel() / seconds, 2),
            }
        )
        return result.stop or (self.ranks.size == 1 and bool(self.stop))

    def _not_finite(self, error: NotFiniteError) -> TrainingError:
        """The adapter still has its last finite parameters."""
        rows = [self.setup.train.describe(i) for i in error.examples.tolist()]
        first = not self._gradient_seen
        return not_finite(self.run, self.config, self.step, error.what, rows, first)

    # Validation and saving

    def _validate(self) -> None:
        try:
            found = self.validator.measure(self.adapter, lambda: bool(self.stop))
        except ValidationInterrupted:
            self._stopped()
        self.validated = True
        if found is None:
            return
        is_best = self.best is None or found.loss < self.best
        if is_best:
            self.best = found.loss
        line = f"step {self.step}: {found.line()}{', the best so far' if is_best else ''}"
        self.tracker.event("validation", line, step=self.step, **found.row(), best=is_best)
        if is_best:
            self._save_adapter("best")

    def _checkpoint(self) -> None:
        """Save all that is needed to resume, then the adapter as it is."""
        if not self.ranks.writes or not self.adapter.num_parameters():
            return
        progress = TrainingState(
            step=self.step,
            total_steps=self.order.total_steps,
            best=self.best,
            validated=self.validated,
            metrics_bytes=self.tracker.flush(),
            examples=self.examples_digest,
        )
        self.checkpoints.write(progress, checkpoint_tensors(self.adapter, self.optimizer))
        self._save_adapter("last")

    def _save_adapter(self, which: str) -> None:
        if self.ranks.writes:
            settings = self.config.model_dump(mode="json")
            self.adapter.record = TrainingRecord(settings, self.step, self.best)
            self.adapter.save(self.run.adapter(which))

    def _stopped(self) -> NoReturn:
        self._checkpoint()
        by = self.stop.name if self.stop else "another process"
        raise TrainingStopped(
            f"stopped by {by} after step {self.step} of {self.order.total_steps}, which is saved. "
            f"{how_to_resume(self.run)}",
            self.stop.signal,
        )
