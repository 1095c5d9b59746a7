"""Answers of the frozen model itself: one batch of many conversations, rows that end leave it.

Rows are padded on the left, so that distances between tokens are what they are without padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from selfie_adapters.chat.request import ChatRequest
from selfie_adapters.config.shared import Sampling
from selfie_adapters.errors import PromptError
from selfie_adapters.inference.continuation import Continuation, padded_left
from selfie_adapters.inference.generate import answer_text, generate
from selfie_adapters.model import FrozenModel, SharedPrefix
from selfie_adapters.model.cache_use import cache_use
from selfie_adapters.model.chat_format import end_of_turn
from selfie_adapters.model.chat_template import render
from selfie_adapters.model.fingerprint import weights_digest
from selfie_adapters.model.prefix import common_length
from selfie_adapters.model.tokens import begun_ids, token_id


@dataclass(frozen=True)
class _Pending:
    """A request with its number in the caller's order and the prompt's token ids."""

    number: int
    request: ChatRequest
    ids: tuple[int, ...]


class InProcessChat:
    """A model in this process as a chat model.

    An answer depends on its own request alone (see inference/generate.py).
    """

    def __init__(self, model: FrozenModel, batch_size: int = 64) -> None:
        self.name = model.name
        self._model = model
        self._batch_size = batch_size
        self._ends = end_tokens(model).to(model.device)

    @property
    def weights(self) -> str:
        """Digest of the model's weights: other ones give other answers."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return weights_digest(self._model)

    def answer(
        self,
        requests: Sequence[ChatRequest],
        done: Callable[[int, str], None] = lambda _number, _text: None,
    ) -> list[str]:
        """Answers in the order of `requests`; `done(number, text)` is called as each one ends.

        Raises PromptError, before anything is written, for a request that the model's chat
        template refuses or that does not fit into its window.
        """
        rows = [
            _Pending(i, request, self._prompt(i, request)) for i, request in enumerate(requests)
        ]
        answers = [""] * len(rows)
        for alike in self._batched_alike(rows):
            prefix = SharedPrefix(self._model, self._shared(alike))
            # Longest first: what does not fit into memory fails at once. Equal prompts meet.
            alike.sort(key=lambda row: (len(row.ids), row.ids), reverse=True)
            for start in range(0, len(alike), self._batch_size):
                for row, ids in self._write(alike[start : start + self._batch_size], prefix):
                    answers[row.number] = answer_text(self._model.tokenizer, ids)
                    done(row.number, answers[row.number])
        return answers

    def _prompt(self, number: int, request: ChatRequest) -> tuple[int, ...]:
        model = self._model
        if not model.tokenizer.chat_template:
            raise PromptError(
                f"{model.name} has no chat template, so it cannot be asked. Use an instruction-"
                "tuned model, or a server (url)."
            )
        turns = [message._asdict() for message in request.messages]
        try:
            text = render(model.tokenizer, turns)
            ids = tuple(begun_ids(model.tokenizer, [f"{text}{request.begun}"])[0])
        except PromptError as error:
            raise PromptError(f"request {number}: {error}") from error
        window = _window(model, "max_position_embeddings")
        if window and len(ids) + request.max_tokens > window:
            raise PromptError(
                f"request {number}: {len(ids)} tokens and {request.max_tokens} for the answer; "
                f"{model.name} reads at most {window:,}. Shorten it."
            )
        return ids

    def _batched_alike(self, rows: Sequence[_Pending]) -> list[list[_Pending]]:
        """Rows that one batch may hold: sampled by one rule and, where padding on the left would
        change the answer (recurrent models take it for text), of one length."""
        padding = cache_use(self._model).branches
        groups: dict[tuple[float, float, int], list[_Pending]] = {}
        for row in rows:
            length = 0 if padding else len(row.ids)
            key = (row.request.temperature, row.request.top_p, length)
            groups.setdefault(key, []).append(row)
        return list(groups.values())

    def _shared(self, rows: Sequence[_Pending]) -> tuple[int, ...]:
        """What all prompts begin with; it comes before the padding."""
        longest = max(len(row.ids) + row.request.max_tokens for row in rows)
        sliding = _window(self._model, "sliding_window")
        if sliding and longest > sliding:
            return ()  # padding inside the window would push real tokens out of it
        limit = min(len(row.ids) for row in rows) - 1
        return rows[0].ids[: common_length([row.ids for row in rows], limit)]

    @torch.inference_mode()
    def _write(
        self, rows: Sequence[_Pending], prefix: SharedPrefix
    ) -> Iterator[tuple[_Pending, list[int]]]:
        """Every row with the ids of its answer, without the end token, as soon as it ends."""
        model = self._model
        prompts = list(dict.fromkeys(row.ids for row in rows))
        ids, mask = padded_left([prompt[prefix.length :] for prompt in prompts], prefix.length)
        padded = cache_use(model).branches
        read = Continuation(
            model, ids, prefix.for_batch(len(prompts)), mask=mask if padded else None
        )
        # Prompts are read once each, however many answers are asked for.
        at = {prompt: i for i, prompt in enumerate(prompts)}
        read.select(torch.tensor([at[row.ids] for row in rows]))
        first = rows[0].request
        answers = generate(
            read,
            [row.request.seed for row in rows],
            Sampling(first.temperature, first.top_p),
            self._ends,
            [row.request.max_tokens for row in rows],
        )
        for row, answer in answers:
            yield rows[row], answer.ids[:-1] if answer.ended else answer.ids


def end_tokens(model: FrozenModel) -> Tensor:
    """[vocabulary] bool: tokens that end an answer."""
    configured = getattr(model.network.generation_config, "eos_token_id", None)
    found = configured if isinstance(configured, list) else [configured]
    found.append(model.tokenizer.eos_token_id)
    if end := end_of_turn(model.tokenizer):
        found.append(token_id(model.tokenizer, end))
    ends = torch.zeros(model.vocab_size, dtype=torch.bool)
    ends[[token for token in found if token is not None]] = True
    return ends


def _window(model: FrozenModel, name: str) -> int | None:
    return getattr(model.network.config.get_text_config(decoder=True), name, None)
