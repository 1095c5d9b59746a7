"""What ties labels to their vectors: a digest of the vectors in the labels' metadata.

Vectors and labels are two files, and a writer that is interrupted over an older result of the same
name leaves new vectors with old labels. The digest is of the tensor, not of its container, so
converting, merging and splitting keep it.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

DIGEST_KEY = "vectors_digest"
"""Key of a section's metadata. Files without it are read unchecked."""

_WHOLE = 2**28  # bytes up to which all rows are hashed: under half a second
_SAMPLE = 2**26  # bytes that are hashed of a larger tensor: vectors of 10 GB load at once
_BLOCK = 2**24


def vectors_digest(vectors: Tensor) -> str:
    """SHA-256 of dtype, shape and rows of `vectors` [rows, d_model].

    Of a tensor above 256 MiB, 64 MiB of evenly spaced rows stand for all of them: such a file is
    made from a decoder, and another decoder differs everywhere.
    """
    rows, width = vectors.shape
    row_bytes = max(1, width * vectors.element_size())
    digest = hashlib.sha256(f"{vectors.dtype} {rows} {width}\n".encode())
    chosen = rows if rows * row_bytes <= _WHOLE else max(1, _SAMPLE // row_bytes)
    positions = torch.arange(chosen) * rows // max(1, chosen)
    for part in positions.split(max(1, _BLOCK // row_bytes)):
        # Slices of a mapped file are not copied; gathered rows are.
        block = vectors[int(part[0]) : int(part[-1]) + 1] if chosen == rows else vectors[part]
        digest.update(block.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
