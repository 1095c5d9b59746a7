"""What the web app does with one model: plans, reads, labels."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from selfie_adapters.config.types import Chat
from selfie_adapters.labelling.choosing import judge, no_concept_label
from selfie_adapters.labelling.confidence import Confidence
from selfie_adapters.labelling.label import Label
from selfie_adapters.labelling.labeller import Labeller
from selfie_adapters.model import FrozenModel
from selfie_adapters.output import visible
from selfie_adapters.reading.controls import random_control
from selfie_adapters.reading.means import read_means
from selfie_adapters.reading.plan import ReadingPlan, plan_reading
from selfie_adapters.reading.read import chat_of_reading, read_cells
from selfie_adapters.report.reading_page import measure, page_frame, shown_cell, trained_layers
from selfie_adapters.serving.requests import LabelRequest, Limits, ReadRequest, RefusedError
from selfie_adapters.serving.worker import Event, Worker

_CELLS_AT_ONCE = 16  # few enough that a browser sees cells come every second or so


@dataclass(frozen=True)
class ServedAdapter:
    """An adapter with the name it is shown under and its calibration, if it has one."""

    name: str
    labeller: Labeller
    confidence: Confidence | None

    @property
    def no_concept(self) -> str | None:
        return no_concept_label(self.labeller.adapter)

    @property
    def trained_layer(self) -> int | None:
        binding = self.labeller.adapter.binding
        return None if binding is None else binding.layer


class Service:
    """One model in memory, its adapters, and the worker that everything runs in."""

    def __init__(
        self,
        model: FrozenModel,
        adapters: list[ServedAdapter],
        mean: tuple[str, list[int]] | None = None,
        limits: Limits | None = None,
        show_withheld: bool = False,
        source: FrozenModel | None = None,
    ) -> None:
        """mean: file of mean vectors, and the layers that it has. show_withheld: whether the page
        shows labels that are withheld at first. source: the model that is read where it is not the
        one that writes the labels."""
        self.source = source or model
        self.model, self.adapters, self.mean = model, adapters, mean
        self.limits = limits or Limits()
        self.show_withheld = show_withheld
        self.worker = Worker(self.limits.slots)
        # A tokenizer is not safe in two threads at once; requests are checked with a copy.
        self._front = dataclasses.replace(
            self.source, tokenizer=copy.deepcopy(self.source.tokenizer)
        )

    def info(self) -> dict[str, Any]:
        return {
            "model": self.source.name,
            "n_layers": self.model.n_layers,
            "d_model": self.model.d_model,
            "layers": None if self.mean is None else self.mean[1],
            "adapters": [
                {
                    "name": visible(a.name),
                    "kind": a.labeller.adapter.kind,
                    "layer": a.trained_layer,
                    "chat": self._chat([a], None)[0],
                }
                for a in self.adapters
            ],
            "show_withheld": self.show_withheld,
            "limits": dataclasses.asdict(self.limits),
        }

    def chosen(self, numbers: list[int]) -> list[ServedAdapter]:
        if not all(0 <= number < len(self.adapters) for number in numbers):
            raise RefusedError(400, f"adapters: choose from 0 to {len(self.adapters) - 1}.")
        return [self.adapters[number] for number in numbers]

    def plan(self, asked: ReadRequest) -> ReadingPlan:
        """Tokenize and count; raises RefusedError 413 for too much."""
        limits = self.limits
        if len(asked.prompt) > limits.prompt_characters:
            raise RefusedError(
                413,
                f"The prompt has {len(asked.prompt):,} characters; "
                f"{limits.prompt_characters:,} are read at most.",
            )
        layers = asked.layers or None
        chat, _ = self._chat(self.chosen(asked.adapters), asked.chat)
        plan = plan_reading(
            self._front,
            asked.prompt,
            self.mean[1] if layers is None and self.mean else layers,
            asked.positions or None,
            chat,
            asked.special,
        )
        if len(plan.tokens) > limits.prompt_tokens:
            raise RefusedError(
                413,
                f"The prompt has {len(plan.tokens):,} tokens; "
                f"{limits.prompt_tokens:,} are read at most.",
            )
        cells = plan.n_cells * len(asked.adapters)
        if cells > limits.cells:
            raise RefusedError(
                413,
                f"{cells:,} cells are asked for; {limits.cells:,} are read at most. "
                "Choose fewer layers (such as ::4) or fewer positions.",
            )
        return plan

    def _chat(self, adapters: list[ServedAdapter], chat: Chat | None) -> tuple[Chat, list[str]]:
        """The chat format of a reading, and warnings where it is not that of the vectors."""
        mean = None if self.mean is None else self.mean[0]
        return chat_of_reading(self._front, [a.labeller.adapter for a in adapters], chat, mean)

    def check(self, vectors: Tensor, asked: LabelRequest) -> None:
        """Raises RefusedError for vectors that cannot be labelled, or too many of them."""
        if vectors.shape[1] != self.model.d_model:
            raise RefusedError(
                400,
                f"vectors of width {vectors.shape[1]}; the model {self.model.name} has "
                f"{self.model.d_model}.",
            )
        if not bool(vectors.isfinite().all()):
            raise RefusedError(400, "the vectors hold NaN or infinity.")
        labels = len(vectors) * len(asked.scales) * len(asked.adapters)
        if labels > self.limits.vector_labels:
            raise RefusedError(
                413,
                f"{labels:,} labels are asked for; {self.limits.vector_labels:,} are written at "
                "most. Send fewer vectors or scales.",
            )

    def read(
        self, plan: ReadingPlan, adapters: list[ServedAdapter], lens: bool = False
    ) -> Iterator[Event]:
        """Runs in the worker."""
        means = None
        if self.mean is not None:
            means = read_means(self.mean[0], plan.layers, self.model.d_model)
        yield {
            "event": "start",
            **page_frame(plan),
            "readings": _readings(adapters, lens),
            "warnings": self._chat(adapters, plan.chat)[1],
            "total": plan.n_cells * len(adapters),
        }
        for number, adapter in enumerate(adapters):
            batches = read_cells(
                adapter.labeller,
                plan,
                means,
                adapter.confidence,
                batch_size=_CELLS_AT_ONCE,
                lens=lens,
                source=self.source,
            )
            for cells in batches:
                shown = [shown_cell(cell) for cell in cells]
                yield {"event": "cells", "reading": number, "cells": shown}
            if not _calibrated(adapters):
                control = random_control(adapter.labeller, plan, means, source=self.source)
                scale = measure(None, control.gains)
                yield {"event": "scale", "reading": number, "measure": scale}
        yield {"event": "done"}

    def label(
        self, vectors: Tensor, scales: list[float], adapters: list[ServedAdapter]
    ) -> Iterator[Event]:
        """Runs in the worker."""
        total = len(vectors) * len(scales) * len(adapters)
        yield {"event": "start", "readings": _readings(adapters, False), "total": total}
        for number, adapter in enumerate(adapters):
            for index in range(len(vectors)):
                one = vectors[index : index + 1]
                (answers,) = adapter.labeller.label(one, scales, first_index=index)
                rows = [_shown_label(index, answer, adapter) for answer in answers]
                yield {"event": "labels", "reading": number, "labels": rows}
        yield {"event": "done"}


def _calibrated(adapters: list[ServedAdapter]) -> bool:
    return all(adapter.confidence is not None for adapter in adapters)


def _readings(adapters: list[ServedAdapter], lens: bool) -> list[dict[str, Any]]:
    """Color by confidence only if every grid can: two meanings side by side would mislead."""
    calibrated = _calibrated(adapters)
    return [
        {
            "name": visible(adapter.name) if len(adapters) > 1 else "",
            "measure": measure(adapter.confidence if calibrated else None),
            "trained_layers": trained_layers(adapter.labeller.adapter),
            "lens": lens,
            "withholds": adapter.confidence is not None or adapter.no_concept is not None,
        }
        for adapter in adapters
    ]


def _shown_label(index: int, label: Label, adapter: ServedAdapter) -> dict[str, Any]:
    trust = adapter.confidence
    here = None if trust is None else trust.at(adapter.trained_layer, None)
    verdict = judge(label, here, adapter.no_concept)
    return {
        "index": index,
        "scale": label.scale,
        "label": visible(label.text),
        "gain": label.gain,
        "confidence": verdict.confidence,
        "withheld": verdict.withheld,
    }
