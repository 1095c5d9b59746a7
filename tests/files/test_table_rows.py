from __future__ import annotations

from collections import deque

import pyarrow as pa
import pytest
from pyarrow import parquet

from selfie_adapters.errors import DataError
from selfie_adapters.files.table_rows import file_rows


def test_a_parquet_file_whose_rows_unpack_without_end_is_refused(tmp_path):
    row = "an owl " * 30
    parquet.write_table(pa.table({"label": [row] * 400_000}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 20_000
    rows = file_rows(tmp_path / "a.parquet")
    assert next(rows)[1] == {"label": row}
    with pytest.raises(DataError, match=r"a\.parquet, after row \d+: its rows unpack to far more"):
        deque(rows, maxlen=0)


def test_rows_of_a_parquet_file_have_their_numbers(tmp_path):
    parquet.write_table(pa.table({"n": range(3000)}), tmp_path / "a.parquet")
    rows = [*file_rows(tmp_path / "a.parquet")]
    assert rows[0] == (f"{tmp_path / 'a.parquet'}, row 1", {"n": 0})
    assert rows[-1] == (f"{tmp_path / 'a.parquet'}, row 3000", {"n": 2999})
