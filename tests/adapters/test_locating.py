"""From a file, a folder or a hub path to one adapter file."""

from __future__ import annotations

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from selfie_adapters.adapters import create_adapter, find_adapter_file, load_adapter
from selfie_adapters.errors import AdapterError, MissingFileError


@pytest.fixture
def adapter():
    return create_adapter("scalar_affine", 6, init_scale=4.0)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_folder_with_one_adapter_among_other_files_is_enough(suffix, adapter, tmp_path):
    path = adapter.save(tmp_path / f"adapter{suffix}")
    torch.save({"step": 3}, tmp_path / "state.pt")
    torch.save(torch.ones(4, 6), tmp_path / "vectors.pt")
    save_file({"layer_0": torch.ones(6)}, tmp_path / "mean-vectors.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"")
    (tmp_path / "metrics.jsonl").write_text("")
    assert find_adapter_file(tmp_path) == path
    assert load_adapter(str(tmp_path)).scale() == pytest.approx(4.0)


def test_a_folder_with_several_adapters_lists_them(adapter, tmp_path):
    adapter.save(tmp_path / "best.safetensors")
    adapter.save(tmp_path / "final.pt")
    with pytest.raises(AdapterError, match=r"2 adapter files.*best\.safetensors, final\.pt"):
        load_adapter(tmp_path)


def test_a_folder_without_an_adapter_says_what_is_there(tmp_path):
    with pytest.raises(AdapterError, match="holds no adapter file"):
        load_adapter(tmp_path)
    torch.save(torch.ones(4, 6), tmp_path / "vectors.pt")
    with pytest.raises(AdapterError, match=r"no adapter file.*Not adapters: vectors\.pt"):
        load_adapter(tmp_path)


def test_offline_hub_path_says_what_was_tried(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AdapterError) as refused:
        load_adapter("some-owner/no-such-repo/sub/a.safetensors")
    message = str(refused.value)
    assert "there is no such local file" in message
    assert "some-owner/no-such-repo/sub/a.safetensors: cannot be fetched from the hub" in message
    assert "HF_HUB_OFFLINE is set" in message


def test_hub_path_is_downloaded_by_repository_and_file(adapter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored = adapter.save(tmp_path / "cache" / "x.safetensors")
    asked = []

    def download(repo: str, filename: str) -> str:
        asked.append((repo, filename))
        return str(stored)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load_adapter("owner/repo/folder/x.safetensors").kind == "scalar_affine"
    assert asked == [("owner/repo", "folder/x.safetensors")]


@pytest.mark.parametrize(
    "path", ["runs/a.safetensors", "./runs/x/a.safetensors", "owner/repo", "a/b/c/adapter.bin"]
)
def test_paths_that_cannot_be_hub_paths_are_missing_files(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingFileError, match="no such file"):
        load_adapter(path)


def test_a_typing_error_beside_local_files_never_asks_the_hub(adapter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adapter.save("runs/first/adapter.safetensors")

    def download(*args: str) -> str:
        raise AssertionError("asked the hub")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(MissingFileError, match=r"Nearby: adapter\.safetensors"):
        load_adapter("runs/first/adaptor.safetensors")
