from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest
import torch

from selfie_adapters.dataset.stream import stream_rows
from selfie_adapters.dataset.vectors import open_vectors
from selfie_adapters.files import atomic_path

ROWS = torch.arange(35.0).reshape(7, 5) / 3


def stream_vectors(path, *vectors):
    with atomic_path(path) as temporary:
        stream_rows(temporary, *vectors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block", [1, 3, 7])
def test_the_file_is_a_tensor_that_torch_loads_and_maps(dtype, block, tmp_path):
    path = tmp_path / "v.pt"
    stream_vectors(path, (7, 5), dtype, ROWS.split(block))
    assert torch.equal(torch.load(path, weights_only=True), ROWS.to(dtype))
    assert torch.equal(open_vectors(path), ROWS.to(dtype))


def test_the_archive_is_whole(tmp_path):
    stream_vectors(tmp_path / "ours.pt", (7, 5), torch.float32, ROWS.split(2))
    with (tmp_path / "theirs.pt").open("wb") as file:
        torch.save(ROWS, file)
    with (
        zipfile.ZipFile(tmp_path / "ours.pt") as ours,
        zipfile.ZipFile(tmp_path / "theirs.pt") as theirs,
    ):
        assert ours.testzip() is None  # every checksum holds
        assert ours.namelist() == theirs.namelist()
        for name in ours.namelist():
            if not name.endswith("serialization_id"):
                assert ours.read(name) == theirs.read(name), name


@pytest.mark.parametrize("rows", [6, 8])
def test_other_rows_than_promised_leave_no_file(rows, tmp_path):
    with pytest.raises(ValueError, match="rows came where 7"):
        stream_vectors(tmp_path / "v.pt", (7, 5), torch.float32, torch.ones(rows, 5).split(1))
    assert not list(tmp_path.iterdir())


def test_a_failing_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "v.pt"
    path.write_bytes(b"old")

    def blocks():
        yield ROWS[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream_vectors(path, (7, 5), torch.float32, blocks())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


STALLED = """
import sys, time, torch
from selfie_adapters.dataset.stream import stream_rows
from selfie_adapters.files import atomic_path
def blocks():
    yield torch.ones(3, 5)
    print("writing", flush=True)
    time.sleep(60)
with atomic_path(sys.argv[1]) as temporary:
    stream_rows(temporary, (7, 5), torch.float32, blocks())
"""


def test_what_a_killed_writer_left_is_removed_and_a_living_one_left_alone(tmp_path):
    path = tmp_path / "v.pt"
    command = [sys.executable, "-c", STALLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "writing\n"
        (part,) = tmp_path.iterdir()
        stream_vectors(path, (7, 5), torch.float32, [ROWS])
        assert part.exists()  # its writer lives
        writer.kill()
    assert sorted(tmp_path.iterdir()) == sorted([part, path])
    stream_vectors(path, (7, 5), torch.float32, [ROWS])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_more_than_four_gigabytes(tmp_path):
    """Sizes then stand in other fields of the archive."""
    path = tmp_path / "v.pt"
    block = torch.randn(8192, 8192, generator=torch.Generator().manual_seed(0))
    stream_vectors(path, (17 * 8192, 8192), torch.float32, [block] * 17)
    mapped = open_vectors(path)
    assert mapped.shape == (17 * 8192, 8192)
    assert torch.equal(mapped[-8192:], block)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    path.unlink()
