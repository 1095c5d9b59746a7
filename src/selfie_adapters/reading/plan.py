"""Which states of a prompt are read: its tokens as the model sees them, layers, positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from selfie_adapters.chat.request import Message
from selfie_adapters.config.lists import parse_selection
from selfie_adapters.errors import PromptError
from selfie_adapters.inference.generate import answer_text
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.blocks import blocks_with_text, check_layer
from selfie_adapters.model.limits import check_ids
from selfie_adapters.model.tokens import begun_ids
from selfie_adapters.model.user_text import Chat, UserText, usual_chat
from selfie_adapters.words import word_spans, words_of


@dataclass(frozen=True)
class PromptToken:
    """One token of the prompt as the model sees it.

    text: the token's text; a character that is spread over several tokens is complete in each of
    them, and `part` states which it is ("1/3"). special: a token of the chat format and the like.
    """

    position: int
    id: int
    text: str
    special: bool
    part: str | None = None


@dataclass(frozen=True)
class ReadingPlan:
    """Which states of which prompt will be labelled; costs no forward pass to make.

    `layers` and `positions` are in rising order; every pair of them is a cell. prompt: its text, of
    a conversation as the chat template writes it; an answer that the model wrote is part of it.
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


def plan_reading(
    model: FrozenModel,
    prompt: str | Sequence[Message],
    layers: Sequence[int] | str | None = None,
    positions: Sequence[int] | str | None = None,
    chat: Chat | None = None,
    special: bool = False,
    answer: Sequence[int] = (),
) -> ReadingPlan:
    """Tokenize the prompt and choose its cells.

    prompt: a text, or the messages of a conversation. answer: token ids that the model continued
    the prompt with (`reading/answering.py`); without `positions` they alone are read.

    layers, positions: numbers, a text such as "4:28:4", or None for all (of the layers, those that
    text alone runs through); positions count tokens from 0, or from the end when negative. Special
    tokens are excluded unless `special` is set or positions names them one by one (as numbers, not
    as a text with a slice). chat None is the tokenizer's chat template, or plain text for a
    tokenizer without one.
    Raises PromptError for an empty or too long prompt and for a conversation in another
    format, ConfigError for numbers out of range.
    """
    chat = usual_chat(model.tokenizer, chat)
    asked = prompt_ids(model.tokenizer, prompt, chat)
    ids = [*asked, *answer]
    check_length(model, len(ids))
    check_ids(model, ids, "the prompt")
    tokens = _prompt_tokens(model.tokenizer, ids)
    chosen = _numbers(positions, len(ids), "positions")
    if answer and positions is None:
        chosen = chosen[len(asked) :]
    asked_for = len(chosen)
    if not special and (positions is None or (isinstance(positions, str) and ":" in positions)):
        chosen = [position for position in chosen if not tokens[position].special]
    if not chosen:
        which = (
            "the prompt holds" if positions is None else f"positions {positions} of the prompt hold"
        )
        raise PromptError(
            f"{which} only special tokens ({asked_for} of them), which are not read unless "
            "requested: special=True (--special)."
        )
    if layers is None:
        chosen_layers = blocks_with_text(model)
    elif isinstance(layers, str):
        chosen_layers = _numbers(layers, model.n_layers, "layers")
    else:
        chosen_layers = [check_layer(layer, model.n_layers) for layer in layers]
    rows, columns = (tuple(sorted(set(some))) for some in (chosen_layers, chosen))
    if not isinstance(prompt, str):
        prompt = conversation_text(model.tokenizer, prompt, chat)
    prompt += answer_text(model.tokenizer, answer)
    return ReadingPlan(prompt, chat, tokens, rows, columns)


def conversation_text(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], chat: Chat
) -> str:
    """Messages as the chat template writes them. Raises PromptError (`UserText.conversation`)."""
    turns = [message._asdict() for message in messages]
    return UserText(tokenizer, chat).conversation(turns)


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: str | Sequence[Message], chat: Chat
) -> list[int]:
    """Token ids of the prompt with exactly one begin token where the model has one (`UserText`).

    Special tokens written in the prompt are recognized. Raises PromptError for an empty prompt, and
    for one that brings a begin token of its own into a chat turn.
    """
    if not isinstance(prompt, str):
        return begun_ids(tokenizer, [conversation_text(tokenizer, prompt, chat)])[0]
    if not prompt.strip():
        raise PromptError("the prompt is empty. Give at least one word.")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"the prompt is not valid Unicode: half a character at index {error.start}."
        ) from error
    return UserText(tokenizer, chat).ids(prompt)


def check_length(model: FrozenModel, tokens: int, what: str = "the prompt has") -> None:
    window = getattr(
        model.network.config.get_text_config(decoder=True), "max_position_embeddings", None
    )
    if window and tokens > window:
        raise PromptError(
            f"{what} {tokens:,} tokens; {model.name} reads at most {window:,}. Shorten it."
        )


def _numbers(asked: Sequence[int] | str | None, count: int, what: str) -> list[int]:
    if asked is None:
        return list(range(count))
    text = asked if isinstance(asked, str) else ",".join(map(str, asked))
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


class TextSoFar:
    """The words of a prompt, by token: whether a label only repeats those read so far.

    Attention carries earlier words to later tokens, so that a label made of them reveals little
    about the state it was read from. tokens: how many the prompt has.

    Special tokens hold no words; a character over several tokens belongs to the first of them.
    """

    def __init__(self, tokens: Sequence[PromptToken]) -> None:
        self.tokens = len(tokens)
        self._starts: list[int] = []
        text = ""
        for token in tokens:
            self._starts.append(len(text))
            if token.special:
                text += " "
            elif token.part is None or token.part.startswith("1/"):
                text += token.text
        self._starts.append(len(text))
        self._words = list(word_spans(text))

    def repeats(self, label: str, position: int) -> bool:
        """Whether every word of `label` is in the text before the word of token `position`, which
        does not count."""
        first, last = self._starts[position], self._starts[position + 1]
        own = {word for start, end, word in self._words if start < last and end > first}
        before = {word for _, end, word in self._words if end <= first} - own
        words = set(words_of(label))
        return bool(words) and words <= before
