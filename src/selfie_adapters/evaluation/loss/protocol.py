"""The loss protocol: any adapters on any training files, beside controls, and the whole matrix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from selfie_adapters.adapters import Adapter, create_adapter, find_adapter_file, load_adapter
from selfie_adapters.config.evaluation.loss import LossSettings
from selfie_adapters.dataset import load_dataset
from selfie_adapters.dataset.schema import Split
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.folder import EvaluationFolder
from selfie_adapters.evaluation.inputs import dataset_hash
from selfie_adapters.evaluation.loss.held_out import CONDITIONS, Condition, HeldOut, LossMeter
from selfie_adapters.evaluation.spoken_labels import Progress, silent
from selfie_adapters.files import atomic_path, sha256
from selfie_adapters.model import FrozenModel, SoftPrompt, load_model
from selfie_adapters.model.fingerprint import mean_embedding_norm, weights_digest
from selfie_adapters.statistics import Interval, bootstrap_of_means
from selfie_adapters.training.setup import configured_prompt

TABLE = "examples.jsonl"


def run_loss(
    settings: LossSettings,
    folder: str | Path,
    model: FrozenModel | None = None,
    progress: Progress = silent,
) -> Path:
    """Measure every adapter on every data set, or resume it; returns the path of results.json.

    Beside it comes examples.jsonl: one row an adapter and example, its loss under each condition.
    Raises what reading the inputs raises; DataError for a data set with fewer than two vectors in
    the split; ConfigError if the folder holds another evaluation.
    """
    held_out = {name: _read(path, settings) for name, path in settings.datasets.items()}
    kept = EvaluationFolder(
        folder,
        "loss",
        settings,
        _inputs(settings, held_out),
        kind=LossRow,
    )
    model = model or load_model(settings.model, settings.dtype, settings.device, job="training")
    kept.also_depends_on("model_weights", weights_digest(model))
    for name, data in held_out.items():
        if data.dataset.d_model != model.d_model:
            raise DataError(
                f"{settings.datasets[name]}: vectors of width {data.dataset.d_model}; the model "
                f"{model.name} has d_model {model.d_model}. Use the model the vectors come from."
            )
    run = _Run(settings, kept, model, held_out, progress)
    cells = [run.cell(adapter, data) for adapter in settings.adapters for data in held_out]
    with (
        atomic_path(kept.folder / TABLE) as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        for adapter in settings.adapters:
            for name in held_out:
                for row in run.example_rows(adapter, name):
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return kept.finish(
        {
            "interval": "95 %, bootstrap over vectors",
            "unit": "nats per token, mean over examples",
            "untrained_scales_tried": run.tried,
            "cells": cells,
            "matrix": _matrix(settings, cells),
        }
    )


def _read(path: str, settings: LossSettings) -> HeldOut:
    data = HeldOut.of(
        load_dataset(path), settings.split, settings.limit, settings.strip_labels, settings.seed
    )
    if len(data) < 2:
        raise DataError(
            f'{path}: {len(data)} vectors with the split "{settings.split}"; at least 2 are '
            "needed, so that they can be shuffled."
        )
    return data


def _inputs(settings: LossSettings, held_out: Mapping[str, HeldOut]) -> dict[str, str]:
    hashes = {}
    for name, path in settings.adapters.items():
        hashes[f"adapter {name}"] = sha256(find_adapter_file(path))
    for name, data in held_out.items():
        said = [(data.key(i), data.labels(i)) for i in range(len(data))]
        digest = hashlib.sha256(json.dumps(said).encode())
        digest.update(data.vectors.numpy().tobytes())
        if len(settings.untrained_scales) > 1:  # chosen on vectors of the other split
            digest.update(dataset_hash(data.dataset).encode())
        hashes[f"data set {name}"] = digest.hexdigest()
    return hashes


class LossRow(msgspec.Struct):
    """One batch under one condition: nats per token, per vector and label."""

    losses: list[list[float]]


class _Run:
    """Measures cell by cell; what several adapters have in common is measured once."""

    def __init__(
        self,
        settings: LossSettings,
        kept: EvaluationFolder,
        model: FrozenModel,
        held_out: Mapping[str, HeldOut],
        progress: Progress,
    ) -> None:
        self._settings, self._kept, self._model = settings, kept, model
        self._held_out, self._progress = held_out, progress
        self._adapters = {
            name: load_adapter(path, model.device) for name, path in settings.adapters.items()
        }
        self._meters: dict[SoftPrompt, LossMeter] = {}
        for name, adapter in self._adapters.items():
            self._meter(name).check(adapter, settings.adapters[name])
        self.tried: dict[str, dict[str, float]] = {}

    @cached_property
    def _norm(self) -> float:
        return mean_embedding_norm(self._model)

    def _prompt(self, name: str) -> SoftPrompt:
        settings, binding = self._settings, self._adapters[name].binding
        if binding is not None:
            return SoftPrompt(binding.template, binding.placeholder, settings.eos_token)
        return configured_prompt(settings.soft_prompt, settings.eos_token, self._model)

    def _meter(self, name: str) -> LossMeter:
        prompt = self._prompt(name)
        if prompt not in self._meters:
            self._meters[prompt] = LossMeter(self._model, prompt, self._settings.max_loss)
        return self._meters[prompt]

    def _losses(self, name: str, dataset: str, condition: Condition) -> list[list[float]]:
        adapter, meter = self._adapters[name], self._meter(name)
        unit = f"{name} on {dataset}: {condition}"
        if condition in ("identity", "untrained"):
            # The same for every adapter with this prompt (and normalisation).
            kind = f"{condition}, {'unit' if adapter.normalize_input else 'raw'}"
            unit = f"{kind if condition == 'identity' else condition} on {dataset}"
            if len(self._meters) > 1:
                unit += f" with prompt {[*self._meters].index(self._prompt(name))}"
        if condition == "untrained":
            adapter = self._plain(self._best_scale(name, dataset))
        return self._in_batches(unit, self._held_out[dataset], meter, adapter, condition)

    def _plain(self, scale: float) -> Adapter:
        plain = create_adapter("scale_only", self._model.d_model, init_scale=scale * self._norm)
        return plain.to(self._model.device)

    def _best_scale(self, name: str, dataset: str) -> float:
        """The scale with the lowest loss on val, or on train where val is measured on."""
        settings = self._settings
        if len(settings.untrained_scales) == 1:
            return settings.untrained_scales[0]
        where = dataset
        if len(self._meters) > 1:
            where += f" with prompt {[*self._meters].index(self._prompt(name))}"
        if where not in self.tried:
            of = self._held_out[dataset]
            other: Split = "train" if settings.split == "val" else "val"
            data = HeldOut.of(
                of.dataset, other, settings.choose_on, settings.strip_labels, settings.seed
            )
            if not len(data):
                raise DataError(
                    f'{settings.datasets[dataset]}: no vector with the split "{other}" to choose '
                    "a scale on. Give one scale in untrained_scales."
                )
            self.tried[where] = {}
            for scale in settings.untrained_scales:
                unit = f"choosing a scale on {where} × {scale:g}"
                meter, plain = self._meter(name), self._plain(scale)
                losses = self._in_batches(unit, data, meter, plain, "untrained")
                every = [loss for labels in losses for loss in labels]
                self.tried[where][f"{scale:g}"] = round(sum(every) / len(every), 6)
        tried = self.tried[where]
        return min(settings.untrained_scales, key=lambda scale: tried[f"{scale:g}"])

    def _in_batches(
        self, unit: str, data: HeldOut, meter: LossMeter, adapter: Adapter, condition: Condition
    ) -> list[list[float]]:
        found: list[list[float]] = []
        for number, start in enumerate(range(0, len(data), self._settings.batch_size)):
            self._progress(unit, start, len(data))
            key = f"{unit}/{number}"
            which = range(start, min(start + self._settings.batch_size, len(data)))
            if key not in self._kept.rows:
                losses = meter.losses(data, which, adapter, condition)
                self._kept.add(key, {"losses": losses})
            losses = self._kept.rows[key]["losses"]
            expected = [len(data.labels(vector)) for vector in which]
            if [len(of) for of in losses] != expected:
                raise self._kept.damaged(key, "does not have one loss per label of its vectors")
            found.extend(losses)
        self._progress(unit, len(data), len(data))
        return found

    def cell(self, name: str, dataset: str) -> dict[str, Any]:
        """Mean losses of one adapter on one data set under every condition."""
        losses = {condition: self._losses(name, dataset, condition) for condition in CONDITIONS}
        labels = [len(one) for one in losses["trained"]]
        sums = {c: np.array([sum(one) for one in rows]) for c, rows in losses.items()}
        seed = self._settings.seed
        intervals = {c: _mean_over_examples([sums[c]], labels, _first, seed) for c in CONDITIONS}
        parts = [sums["identity"], sums["zero"], sums["trained"]]
        better = intervals["identity"].mean > intervals["trained"].mean
        share = _mean_over_examples(parts, labels, _bias_share, seed) if better else None
        return {
            "adapter": name,
            "dataset": dataset,
            "vectors": len(labels),
            "examples": sum(labels),
            "loss": {condition: asdict(interval) for condition, interval in intervals.items()},
            "bias_share": None if share is None else asdict(share),
            "untrained_scale": self._best_scale(name, dataset),
        }

    def example_rows(self, name: str, dataset: str) -> list[dict[str, Any]]:
        """One row per example, with its loss under every condition."""
        data = self._held_out[dataset]
        losses = {condition: self._losses(name, dataset, condition) for condition in CONDITIONS}
        return [
            {
                "adapter": name,
                "dataset": dataset,
                "key": data.key(vector),
                "label": label,
                **{condition: losses[condition][vector][i] for condition in CONDITIONS},
            }
            for vector in range(len(data))
            for i, label in enumerate(data.labels(vector))
        ]


def _mean_over_examples(
    sums: Sequence[np.ndarray],
    labels: Sequence[int],
    of: Callable[[np.ndarray], np.ndarray],
    seed: int,
) -> Interval:
    """A number made of means over examples, its interval over vectors.

    sums: per quantity [vectors], summed over each vector's labels; labels: how many it has.
    A vector with many labels weighs as much as it has examples, and is drawn whole.
    """
    columns = np.stack([*sums, np.array(labels, dtype=np.float64)], axis=1)
    return bootstrap_of_means(columns, lambda means: of(means[..., :-1] / means[..., -1:]), seed)


def _first(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


def _bias_share(means: np.ndarray) -> np.ndarray:
    identity, zero, trained = means[..., 0], means[..., 1], means[..., 2]
    return (identity - zero) / (identity - trained)


def _matrix(settings: LossSettings, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Adapters × data sets; the last rows are controls, with the first adapter's prompt."""
    by_place = {(cell["adapter"], cell["dataset"]): cell["loss"] for cell in cells}
    first = next(iter(settings.adapters))
    rows = {
        name: [by_place[name, data]["trained"]["mean"] for data in settings.datasets]
        for name in settings.adapters
    }
    for control in ("untrained", "identity"):
        rows[control] = [by_place[first, data][control]["mean"] for data in settings.datasets]
    return {"rows": [*rows], "columns": [*settings.datasets], "loss": [*rows.values()]}
