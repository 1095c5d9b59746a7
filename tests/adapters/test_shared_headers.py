"""Headers as others get them: no folder of this machine, everything else as it was."""

from __future__ import annotations

import json

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from selfie_adapters.adapters import Binding, TrainingRecord, create_adapter, load_adapter
from selfie_adapters.adapters.containers import save_shared, shared_header, without_folders
from selfie_adapters.tensor_files.safetensors_file import safetensors_metadata


def test_paths_are_names_and_everything_else_stays():
    stated = {
        "model": {"name": "owner/name", "revision": None},
        "data": {"labels_file": "shipping/more.json", "ratios": [{"datasets": ["/a/b", "c/d"]}]},
        "training": {"checkpoint_dir": "/scratch/me/runs/", "seed": 7, "mirrors": ["~/logs/x"]},
        "labels": {"template": 'It means "/".', "root": "/"},
    }
    assert without_folders(stated) == {
        "model": {"name": "owner/name", "revision": None},
        "data": {"labels_file": "more.json", "ratios": [{"datasets": ["b", "c/d"]}]},
        "training": {"checkpoint_dir": "runs", "seed": 7, "mirrors": ["x"]},
        "labels": {"template": 'It means "/".', "root": "/"},
    }


def test_an_adapter_of_a_local_model_is_bound_to_its_name(tmp_path):
    adapter = create_adapter("scale_only", 4, init_scale=2.0)
    adapter.record = TrainingRecord({"model": {"name": "/models/Owl-1B"}, "seed": 3}, 5, 1.5)
    adapter.binding = Binding(
        model="/models/Owl-1B",
        d_model=4,
        template='"/x" means "',
        placeholder="x",
        placeholder_id=1,
        sites=(1,),
        mean_embedding_norm=1.0,
        fingerprint=(0.1, 0.2),
    )
    file = adapter.save(tmp_path / "mine.safetensors")
    stated = safetensors_metadata(file)
    shared = shared_header(stated)
    assert {name for name in stated if stated[name] != shared[name]} == {
        "config_json",
        "binding_json",
    }
    found = load_adapter(save_shared(file, shared, tmp_path / "shared/adapter.safetensors"))
    assert found.binding == adapter.binding.model_copy(update={"model": "Owl-1B"})
    assert found.record == TrainingRecord(
        {**adapter.record.config, "model": {"name": "Owl-1B"}}
        | {"projection": found.record.config["projection"]},
        5,
        1.5,
    )
    assert b"/models" not in (tmp_path / "shared/adapter.safetensors").read_bytes()


def test_tensors_keep_their_dtype_and_the_same_content_is_the_same_file(tmp_path):
    tensors = {"layer_2": torch.randn(6).half(), "layer_10": torch.randn(6)}
    save_file(tensors, tmp_path / "m.safetensors", {"model": "/m/owl", "chat": "none"})
    header = shared_header(safetensors_metadata(tmp_path / "m.safetensors"))
    one, two = (
        save_shared(tmp_path / "m.safetensors", header, tmp_path / f"{i}.safetensors")
        for i in (1, 2)
    )
    assert one.read_bytes() == two.read_bytes()
    with safe_open(one, "pt") as file:
        assert file.metadata() == {"model": "owl", "chat": "none"}
        for name, tensor in tensors.items():
            found = file.get_tensor(name)
            assert found.dtype == tensor.dtype
            assert torch.equal(found, tensor)


def test_a_header_without_paths_stays_to_the_letter():
    header = {
        "config_json": '{"a":1, "b" : "c/d"}',
        "model_dim": "4",
        "binding_json": json.dumps({}),
    }
    assert shared_header(header) == header
