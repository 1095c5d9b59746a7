"""Cut a batch of labels into rows and micro-batches, so that any batch fits the machine."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from selfie_adapters.model import FrozenModel
from selfie_adapters.model.loading import once_per_network

# Small micro-batches stay in a CPU's cache; a GPU is fast with large matmuls (docs/benchmarks.md).
TOKENS_PER_MICROBATCH = {"cpu": 512, "cuda": 8192}
# CUDA graphs hold memory in addition to what other passes use.
_SHARE_OF_MEMORY = {"cpu": 0.5, "cuda": 0.35}

# Labels of one vector share a row up to about this many label tokens. Attention is quadratic in
# the row, the template is saved once per label: beyond this length nothing more is gained.
LABEL_TOKENS_PER_ROW = 256

_ROWS_ON_A_CPU = 256
_FEWEST_ROWS, _MOST_ROWS = 64, 2048
_TOKENS_PER_ROW = 64  # prompt and label


def tokens_per_microbatch(model: FrozenModel) -> int:
    """Tokens that a micro-batch may have, at least 1.

    Bounded by the memory that the machine has besides the weights, not by what happens to be free:
    the same run is cut the same way, and so gives the same bits, each time.
    """
    device = model.device
    usual = TOKENS_PER_MICROBATCH.get(device.type, TOKENS_PER_MICROBATCH["cuda"])
    share = _SHARE_OF_MEMORY.get(device.type, _SHARE_OF_MEMORY["cuda"])
    left = (_total_memory(device) - _weights(model)) * share
    return max(1, min(usual, int(left / max(1, bytes_per_token(model)))))


def rows_per_batch(model: FrozenModel) -> int:
    """Rows that are labelled at once: 256 on a CPU; on a GPU as many as fit, 64 to 2,048.

    A GPU generates 848 labels per second in batches of 4,096, 561 in batches of 256
    (docs/benchmarks.md). Bounded like `tokens_per_microbatch`.
    """
    device = model.device
    if device.type in ("cpu", "meta"):
        return _ROWS_ON_A_CPU
    share = _SHARE_OF_MEMORY.get(device.type, _SHARE_OF_MEMORY["cuda"])
    left = (_total_memory(device) - _weights(model)) * share
    config = model.network.config.get_text_config(decoder=True)
    heads = getattr(config, "num_attention_heads", 1)
    width = getattr(config, "head_dim", None) or model.d_model // heads
    keys = model.n_layers * (getattr(config, "num_key_value_heads", None) or heads) * width
    # Keys and values as the prompt leaves them and again with room to grow; float32 logits thrice.
    row = 2 * _TOKENS_PER_ROW * 2 * keys * model.dtype.itemsize + 3 * 4 * model.vocab_size
    fitting = max(_FEWEST_ROWS, min(_MOST_ROWS, int(left / row)))
    return 1 << (fitting.bit_length() - 1)


@once_per_network
def _weights(model: FrozenModel) -> int:
    """Bytes of all weights."""
    return sum(p.numel() * p.element_size() for p in model.network.parameters())


@once_per_network
def bytes_per_token(model: FrozenModel) -> int:
    """Bytes that one token leaves behind for the backward pass: about what all linear layers of
    the blocks read and write. Their weights are frozen, so some of it is not kept, but what norms,
    rotations and activations keep between them makes up for it.
    """
    layers = [m for m in model.blocks.modules() if isinstance(m, nn.Linear)]
    return sum(m.in_features + m.out_features for m in layers) * model.dtype.itemsize


def _total_memory(device: torch.device) -> int:
    """Bytes of all GPUs, where the model is on one (it may be spread), else of the machine."""
    if device.type == "cuda":
        count = torch.cuda.device_count()
        return sum(torch.cuda.get_device_properties(i).total_memory for i in range(count))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def split_by_length(
    lengths: Tensor,
    overhead: int,
    tokens: int,
    row_of: Tensor | None = None,
    padded: bool = True,
) -> list[Tensor]:
    """Positions 0…n-1 sorted by their row's length (longest first) and cut into micro-batches.

    A micro-batch holds whole rows of similar length, at most `tokens` tokens after padding (at
    least one row); `overhead` is the tokens each row has besides its labels. row_of: [n] as
    `shared_rows` gives it; None gives each label a row of its own. The sum over micro-batches of a
    loss or gradient is that of the whole batch; padding nearly vanishes.
    """
    if row_of is None:
        row_of = torch.arange(lengths.numel())
    rows = int(row_of.max()) + 1 if row_of.numel() else 0
    row_lengths = torch.zeros(rows, dtype=torch.int64).index_add(0, row_of, lengths)
    order = torch.argsort(row_lengths, descending=True, stable=True)
    part_of_row = torch.empty(rows, dtype=torch.int64)
    own = row_lengths[order] + overhead
    ends = own.cumsum(0)
    even = int(own.sum()) // max(1, -(-int(own.sum()) // tokens))
    even = min(tokens, even + int(own[0])) if rows else tokens
    at = parts = 0
    while at < rows:
        if padded:
            fitting = max(1, tokens // int(own[at]))
        else:
            before = int(ends[at - 1]) if at else 0
            within = int(torch.searchsorted(ends, before + even, right=True))
            fitting = max(1, within - at)
        part_of_row[order[at : at + fitting]] = parts
        at += fitting
        parts += 1
    # Within a micro-batch: longest rows first, labels of one row together and in their own order.
    rank = torch.empty(rows, dtype=torch.int64)
    rank[order] = torch.arange(rows)
    sequence = torch.argsort(rank[row_of], stable=True)
    sizes = torch.bincount(part_of_row[row_of], minlength=parts)
    return list(sequence.split(sizes.tolist())) if parts else []


def shared_rows(lengths: Tensor, vector_of: Tensor, limit: int = LABEL_TOKENS_PER_ROW) -> Tensor:
    """A row for each label ([n] numbers 0…rows-1): labels of one vector together, up to a length.

    lengths: [n] tokens of each label. vector_of: [n], equal numbers for labels of one vector.
    """
    _, vector = torch.unique(vector_of, return_inverse=True)
    offsets, _ = offsets_in_rows(lengths, vector, int(vector.max()) + 1)
    pairs = torch.stack([vector, offsets // limit], dim=1)
    return torch.unique(pairs, dim=0, return_inverse=True)[1]


def offsets_in_rows(sizes: Tensor, row_of: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Where each item begins when items of one row follow each other; and the rows' lengths."""
    row_lengths = torch.zeros(rows, dtype=torch.int64).index_add(0, row_of, sizes)
    order = torch.argsort(row_of, stable=True)
    begins = sizes[order].cumsum(0) - sizes[order]
    begins -= (row_lengths.cumsum(0) - row_lengths)[row_of[order]]
    offsets = torch.empty_like(sizes)
    offsets[order] = begins
    return offsets, row_lengths
