"""`.parquet` files with columns of vectors: one list of floats of one length in every row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from selfie_adapters.errors import DataError
from selfie_adapters.extras import extra
from selfie_adapters.files import read_as
from selfie_adapters.tensor_files.tensors import FoundTensors, Unusable, unpack_limit

_ROWS_AT_ONCE = 1024


def parquet_tensors(file: Path) -> FoundTensors:
    """The columns of vectors of a file by name, each [rows, width], float32 or float64.

    They are read into memory: Parquet packs its numbers. Raises MissingExtraError without pyarrow,
    DataError for a damaged file and for one whose vectors unpack to far more than its size.
    """
    with extra("export", "Reading Parquet"):
        import pyarrow
        from pyarrow import parquet
    with read_as(file, "a Parquet file"), parquet.ParquetFile(file) as opened:
        names = [
            one.name
            for one in opened.schema_arrow
            if _is_list(pyarrow, one.type) and pyarrow.types.is_floating(one.type.value_type)
        ]
        return {name: _column(file, opened, name) for name in names}


def _column(file: Path, opened: Any, name: str) -> torch.Tensor | Unusable:
    parts: list[np.ndarray] = []
    width, row, room = None, 0, unpack_limit(file)
    for batch in opened.iter_batches(_ROWS_AT_ONCE, columns=[name]):
        column = batch.column(0)
        if column.null_count:
            return Unusable(f"holds no vector in {column.null_count} rows; remove those rows")
        flat = column.flatten()
        room -= flat.nbytes
        if room < 0:
            raise DataError(f"{file}: {name} unpacks to far more than the file's size.")
        lengths = set(column.value_lengths().to_pylist()) if len(column) else set()
        width = lengths.pop() if width is None and lengths else width
        if lengths - {width}:
            other = next(iter(lengths - {width}))
            return Unusable(
                f"holds vectors of different lengths ({width} and {other}, rows {row} to "
                f"{row + len(column) - 1}); one length is expected"
            )
        if flat.null_count:
            return Unusable(f"has empty numbers in rows {row} to {row + len(column) - 1}")
        numbers = flat.to_numpy(zero_copy_only=False)
        if numbers.dtype == np.float16:
            numbers = numbers.astype(np.float32)
        parts.append(numbers.reshape(len(column), -1))
        row += len(column)
    if not width:
        return Unusable("holds no numbers at all")
    return torch.from_numpy(np.concatenate(parts))


def _is_list(pyarrow: Any, kind: Any) -> bool:
    types = pyarrow.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
