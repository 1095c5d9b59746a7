"""Labels that were written with other vectors are refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from selfie_adapters.dataset import Item, Section, load_dataset, save_dataset
from selfie_adapters.dataset import vectors as vectors_module
from selfie_adapters.dataset.editing import convert_file, merge_files, split_file
from selfie_adapters.dataset.vectors import DIGEST_KEY, vectors_digest
from selfie_adapters.errors import DataError

METADATA = {
    "dataset_name": "a",
    "filename": "a.safetensors",
    "layer": 1,
    "source": "test",
    "vector_type": "random",
}
ITEMS = [Item(i, [f"label {i}"], "val" if i == 0 else "train") for i in range(6)]


def section(seed, dtype=torch.float32):
    vectors = torch.randn(6, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return Section(METADATA, vectors, ITEMS)


def test_the_digest_is_the_sha256_of_dtype_shape_and_bytes():
    vectors = section(0).vectors
    expected = hashlib.sha256(b"torch.float32 6 8\n" + vectors.numpy().tobytes()).hexdigest()
    assert vectors_digest(vectors) == expected
    assert vectors_digest(vectors.T.contiguous().T) == expected
    assert len({vectors_digest(v) for v in (vectors, vectors.half(), vectors[:5], -vectors)}) == 4


def test_of_large_tensors_evenly_spaced_rows_stand_for_all(monkeypatch):
    vectors = torch.arange(400.0).view(100, 4)
    whole = vectors_digest(vectors)
    monkeypatch.setattr(vectors_module, "_WHOLE", 1000)
    monkeypatch.setattr(vectors_module, "_SAMPLE", 160)  # ten rows of 16 bytes
    monkeypatch.setattr(vectors_module, "_BLOCK", 48)
    rows = b"".join(vectors[row].numpy().tobytes() for row in range(0, 100, 10))
    assert vectors_digest(vectors) == hashlib.sha256(b"torch.float32 100 4\n" + rows).hexdigest()
    assert vectors_digest(vectors) != whole


class Killed(BaseException):
    pass


def stop_before_name(patch, name):
    """The writer is killed when the file that is called `name` would get its name."""

    def replace(source, target, real=Path.replace):
        if Path(target).name == name:
            raise Killed
        return real(source, target)

    patch.setattr(Path, "replace", replace)


def test_a_writer_killed_before_the_first_name_leaves_nothing_in_its_own_way(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    with monkeypatch.context() as patch:
        stop_before_name(patch, "a.safetensors")
        with pytest.raises(Killed):
            save_dataset(path, [section(1)], companions={"a.mean.safetensors": b"mean"})
    assert not list(tmp_path.iterdir())
    save_dataset(path, [section(1)], companions={"a.mean.safetensors": b"mean"})
    assert torch.equal(load_dataset(path).sections[0].vectors, section(1).vectors)


def test_a_stopped_conversion_is_given_again_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    save_dataset(path, [section(1)])
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        stop_before_name(patch, "a.pt")
        with pytest.raises(Killed):
            convert_file(path)
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.json", "a.safetensors"]
    convert_file(path)
    assert torch.equal(load_dataset(path).sections[0].vectors, section(1).vectors)


def test_a_writer_killed_between_vectors_and_labels_leaves_no_mixture(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    save_dataset(path, [section(0)], overwrite=True)

    with monkeypatch.context() as patch:
        stop_before_name(patch, path.name)
        with pytest.raises(Killed):
            save_dataset(path, [section(1)], overwrite=True)
    with pytest.raises(DataError, match=r"a.safetensors is not the vector file.*preparation again"):
        load_dataset(path)
    save_dataset(path, [section(1)], overwrite=True)
    assert torch.equal(load_dataset(path).sections[0].vectors, section(1).vectors)


@pytest.mark.parametrize("stated", ["", "0" * 64, 5, ["x"]])
def test_a_wrong_digest_is_refused_and_none_is_not_needed(tmp_path, stated):
    path = tmp_path / "a.json"
    save_dataset(path, [section(0)], overwrite=True)
    document = json.loads(path.read_text())
    document[0]["metadata"][DIGEST_KEY] = stated
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=f"metadata.{DIGEST_KEY}"):
        load_dataset(path)
    del document[0]["metadata"][DIGEST_KEY]
    path.write_text(json.dumps(document))
    load_dataset(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_converting_merging_and_splitting_keep_it(tmp_path, dtype):
    path = tmp_path / "one/a.json"
    save_dataset(path, [section(0, dtype)], overwrite=True)
    convert_file(path)
    split_file(path, 0.5, 1)
    other = Section({**METADATA, "dataset_name": "b"}, section(1, dtype).vectors, ITEMS)
    save_dataset(tmp_path / "two/b.json", [other], overwrite=True)
    merged = merge_files([path, tmp_path / "two/b.json"], tmp_path / "all.json")
    for kept, written in zip(
        load_dataset(merged).sections, (section(0, dtype), other), strict=True
    ):
        assert kept.metadata[DIGEST_KEY] == vectors_digest(written.vectors)
