"""Columns of vectors in Parquet files."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from selfie_adapters.dataset.source import read_label_source
from selfie_adapters.dataset.vectors import open_vectors
from selfie_adapters.errors import DataError
from selfie_adapters.tensor_files import open_tensors

ROWS = np.arange(24, dtype=np.float32).reshape(6, 4)


def column(kind, rows=ROWS):
    return pa.array([list(map(float, row)) for row in rows], kind)


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32()),
        pa.list_(pa.float64()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float32(), 4),
    ],
    ids=str,
)
def test_a_column_of_lists_is_rows_of_vectors(kind, tmp_path):
    table = pa.table({"name": list("abcdef"), "vector": column(kind), "size": range(6)})
    parquet.write_table(table, tmp_path / "v.parquet", row_group_size=2)
    found = open_vectors(tmp_path / "v.parquet")
    assert torch.equal(found.float(), torch.from_numpy(ROWS))
    source = read_label_source(tmp_path / "v.parquet").only("4,1")
    assert torch.equal(source.vectors(0, 2), torch.from_numpy(ROWS[[1, 4]]))
    assert source.layer(0) is None


def write(tmp_path, **columns):
    parquet.write_table(pa.table(columns), tmp_path / "v.parquet")
    return tmp_path / "v.parquet"


def test_what_is_no_column_of_vectors_is_refused(tmp_path):
    lists = pa.list_(pa.float32())
    for columns, message in (
        ({"a": column(lists), "b": column(lists)}, r"one 2-D tensor .* found a \[6, 4\], b"),
        ({"a": ["x"]}, "found no tensor"),
        ({"a": pa.array([[1.0, 2.0], [1.0]], lists)}, "vectors of different lengths"),
        ({"a": pa.array([[1.0], None], lists)}, "holds no vector in 1 rows"),
        ({"a": pa.array([[1.0, None]], lists)}, "has empty numbers"),
        ({"a": pa.array([[], []], lists)}, "holds no numbers"),
        ({"a": pa.array([], lists)}, "holds no numbers"),
        ({"a": pa.array([[1, 2]])}, "found no tensor"),
    ):
        with pytest.raises(DataError, match=rf"v\.parquet: .*{message}"):
            open_vectors(write(tmp_path, **columns))


def test_a_small_file_cannot_claim_much_memory(tmp_path):
    rows = pa.array(np.zeros((260, 65_536), np.float32).tolist(), pa.list_(pa.float32()))
    parquet.write_table(pa.table({"a": rows}), tmp_path / "v.parquet", compression="zstd")
    assert (tmp_path / "v.parquet").stat().st_size < 10**6
    with pytest.raises(DataError, match="unpacks to far more"):
        open_tensors(tmp_path / "v.parquet")


def test_damaged_files_are_named(tmp_path):
    whole = write(tmp_path, a=column(pa.list_(pa.float32()))).read_bytes()
    for content in (b"", b"PAR1", whole[:-20], whole[: len(whole) // 2], b"x" * 100):
        (tmp_path / "v.parquet").write_bytes(content)
        with pytest.raises(DataError, match=r"v\.parquet: cut off, or not a Parquet file"):
            open_tensors(tmp_path / "v.parquet")
