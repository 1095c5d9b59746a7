"""Labels tokenised once, and batches of them laid out as tensors without a loop over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from selfie_adapters.errors import DataError
from selfie_adapters.model import BoundPrompt
from selfie_adapters.model.tokens import adds_space

OPENING_QUOTE = CLOSING_QUOTE = '"'

# Labels of one vector share a row up to about this many label tokens. Attention is quadratic in
# the row, the template part is saved once a label: beyond this length nothing more is gained.
LABEL_TOKENS_A_ROW = 256


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


def tokenise_labels(
    tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], end_id: int
) -> LabelTokens:
    """Tokenise `label + closing quote` as one text, then append the end token.

    A label is plain text: what looks like a special token in it is split like any other text, so
    no label can end the turn or pose as the placeholder. A tokenizer that puts a space before every
    text gets the opening quote to put it before: behind it, the label begins without one, as it
    does in an answer. Raises DataError for an empty label.
    """
    for i, label in enumerate(labels):
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
    """Ids of plain texts, special tokens split like any other text."""
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@dataclass(frozen=True)
class LabelBatch:
    """Rows ready for the model: the prompt from its first site on, then one label or several.

    Labels of one vector may follow each other in a row; each then sees the prompt and itself only.
    """

    ids: Tensor  # [rows, tokens], padded on the right
    positions: Tensor  # [rows, tokens], places after the shared prefix; each label starts anew
    visible: Tensor | None  # [rows, tokens, tokens], query sees key; None: plainly causal
    keep: Tensor  # [rows, tokens], where logits are needed
    targets: Tensor  # [label tokens], the tokens to be predicted, label by label
    predictors: Tensor  # [label tokens], the kept position (row-major) that predicts each
    target_labels: Tensor  # [label tokens], the label (0…labels-1) that each belongs to
    lengths: Tensor  # [labels], tokens of each label
    first_labels: Tensor  # [rows], one label of each row, to take the row's soft token from


def build_batch(
    prompt: BoundPrompt, labels: LabelTokens, chosen: Tensor, row_of: Tensor | None = None
) -> LabelBatch:
    """Lay out the labels `chosen` ([n], indices into `labels`) behind the prompt's suffix.

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
    offsets, row_lengths = _offsets_in_rows(lengths - 1, row_of, rows)
    width = start + int(row_lengths.max())

    of = torch.repeat_interleave(torch.arange(n), lengths)  # label of each label token
    within = torch.arange(of.numel()) - (lengths.cumsum(0) - lengths)[of]
    targets = labels.ids[labels.starts[chosen][of] + within]
    is_input = within < lengths[of] - 1
    flat = row_of[of] * width + start + offsets[of] + within  # place in the flattened rows
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


def _offsets_in_rows(sizes: Tensor, row_of: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Where each item begins when items of one row follow each other; and the rows' lengths."""
    row_lengths = torch.zeros(rows, dtype=torch.int64).index_add(0, row_of, sizes)
    order = torch.argsort(row_of, stable=True)
    begins = sizes[order].cumsum(0) - sizes[order]
    begins -= (row_lengths.cumsum(0) - row_lengths)[row_of[order]]
    offsets = torch.empty_like(sizes)
    offsets[order] = begins
    return offsets, row_lengths


def shared_rows(lengths: Tensor, vector_of: Tensor) -> Tensor:
    """A row for each label ([n] numbers 0…rows-1): labels of one vector together, up to a length.

    lengths: [n] tokens of each label. vector_of: [n], equal numbers for labels of one vector.
    """
    _, vector = torch.unique(vector_of, return_inverse=True)
    offsets, _ = _offsets_in_rows(lengths, vector, int(vector.max()) + 1)
    pairs = torch.stack([vector, offsets // LABEL_TOKENS_A_ROW], dim=1)
    return torch.unique(pairs, dim=0, return_inverse=True)[1]


def shuffled_vectors(vector_of: Tensor, generator: torch.Generator) -> Tensor:
    """Positions 0…n-1, vector after vector in random order, each one's labels together.

    vector_of: [n], equal numbers for labels of one vector.
    """
    _, vector = torch.unique(vector_of, return_inverse=True)
    rank = torch.randperm(int(vector.max()) + 1, generator=generator)
    return torch.argsort(rank[vector], stable=True)


def split_by_length(
    lengths: Tensor, overhead: int, tokens: int, row_of: Tensor | None = None
) -> list[Tensor]:
    """Positions 0…n-1 sorted by their row's length (longest first) and cut into parts.

    A part holds whole rows of like length, at most `tokens` tokens after padding (at least one
    row); `overhead` is the tokens each row has besides its labels. row_of: [n] as `shared_rows`
    gives it; None gives each label a row of its own. The sum over parts of a loss or gradient is
    that of the whole batch; padding nearly vanishes.
    """
    if row_of is None:
        row_of = torch.arange(lengths.numel())
    rows = int(row_of.max()) + 1 if row_of.numel() else 0
    row_lengths = torch.zeros(rows, dtype=torch.int64).index_add(0, row_of, lengths)
    order = torch.argsort(row_lengths, descending=True, stable=True)
    part_of_row = torch.empty(rows, dtype=torch.int64)
    at = parts = 0
    while at < rows:
        longest = int(row_lengths[order[at]]) + overhead
        fitting = max(1, tokens // longest)
        part_of_row[order[at : at + fitting]] = parts
        at += fitting
        parts += 1
    # Within a part: longest rows first, labels of one row together and in their own order.
    rank = torch.empty(rows, dtype=torch.int64)
    rank[order] = torch.arange(rows)
    sequence = torch.argsort(rank[row_of], stable=True)
    sizes = torch.bincount(part_of_row[row_of], minlength=parts)
    return list(sequence.split(sizes.tolist())) if parts else []
