"""Every kind of file that is written: a full disk is one error that names it, and nothing is torn.

The limit on a file's size stands for the disk: it needs no rights, and stops writers in the middle.
"""

from __future__ import annotations

import errno
import resource
from contextlib import contextmanager

import pytest
import torch

from selfie_adapters.adapters import create_adapter
from selfie_adapters.dataset.stream import stream_rows
from selfie_adapters.dataset.vectors import save_vectors
from selfie_adapters.errors import StorageError
from selfie_adapters.files import atomic_path, write_json
from selfie_adapters.files.json_lines import append_jsonl, read_jsonl, write_jsonl

VECTORS = torch.randn(500, 48, generator=torch.Generator().manual_seed(0))
ADAPTER = create_adapter("full_rank", 48, seed=0)
ROWS = [{"text": "naïve — 日本" * 20}] * 200


@contextmanager
def room(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _parquet(path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    schema = pyarrow.schema([("text", pyarrow.string())])
    rows = [{"text": f"{i}" * 20} for i in range(3000)]
    with atomic_path(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))


def _figure(path):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2])
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _stream(path):
    with atomic_path(path) as temporary:
        stream_rows(temporary, (500, 48), torch.float32, [VECTORS])


WRITERS = {
    "x.json": lambda path: write_json(path, ROWS),
    "x.jsonl": lambda path: write_jsonl(path, ROWS),
    "v.safetensors": lambda path: save_vectors(path, VECTORS),
    "v.pt": lambda path: save_vectors(path, VECTORS),
    "s.pt": _stream,
    "a.safetensors": ADAPTER.save,
    "a.pt": ADAPTER.save,
    "x.parquet": _parquet,
    "x.png": _figure,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("size", [0, 700, 3000])
def test_a_full_disk_is_one_error_and_the_old_file_stays(tmp_path, name, size):
    path, write = tmp_path / name, WRITERS[name]
    write(path)
    before = path.read_bytes()
    assert len(before) > 3000
    with (
        pytest.raises(StorageError, match=rf"^\S*{name} cannot be written: ") as raised,
        room(size),
    ):
        write(path)
    assert "\n" not in str(raised.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    write(path)
    assert path.read_bytes() == before


def test_rows_that_do_not_fit_leave_none(tmp_path):
    path = tmp_path / "x.jsonl"
    append_jsonl(path, {"n": 1})
    for size in range(path.stat().st_size, 40):
        expected = pytest.raises(StorageError, match="x.jsonl cannot be written: File too large")
        with expected, room(size):
            append_jsonl(path, {"text": "日本 — naïve"}, {"n": 3})
        assert read_jsonl(path) == [{"n": 1}]
    append_jsonl(path, {"n": 2})
    assert read_jsonl(path) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free space, or choose"),
        (errno.EDQUOT, "Free space, or choose"),
        (errno.EROFS, "Choose"),
        (errno.EIO, "Choose"),
    ],
)
def test_each_way_in_which_a_disk_refuses(tmp_path, number, advice):
    message = rf"x.json cannot be written: refused. {advice} another path\.$"
    expected = pytest.raises(StorageError, match=message)
    with expected, atomic_path(tmp_path / "x.json"):
        raise OSError(number, "refused")


def test_errors_that_are_not_of_the_disk_pass(tmp_path):
    for error in (ValueError("x"), KeyError("y"), OSError(errno.ECONNRESET, "z")):
        with pytest.raises(type(error)), atomic_path(tmp_path / "x.json"):
            raise error


def test_a_closed_folder_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"^/proc/nothing/x.json cannot be written: "):
        write_json("/proc/nothing/x.json", {})
    with pytest.raises(StorageError, match=r"^/proc/x.jsonl cannot be written: "):
        append_jsonl("/proc/x.jsonl", {})
