"""Write labels with the model in this process: shared prompt, rows that have ended leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from selfie_adapters.inference.continuation import after_prompt
from selfie_adapters.inference.sampling import next_tokens, row_uniforms
from selfie_adapters.model import BoundPrompt, FrozenModel, SharedPrefix

CLOSING_QUOTE = '"'


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. temperature 0 is greedy; seeds are given per row.

    stop_at_quote: whether the closing quote ends an answer, or only the model's end of turn does.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 30
    stop_at_quote: bool = True


@dataclass
class Written:
    """Token ids of one answer, the closing one included; their summed log-probability in nats."""

    ids: list[int]
    log_prob: float = 0.0
    ended: bool = False


class Writer(Protocol):
    """Writes one answer a soft token; an answer must depend on its own row and seed alone."""

    def write(self, soft: Tensor, seeds: Sequence[int], how: Sampling) -> list[Written]:
        """soft: [rows, d_model]; one seed and one answer a row."""
        ...


class LocalWriter:
    """The default engine."""

    def __init__(self, model: FrozenModel, prompt: BoundPrompt, prefix: SharedPrefix) -> None:
        self._model, self._prompt, self._prefix = model, prompt, prefix
        self._closes = quote_tokens(model)

    @torch.inference_mode()
    def write(self, soft: Tensor, seeds: Sequence[int], how: Sampling) -> list[Written]:
        model, prompt = self._model, self._prompt
        device = model.device
        answers = [Written([]) for _ in seeds]
        uniforms = row_uniforms(seeds, how.max_new_tokens).to(device)
        alive = torch.arange(len(seeds), device=device)
        read = after_prompt(model, prompt, self._prefix, soft)
        so_far = torch.empty(len(seeds), 0, dtype=torch.int64, device=device)
        for step in range(how.max_new_tokens):
            tokens, gained = next_tokens(
                read.logits.to(device),
                how.temperature,
                how.top_p,
                uniforms[alive, step],
                so_far,
                how.repetition_penalty,
            )
            ends = tokens == prompt.end_id
            if how.stop_at_quote:
                ends = ends | self._closes[tokens]
            table = zip(
                alive.tolist(), tokens.tolist(), gained.tolist(), ends.tolist(), strict=True
            )
            for row, token, log_prob, end in table:
                answers[row].ids.append(token)
                answers[row].log_prob += log_prob
                answers[row].ended = end
            if bool(ends.all()) or step + 1 == how.max_new_tokens:
                break
            so_far = torch.cat([so_far, tokens.unsqueeze(1)], dim=1)
            going = (~ends).nonzero().flatten()
            if going.numel() < alive.numel():
                read.select(going)
                alive, tokens, so_far = alive[going], tokens[going], so_far[going]
            read.read(tokens)
        return answers


def quote_tokens(model: FrozenModel) -> Tensor:
    """[vocabulary] bool: tokens whose text holds a double quote, which closes the label."""
    closes = torch.zeros(model.vocab_size, dtype=torch.bool, device=model.device)
    # Byte-level and SentencePiece vocabularies both keep ASCII marks as they are.
    ids = [i for piece, i in model.tokenizer.get_vocab().items() if CLOSING_QUOTE in piece]
    special = set(model.tokenizer.all_special_ids)
    closes[[i for i in ids if i not in special and i < closes.numel()]] = True
    return closes
