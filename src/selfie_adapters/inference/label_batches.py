"""Labels tokenized once, and batches of them laid out as tensors without a loop over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from selfie_adapters.errors import DataError
from selfie_adapters.inference.microbatch import offsets_in_rows
from selfie_adapters.model import BoundPrompt, FrozenModel
from selfie_adapters.model.limits import embedding_rows, learned_positions
from selfie_adapters.model.tokens import adds_space

OPENING_QUOTE = CLOSING_QUOTE = '"'


@dataclass(frozen=True)
class LabelTokens:
    """Token ids of many labels, end to end: label i is `ids[starts[i] : starts[i] + lengths[i]]`.

    Each label ends with its closing quote and the end token.
    """

    ids: Tensor  # [all tokens], int64
    starts: Tensor  # [labels]
    lengths: Tensor  # [labels]

    def __len__(self) -> int:
        return self.lengths.numel()


def tokenize_labels(
    tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], end_id: int
) -> LabelTokens:
    """Tokenize `label + closing quote` as one string, then append the end token.

    A label is plain text: what looks like a special token in it is split like any other text, so
    no label can end the turn or pose as the placeholder. A tokenizer that puts a space before every
    text gets the opening quote to put it before: behind it, the label begins without one, as it
    does in an answer. Raises DataError for an empty label.
    """
    for i, label in enumerate(labels):
        if not isinstance(label, str):
            raise DataError(f"label {i} is {label!r:.80}; a string is expected.")
        if not label:
            raise DataError(f"label {i} is empty. Every label needs at least one character.")
    rows = _split(tokenizer, [label + CLOSING_QUOTE for label in labels])
    if labels and adds_space(tokenizer):
        (opening,) = _split(tokenizer, [OPENING_QUOTE])
        behind = _split(tokenizer, [OPENING_QUOTE + label + CLOSING_QUOTE for label in labels])
        for i, row in enumerate(behind):
            if row[: len(opening)] == opening:  # the quote is not one token with the label
                rows[i] = row[len(opening) :]
    lengths = torch.tensor([len(row) + 1 for row in rows], dtype=torch.int64)
    starts = lengths.cumsum(0) - lengths
    ids = torch.tensor([token for row in rows for token in (*row, end_id)], dtype=torch.int64)
    return LabelTokens(ids, starts, lengths)


def _split(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Ids of strings, in which special tokens are split like any other text."""
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def checked_labels(model: FrozenModel, prompt: BoundPrompt, labels: Sequence[str]) -> LabelTokens:
    """Labels tokenized for `prompt`, and checked. Raises DataError for a label that is blank or
    that `check_labels` refuses."""
    tokens = tokenize_labels(model.tokenizer, labels, prompt.end_id)
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


@dataclass(frozen=True)
class LabelBatch:
    """Rows ready for the model: the prompt from its first site on, then one label or several.

    Labels of one vector may follow each other in a row; each then sees the prompt and itself only.
    """

    ids: Tensor  # [rows, tokens], padded on the right
    positions: Tensor  # [rows, tokens], positions after the shared prefix; each label starts there
    visible: Tensor | None  # [rows, tokens, tokens], query sees key; None: causal
    keep: Tensor  # [rows, tokens], where logits are needed
    targets: Tensor  # [label tokens], the tokens to be predicted, label by label
    predictors: Tensor  # [label tokens], the kept position (row-major) that predicts each
    target_labels: Tensor  # [label tokens], the label (0…labels-1) that each belongs to
    lengths: Tensor  # [labels], tokens of each label
    first_labels: Tensor  # [rows], one label of each row, to take the row's soft token from


def build_batch(
    prompt: BoundPrompt, labels: LabelTokens, chosen: Tensor, row_of: Tensor | None = None
) -> LabelBatch:
    """Arrange the labels `chosen` ([n], indices into `labels`) behind the prompt's suffix.

    row_of: [n], the row of each label, 0…rows-1, none empty; None gives each a row of its own.
    """
    suffix = torch.tensor(prompt.suffix_ids)
    start = len(suffix)
    n = chosen.numel()
    shared = row_of is not None
    row_of = torch.arange(n) if row_of is None else row_of
    rows = int(row_of.max()) + 1
    lengths = labels.lengths[chosen]
    # The last token of a label is only ever a target, never an input.
    offsets, row_lengths = offsets_in_rows(lengths - 1, row_of, rows)
    width = start + int(row_lengths.max())

    of = torch.repeat_interleave(torch.arange(n), lengths)  # label of each label token
    within = torch.arange(of.numel()) - (lengths.cumsum(0) - lengths)[of]
    targets = labels.ids[labels.starts[chosen][of] + within]
    is_input = within < lengths[of] - 1
    flat = row_of[of] * width + start + offsets[of] + within  # index in the flattened rows
    inputs = flat[is_input]

    ids = torch.full((rows, width), prompt.end_id)
    ids[:, :start] = suffix
    ids.view(-1)[inputs] = targets[is_input]
    positions = torch.arange(width).clamp(max=start).repeat(rows, 1)
    positions.view(-1)[inputs] = start + within[is_input]
    # A label's first token is predicted by the prompt's last, each other by the one before it.
    before = torch.where(within == 0, row_of[of] * width + start - 1, flat - 1)
    keep = torch.zeros_like(ids, dtype=torch.bool)
    keep.view(-1)[before] = True
    predictors = keep.view(-1).cumsum(0)[before] - 1
    visible = None
    if shared:
        branch = torch.full_like(ids, -2)  # padding
        branch[:, :start] = -1
        branch.view(-1)[inputs] = of[is_input]
        same = branch.unsqueeze(1) == branch.unsqueeze(2)  # [rows, query, key]
        visible = (same | (branch == -1).unsqueeze(1)).tril()
    first = torch.full((rows,), n).scatter_reduce(0, row_of, torch.arange(n), "amin")
    return LabelBatch(ids, positions, visible, keep, targets, predictors, of, lengths, first)
