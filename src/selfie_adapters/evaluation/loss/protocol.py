"""The loss protocol: every adapter on every training file, with controls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec
import numpy as np

from selfie_adapters.adapters import Adapter, find_adapter_file, load_adapter
from selfie_adapters.config.evaluation.loss import LossSettings
from selfie_adapters.dataset import load_dataset
from selfie_adapters.dataset.schema import Split
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.base import Protocol, Table, shown
from selfie_adapters.evaluation.controls import Condition, Untrained, best_scale, identity
from selfie_adapters.evaluation.folder import dataset_hash, file_hashes
from selfie_adapters.evaluation.loss.held_out import HeldOut, LossMeter
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.model import SoftPrompt
from selfie_adapters.statistics import Interval, bootstrap_of_means
from selfie_adapters.training.setup import configured_prompt

TABLE = "examples.jsonl"
CONDITIONS = (
    Condition("trained", "the adapter"),
    Condition("zero", "the adapter without a vector", reads="zero"),
    Condition("shuffled", "the adapter on another vector", reads="shuffled"),
    Condition("random", "the adapter on random directions with the vectors' norms", reads="random"),
    Condition("identity", "no adapter", through="identity"),
    Condition("untrained", "unit vector × the best scale", through="untrained"),
)


class LossRow(msgspec.Struct):
    """One batch under one condition: nats per token, per vector and label."""

    losses: list[list[float]]


class Loss(Protocol[LossSettings]):
    """Every adapter on every data set; what several adapters have in common is measured once.

    It also writes examples.jsonl: one row per adapter and example, its loss under each condition.
    """

    settings_class = LossSettings
    row = LossRow
    job = "training"

    def inputs(self) -> dict[str, str]:
        """Raises DataError for a data set with fewer than two vectors in the split."""
        settings = self.settings
        self._held_out = {name: self._read(path) for name, path in settings.datasets.items()}
        files = {f"adapter {n}": find_adapter_file(path) for n, path in settings.adapters.items()}
        hashes = file_hashes(files)
        for name, data in self._held_out.items():
            stated = [(data.key(i), data.labels(i)) for i in range(len(data))]
            digest = hashlib.sha256(json.dumps(stated).encode())
            digest.update(data.vectors.numpy().tobytes())
            if len(settings.untrained_scales) > 1:  # chosen on vectors of the other split
                digest.update(dataset_hash(data.dataset).encode())
            hashes[f"data set {name}"] = digest.hexdigest()
        return hashes

    def _read(self, path: str) -> HeldOut:
        one = self.settings
        data = HeldOut.of(load_dataset(path), one.split, one.limit, one.strip_labels, one.seed)
        if len(data) < 2:
            raise DataError(
                f'{path}: {len(data)} vectors with the split "{one.split}"; at least 2 are '
                "needed, so that they can be shuffled."
            )
        return data

    def measure(self) -> dict[str, Any]:
        settings, model = self.settings, self.model
        for name, data in self._held_out.items():
            self.check_width(data.dataset, settings.datasets[name])
        self._adapters = {
            name: load_adapter(path, model.device) for name, path in settings.adapters.items()
        }
        self._untrained = Untrained(model)
        self._meters: dict[SoftPrompt, LossMeter] = {}
        self._tried: dict[str, tuple[float, dict[float, float]]] = {}
        for name, adapter in self._adapters.items():
            self._meter(name).check(adapter, settings.adapters[name])
        pairs = [(name, data) for name in settings.adapters for data in self._held_out]
        cells = [self._cell(*pair) for pair in pairs]
        write_jsonl(
            self.folder.folder / TABLE, (row for pair in pairs for row in self._example_rows(*pair))
        )
        return {
            "interval": "95 %, bootstrap over vectors",
            "unit": "nats per token, mean over examples",
            "untrained_scales_tried": {
                where: {f"{scale:g}": loss for scale, loss in tried.items()}
                for where, (_, tried) in self._tried.items()
                if tried
            },
            "cells": cells,
            "matrix": _matrix(settings, cells),
        }

    def _prompt(self, name: str) -> SoftPrompt:
        settings, binding = self.settings, self._adapters[name].binding
        if binding is not None:
            return SoftPrompt(binding.template, binding.placeholder, settings.eos_token)
        return configured_prompt(settings.soft_prompt, settings.eos_token, self.model)

    def _meter(self, name: str) -> LossMeter:
        prompt = self._prompt(name)
        if prompt not in self._meters:
            self._meters[prompt] = LossMeter(self.model, prompt, self.settings.max_loss)
        return self._meters[prompt]

    def _with_prompt(self, unit: str, name: str) -> str:
        """The unit of work, with the prompt's number where adapters have different prompts."""
        if len(self._meters) == 1:
            return unit
        return f"{unit} with prompt {[*self._meters].index(self._prompt(name))}"

    def _losses(self, name: str, dataset: str, condition: Condition) -> list[list[float]]:
        adapter, unit = self._adapters[name], f"{name} on {dataset}: {condition.name}"
        # Without the adapter, losses are the same for all adapters with this prompt.
        if condition.through == "identity":
            norm = "unit" if adapter.normalize_input else "raw"
            unit = self._with_prompt(f"{condition.name}, {norm} on {dataset}", name)
            adapter = identity(adapter)
        elif condition.through == "untrained":
            unit = self._with_prompt(f"{condition.name} on {dataset}", name)
            adapter = self._untrained.adapter(self._best_scale(name, dataset))
        return self._measured(unit, self._held_out[dataset], self._meter(name), adapter, condition)

    def _best_scale(self, name: str, dataset: str) -> float:
        """The scale with the lowest loss on val, or on train where val is measured on."""
        settings = self.settings
        where = self._with_prompt(dataset, name)
        if where in self._tried:
            return self._tried[where][0]
        other: Split = "train" if settings.split == "val" else "val"
        data = HeldOut.of(
            self._held_out[dataset].dataset,
            other,
            settings.choose_on,
            settings.strip_labels,
            settings.seed,
        )

        def loss(scale: float) -> float:
            if not len(data):
                raise DataError(
                    f'{settings.datasets[dataset]}: no vector with the split "{other}" to choose '
                    "a scale on. Give one scale in untrained_scales."
                )
            unit = f"choosing a scale on {where} × {scale:g}"
            plain = self._untrained.adapter(scale)
            found = self._measured(unit, data, self._meter(name), plain, CONDITIONS[-1])
            every = [loss for labels in found for loss in labels]
            return round(sum(every) / len(every), 6)

        self._tried[where] = best_scale(settings.untrained_scales, loss)
        return self._tried[where][0]

    def _measured(
        self, unit: str, data: HeldOut, meter: LossMeter, adapter: Adapter, condition: Condition
    ) -> list[list[float]]:
        found = self.in_batches(
            unit,
            len(data),
            self.settings.batch_size,
            "losses",
            lambda which: meter.losses(data, which, adapter, condition),
        )
        for vector, losses in enumerate(found):
            if len(losses) != len(data.labels(vector)):
                key = f"{unit}/{vector // self.settings.batch_size}"
                raise self.folder.damaged(key, "does not have one loss per label of its vectors")
        return found

    def _cell(self, name: str, dataset: str) -> dict[str, Any]:
        """Mean losses of one adapter on one data set under every condition."""
        losses = {one.name: self._losses(name, dataset, one) for one in CONDITIONS}
        labels = [len(one) for one in losses["trained"]]
        sums = {c: np.array([sum(one) for one in rows]) for c, rows in losses.items()}
        seed = self.settings.seed
        intervals = {c: _mean_over_examples([sums[c]], labels, _first, seed) for c in losses}
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

    def _example_rows(self, name: str, dataset: str) -> Iterator[dict[str, Any]]:
        """One row per example, with its loss under every condition."""
        data = self._held_out[dataset]
        losses = {one.name: self._losses(name, dataset, one) for one in CONDITIONS}
        for vector in range(len(data)):
            for i, label in enumerate(data.labels(vector)):
                yield {
                    "adapter": name,
                    "dataset": dataset,
                    "key": data.key(vector),
                    "label": label,
                    **{condition: found[vector][i] for condition, found in losses.items()},
                }

    @classmethod
    def report(cls, results: Mapping[str, Any]) -> Iterator[Table | str]:
        controls = [one.name for one in CONDITIONS[1:]]
        rows = []
        for cell in results["cells"]:
            share, loss = cell["bias_share"], cell["loss"]
            means = [f"{loss[name]['mean']:.2f}" for name in controls]
            bias = "–" if share is None else f"{share['mean']:.2f}"
            rows.append([cell["adapter"], cell["dataset"], shown(loss["trained"]), *means, bias])
        yield Table(
            "Loss of held-out labels, nats per token (95 % intervals of controls: results.json)",
            ["adapter", "data set", "trained", *controls, "bias share"],
            rows,
            names=2,
        )


def _mean_over_examples(
    sums: Sequence[np.ndarray],
    labels: Sequence[int],
    of: Callable[[np.ndarray], np.ndarray],
    seed: int,
) -> Interval:
    """A number made of means over examples, its interval over vectors.

    sums: per quantity [vectors], summed over each vector's labels; labels: how many it has.
    A vector's weight is its number of examples; it is resampled with all of them.
    """
    columns = np.stack([*sums, np.array(labels, dtype=np.float64)], axis=1)
    return bootstrap_of_means(columns, lambda means: of(means[..., :-1] / means[..., -1:]), seed)


def _first(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


def _bias_share(means: np.ndarray) -> np.ndarray:
    without, zero, trained = means[..., 0], means[..., 1], means[..., 2]
    return (without - zero) / (without - trained)


def _matrix(settings: LossSettings, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Adapters × data sets; the last rows are controls, with the first adapter's prompt."""
    by_pair = {(cell["adapter"], cell["dataset"]): cell["loss"] for cell in cells}
    first = next(iter(settings.adapters))
    rows = {
        name: [by_pair[name, data]["trained"]["mean"] for data in settings.datasets]
        for name in settings.adapters
    }
    for control in ("untrained", "identity"):
        rows[control] = [by_pair[first, data][control]["mean"] for data in settings.datasets]
    return {"rows": [*rows], "columns": [*settings.datasets], "loss": [*rows.values()]}
