"""Training: epochs of shuffled batches through the frozen model; only the adapter moves."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from torch import Tensor

from selfie_adapters.adapters import KINDS, Adapter, TrainingRecord, create_adapter
from selfie_adapters.config import Ratio, TrainConfig, dump_config
from selfie_adapters.dataset import Examples, VectorLabelDataset, load_dataset
from selfie_adapters.dataset.mixing import Group, epoch_of, make_groups
from selfie_adapters.errors import ConfigError, DataError, TrainingError
from selfie_adapters.files import write_json
from selfie_adapters.model import BoundPrompt, FrozenModel, SoftPrompt, bind, load_model
from selfie_adapters.training.batches import LabelTokens, shuffled_vectors, tokenise_labels
from selfie_adapters.training.closed_form import PROBES, closed_form_start
from selfie_adapters.training.objective import Objective
from selfie_adapters.training.optimizer import make_optimizer, make_schedule
from selfie_adapters.training.run_folder import RunFolder
from selfie_adapters.training.tracking import Tracker


@dataclass(frozen=True)
class Split:
    """One split, ready to train on: examples in file order and their labels' tokens."""

    examples: Examples
    tokens: LabelTokens

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def vector_of(self) -> Tensor:
        """[examples], a number for the vector of each: equal where labels share a vector."""
        pairs = torch.stack([self.examples.section, self.examples.row], dim=1)
        return torch.unique(pairs, dim=0, return_inverse=True)[1]

    def vectors(self, dataset: VectorLabelDataset, chosen: Tensor) -> Tensor:
        """Raw vectors of the examples `chosen`: [rows, d_model], float32."""
        return dataset.gather(self.examples.section[chosen], self.examples.row[chosen])


def train(
    config: TrainConfig,
    model: FrozenModel | None = None,
    dataset: VectorLabelDataset | None = None,
    console: Console | None = None,
    overwrite: bool = False,
) -> Path:
    """Train an adapter as `config` says and return its run folder (see run_folder.py).

    model and dataset may be handed over when they are loaded already. console shows progress.
    Raises ConfigError for a setting that cannot be met, DataError for bad data, TrainingError if a
    loss is not finite; what was written by then stays.
    """
    _refuse_unsupported(config)
    dataset = dataset or load_dataset(config.data.labels_file)
    run = RunFolder(Path(config.training.checkpoint_dir) / config.experiment_name)
    run.check_free(overwrite)
    if model is None:
        model = load_model(config.model.name, config.model.dtype, config.model.device_map)
    tracker = Tracker(run.metrics, console, config.logging.log_every_n_steps)
    trainer = _Trainer(config, model, dataset, run, tracker)
    run.begin(dump_config(config))  # only now: what cannot start leaves no folder behind
    return trainer.run_all()


def bound_prompt(config: TrainConfig, model: FrozenModel) -> BoundPrompt:
    """The configured prompt, or the built-in one for this tokenizer, as token ids."""
    template, placeholder = config.soft_prompt.template, config.soft_prompt.reserved_token
    if template is None or placeholder is None:
        built_in = SoftPrompt.for_tokenizer(model.tokenizer)
        template = template or built_in.template
        placeholder = placeholder or built_in.placeholder
    return SoftPrompt(template, placeholder, config.data.eos_token).bind(model.tokenizer)


class _Trainer:
    def __init__(
        self,
        config: TrainConfig,
        model: FrozenModel,
        dataset: VectorLabelDataset,
        run: RunFolder,
        tracker: Tracker,
    ) -> None:
        self.config, self.model, self.dataset = config, model, dataset
        self.run, self.tracker = run, tracker
        settings = config.training
        if dataset.d_model != model.d_model:
            raise DataError(
                f"{config.data.labels_file}: vectors of width {dataset.d_model}; the model "
                f"{model.name} has d_model {model.d_model}. Use the model the vectors come from."
            )
        self.prompt = bound_prompt(config, model)
        self.objective = Objective(model, self.prompt, settings.label_smoothing, settings.max_loss)
        self.plain_objective = Objective(model, self.prompt)  # validation is never smoothed
        self.train_split = self._tokenised("train")
        self.val_split = self._tokenised("val")
        if not len(self.train_split):
            raise DataError(f'{config.data.labels_file}: no vector has the split "train".')
        projection = config.projection
        # Published configurations name a rank beside kinds that have none.
        rank = projection.low_rank_rank if KINDS[projection.type].takes_rank else None
        self.adapter = create_adapter(
            projection.type,
            model.d_model,
            normalize_input=projection.normalize_input,
            init_scale=projection.init_scale,
            low_rank_rank=rank,
            low_rank_init_factor=projection.low_rank_init_factor,
            seed=config.seed,
        )
        layers = {section.layer for section in dataset.sections}
        self.adapter.binding = bind(model, self.prompt, layers.pop() if len(layers) == 1 else None)
        self.train_groups = self._groups_of(self.train_split, config.data.train_dataset_ratios)
        self.val_groups = self._groups_of(self.val_split, config.data.val_dataset_ratios)
        self.step = 0
        self.best: float | None = None
        batches = math.ceil(self._epoch(0).numel() / config.data.batch_size)
        accumulate = settings.gradient_accumulation_steps
        self.total_steps = settings.num_epochs * math.ceil(batches / accumulate)
        if settings.max_steps is not None:
            self.total_steps = min(self.total_steps, settings.max_steps)

    def _tokenised(self, split: Literal["train", "val"]) -> Split:
        examples = self.dataset.examples(split)
        labels = examples.labels
        if self.config.data.strip_labels:
            labels = [label.strip() for label in labels]
        return Split(examples, tokenise_labels(self.model.tokenizer, labels, self.prompt.end_id))

    def _groups_of(self, split: Split, ratios: list[Ratio] | None) -> list[Group]:
        if not ratios:
            return []
        wanted = [
            ([r.datasets] if isinstance(r.datasets, str) else r.datasets, r.ratio) for r in ratios
        ]
        ids = [section.id for section in self.dataset.sections]
        return make_groups(ids, split.examples.section, wanted)

    def run_all(self) -> Path:
        """Train to the end, validate, and write the adapters."""
        config = self.config
        title = f"{config.projection.type} ({self.adapter.num_parameters():,} numbers)"
        if config.projection.init == "closed_form":
            self._start_in_closed_form()
        if not self.adapter.num_parameters():
            self._validate()  # nothing to train: a baseline
        else:
            with self.tracker.showing(self.total_steps, title):
                try:
                    self._steps()
                except BaseException:
                    self._save("last")
                    raise
            if self.step % config.training.validation_every_n_steps:
                self._validate()
        if config.training.save_final_checkpoint:
            self._save("final")
        return self.run.path

    def _start_in_closed_form(self) -> None:
        split = self.train_split
        start = closed_form_start(
            self.adapter,
            self.plain_objective,
            lambda rows: split.vectors(self.dataset, rows),
            split.tokens,
            split.vector_of,
            self.config.seed,
        )
        line = f"closed-form start: loss {start.loss:.4f} on {PROBES} examples"
        self.tracker.event("closed_form", line, step=self.step, **asdict(start))

    def _steps(self) -> None:
        settings = self.config.training
        optimizer = make_optimizer(self.adapter, settings)
        schedule = make_schedule(optimizer, settings, self.total_steps)
        parameters = list(self.adapter.parameters())
        for epoch, group in self._groups():
            started = time.perf_counter()
            rates = {entry["name"]: entry["lr"] for entry in optimizer.param_groups}
            losses, clamped, tokens = [], 0, 0
            for batch in group:
                loss, batch_clamped, batch_tokens = self._backward(batch, 1 / len(group))
                losses.append(loss)
                clamped += batch_clamped
                tokens += batch_tokens
            norm = torch.nn.utils.clip_grad_norm_(parameters, settings.gradient_clip_norm)
            if not math.isfinite(float(norm)):
                self._stop_not_finite("gradient", torch.cat(group))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            self.step += 1
            examples = sum(batch.numel() for batch in group)
            seconds = time.perf_counter() - started
            self.tracker.step(
                {
                    "step": self.step,
                    "epoch": epoch,
                    "loss": sum(losses) / len(losses),
                    "batch_losses": losses,
                    "learning_rates": rates,
                    "gradient_norm": float(norm),
                    "clamped_tokens": clamped,
                    "target_tokens": tokens,
                    "examples": examples,
                    "seconds": round(seconds, 4),
                    "examples_per_second": round(examples / seconds, 2),
                }
            )
            if self.step % settings.checkpoint_every_n_steps == 0:
                self._save("last")
            if self.step % settings.validation_every_n_steps == 0:
                self._validate()

    def _groups(self) -> Iterator[tuple[int, list[Tensor]]]:
        """(epoch, batches of one optimizer step), until the last step.

        An epoch's last batch may be short, and so may its last group of accumulated batches.
        """
        accumulate = self.config.training.gradient_accumulation_steps
        for epoch in range(self.config.training.num_epochs):
            order = self._epoch(epoch)
            batches = order.split(self.config.data.batch_size)
            for start in range(0, len(batches), accumulate):
                if self.step >= self.total_steps:
                    return
                yield epoch, list(batches[start : start + accumulate])

    def _epoch(self, epoch: int) -> Tensor:
        """Examples of one epoch in the order they are trained on; the same for the same seed."""
        data = self.config.data
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
        order = torch.arange(len(self.train_split))
        if self.train_groups:
            drawn = generator
            if not data.resample_each_epoch:
                drawn = torch.Generator().manual_seed(self.config.seed * 1_000_003)
            order = epoch_of(self.train_groups, drawn)
        if data.shuffle:
            if data.keep_labels_together:
                shuffled = shuffled_vectors(self.train_split.vector_of[order], generator)
            else:
                shuffled = torch.randperm(order.numel(), generator=generator)
            order = order[shuffled]
        return order

    def _backward(self, batch: Tensor, weight: float) -> tuple[float, int, int]:
        """Add the gradient of `weight` times the batch's mean loss.

        Returns the mean loss, and how many target tokens were clamped and how many there were.
        """
        vectors = self.train_split.vectors(self.dataset, batch)
        same = self.train_split.vector_of[batch]
        losses, clamped, tokens = [], 0, 0
        for part in self.objective.parts(self.train_split.tokens, batch, same):
            soft = self.adapter.transform(vectors[part])
            result = self.objective.part_loss(
                soft, self.train_split.tokens, batch[part], same[part]
            )
            loss = result.per_example.sum() / batch.numel()
            losses.append(loss.detach())
            if not bool(torch.isfinite(losses[-1])):
                self._stop_not_finite("loss", batch[part])
            (loss * weight).backward()
            clamped += int(result.clamped)
            tokens += result.tokens
        return float(torch.stack(losses).sum()), clamped, tokens

    def _stop_not_finite(self, what: str, batch: Tensor) -> None:
        """Write down the batch and stop; the adapter still has its last finite parameters."""
        examples = self.train_split.examples
        rows = [
            {
                "dataset": self.dataset.sections[int(examples.section[i])].id,
                "index": int(examples.row[i]),
                "label": examples.labels[int(i)],
            }
            for i in batch.tolist()
        ]
        write_json(self.run.failed_batch, {"step": self.step + 1, "what": what, "examples": rows})
        first = rows[0]
        raise TrainingError(
            f"step {self.step + 1}: the {what} is not finite in a batch of {len(rows)} examples "
            f"(the first: {first['dataset']}, index {first['index']}, {first['label']!r:.60}); all "
            f"are listed in {self.run.failed_batch}. The adapter of step {self.step} is saved in "
            f"{self.run.adapter('last')}. Try a smaller learning rate, or model.dtype: float32."
        )

    def _validate(self) -> None:
        loss = validation_loss(
            self.plain_objective,
            self.adapter,
            self.dataset,
            self.val_split,
            self.val_groups,
            self.config.training.val_fraction,
            self.config.seed,
        )
        if loss is None:
            return
        is_best = self.best is None or loss < self.best
        if is_best:
            self.best = loss
        line = f"step {self.step}: validation loss {loss:.4f}{' (best)' if is_best else ''}"
        self.tracker.event("validation", line, step=self.step, val_loss=loss, best=is_best)
        if is_best:
            self._save("best")

    def _save(self, which: str) -> None:
        config = self.config.model_dump(mode="json")
        self.adapter.record = TrainingRecord(config, self.step, self.best)
        self.adapter.save(self.run.adapter(which))


@torch.no_grad()
def validation_loss(
    objective: Objective,
    adapter: Adapter,
    dataset: VectorLabelDataset,
    split: Split,
    groups: list[Group],
    fraction: float = 1.0,
    seed: int = 0,
) -> float | None:
    """Mean loss over `fraction` of the split (the same examples each time); None if it is empty.

    groups: the mixture to take from the split, if any.
    """
    if not len(split):
        return None
    generator = torch.Generator().manual_seed(seed)
    pool = epoch_of(groups, generator) if groups else torch.arange(len(split))
    count = max(1, round(pool.numel() * fraction))
    chosen = pool[torch.randperm(pool.numel(), generator=generator)[:count]].sort().values
    total = 0.0
    for rows in chosen.split(1024):
        soft = adapter.transform(split.vectors(dataset, rows))
        result = objective.all_losses(soft, split.tokens, rows, split.vector_of[rows])
        total += float(result.per_example.sum())
    return total / count


def _refuse_unsupported(config: TrainConfig) -> None:
    """Settings that are read but not built yet stop the run instead of being ignored."""
    unsupported = [
        ("model.load_in_8bit", config.model.load_in_8bit),
        ("training.resume_from_checkpoint", config.training.resume_from_checkpoint),
    ]
    asked = [key for key, value in unsupported if value]
    if asked:
        raise ConfigError(
            f"{', '.join(asked)}: not supported in this version. Remove it from the configuration "
            "(or --set it to null) to train without it."
        )
