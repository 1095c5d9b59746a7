"""What a model can take in: token ids that its embedding has, and positions that it has learned.

Beyond either, the forward pass ends in an IndexError (on a GPU in a failed assertion of a kernel).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from selfie_adapters.errors import PromptError
from selfie_adapters.model.loading import FrozenModel
from selfie_adapters.model.prompt import BoundPrompt

_POSITIONS = re.compile(r"(^|[._])(wpe|pos|positions?)(_|\.|$)")


def embedding_rows(model: FrozenModel) -> int:
    """Token ids below this have an embedding; the tokenizer may know more tokens."""
    return next(model.embedding.parameters()).shape[0]


def learned_positions(model: FrozenModel) -> int | None:
    """How many tokens a row can have where the model looks its positions up in a table.

    None for models that compute them (rotary, ALiBi): they run on beyond the length they know.
    """
    config = model.network.config.get_text_config(decoder=True)
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None:
        return None
    tables = [
        name
        for name, module in model.network.named_modules()
        if isinstance(module, nn.Embedding) and module is not model.embedding
    ]
    tables += [
        name
        for name, buffer in model.network.named_buffers()
        if buffer.ndim == 2 and buffer.shape[0] == limit
    ]
    known = any(_POSITIONS.search(name) for name in tables if "vision" not in name)
    return limit if known else None


def check_prompt(model: FrozenModel, prompt: BoundPrompt) -> None:
    """Raise PromptError if the model cannot take the prompt, its end token or a label after it."""
    check_ids(model, [*prompt.ids, prompt.end_id], "the prompt")
    limit = learned_positions(model)
    if limit is not None and len(prompt.ids) >= limit:
        raise PromptError(
            f"the prompt has {len(prompt.ids):,} tokens and the label comes after it; {model.name} "
            f"has {limit:,} learned positions. Shorten the template."
        )


def check_ids(model: FrozenModel, ids: Sequence[int], what: str) -> None:
    """Raise PromptError if `ids` has a token that the model has no embedding for.

    what: whose tokens they are, as the message begins.
    """
    rows = embedding_rows(model)
    highest = max(ids, default=0)
    if highest >= rows:
        token = model.tokenizer.convert_ids_to_tokens(highest)
        raise PromptError(
            f'{what} holds the token "{token}" (id {highest:,}); the embedding of {model.name} has '
            f"{rows:,} rows. Use the model's own tokenizer, or avoid tokens added to it."
        )


def check_texts(model: FrozenModel, rows: Sequence[Sequence[int]], what: str) -> None:
    """Raise PromptError if the model cannot take one of the tokenized prompts.

    what: such as "topic"; the message adds the text's number.
    """
    limit = learned_positions(model)
    for number, ids in enumerate(rows):
        check_ids(model, ids, f"{what} {number}")
        if limit is not None and len(ids) > limit:
            raise PromptError(
                f"{what} {number} has {len(ids):,} tokens; {model.name} has {limit:,} learned "
                "positions. Shorten it."
            )
