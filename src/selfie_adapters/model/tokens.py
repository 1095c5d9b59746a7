"""Text to token ids and back to single tokens, with nothing added on the way (invariant 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from selfie_adapters.errors import PromptError


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of `text`, special tokens recognized, none added (invariant 3)."""
    return tokenizer.encode(text, add_special_tokens=False)


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    """The id of `token` if it is in the vocabulary as one piece."""
    # get_vocab() would build the whole dictionary on every call.
    found = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(found, int) or tokenizer.convert_ids_to_tokens(found) != token:
        return None  # unknown: None, or the id of the unknown token
    return found


def adds_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts a space before every text, as Llama 2's does."""
    first = encode(tokenizer, "a")[:1]
    return bool(first) and str(tokenizer.convert_ids_to_tokens(first[0])).startswith(("▁", "Ġ"))


def added_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Added tokens, which the tokenizer never splits, special or not; sorted by id."""
    found = tokenizer.added_tokens_decoder
    return {number: str(found[number].content) for number in sorted(found)}


def plain_begin(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The begin token that the tokenizer puts before plain text; None if it puts none.

    Having one defined says little: GPT-NeoX and Qwen never use theirs.
    """
    begin = tokenizer.bos_token_id
    first = list(tokenizer("a")["input_ids"])[:1]
    return begin if isinstance(begin, int) and first == [begin] else None


def leading(ids: list[int] | tuple[int, ...], token: int) -> int:
    """How often `ids` begins with `token`."""
    return next((i for i, other in enumerate(ids) if other != token), len(ids))


def begun_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, with exactly one begin token in front where plain text has one.

    Special tokens in them are recognized. Raises PromptError for a doubled begin token: it
    moves every state of the text, and nobody means it.
    """
    begin, added = tokenizer.bos_token_id, plain_begin(tokenizer)
    rows: list[list[int]] = []
    for text in texts:
        ids = encode(tokenizer, text)
        count = leading(ids, begin) if isinstance(begin, int) else 0
        if count > 1:
            raise PromptError(
                f'the text begins with {count} "{tokenizer.bos_token}" tokens; exactly one is '
                f"expected: {text[:60]!r}. Remove them: the begin token is added where the model "
                "has one."
            )
        rows.append(ids if count or added is None else [added, *ids])
    return rows


def first_added(tokenizer: PreTrainedTokenizerBase, text: str) -> str | None:
    """The longest added token that `text` begins with, if any."""
    starts = (t for t in added_tokens(tokenizer).values() if t and text.startswith(t))
    return max(starts, key=len, default=None)


def single_characters(tokenizer: PreTrainedTokenizerBase, limit: int) -> Iterator[str]:
    """Rare single characters of the vocabulary, rarest first: at most `limit` tokens are looked at.

    Vocabularies list tokens by frequency, so a high id is a rare token.
    """
    size = len(tokenizer)
    for number in range(size - 1, max(-1, size - 1 - limit), -1):
        text = str(tokenizer.decode([number])).strip()
        if len(text) == 1 and not text.isascii() and text.isprintable() and text != "\ufffd":
            yield text
