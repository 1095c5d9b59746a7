from __future__ import annotations

import pytest

from selfie_adapters.errors import DataError
from selfie_adapters.files.memory import MemoryLimit

MIB = 2**20


@pytest.mark.parametrize(("size", "held", "left"), [(1, 0, 64), (32, 0, 128), (32, 32, 96)])
def test_a_file_may_take_four_times_its_size_or_64_mib(size, held, left):
    limit = MemoryLimit("a.json", size * MIB, held * MIB)
    for _ in range(left):
        limit.take(MIB)
    with pytest.raises(DataError, match=r"a\.json: [\d,]+ bytes of tiny values"):
        limit.take(1)
