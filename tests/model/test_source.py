"""What a model's name stands for, and what is said about names that stand for nothing usable."""

from __future__ import annotations

import json
import shutil

import huggingface_hub
import pytest
import torch

from selfie_adapters.errors import ModelError
from selfie_adapters.model import load_model
from selfie_adapters.model.loading import load_tokenizer
from selfie_adapters.model.source import find_model
from tiny_folders import save_family

_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 14\n"


@pytest.fixture
def folder(tmp_path):
    return save_family(tmp_path / "models" / "small")


@pytest.fixture
def no_hub(monkeypatch):
    """A request to the hub fails the test."""

    def asked(*args, **options):
        raise AssertionError("asked the hub")

    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, asked)
    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", asked)


@pytest.mark.parametrize(
    ("name", "nearby"),
    [
        ("models/smal", "small"),
        ("./models/smal", "small"),
        ("modells/small.gguf", "models"),
        ("smal.safetensors", None),
    ],
)
def test_a_path_that_does_not_exist_is_not_asked_of_the_hub(
    name, nearby, folder, tmp_path, monkeypatch, no_hub
):
    monkeypatch.chdir(tmp_path)
    for load in (load_model, load_tokenizer):
        with pytest.raises(ModelError, match="no such model folder or file") as refused:
            load(name)
        assert (f"Nearby: {nearby}" in str(refused.value)) is (nearby is not None)


def test_a_name_that_may_be_a_repository_is_not_called_a_path(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"HF_HUB_OFFLINE is set.*a local folder"):
        load_model("model/small")


def test_a_missing_part_of_the_path_is_named(folder, tmp_path):
    with pytest.raises(ModelError, match=rf"The folder {tmp_path}/modles does not exist.*models"):
        load_model(tmp_path / "modles" / "small")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_git_lfs_pointers_are_recognised(name, folder):
    (folder / name).write_text(_POINTER)
    with pytest.raises(ModelError, match=rf"{name}: a Git LFS pointer.*git lfs pull"):
        load_model(folder)
    if name == "model.safetensors":
        load_tokenizer(folder)  # which needs no weights
    with pytest.raises(ModelError, match="a Git LFS pointer"):
        load_model(folder / name)


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        (["*"], "an empty folder"),
        (["config.json"], r"without config\.json.*found .*model\.safetensors"),
        (["tokenizer*", "special_tokens*"], "a model without a tokenizer"),
        (["model.safetensors"], "a model without weights"),
    ],
)
def test_an_incomplete_folder_is_refused_with_what_is_missing(removed, message, folder):
    for pattern in removed:
        for path in folder.glob(pattern):
            path.unlink()
    with pytest.raises(ModelError, match=message) as refused:
        load_model(folder)
    assert "login" not in str(refused.value)


def test_a_folder_with_a_gguf_alone_names_it(tmp_path):
    (tmp_path / "M-Q4.GGUF").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"name the \.gguf file itself: M-Q4\.GGUF"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["m.gguf", "M.GGUF", "blob-without-suffix"])
def test_a_gguf_file_is_known_by_its_content(name, tmp_path):
    (tmp_path / name).write_bytes(b"GGUF\x03\x00\x00\x00")
    assert find_model(str(tmp_path / name)).gguf == tmp_path / name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("m.gguf", r"not a GGUF file \(it begins with b'PK\\x03\\x04"),
        ("model.safetensors", r"a file, but not a GGUF file.*Give the folder"),
    ],
)
def test_a_file_that_is_no_gguf_is_refused(name, message, tmp_path):
    (tmp_path / name).write_bytes(b"PK\x03\x04....")
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / name)


def test_code_of_a_models_own_is_neither_run_nor_asked_about(folder, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    config = json.loads((folder / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "c.C", "AutoModelForCausalLM": "m.M"}}
    (folder / "config.json").write_text(json.dumps({**config, **own}))
    (folder / "c.py").write_text("raise SystemExit('was run')")
    with pytest.raises(ModelError, match="trust_remote_code"):
        load_model(folder)


def test_a_hub_model_is_pinned_to_its_commit(folder, tmp_path, monkeypatch):
    """The hub's cache as the client lays it out; the commit becomes part of the binding."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--owner--small"
    shutil.copytree(folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    model = load_model("owner/small", dtype="float32", device_map="cpu")
    assert (model.name, model.revision) == ("owner/small", commit)
    local = load_model(folder, dtype="float32", device_map="cpu")
    assert local.revision is None
    ids = torch.tensor([[1, 2]])
    assert torch.equal(model.network(ids).logits, local.network(ids).logits)
