"""Read a prompt: label the model's own states, block by block and token by token."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from selfie_adapters.adapters import Adapter
from selfie_adapters.adapters.locating import find_mean_file
from selfie_adapters.chat.request import Message
from selfie_adapters.dataset.captured import Captured
from selfie_adapters.errors import DataError
from selfie_adapters.files.number_types import Proportion
from selfie_adapters.inference.logit_lens import lens_words
from selfie_adapters.labelling.centering import mean_layers
from selfie_adapters.labelling.choosing import NO_CONCEPT, Withheld
from selfie_adapters.labelling.confidence import Confidence
from selfie_adapters.labelling.decomposition.concepts import Decomposer
from selfie_adapters.labelling.labeller import Labeller
from selfie_adapters.model import FrozenModel, capture
from selfie_adapters.model.cache_use import cache_use
from selfie_adapters.model.user_text import Chat, usual_chat
from selfie_adapters.reading.answers import Answer, FurtherConcept, answering_of
from selfie_adapters.reading.calibration import MAX_NEW_TOKENS, calibration
from selfie_adapters.reading.display import reading_table
from selfie_adapters.reading.means import ReadingMeans, read_means
from selfie_adapters.reading.plan import ReadingPlan, TextSoFar, plan_reading

if TYPE_CHECKING:
    from selfie_adapters.reading.controls import RandomControl

# A long prompt is captured in pieces, so that attention never holds tokens × tokens numbers.
_TOKENS_AT_ONCE = 512
BATCH_SIZE = 64
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """The label of one state: output of block `layer` (zero-based) at token `position`.

    label, raw, log_prob, tokens, ended: as in `Label`. gain: how much more likely this state makes
    the label than the zero vector does, in nats per token. confidence: the calibrated probability
    that the label is right, 0 to 1; None without a calibration and for the answer "no concept".
    withheld: why the label is not shown; None where it is (labelling/choosing.py). repeats: the
    label holds only words of the text before this token (`TextSoFar`). lens: the logit
    lens's word for the same state, where it was asked for. explained, further: where concepts are
    read (`read_cells`), the share of the state's squared length that the label explains, and the
    concepts after the first one; else None and none.
    """

    layer: int
    position: int
    label: str
    raw: str
    log_prob: float
    tokens: int
    ended: bool
    gain: float
    confidence: float | None
    withheld: Withheld | None = None
    repeats: bool = False
    lens: str | None = None
    explained: Proportion | None = None
    further: tuple[FurtherConcept, ...] = ()


@dataclass(frozen=True, repr=False)
class Reading:
    """A prompt's tokens and the label of every state that was requested.

    control: what random directions are labelled, where that was measured (reading/controls.py).
    """

    plan: ReadingPlan
    cells: tuple[Cell, ...]
    control: RandomControl | None = None

    def __repr__(self) -> str:
        layers, positions = len(self.plan.layers), len(self.plan.positions)
        return f"Reading({layers} layers, {positions} tokens, {len(self.cells)} cells)"

    def _repr_html_(self) -> str:
        return reading_table(self)

    def as_dict(self) -> dict[str, Any]:
        """As reading.json holds it: tokens, cells, and the random control where there is one."""
        control = {} if self.control is None else {"random": asdict(self.control)}
        return {
            "tokens": [asdict(token) for token in self.plan.tokens],
            "cells": [asdict(cell) for cell in self.cells],
            **control,
        }

    def at(self, layer: int, position: int) -> Cell:
        """Raises KeyError for a state that was not read."""
        for cell in self.cells:
            if (cell.layer, cell.position) == (layer, position):
                return cell
        raise KeyError((layer, position))


def read_cells(
    labeller: Labeller,
    plan: ReadingPlan,
    mean: ReadingMeans | None = None,
    confidence: Confidence | None = None,
    batch_size: int = BATCH_SIZE,
    max_new_tokens: int = MAX_NEW_TOKENS,
    done: Callable[[int, int], bool] = lambda _layer, _position: False,
    lens: bool = False,
    source: FrozenModel | None = None,
    decomposer: Decomposer | None = None,
) -> Iterator[list[Cell]]:
    """The plan's cells, batch by batch, greedily labelled; stop iterating and the work stops.

    mean: of the plan's layers, subtracted from every state according to its layer and kind of
    position. done: cells (layer, position) for which it is true are omitted. lens: read every
    state through the logit lens as well. source: the model that is read (a fine-tune of the one
    that writes the labels); None is that one itself. decomposer: reads up to its count of concepts
    per cell in place of the greedy label. Raises DataError for a state that holds NaN or infinity
    and for one without a mean, ModelError for a model without a logit lens.
    """
    answering = answering_of(
        labeller, plan, mean, confidence, max_new_tokens, batch_size, decomposer
    )
    if mean is not None:
        mean.at(plan.positions, len(plan.tokens))  # refused before the first pass
    so_far = TextSoFar(plan.tokens)
    source = source or labeller.model
    for positions, states in read_states(source, plan):
        if mean is not None:
            states = states - mean.at(positions, len(plan.tokens))
        where = [
            (row, column) for column in range(len(positions)) for row in range(len(plan.layers))
        ]
        for start in range(0, len(where), batch_size):
            batch = where[start : start + batch_size]
            places = [(plan.layers[row], positions[column]) for row, column in batch]
            # All of a batch is labelled again: in a smaller batch the last digits differ.
            if all(done(*place) for place in places):
                continue
            vectors = torch.stack([states[row, column] for row, column in batch])
            _check_finite(vectors, places)
            words = lens_words(source, vectors) if lens else [None] * len(places)
            answers = answering.of(vectors, places)
            yield [
                _cell(place, answer, so_far, word)
                for place, answer, word in zip(places, answers, words, strict=True)
                if not done(*place)
            ]


def read_prompt(
    model: FrozenModel,
    adapter: Adapter,
    prompt: str | Sequence[Message],
    layers: Sequence[int] | str | None = None,
    positions: Sequence[int] | str | None = None,
    mean: str | Path | None = None,
    confidence: Confidence | None = None,
    chat: Chat | None = None,
    special: bool = False,
    progress: Callable[[list[Cell]], None] = lambda _cells: None,
    lens: bool = False,
    source: FrozenModel | None = None,
) -> Reading:
    """Label the states of `prompt` at layers × positions: `plan_reading`, then `read_cells`.

    prompt: a text, or the messages of a conversation.
    mean: file of mean vectors (`read_means`), None for the one in the adapter's folder; without
    `layers`, the layers that it has are read. confidence None is the calibration in the adapter's
    folder. Neither is needed. progress is called with every finished batch. chat None is
    the format of the vectors that the adapter was trained on (`chat_of_reading`). lens: the logit
    lens's word for each state as well. source: the model that is read where it is not the one that
    writes the labels (`with_lora`).
    """
    source = source or model
    mean = find_mean_file(None if mean is None else str(mean), adapter.file)
    if confidence is None and adapter.file is not None:
        confidence = calibration(adapter.file)
    if layers is None and mean is not None:
        layers = mean_layers(mean)
    chat, warnings = chat_of_reading(source, [adapter], chat, mean)
    for warning in warnings:
        log.warning("%s", warning)
    plan = plan_reading(source, prompt, layers, positions, chat, special)
    means = None if mean is None else read_means(mean, plan.layers, model.d_model)
    cells: list[Cell] = []
    labeller = Labeller(model, adapter)
    for batch in read_cells(labeller, plan, means, confidence, lens=lens, source=source):
        cells += batch
        progress(batch)
    return Reading(plan, tuple(cells))


def chat_of_reading(
    model: FrozenModel,
    adapters: Sequence[Adapter],
    chat: Chat | None = None,
    mean: str | Path | None = None,
) -> tuple[Chat, list[str]]:
    """The chat format a prompt is read in, and warnings where something states another one.

    The user's, else that of the adapter's training vectors (of the first one that states it), else
    that of the mean file, else the tokenizer's chat template, or plain text without one.
    """
    trained: list[Chat | None] = [Captured.by_binding(adapter.binding).chat for adapter in adapters]
    of_mean: Chat | None = None if mean is None else Captured.by_mean_file(mean).chat
    used = usual_chat(model.tokenizer, chat, *trained, of_mean)
    stated = [*(("the adapter's training vectors", one) for one in trained), (str(mean), of_mean)]
    return used, [
        f"chat format {used!r}, and {name} were captured in {other!r}: labels get worse."
        for name, other in dict.fromkeys(stated)
        if other not in (None, used)
    ]


def read_states(model: FrozenModel, plan: ReadingPlan) -> Iterator[tuple[list[int], Tensor]]:
    """Positions, and the states there, [layers, positions, d_model] in float32, piece by piece.

    Tokens after the last position asked for are not run.
    """
    ids = torch.tensor([[token.id for token in plan.tokens[: plan.positions[-1] + 1]]])
    # Recurrent and hybrid models are not read on from their cache by several tokens.
    at_once = _TOKENS_AT_ONCE if cache_use(model).branches else ids.shape[1]
    pieces = ids.split(at_once, dim=1)
    cache = DynamicCache(config=model.network.config) if len(pieces) > 1 else None
    for number, piece in enumerate(pieces):
        first = number * at_once
        inside = [p for p in plan.positions if first <= p < first + piece.shape[1]]
        here = torch.tensor([[position - first for position in inside]], dtype=torch.int64)
        states = capture(model, piece, plan.layers, here, cache=cache)
        if inside:
            yield inside, states[0].float().cpu()


def _cell(
    place: tuple[int, int],
    answer: Answer,
    so_far: TextSoFar,
    word: str | None,
) -> Cell:
    (layer, position), label, verdict = place, answer.label, answer.verdict
    return Cell(
        layer=layer,
        position=position,
        label=label.text,
        raw=label.raw,
        log_prob=label.log_prob,
        tokens=label.tokens,
        ended=label.ended,
        gain=label.gain,
        confidence=verdict.confidence,
        withheld=verdict.withheld,
        repeats=verdict.withheld != NO_CONCEPT and so_far.repeats(label.text, position),
        lens=word,
        explained=answer.explained,
        further=answer.further,
    )


def _check_finite(vectors: Tensor, places: list[tuple[int, int]]) -> None:
    bad = (~vectors.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if bad:
        layer, position = places[bad[0]]
        raise DataError(
            f"the model's state at layer {layer}, token {position} holds NaN or infinity. "
            "Load the model with another dtype (--dtype bfloat16 or float32)."
        )
