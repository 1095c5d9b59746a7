"""The loss protocol: every adapter on every training file, with controls.

The readers that need no adapter (logit lens, cosine, ridge probe) answer with a token; its
embedding takes the soft token's place, so their loss is how well labels follow from that word. The
oracle of first letters has no loss: it gives no soft token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from torch import Tensor

from selfie_adapters.adapters import Adapter, find_adapter_file, load_adapter
from selfie_adapters.config.evaluation.loss import LossSettings
from selfie_adapters.dataset import VectorLabelDataset, load_dataset
from selfie_adapters.dataset.schema import Split
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.base import Protocol
from selfie_adapters.evaluation.baselines import TokenBaseline, untrained_readers
from selfie_adapters.evaluation.comparing import METHOD
from selfie_adapters.evaluation.controls import (
    Condition,
    Untrained,
    best_scale,
    choosing_items,
    identity,
    reported_split,
    sample,
)
from selfie_adapters.evaluation.folder import dataset_hash, file_hashes
from selfie_adapters.evaluation.loss.held_out import HeldOut, LossMeter
from selfie_adapters.evaluation.loss.results import compare_losses, matrix, report, summary
from selfie_adapters.evaluation.recipes import refuse_copies, subjects_of
from selfie_adapters.evaluation.retrieval.targets import gather, key_of
from selfie_adapters.evaluation.tables import Table
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.model import SoftPrompt
from selfie_adapters.training.closed_form import VECTORS_A_DIMENSION
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
UNTRAINED = CONDITIONS[-1]


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
        """Raises DataError for a data set with fewer than two vectors in the split, ConfigError for
        one adapter under two names."""
        settings = self.settings
        loaded = {name: load_dataset(path) for name, path in settings.datasets.items()}
        present = {item.split for one in loaded.values() for item in one.labelled()}
        split = reported_split(present, settings.split)
        self.settings = settings = settings.model_copy(update={"split": split})
        self._split: Split = split
        self._held_out = {name: self._read(name, one) for name, one in loaded.items()}
        files = {name: find_adapter_file(path) for name, path in settings.adapters.items()}
        digests = file_hashes(files)
        refuse_copies(digests)
        hashes = {f"adapter {name}": digest for name, digest in digests.items()}
        for name, data in self._held_out.items():
            stated = [(data.key(i), data.labels(i)) for i in range(len(data))]
            digest = hashlib.sha256(json.dumps(stated).encode())
            digest.update(data.vectors.numpy().tobytes())
            if len(settings.untrained_scales) > 1:  # chosen on vectors of the other split
                digest.update(dataset_hash(data.dataset).encode())
            hashes[f"data set {name}"] = digest.hexdigest()
        return hashes

    def _read(self, name: str, dataset: VectorLabelDataset) -> HeldOut:
        one = self.settings
        data = HeldOut.of(dataset, self._split, one.limit, one.strip_labels, one.seed)
        if len(data) < 2:
            raise DataError(
                f'{one.datasets[name]}: {len(data)} vectors with the split "{self._split}"; at '
                "least 2 are needed, so that they can be shuffled."
            )
        return data

    def _readers(self, dataset: str) -> dict[str, TokenBaseline]:
        """Those that need no adapter, by name; the ridge probe is fitted on training vectors."""
        if dataset not in self._baselines:
            data, seed = self._held_out[dataset], self.settings.seed
            measured = {data.key(i) for i in range(len(data))}
            free = [
                item
                for item in data.dataset.labelled("train")
                if key_of(data.dataset, item) not in measured
            ]
            items = sample(free, VECTORS_A_DIMENSION * data.dataset.d_model, seed)
            names = [item.labels[0] for item in items]
            found = untrained_readers(self.model, gather(data.dataset, items), names, seed)
            self._baselines[dataset] = {one.name: one for one in found}
        return self._baselines[dataset]

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
        self._baselines: dict[str, dict[str, TokenBaseline]] = {}
        self._answers: dict[tuple[str, str], Tensor] = {}
        for name, adapter in self._adapters.items():
            self._meter(name).check(adapter, settings.adapters[name])
        pairs = [(name, data) for name in settings.adapters for data in self._held_out]
        table = {pair: self._table(*pair) for pair in pairs}
        cells = [
            summary(*pair, table[pair], settings.seed)
            | {"untrained_scale": self._best_scale(*pair)}
            for pair in pairs
        ]
        write_jsonl(
            self.folder.folder / TABLE,
            (row for pair in pairs for row in self._example_rows(*pair, table[pair])),
        )
        alone, over = compare_losses(table, subjects_of(self._adapters), settings.seed)
        return {
            "interval": "95 %, bootstrap over vectors; " + METHOD,
            "unit": "nats per token, mean over examples; a difference is what the first saves",
            "untrained_scales_tried": {
                where: {f"{scale:g}": loss for scale, loss in tried.items()}
                for where, (_, tried) in self._tried.items()
                if tried
            },
            "cells": cells,
            "comparisons": alone,
            "recipes": over,
            "matrix": matrix(settings, cells),
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

    def _table(self, name: str, dataset: str) -> dict[str, list[list[float]]]:
        """Losses under every condition, per vector and label."""
        found = {one.name: self._losses(name, dataset, one) for one in CONDITIONS}
        for reader in self._readers(dataset):
            unit = self._with_prompt(f"{reader} on {dataset}", name)

            def soft(rows: Tensor, reader: str = reader) -> Tensor:
                return self._words(reader, dataset)[rows]

            data = self._held_out[dataset]
            found[reader] = self._measured(unit, data, self._meter(name), soft)
        return found

    def _words(self, reader: str, dataset: str) -> Tensor:
        """Embeddings of the tokens that a reader answers with: [vectors, d_model]."""
        key = reader, dataset
        if key not in self._answers:
            vectors = self._held_out[dataset].vectors
            self._answers[key] = self._readers(dataset)[reader].soft_tokens(vectors)
        return self._answers[key]

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
        data = self._held_out[dataset]
        return self._measured(unit, data, self._meter(name), _through(adapter, data, condition))

    def _best_scale(self, name: str, dataset: str) -> float:
        """The scale with the lowest loss on vectors of another split than the measured one."""
        settings = self.settings
        where = self._with_prompt(dataset, name)
        if where in self._tried:
            return self._tried[where][0]
        dataset_ = self._held_out[dataset].dataset
        items = choosing_items(dataset_, self._split, settings.choose_on, settings.seed)
        data = HeldOut(dataset_, items, settings.strip_labels, settings.seed)

        def loss(scale: float) -> float:
            if not len(data):
                raise DataError(
                    f"{settings.datasets[dataset]}: no vector of another split than "
                    f"{self._split} to choose a scale on. Give one scale in untrained_scales."
                )
            unit = f"choosing a scale on {where} × {scale:g}"
            plain = self._untrained.adapter(scale)
            soft = _through(plain, data, UNTRAINED)
            found = self._measured(unit, data, self._meter(name), soft)
            every = [loss for labels in found for loss in labels]
            return round(sum(every) / len(every), 6)

        self._tried[where] = best_scale(settings.untrained_scales, loss)
        return self._tried[where][0]

    def _measured(
        self, unit: str, data: HeldOut, meter: LossMeter, soft: Callable[[Tensor], Tensor]
    ) -> list[list[float]]:
        found = self.in_batches(
            unit,
            len(data),
            self.settings.batch_size,
            "losses",
            lambda which: meter.losses(data, which, soft),
        )
        for vector, losses in enumerate(found):
            if len(losses) != len(data.labels(vector)):
                key = f"{unit}/{vector // self.settings.batch_size}"
                raise self.folder.damaged(key, "does not have one loss per label of its vectors")
        return found

    def _example_rows(
        self, name: str, dataset: str, losses: Mapping[str, list[list[float]]]
    ) -> Iterator[dict[str, Any]]:
        """One row per example, with its loss under every condition."""
        data = self._held_out[dataset]
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
        return report(results)


def _through(adapter: Adapter, data: HeldOut, condition: Condition) -> Callable[[Tensor], Tensor]:
    """Numbers of vectors → the soft tokens that the condition makes of them."""
    return lambda rows: adapter(data.under(condition)[rows])
