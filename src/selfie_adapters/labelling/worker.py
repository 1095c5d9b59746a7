"""Label the vectors of one shard: what each process of a labelling run does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.adapters.specialists import Place
from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.dataset.source import LabelSource
from selfie_adapters.errors import ConfigError, DataError, LabellingError, first_line
from selfie_adapters.inference.microbatch import rows_per_batch
from selfie_adapters.labelling.adapter_prompt import adapter_prompt
from selfie_adapters.labelling.centering import load_mean
from selfie_adapters.labelling.choosing import Judgement, judge, no_concept_label
from selfie_adapters.labelling.confidence import Calibration
from selfie_adapters.labelling.controls import CONTROLS, ControlScores, Names, control_scores
from selfie_adapters.labelling.decomposition.concepts import Concept
from selfie_adapters.labelling.engines import loads_model, make_engine
from selfie_adapters.labelling.inputs import (
    check_captured,
    check_concepts,
    check_not_centered,
    fingerprint_checked,
    open_adapter,
    open_confidence,
    open_decomposer,
    vector_problem,
)
from selfie_adapters.labelling.label import Label
from selfie_adapters.labelling.labeller import Labeller
from selfie_adapters.labelling.rows import FailedRow, Row, concept_rows, ranked_rows
from selfie_adapters.labelling.run_record import (
    RunBinding,
    read_binding,
    read_controls,
    write_binding,
    write_controls,
)
from selfie_adapters.labelling.shards import Shard, ShardFile, failed
from selfie_adapters.model import load_model
from selfie_adapters.model.compiled import compile_if_worth
from selfie_adapters.model.fingerprint import weights_digest

_USUAL_TOKENS = 12  # of a label


@dataclass(frozen=True)
class Done:
    """What has become of a shard: vectors with labels, and vectors that failed."""

    shard: int
    labelled: int
    failed: int


class ShardWorker:
    """Holds one model; labels shard after shard into their files."""

    def __init__(self, settings: LabelSettings, source: LabelSource) -> None:
        """`close` it when it is done.

        Raises what loading model, adapter and mean raises; DataError for another width.
        """
        self.settings = settings
        self.source = source
        check_concepts(settings)
        elsewhere = loads_model(settings.engine)  # the weights are not needed twice
        model = load_model(
            settings.model, settings.dtype, settings.device, embedding_only=elsewhere
        )
        if source.d_model != model.d_model:
            raise DataError(
                f"{settings.source}: vectors of width {source.d_model}; the model {model.name} has "
                f"d_model {model.d_model}. Take vectors of this model, or the model they are from."
            )
        check_not_centered(settings, source)
        adapter = open_adapter(settings, model)
        check_captured(settings, source, adapter)
        prompt = adapter_prompt(adapter, model.tokenizer, settings.template, settings.placeholder)
        self.confidence = open_confidence(settings)
        self.no_concept = no_concept_label(adapter)
        weights = weights_digest(model)
        self.labeller = Labeller(
            model,
            adapter,
            prompt,
            not settings.ignore_binding,
            partial(make_engine, settings=settings),
        )
        self.decomposer = open_decomposer(settings, self.labeller)
        if settings.engine == "local":
            rows = len(source) * len(settings.scales) * settings.sampled
            # Read once; written, and scored for the zero vector. No gradient is half the work.
            tokens = rows * (len(self.labeller.prompt.suffix_ids) + 2 * _USUAL_TOKENS)
            compile_if_worth(model, tokens / 2)
        self.binding = RunBinding(
            **self.labeller.binding.model_dump(),
            weights=weights,
            fingerprint_checked=fingerprint_checked(settings, adapter),
        )
        self._means: dict[tuple[int, str | None], Tensor] = {}

    def close(self) -> None:
        """Release what the engine holds; a worker can be closed twice."""
        self.labeller.close()

    def vectors(self, positions: list[int]) -> Tensor:
        """Vectors at `positions` of the source, the mean subtracted if there is one."""
        vectors = self.source.at(positions)
        if self.settings.mean is not None:
            vectors = vectors - torch.stack([self._mean(position) for position in positions])
        return vectors

    def place(self, position: int) -> tuple[int | None, str | None]:
        """Layer and kind of position of a vector of the source, None where nothing states it."""
        layer = self.source.layer(position)
        if layer is None:
            layer = self.settings.layer
        if layer is None and (binding := self.labeller.adapter.binding) is not None:
            layer = binding.layer
        return layer, self.source.kind(position)

    def calibration(self, position: int) -> Calibration | None:
        """The calibration of a vector of the source; None for a run without a confidence file."""
        return None if self.confidence is None else self.confidence.at(*self.place(position))

    def _mean(self, position: int) -> Tensor:
        layer, kind = self.place(position)
        if layer is None:
            raise ConfigError(
                f"{self.settings.mean}: mean of which layer? Neither {self.settings.source} nor "
                "the adapter states which block they come from. Pass --layer."
            )
        if (layer, kind) not in self._means:
            assert self.settings.mean is not None
            width = self.source.d_model
            self._means[layer, kind] = load_mean(self.settings.mean, layer, width, kind)
        return self._means[layer, kind]

    def label(self, vectors: Tensor, positions: list[int]) -> list[list[Label]]:
        """The labels of some vectors; seeds are made of what identifies them."""
        names = [tuple(self.source.identity(position).values()) for position in positions]
        places = [self.place(position) for position in positions]
        return self.sampled(vectors, names, places)

    def sampled(
        self, vectors: Tensor, names: Names, places: Sequence[Place] | None = None
    ) -> list[list[Label]]:
        """Labels of any vectors with the run's settings; seeds are made of `names`, one each."""
        settings = self.settings
        return self.labeller.label(
            vectors,
            settings.scales,
            settings.sampled,
            settings.sampling,
            seed=settings.seed,
            batch_size=settings.batch_size,
            names=names,
            places=places,
        )

    def controls(self) -> list[ControlScores]:
        """How a few of the run's vectors with a concept, and vectors that mean nothing, score."""
        meant = [i for i in range(len(self.source)) if self.source.holds_concept(i)]
        picked = meant[:: max(1, len(meant) // CONTROLS)][:CONTROLS]
        vectors = self.vectors(picked)
        usable = [
            i
            for i, vector in enumerate(vectors)
            if vector_problem(vector, self.labeller.adapter) is None
        ]
        if not usable:
            return []
        calibrations = [self.calibration(picked[i]) for i in usable]
        places = [self.place(picked[i]) for i in usable]
        return control_scores(
            self.labeller, self.sampled, self.settings.seed, calibrations, vectors[usable], places
        )

    def write_binding(self, folder: str | Path) -> None:
        """Write binding.json, unless an earlier attempt has. Raises ConfigError if that one had
        another model or prompt."""
        if (earlier := read_binding(folder)) is None:
            write_binding(folder, self.binding)
        elif differences := earlier.differences(self.binding):
            raise ConfigError(
                f"{folder} holds labels of another model or prompt: {'; '.join(differences)}. "
                "Give another --out."
            )

    def write_controls(self, folder: str | Path) -> None:
        """Measure the controls and write controls.json, unless an earlier attempt has."""
        if read_controls(folder) is None:
            write_controls(folder, self.controls())

    def run(self, shard: Shard, progress: Callable[[int, int], None] = lambda *_: None) -> Done:
        """Label what the shard's file lacks.

        progress: called with the numbers of vectors labelled and failed.
        """
        rows = self.settings.batch_size or rows_per_batch(self.labeller.model)
        group = max(1, rows // self.settings.labels_per_vector)
        file = ShardFile(shard, self.source, group, self.settings.rows_per_vector)
        failures = 0
        progress(len(file), 0)
        for positions in file.missing():
            rows = self._rows_of(positions)
            file.append(rows)
            bad = sum(map(failed, rows.values()))
            failures += bad
            progress(len(positions) - bad, bad)
        file.finish()
        return Done(shard.number, len(shard) - failures, failures)

    def _rows_of(self, positions: list[int]) -> dict[int, list[Row]]:
        """Rows of some vectors, by position; one that cannot be labelled gets a row with `error`.

        Raises LabellingError if each of several good vectors fails: then it is not the vectors.
        """
        vectors = self.vectors(positions)
        errors = {
            positions[i]: problem
            for i, vector in enumerate(vectors)
            if (problem := vector_problem(vector, self.labeller.adapter)) is not None
        }
        good = [i for i, position in enumerate(positions) if position not in errors]
        rows: dict[int, list[Row]] = {}
        try:
            found = self._read(vectors[good], [positions[i] for i in good]) if good else []
            rows = {positions[i]: its for i, its in zip(good, found, strict=True)}
        except LabellingError:  # the engine is gone, whatever the vectors
            raise
        except RuntimeError as first:  # out of memory, or one vector that upsets a kernel
            for i in good:
                try:
                    (rows[positions[i]],) = self._read(vectors[[i]], [positions[i]])
                except RuntimeError as error:
                    errors[positions[i]] = f"{type(error).__name__}: {first_line(error)}"
            if len(good) > 1 and not rows:
                raise LabellingError(
                    f"none of {len(good)} vectors could be labelled: {first_line(first)}. A "
                    "smaller --batch-size needs less memory."
                ) from first
        for position, error in errors.items():
            rows[position] = [FailedRow(**self.source.identity(position), error=error)]
        return rows

    def _read(self, vectors: Tensor, positions: list[int]) -> list[list[Row]]:
        """The rows of vectors that can be labelled."""
        if self.decomposer is None:
            labels = self.label(vectors, positions)
            return [
                self._checked(position, its) or self._label_rows(position, its)
                for position, its in zip(positions, labels, strict=True)
            ]
        concepts = self._concepts(vectors, positions)
        return [
            self._checked(position, [one.label for one in its])
            or concept_rows(its, *self._about(position))
            for position, its in zip(positions, concepts, strict=True)
        ]

    def _concepts(self, vectors: Tensor, positions: list[int]) -> list[list[Concept]]:
        assert self.decomposer is not None
        names = [tuple(self.source.identity(position).values()) for position in positions]
        places = [self.place(position) for position in positions]
        return self.decomposer.concepts(
            vectors, lambda i, label: self._judged(positions[i], label), names, places
        )

    def _checked(self, position: int, labels: list[Label]) -> list[Row]:
        """The row of a vector that the model gave numbers for that are none; else nothing."""
        if all(math.isfinite(label.log_prob) for label in labels):
            return []
        error = "the model's output is not finite"
        return [FailedRow(**self.source.identity(position), error=error)]

    def _label_rows(self, position: int, labels: list[Label]) -> list[Row]:
        judged = partial(self._judged, position) if self._withholds else None
        return ranked_rows(labels, self.settings, *self._about(position), judged)

    def _about(self, position: int) -> tuple[dict[str, Any], Sequence[str]]:
        """What identifies a vector, and its own labels."""
        return self.source.identity(position), self.source.labels(position)

    @property
    def _withholds(self) -> bool:
        """Whether a label may be withheld at all."""
        return self.confidence is not None or self.no_concept is not None

    def _judged(self, position: int, label: Label, agreement: float = 1.0) -> Judgement:
        return judge(label, self.calibration(position), self.no_concept, agreement)
