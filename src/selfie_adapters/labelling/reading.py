"""Read a prompt: what the model's own states say, block by block and token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from selfie_adapters.adapters import Adapter
from selfie_adapters.errors import DataError, PromptError
from selfie_adapters.files import existing_file
from selfie_adapters.labelling.centring import load_mean
from selfie_adapters.labelling.confidence import Confidence, beside
from selfie_adapters.labelling.labeller import Label, Labeller
from selfie_adapters.labelling.selection import parse_selection
from selfie_adapters.model import FrozenModel, capture
from selfie_adapters.model.blocks import check_layer
from selfie_adapters.model.prompt import Chat, as_chat, encode

# A long prompt is captured in pieces, so that attention never holds tokens × tokens numbers.
_TOKENS_AT_ONCE = 512
BATCH_SIZE = 64


@dataclass(frozen=True)
class PromptToken:
    """One token of the prompt as the model sees it.

    text: what the token says; a character that is spread over several tokens stands whole in each
    of them, and `part` says which it is ("1/3"). special: a token of the chat format and the like.
    """

    position: int
    id: int
    text: str
    special: bool
    part: str | None = None


@dataclass(frozen=True)
class Cell:
    """The label of one state: output of block `layer` (zero-based) at token `position`.

    label, raw, log_prob, tokens, ended: as in `Label`. gain: how much more likely this state makes
    the label than the zero vector does, in nats a token. confidence: the calibrated probability
    that the label is right, 0 to 1; None without a calibration.
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


@dataclass(frozen=True)
class ReadingPlan:
    """Which states of which prompt will be labelled; costs no forward pass to make.

    `layers` and `positions` are in rising order; every pair of them is a cell.
    """

    prompt: str
    chat: Chat
    tokens: tuple[PromptToken, ...]
    layers: tuple[int, ...]
    positions: tuple[int, ...]

    @property
    def n_cells(self) -> int:
        return len(self.layers) * len(self.positions)

    def cells(self) -> list[tuple[int, int]]:
        """(layer, position) of every cell, in the order in which they are labelled."""
        return [(layer, position) for position in self.positions for layer in self.layers]


@dataclass(frozen=True)
class Reading:
    """A prompt's tokens and the label of every state that was asked for."""

    plan: ReadingPlan
    cells: tuple[Cell, ...]

    def at(self, layer: int, position: int) -> Cell:
        """Raises KeyError for a state that was not read."""
        for cell in self.cells:
            if (cell.layer, cell.position) == (layer, position):
                return cell
        raise KeyError((layer, position))


def plan_reading(
    model: FrozenModel,
    prompt: str,
    layers: Sequence[int] | str | None = None,
    positions: Sequence[int] | str | None = None,
    chat: Chat = "template",
    special: bool = False,
) -> ReadingPlan:
    """Tokenise the prompt and choose its cells.

    layers, positions: numbers, a text such as "4:28:4", or None for all; positions count tokens
    from 0, or from the end when negative. Special tokens are left out unless `special` is set or
    positions names them one by one (as numbers, not as a text with a slice).
    Raises PromptError for an empty or too long prompt, ConfigError for numbers out of range.
    """
    ids = prompt_ids(model.tokenizer, prompt, chat)
    _check_length(model, len(ids))
    tokens = _prompt_tokens(model.tokenizer, ids)
    chosen = _numbers(positions, len(ids), "positions")
    if not special and (positions is None or (isinstance(positions, str) and ":" in positions)):
        chosen = [position for position in chosen if not tokens[position].special]
    if not chosen:
        raise PromptError(
            f"the prompt holds only special tokens ({len(ids)} of them), which are not read "
            "unless asked for: special=True (--special)."
        )
    if isinstance(layers, str) or layers is None:
        wanted = _numbers(layers, model.n_layers, "layers")
    else:
        wanted = [check_layer(layer, model.n_layers) for layer in layers]
    return ReadingPlan(prompt, chat, tokens, tuple(sorted(set(wanted))), tuple(sorted(set(chosen))))


def read_cells(
    labeller: Labeller,
    plan: ReadingPlan,
    mean: Tensor | None = None,
    confidence: Confidence | None = None,
    batch_size: int = BATCH_SIZE,
    max_new_tokens: int = 30,
    done: Callable[[int, int], bool] = lambda _layer, _position: False,
) -> Iterator[list[Cell]]:
    """The plan's cells, batch by batch, greedily labelled; stop iterating and the work stops.

    mean: [layers of the plan, d_model], subtracted from every state of its layer. done: cells
    (layer, position) for which it is true are left out. Raises DataError for a state that holds NaN
    or infinity.
    """
    for positions, states in _states(labeller.model, plan):
        if mean is not None:
            states = states - mean.unsqueeze(1)
        where = [
            (row, column)
            for column, position in enumerate(positions)
            for row, layer in enumerate(plan.layers)
            if not done(layer, position)
        ]
        for start in range(0, len(where), batch_size):
            batch = where[start : start + batch_size]
            places = [(plan.layers[row], positions[column]) for row, column in batch]
            vectors = torch.stack([states[row, column] for row, column in batch])
            _check_finite(vectors, places)
            answers = labeller.label(vectors, max_new_tokens=max_new_tokens, batch_size=batch_size)
            yield [
                _cell(place, answer, confidence)
                for place, (answer,) in zip(places, answers, strict=True)
            ]


def read_prompt(
    model: FrozenModel,
    adapter: Adapter,
    prompt: str,
    layers: Sequence[int] | str | None = None,
    positions: Sequence[int] | str | None = None,
    mean: str | Path | None = None,
    confidence: Confidence | None = None,
    chat: Chat = "template",
    special: bool = False,
    progress: Callable[[list[Cell]], None] = lambda _cells: None,
) -> Reading:
    """Label the states of `prompt` at layers × positions: `plan_reading`, then `read_cells`.

    mean: file of mean vectors (`read_means`); progress is called with every finished batch.
    """
    plan = plan_reading(model, prompt, layers, positions, chat, special)
    means = None if mean is None else read_means(mean, plan.layers, model.d_model)
    cells: list[Cell] = []
    for batch in read_cells(Labeller(model, adapter), plan, means, confidence):
        cells += batch
        progress(batch)
    return Reading(plan, tuple(cells))


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, chat: Chat) -> list[int]:
    """Token ids of the prompt; plain text begins as the tokenizer begins its own plain texts.

    Special tokens written in the prompt are recognised. Raises PromptError for a blank prompt.
    """
    if not prompt.strip():
        raise PromptError("the prompt is empty. Give at least one word.")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"the prompt is not valid Unicode: half a character at place {error.start}."
        ) from error
    ids = encode(tokenizer, as_chat(tokenizer, prompt, chat))
    begin = list(tokenizer("a")["input_ids"])[:1]
    if chat == "none" and begin == [tokenizer.bos_token_id] and ids[:1] != begin:
        return begin + ids
    return ids


def mean_layers(path: str | Path) -> list[int]:
    """Layers for which a file of mean vectors holds one, in rising order."""
    file = existing_file(path)
    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
    except SafetensorError as error:
        raise DataError(f"{file}: not a safetensors file ({error}).") from error
    numbers = [name.removeprefix("layer_") for name in names if name.startswith("layer_")]
    layers = sorted(int(number) for number in numbers if number.isdecimal())
    if not layers:
        found = ", ".join(names[:5]) or "none"
        raise DataError(f"{file}: tensors layer_0, layer_1, … are expected, found {found}.")
    return layers


def read_means(path: str | Path, layers: Sequence[int], d_model: int) -> Tensor:
    """Mean vectors of `layers` from a safetensors file with keys `layer_{i}`: [layers, d_model].

    Raises DataError for a layer that is not there, another width, NaN or infinity.
    """
    known = mean_layers(path)
    missing = [layer for layer in layers if layer not in known]
    if missing:
        raise DataError(
            f"{path}: no mean vector layer_{missing[0]}; it holds layers "
            f"{', '.join(map(str, known))}. Read those, or make a file with more."
        )
    return torch.stack([load_mean(path, layer, d_model) for layer in layers])


def calibration(adapter_file: str | Path, path: str | Path | None = None) -> Confidence | None:
    """The calibration file `path`, or else the one beside the adapter; None if there is none."""
    file = beside(adapter_file) if path is None else path
    return Confidence.load(file) if path is not None or Path(file).is_file() else None


def _states(model: FrozenModel, plan: ReadingPlan) -> Iterator[tuple[list[int], Tensor]]:
    """Positions, and the states there, [layers, positions, d_model] in float32, piece by piece.

    Tokens after the last position asked for are not run.
    """
    ids = torch.tensor([[token.id for token in plan.tokens[: plan.positions[-1] + 1]]])
    pieces = ids.split(_TOKENS_AT_ONCE, dim=1)
    cache = DynamicCache(config=model.network.config) if len(pieces) > 1 else None
    for number, piece in enumerate(pieces):
        first = number * _TOKENS_AT_ONCE
        inside = [p for p in plan.positions if first <= p < first + piece.shape[1]]
        here = torch.tensor([[position - first for position in inside]], dtype=torch.int64)
        states = capture(model, piece, plan.layers, here, past_key_values=cache)
        if inside:
            yield inside, states[0].float().cpu()


def _cell(place: tuple[int, int], answer: Label, confidence: Confidence | None) -> Cell:
    layer, position = place
    return Cell(
        layer=layer,
        position=position,
        label=answer.text,
        raw=answer.raw,
        log_prob=answer.log_prob,
        tokens=answer.tokens,
        ended=answer.ended,
        gain=answer.gain,
        confidence=None if confidence is None else confidence.of(answer),
    )


def _check_finite(vectors: Tensor, places: list[tuple[int, int]]) -> None:
    bad = (~vectors.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if bad:
        layer, position = places[bad[0]]
        raise DataError(
            f"the model's state at layer {layer}, token {position} holds NaN or infinity. "
            "Load the model in another number format (--dtype bfloat16 or float32)."
        )


def _check_length(model: FrozenModel, tokens: int) -> None:
    window = getattr(
        model.network.config.get_text_config(decoder=True), "max_position_embeddings", None
    )
    if window and tokens > window:
        raise PromptError(
            f"the prompt has {tokens:,} tokens; {model.name} reads at most {window:,}. Shorten it."
        )


def _numbers(wanted: Sequence[int] | str | None, count: int, what: str) -> list[int]:
    if wanted is None:
        return list(range(count))
    text = wanted if isinstance(wanted, str) else ",".join(map(str, wanted))
    return parse_selection(text, count, what)


def _prompt_tokens(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> tuple[PromptToken, ...]:
    marked = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = marked | set(tokenizer.all_special_ids)
    tokens: list[PromptToken] = []
    while len(tokens) < len(ids):
        start = len(tokens)
        run, text = _whole_character(tokenizer, ids, start)
        for i in range(run):
            part = f"{i + 1}/{run}" if run > 1 else None
            token = ids[start + i]
            tokens.append(PromptToken(start + i, token, text, token in special, part))
    return tuple(tokens)


def _whole_character(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], start: int
) -> tuple[int, str]:
    """How many tokens from `start` on make up whole characters, and the text that they make up."""
    first = _decoded(tokenizer, ids[start : start + 1])
    if "\ufffd" not in first:
        return 1, first
    for run in range(2, 5):  # a character is at most four bytes of UTF-8
        text = _decoded(tokenizer, ids[start : start + run])
        if "\ufffd" not in text and start + run <= len(ids):
            return run, text
    return 1, first


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
