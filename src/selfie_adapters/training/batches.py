"""Labels tokenised once, and batches of them laid out as tensors without a loop over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from selfie_adapters.errors import DataError
from selfie_adapters.model import BoundPrompt

CLOSING_QUOTE = '"'

# A batch is worked off in parts of about this many tokens, longest rows first. On a CPU small parts
# stay in its cache (SmolLM2, 2 cores: 64 rows in parts of 16 to 32 rows run 1.25 times as fast as
# in one); a GPU wants large products.
TOKENS_A_PART = {"cpu": 1024, "cuda": 32768}


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
    no label can end the turn or pose as the placeholder. Raises DataError for a blank label.
    """
    for i, label in enumerate(labels):
        if not label:
            raise DataError(f"label {i} is empty. Every label needs at least one character.")
    texts = [label + CLOSING_QUOTE for label in labels]
    rows: list[list[int]] = []
    if texts:
        rows = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    lengths = torch.tensor([len(row) + 1 for row in rows], dtype=torch.int64)
    starts = lengths.cumsum(0) - lengths
    ids = torch.tensor([token for row in rows for token in (*row, end_id)], dtype=torch.int64)
    return LabelTokens(ids, starts, lengths)


@dataclass(frozen=True)
class LabelBatch:
    """Rows ready for the model: the prompt from its first site on, then the label.

    ids: [rows, tokens], padded on the right (causal attention never looks there).
    keep: [rows, tokens], True where the next token is a label token; `targets` lists those next
    tokens in row-major order and `target_rows` the row of each.
    """

    ids: Tensor
    keep: Tensor
    targets: Tensor
    target_rows: Tensor
    lengths: Tensor  # [rows], label tokens a row


def build_batch(prompt: BoundPrompt, labels: LabelTokens, chosen: Tensor) -> LabelBatch:
    """Lay out the labels `chosen` ([rows], indices into `labels`) behind the prompt's suffix."""
    suffix = torch.tensor(prompt.suffix_ids)
    lengths = labels.lengths[chosen]
    width = int(lengths.max())
    column = torch.arange(width)
    inside = column < lengths.unsqueeze(1)  # [rows, width]
    source = (labels.starts[chosen].unsqueeze(1) + column).clamp(max=labels.ids.numel() - 1)
    label_ids = torch.where(inside, labels.ids[source], prompt.end_id)
    rows = chosen.numel()
    # The last label token is only ever a target, never an input.
    ids = torch.cat([suffix.expand(rows, -1), label_ids[:, :-1]], dim=1)
    keep = torch.zeros_like(ids, dtype=torch.bool)
    keep[:, len(suffix) - 1 :] = inside
    target_rows = torch.arange(rows).unsqueeze(1).expand(-1, width)[inside]
    return LabelBatch(ids, keep, label_ids[inside], target_rows, lengths)


def split_by_length(lengths: Tensor, overhead: int, tokens: int) -> list[Tensor]:
    """Positions 0…n-1 sorted by label length (longest first) and cut into parts.

    A part holds rows of like length, at most `tokens` tokens after padding (at least one row);
    `overhead` is the tokens each row has besides its label. The sum over parts of a loss or
    gradient is that of the whole batch; padding nearly vanishes.
    """
    order = torch.argsort(lengths, descending=True, stable=True)
    parts: list[Tensor] = []
    at = 0
    while at < order.numel():
        longest = int(lengths[order[at]]) + overhead
        rows = max(1, tokens // longest)
        parts.append(order[at : at + rows])
        at += rows
    return parts


def tokens_a_part(device: torch.device) -> int:
    return TOKENS_A_PART.get(device.type, TOKENS_A_PART["cuda"])
