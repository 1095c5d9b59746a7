"""Labels that a model cannot be trained or scored on, found before the first forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selfie_adapters.errors import DataError
from selfie_adapters.inference.label_batches import LabelTokens, tokenise_labels
from selfie_adapters.model import BoundPrompt, FrozenModel
from selfie_adapters.model.limits import embedding_rows, learned_positions


def checked_labels(model: FrozenModel, prompt: BoundPrompt, labels: Sequence[str]) -> LabelTokens:
    """Labels tokenized for `prompt`, and checked. Raises DataError for a label that is blank or
    that `check_labels` refuses."""
    tokens = tokenise_labels(model.tokenizer, labels, prompt.end_id)
    check_labels(model, prompt, tokens, labels)
    return tokens


def check_labels(
    model: FrozenModel, prompt: BoundPrompt, tokens: LabelTokens, labels: Sequence[str]
) -> None:
    """Raise DataError naming the first label that the model cannot take after `prompt`.

    tokens: those of `labels`. A label must not hold the placeholder, which would be taken for a
    soft token; nor a token without an embedding; nor more tokens than there are learned positions.
    """
    rows = embedding_rows(model)
    inputs = torch.ones_like(tokens.ids, dtype=torch.bool)
    inputs[tokens.starts + tokens.lengths - 1] = False  # the end token is only ever a target
    if (found := _first(tokens, inputs & (tokens.ids == prompt.placeholder_id))) is not None:
        raise DataError(
            f'label {found[0]} ({labels[found[0]]!r:.80}) holds the placeholder "'
            f'{prompt.prompt.placeholder}" (token {prompt.placeholder_id}). Choose another '
            "placeholder, or change the label."
        )
    if (found := _first(tokens, tokens.ids >= rows)) is not None:
        label, token = found
        raise DataError(
            f"label {label} ({labels[label]!r:.80}) holds the token "
            f'"{model.tokenizer.convert_ids_to_tokens(token)}" (id {token:,}); the embedding of '
            f"{model.name} has {rows:,} rows. Use the model's own tokenizer, or change the label."
        )
    limit = learned_positions(model)
    if limit is None or not len(tokens):
        return
    used = len(prompt.ids) + tokens.lengths - 1
    if int(used.max()) > limit:
        label = int((used > limit).nonzero()[0])
        raise DataError(
            f"label {label} ({labels[label]!r:.80}) takes {int(used[label]):,} positions with the "
            f"prompt's {len(prompt.ids)}; {model.name} has {limit:,} learned positions. Shorten "
            "the label or the template."
        )


def _first(tokens: LabelTokens, where: Tensor) -> tuple[int, int] | None:
    """The label and the id of the first token that `where` marks."""
    if not bool(where.any()):
        return None
    position = int(where.nonzero()[0])
    label = int(torch.searchsorted(tokens.starts, position, right=True)) - 1
    return label, int(tokens.ids[position])
