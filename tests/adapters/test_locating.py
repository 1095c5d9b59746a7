"""From a file, a folder or a hub path to one adapter file."""

from __future__ import annotations

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from hub_server import hub_server, use_hub
from selfie_adapters.adapters import create_adapter, find_adapter_file, load_adapter
from selfie_adapters.adapters.locating import find_mean_file
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
    "path", ["runs/a.safetensors", "./runs/x/a.safetensors", "own er/repo", "a/b/c/adapter.bin"]
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


def test_a_typing_error_in_a_folders_name_beside_local_ones_never_asks_the_hub(
    adapter, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    adapter.save("runs/first/adapter.safetensors")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    with pytest.raises(MissingFileError, match="no such file"):
        load_adapter("runs/fisrt")


def test_a_repository_gives_its_adapter_with_all_that_belongs_to_it(adapter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "hub/owner/repo"
    adapter.save(folder / "adapter.safetensors")
    adapter.save(folder / "adapter.layer_12_at_-1.safetensors")
    save_file({"layer_12": torch.ones(6)}, folder / "adapter.mean.safetensors")
    (folder / "adapter.confidence.json").write_text("{}")
    (folder / "model-00001-of-00200.safetensors").write_bytes(b"weights that nobody asked for")
    with hub_server(tmp_path / "hub") as (address, requests):
        use_hub(monkeypatch, address, tmp_path / "cache")
        found = load_adapter("owner/repo")
    assert not any("model-00001" in path for _, path, _ in requests)
    # The server is gone: all of it is in the hub's cache.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = load_adapter("owner/repo")
    assert found.scale() == pytest.approx(4.0)
    assert list(found.specialists) == [(12, "-1")]
    assert found.file is not None
    mean = find_mean_file(None, found.file)
    assert mean is not None
    assert torch.equal(load_file(mean)["layer_12"], torch.ones(6))
    assert found.file.with_name("adapter.confidence.json").read_text() == "{}"


def test_a_repository_of_several_adapters_lists_them(adapter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adapter.save(tmp_path / "hub/owner/several/goodfire.safetensors")
    adapter.save(tmp_path / "hub/owner/several/wikipedia.pt")
    (tmp_path / "hub/owner/text").mkdir()
    (tmp_path / "hub/owner/text/README.md").write_text("nothing else")
    with hub_server(tmp_path / "hub") as (address, _):
        use_hub(monkeypatch, address, tmp_path / "cache")
        with pytest.raises(AdapterError, match=r"no adapter\.safetensors.*several/goodfire.*wikip"):
            load_adapter("owner/several")
        with pytest.raises(AdapterError, match="holds no .safetensors or .pt file at all"):
            load_adapter("owner/text")
        with pytest.raises(AdapterError, match="owner/nobody.*Check the name"):
            load_adapter("owner/nobody")
        assert load_adapter("owner/several/goodfire.safetensors").kind == "scalar_affine"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(AdapterError, match="Its copy in the hub's cache has no adapter"):
        load_adapter("owner/several")
