"""A shard's files after whatever can happen to them between two runs."""

from __future__ import annotations

import json

import pytest
import torch

from selfie_adapters.dataset.source import LabelSource
from selfie_adapters.errors import DataError
from selfie_adapters.labelling.rows import FailedRow, LabelRow, row_fields
from selfie_adapters.labelling.shards import Shard, ShardFile, shard_rows

SOURCE = LabelSource.of_rows(torch.zeros(8, 2))


def rows(index, label="größer 🦉"):
    numbers = {"scale": 1.0, "log_prob": -1.0, "zero_log_prob": -2.0, "gain": 0.5, "tokens": 2}
    return [
        LabelRow(index=index, label=label, raw=label, sample=s, seed=s, ended=True, **numbers)
        for s in (0, 1)
    ]


@pytest.fixture
def shard(tmp_path):
    return Shard(str(tmp_path), 0, 0, 6)


def opened(shard):
    return ShardFile(shard, SOURCE, 2, 2)


def finished(shard):
    file = opened(shard)
    file.append({at: rows(at) for at in range(6)})
    file.finish()
    return shard.path.read_bytes()


def missing(shard):
    return [at for group in opened(shard).missing() for at in group]


def test_a_part_cut_at_any_byte_of_its_last_line_resumes_to_the_same_bytes(shard):
    whole = finished(shard)
    shard.path.unlink()
    opened(shard).append({at: rows(at) for at in range(4)})
    part = shard.path.with_name(shard.path.name + ".part")
    content = part.read_bytes()
    last = content.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(content), 7):
        part.write_bytes(content[:cut])
        file = opened(shard)
        assert [at for group in file.missing() for at in group] == [2, 3, 4, 5]
        file.append({at: rows(at) for at in range(2, 6)})
        file.finish()
        assert shard.path.read_bytes() == whole
        shard.path.unlink()


def test_a_finished_shard_that_lost_rows_is_not_complete(shard):
    whole = finished(shard)
    lines = whole.splitlines(keepends=True)
    for kept, expected in (
        ([], [0, 1, 2, 3, 4, 5]),
        (lines[:-1], [4, 5]),  # the group it was in is labelled as it was
        (lines[:4], [2, 3, 4, 5]),
        ([*lines[:5], *lines[6:]], [2, 3]),
    ):
        shard.path.write_bytes(b"".join(kept))
        assert missing(shard) == expected
    file = opened(shard)
    file.append({at: rows(at) for at in (2, 3)})
    file.finish()
    assert shard.path.read_bytes() == whole


def test_a_failed_vector_is_tried_again_and_its_neighbours_stay(shard):
    file = opened(shard)
    file.append({**{at: rows(at) for at in range(6)}, 3: [FailedRow(index=3, error="e")]})
    file.finish()
    assert missing(shard) == [3]


def test_rows_that_are_not_this_shards_or_are_there_twice_are_named(shard):
    lines = finished(shard).decode().splitlines(keepends=True)
    foreign = json.dumps(row_fields(rows(7)[0])) + "\n"
    shard.path.write_text("".join([*lines, foreign]))
    with pytest.raises(DataError, match=r"labels-00000\.jsonl: row 7 is not one of this shard's"):
        shard_rows(shard, SOURCE, 2)
    shard.path.write_text("".join([*lines, lines[3]]))
    with pytest.raises(DataError, match=r"labels-00000\.jsonl, line 13: row 1 has this row"):
        shard_rows(shard, SOURCE, 2)


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        '{"position": 9, "rows": [{"index": 9, "error": "e"}]}',
        '{"position": 1, "rows": []}',
        '{"position": 1, "rows": [{"index": 0, "error": "e"}]}',
        '{"position": 1, "rows": [{"index": 1}]}',
        '{"position": "1", "rows": [{"index": 1, "error": "e"}]}',
    ],
)
def test_a_part_with_another_line_is_named(shard, line):
    part = shard.path.with_name(shard.path.name + ".part")
    part.write_text('{"position": 0, "rows": [{"index": 0, "error": "e"}]}\n' + line + "\n")
    with pytest.raises(DataError, match=r"labels-00000\.jsonl\.part, line 2"):
        opened(shard)


def test_a_vector_with_more_rows_than_the_run_makes_is_not_complete(shard):
    finished(shard)
    assert len(shard_rows(shard, SOURCE, 2)) == 6
    assert shard_rows(shard, SOURCE, 1) == {}
