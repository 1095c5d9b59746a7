"""Which token of a vocabulary can be the placeholder of a prompt, and where it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from selfie_adapters.errors import PromptError
from selfie_adapters.model.chat_template import template_source
from selfie_adapters.model.tokens import added_tokens, encode, single_characters, token_id

_RESERVED = re.compile(
    r"reserved|unused|place.?holder|dummy|extra_|special_\d|control_\d|<extra|\[unused", re.I
)
# Tokens that mean something to a chat, or make a model expect an image.
_TAKEN = re.compile(
    r"image|img|video|audio|vision|speech|think|tool|func|call|im_|start|end|turn|role|channel|"
    r"message|user|assist|system|bos|eos|eot|eom|pad|mask|unk|sep|cls|inst|begin|stop|python",
    re.I,
)
# Characters that labels rarely contain and that vocabularies often have as one token.
_CHARACTERS = "※‡†¤§¶☆★◆■□▲●○◦¬ℝℵ☐"
_TOKENS_TRIED = 5000


def choose_placeholder(
    tokenizer: PreTrainedTokenizerBase, template: str, preferred: Sequence[str], ends: Sequence[str]
) -> tuple[str, str]:
    """A placeholder for `template` ("{}" marks its sites), and why it is this one.

    preferred: special tokens to be tried first. ends: tokens that end a turn, which a placeholder
    must not be. Raises PromptError if no token of the vocabulary can be one.
    """
    source = template_source(tokenizer)
    named = _named(tokenizer) | set(ends)
    for candidate, why in _candidates(tokenizer, preferred):
        if candidate in named and candidate not in preferred:
            continue
        if candidate in source or candidate in template or candidate in ends:
            continue
        if fits(tokenizer, template, candidate):
            return candidate, why
    raise PromptError(
        f"{tokenizer.name_or_path}: no token of this vocabulary can be a placeholder (one token in "
        "the prompt, no part of the chat format). Pass one: --placeholder, or "
        "soft_prompt.reserved_token in a configuration."
    )


def fits(tokenizer: PreTrainedTokenizerBase, template: str, placeholder: str) -> bool:
    """Whether the placeholder is one token at every site ("{}") and nowhere else."""
    ids = encode(tokenizer, template.replace("{}", placeholder))
    return len(find_sites(tokenizer, ids, placeholder)) == template.count("{}")


def find_sites(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], placeholder: str
) -> tuple[int, ...]:
    """Positions in `ids` of the one token that is the placeholder; empty if no single token is.

    A character may have another id in a word than at its beginning, so the prompt decides.
    """
    number = token_id(tokenizer, placeholder)
    if number is None or number not in ids:
        decoded = {i for i in set(ids) if str(tokenizer.decode([i])).strip() == placeholder}
        if len(decoded) != 1:
            return ()
        number = decoded.pop()
    return tuple(i for i, token in enumerate(ids) if token == number)


def _candidates(
    tokenizer: PreTrainedTokenizerBase, preferred: Sequence[str]
) -> Iterator[tuple[str, str]]:
    for token in preferred:
        if token_id(tokenizer, token) is not None:
            yield token, "a free special token, the one of this chat format's built-in prompt"
    added = tokenizer.added_tokens_decoder
    tokens = [text for text in added_tokens(tokenizer).values() if text.strip()]
    for token in tokens:
        if _RESERVED.search(token):
            yield token, "a reserved token of this tokenizer"
    special = {str(added[number].content) for number in added if added[number].special}
    for token in tokens:
        if token in special and not _TAKEN.search(token):
            yield token, "a special token that the chat template does not use"
    for character in _CHARACTERS:
        yield character, "a rare character: no reserved or unused special token was found"
    for character in single_characters(tokenizer, _TOKENS_TRIED):
        yield character, "a rare character of the vocabulary: nothing more special was found"


def _named(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Tokens with a role of their own, such as the begin and the end token."""
    roles = ("bos", "eos", "pad", "unk", "sep", "cls", "mask")
    found = (getattr(tokenizer, f"{role}_token", None) for role in roles)
    return {str(token) for token in found if token is not None}
