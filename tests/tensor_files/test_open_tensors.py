"""Vector files that people have, and files that only claim to be some."""

from __future__ import annotations

import errno
import io
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from selfie_adapters.dataset.source import read_label_source
from selfie_adapters.dataset.vectors import open_directions, open_vectors
from selfie_adapters.errors import DataError, MissingFileError, StorageError
from tiny_gguf import control_vector, save_gguf

ROWS = torch.arange(1.0, 13.0).reshape(4, 3)


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("name", ["v.pt", "v.PT", "v.pth", "v.NPY", "v.npz", "v.Safetensors"])
def test_every_suffix_in_either_case(name, tmp_path):
    path, kind = tmp_path / name, name.lower().rsplit(".", 1)[-1]
    if kind == "npy":
        with path.open("wb") as file:
            np.save(file, ROWS.numpy())
    elif kind == "npz":
        np.savez(path, vectors=ROWS.numpy(), names=np.array(list("abcd")))
    elif kind == "safetensors":
        save_file({"v": ROWS}, path)
    else:
        saved(path, ROWS)
    assert torch.equal(open_vectors(path), ROWS)


@pytest.mark.parametrize(
    "content",
    [
        torch.nn.Parameter(ROWS),
        ROWS.clone().requires_grad_(),
        ROWS.T.contiguous().T,
        {"a": {"vectors": ROWS}, "step": 3},
        [{"x": 1}, (ROWS,)],
    ],
)
def test_what_torch_saves_around_a_tensor(content, tmp_path):
    found = open_vectors(saved(tmp_path / "v.pt", content))
    assert torch.equal(found, ROWS)
    assert not found.requires_grad


@pytest.mark.parametrize(
    "dtype", [">f4", ">f8", "<f2", "longdouble", np.float64], ids=lambda d: str(d)
)
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_numpy_floats_of_any_size_and_order(dtype, write, tmp_path):
    array = ROWS.numpy().astype(dtype)
    np.save(tmp_path / "v.npy", array)
    write(tmp_path / "v.npz", v=np.asfortranarray(array))
    for name in ("v.npy", "v.npz"):
        assert torch.equal(open_vectors(tmp_path / name).float(), ROWS)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "bfloat16", "float16"])
def test_small_floats(name, tmp_path):
    rows = torch.tensor([[1.0, 2.0, -0.5], [4.0, 0.25, 8.0]])
    saved(tmp_path / "v.pt", rows.to(getattr(torch, name)))
    assert torch.equal(open_vectors(tmp_path / "v.pt")[torch.tensor([1, 0])].float(), rows[[1, 0]])


def compressed(path):
    source = io.BytesIO()
    torch.save(ROWS, source)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    return path


def test_a_compressed_archive_is_unpacked_not_mapped(tmp_path):
    assert torch.equal(open_vectors(compressed(tmp_path / "v.pt")), ROWS)


def test_no_room_to_unpack_is_not_called_damage(tmp_path, monkeypatch):
    file = compressed(tmp_path / "v.pt")

    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(StorageError, match=r"\.pt cannot be written: No space left on device"):
        open_vectors(file)


@pytest.mark.parametrize("name", ["v.pt", "v.safetensors", "v.npy", "v.npz"])
def test_a_file_that_must_not_be_read_is_not_called_damaged(name, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(b"x")

    def closed(*_arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", closed)  # root may read everything
    with pytest.raises(DataError, match=f"{name} cannot be read: Permission denied"):
        open_vectors(tmp_path / name)


def test_one_direction_is_one_row(tmp_path):
    np.save(tmp_path / "v.npy", ROWS[0].numpy())
    save_file({"direction": ROWS[0]}, tmp_path / "v.safetensors")
    for path in (saved(tmp_path / "v.pt", ROWS[0]), tmp_path / "v.npy", tmp_path / "v.safetensors"):
        rows, layers = open_directions(path)
        assert torch.equal(rows, ROWS[:1])
        assert layers is None


@pytest.mark.parametrize("key", ["{}", "layer_{}", "layers.{}", "L{}", "block {}", "direction.{}"])
def test_directions_by_layer_keep_their_layers(key, tmp_path):
    names = {key.format(layer): ROWS[i] for i, layer in enumerate((12, 3, 27))}
    source = read_label_source(saved(tmp_path / "v.pt", names))
    assert torch.equal(source.vectors(0, 9), ROWS[[1, 0, 2]])
    assert [source.layer(i) for i in range(3)] == [3, 12, 27]
    numbered = saved(tmp_path / "n.pt", {12: ROWS[0], 3: ROWS[1]})
    assert open_directions(numbered).layers == (3, 12)
    named = saved(tmp_path / "m.pt", {"joy": ROWS[0], "fear": ROWS[1]})
    assert open_directions(named).layers is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ROWS[:1].expand(10**9, 3), "claims 3,000,000,000 numbers .* stores fewer"),
        (torch.ones(12).as_strided((10, 3), (1, 1)), "claims 30 numbers"),
        (ROWS.to_sparse(), "is sparse"),
        (torch.empty(4, 3, device="meta"), 'the device "meta"'),
        (ROWS.to(torch.complex64), "torch.complex64; floating point"),
        (torch.empty(2**40, 0), "no numbers at all"),
        ({"a": ROWS[0], "b": ROWS[0, :2]}, "directions .* of one width; found a .3., b .2."),
        ([], "found no tensor"),
    ],
)
def test_tensors_that_are_no_vectors(content, message, tmp_path):
    with pytest.raises(DataError, match=rf"v\.pt: .*{message}"):
        open_vectors(saved(tmp_path / "v.pt", content))


def test_an_object_stored_many_times_is_visited_once(tmp_path):
    laugh: list = [1]
    for _ in range(60):
        laugh = [laugh, laugh]  # 2**60 items to whoever follows each
    assert torch.equal(open_vectors(saved(tmp_path / "v.pt", [laugh, ROWS])), ROWS)


def header(shape, descr="<f4"):
    target = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        target, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return target.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("v.npy", header((2**40, 4096)), "cut off: the header claims"),
        ("v.npy", header((2**62, 2**62)), "cut off: the header claims"),
        ("v.npy", header((3, -1)) + bytes(64), "not a plain .npy"),
        ("v.npy", header((2, 2), "<U1") + bytes(64), "floating point is expected"),
        ("v.npy", header((2,), "|O") + bytes(64), "pickled objects"),
        ("v.npy", b"\x93NUMPY\x01\x00\x08\x00{'descr'", "not a plain .npy"),
        ("v.npy", b"", "not a plain .npy"),
        ("v.pt", b"", "cut off"),
        ("v.pt", b"\x80\x02" + b"]" * 2_000_000, "bytes of Python objects"),
        ("v.pt", b"\x80\x02]r\xff\xff\xff\x7f.", "v.pt"),
        ("v.pt", pickle.dumps([1, 2], 2), "v.pt"),
        ("v.pt", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("v.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("v.safetensors", b"", "cut off"),
        ("v.safetensors", b"\xff" * 8 + b"{}", "cut off"),
        ("v.bin", b"x", "are read from"),
    ],
)
def test_damaged_files(name, data, message, tmp_path):
    (tmp_path / name).write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            open_vectors(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["v.npz", "v.pt"])
def test_compressed_bombs_are_refused_unread(name, tmp_path):
    with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(4):
            archive.writestr(f"x/{i}.npy", header((2**22, 4)) + bytes(2**26))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="unpack to far more"):
            open_vectors(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_no_file_at_all(tmp_path):
    os.mkfifo(tmp_path / "v.pt")
    with pytest.raises(MissingFileError, match="pipe"):
        open_vectors(tmp_path / "v.pt")
    with pytest.raises(MissingFileError, match="folder"):
        open_vectors(tmp_path)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_control_vector_is_directions_by_layer(dtype, tmp_path):
    file = tmp_path / "c.gguf"
    control_vector(file, dtype, {10: [4.0, 5.0, 6.5], 2: [1.0, -2.0, 3.0]})
    rows, layers = open_directions(file)
    assert layers == (2, 10)
    assert rows.tolist() == [[1.0, -2.0, 3.0], [4.0, 5.0, 6.5]]
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"c\.gguf: cut off, or not a GGUF file"):
        open_directions(file)


def test_a_model_in_gguf_is_no_vectors(tmp_path):
    save_gguf(tmp_path / "m.gguf")
    with pytest.raises(DataError, match="one 2-D tensor .* is expected"):
        open_directions(tmp_path / "m.gguf")


def test_a_name_of_a_million_characters_is_refused_at_once(tmp_path):
    # torch's own message about such a name takes it hours to put together
    name = b"\x80\x02ctorch._utils\n_rebuild" + b"9" * 1_000_000 + b"\n."
    with zipfile.ZipFile(tmp_path / "v.pt", "w") as archive:
        archive.writestr("archive/data.pkl", name)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/numbers", bytes(20_000_000))  # the pickle is a small part
    with pytest.raises(DataError, match=r"v\.pt: holds a name of 1,000,\d+ characters"):
        open_vectors(tmp_path / "v.pt")
