"""Adapter files written and read back, and every way such a file can be wrong."""

from __future__ import annotations

import json
import os
import pickle
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

from selfie_adapters.adapters import (
    KINDS,
    Binding,
    TrainingRecord,
    create_adapter,
    load_adapter,
)
from selfie_adapters.errors import AdapterError, MissingFileError

SUFFIXES = [".safetensors", ".pt"]
RANK = {"low_rank_only": 2, "scalar_affine_plus_low_rank": 2}
BINDING = Binding(
    model="org/model",
    d_model=6,
    template='The meaning of "<x>" is "',
    placeholder="<x>",
    placeholder_id=260,
    sites=(3, 7),
    layer=1,
    mean_embedding_norm=1.5,
    versions={"torch": "2.8.0"},
    fingerprint=(0.1, -2.0),
)


def make(kind: str = "scalar_affine", **options):
    return create_adapter(kind, 6, low_rank_rank=RANK.get(kind), seed=0, **options)


def published_header(**changes) -> dict[str, str]:
    """A header such as the published files have, for a scalar affine adapter of width 6."""
    section = {"type": "scalar_affine", "normalize_input": True, "init_scale": 5.0}
    header = {
        "config_json": json.dumps({"projection": section, "seed": 42}),
        "model_dim": "6",
        "global_step": "7",
        "best_val_loss": "1.25",
    }
    return {**header, **changes}


def write(path, header=None, **tensors):
    header = published_header() if header is None else header
    good = {"log_scale": torch.tensor([0.5]), "bias": torch.arange(6.0)}
    chosen = {name: t for name, t in {**good, **tensors}.items() if t is not None}
    save_file(chosen, path, header)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_survives_saving(kind, suffix, tmp_path):
    adapter = make(kind, normalize_input=False, init_scale=3.0)
    adapter.record = TrainingRecord({"seed": 5, "data": {"batch_size": 3}}, 11, 2.5)
    adapter.binding = BINDING
    path = adapter.save(tmp_path / f"a{suffix}")
    again = load_adapter(path)
    assert again.get_metadata() == adapter.get_metadata()
    assert again.kind == kind
    assert not again.training
    assert not again.transform(torch.ones(6)).requires_grad
    assert again.binding == BINDING
    assert again.record.config["data"] == {"batch_size": 3}
    assert (again.record.global_step, again.record.best_val_loss) == (11, 2.5)
    assert again.state_dict().keys() == adapter.state_dict().keys()
    for name, tensor in adapter.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    vectors = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.transform(vectors), adapter.transform(vectors))
    assert all(p.requires_grad and p.is_leaf for p in again.parameters())


def test_header_holds_strings_and_the_binding_one_more_key(tmp_path):
    adapter = make()
    adapter.binding = BINDING
    with safe_open(adapter.save(tmp_path / "a.safetensors"), "np") as file:
        header = file.metadata()
    assert sorted(header) == [
        "best_val_loss",
        "binding_json",
        "config_json",
        "global_step",
        "model_dim",
    ]
    assert header["model_dim"] == "6"
    assert header["global_step"] == "0"
    assert float(header["best_val_loss"]) == np.inf  # never validated: still a number to others
    assert json.loads(header["config_json"])["projection"] == {
        "type": "scalar_affine",
        "normalize_input": True,
        "init_scale": 30.0,
        "low_rank_rank": None,
        "low_rank_init_factor": 0.01,
    }
    assert load_adapter(tmp_path / "a.safetensors").record.best_val_loss is None


def test_saved_section_says_what_the_adapter_is_and_keeps_foreign_keys(tmp_path):
    adapter = make("scale_only")
    adapter.record = TrainingRecord({"projection": {"type": "full_rank"}, "seed": 1})
    config = load_adapter(adapter.save(tmp_path / "a.pt")).record.config
    assert config["projection"]["type"] == "scale_only"
    assert config["seed"] == 1


def test_half_precision_parameters_are_stored_as_float32(tmp_path):
    path = make("full_rank").to(torch.bfloat16).save(tmp_path / "a.safetensors")
    with safe_open(path, "np") as file:
        assert file.get_tensor("weight").dtype == np.float32


def test_stored_half_precision_is_read_as_float32(tmp_path):
    path = write(tmp_path / "a.safetensors", bias=torch.full((6,), 0.1, dtype=torch.bfloat16))
    bias = load_adapter(path).bias
    assert bias.dtype == torch.float32
    assert bias[0].item() == 0.10009765625  # the bfloat16 number nearest to 0.1


def test_older_flat_header_is_read(tmp_path):
    header = {
        "projection_type": "low_rank_only",
        "normalize_input": "False",
        "init_scale": "4.0",
        "low_rank_rank": "2",
        "model_dim": "6",
        "global_step": "9",
        "best_val_loss": "inf",
    }
    u, v = torch.arange(12.0).reshape(6, 2), torch.ones(6, 2)
    path = write(tmp_path / "a.safetensors", header, log_scale=None, U=u, V=v)
    adapter = load_adapter(path)
    assert (adapter.kind, adapter.dim, adapter.low_rank_rank) == ("low_rank_only", 6, 2)
    assert adapter.normalize_input is False
    assert adapter.record == TrainingRecord(
        {
            "projection": {
                "type": "low_rank_only",
                "normalize_input": "False",
                "init_scale": "4.0",
                "low_rank_rank": "2",
            }
        },
        9,
        None,
    )
    # x = e₀: xU = (0, 1), times Vᵀ = 1 everywhere, plus the bias 0…5
    x = torch.eye(6)[0]
    assert adapter.transform(x).tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    # what is said about it afterwards has the real types
    assert adapter.get_metadata()["config"]["projection"]["init_scale"] == 4.0


def test_older_flat_header_without_rank_or_width_takes_them_from_the_tensors(tmp_path):
    header = {
        "projection_type": "low_rank_only",
        "normalize_input": "true",
        "low_rank_rank": "None",
    }
    u = torch.ones(6, 2)
    path = write(tmp_path / "a.safetensors", header, log_scale=None, U=u, V=u + 1)
    adapter = load_adapter(path)
    assert (adapter.dim, adapter.low_rank_rank, adapter.normalize_input) == (6, 2, True)


def test_a_rank_said_for_a_kind_that_has_none_is_ignored(tmp_path):
    header = {"projection_type": "scalar_affine", "normalize_input": "1", "low_rank_rank": "64"}
    assert load_adapter(write(tmp_path / "a.safetensors", header)).low_rank_rank is None


def test_loading_leaves_torchs_random_state_alone(tmp_path):
    path = make("full_rank").save(tmp_path / "a.safetensors")
    before = torch.random.get_rng_state()
    load_adapter(path)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_loaded_adapter_does_not_share_memory_with_the_file(suffix, tmp_path):
    path = make().save(tmp_path / f"a{suffix}")
    before = path.read_bytes()
    adapter = load_adapter(path)
    with torch.no_grad():
        adapter.bias.add_(1.0)
    assert path.read_bytes() == before


@pytest.mark.parametrize("device", ["nodev", "cuda:999"])
def test_a_device_that_is_not_there_is_named(tmp_path, device):
    create_adapter("scalar_affine", 4).save(tmp_path / "a.pt")
    with pytest.raises(AdapterError, match=f"device '{device}'"):
        load_adapter(tmp_path / "a.pt", device)


def test_device_is_where_the_adapter_goes(tmp_path):
    path = make().save(tmp_path / "a.pt")
    assert load_adapter(path, device="meta").device == torch.device("meta")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_save_leaves_the_old_file_and_nothing_else(suffix, tmp_path, monkeypatch):
    path = make(init_scale=2.0).save(tmp_path / f"a{suffix}")

    def broken(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("selfie_adapters.adapters.checkpoint.safetensors_bytes", broken)
    monkeypatch.setattr("torch.save", broken)
    with pytest.raises(OSError, match="disk full"):
        make(init_scale=9.0).save(path)
    assert load_adapter(path).scale() == pytest.approx(2.0)
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


def test_saved_file_is_readable_by_others_as_the_umask_allows(tmp_path):
    mask = os.umask(0o022)
    try:
        path = make().save(tmp_path / "new folder" / "a.safetensors")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_nan_parameters_are_not_written(tmp_path):
    adapter = make()
    with torch.no_grad():
        adapter.bias[2] = float("nan")
    with pytest.raises(
        AdapterError, match=r"not written\. bias holds 1 NaN or infinite number of 6"
    ):
        adapter.save(tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_record_must_be_plain_values_and_suffix_known(tmp_path):
    adapter = make()
    with pytest.raises(AdapterError, match=r'end in \.safetensors or \.pt, not "\.bin"'):
        adapter.save(tmp_path / "a.bin")
    adapter.record = TrainingRecord({"folder": tmp_path})
    with pytest.raises(AdapterError, match="plain JSON values"):
        adapter.save(tmp_path / "a.pt")
    assert list(tmp_path.iterdir()) == []


# what can be wrong with a file


def test_unknown_kind_in_a_file_names_the_file_and_the_nearest_kind(tmp_path):
    header = published_header(
        config_json=json.dumps({"projection": {"type": "scalar_afine", "normalize_input": True}})
    )
    path = write(tmp_path / "a.safetensors", header)
    with pytest.raises(AdapterError, match=r'a\.safetensors: .*"scalar_afine".*"scalar_affine"\?'):
        load_adapter(path)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"bias": None}, "needs the tensor bias; the file holds log_scale"),
        ({"bias": None, "log_scale": None}, "needs the tensors bias, log_scale; .* holds none"),
        ({"weight": torch.ones(6, 6)}, "has no tensor weight .*its tensors: bias, log_scale"),
        ({"bias": torch.ones(5)}, r"bias has shape \[5\]; .*model_dim 6 needs \[6\]"),
        ({"log_scale": torch.ones(2)}, r"log_scale has shape \[2\]; .* needs \[1\]"),
        ({"bias": torch.tensor([float("nan")] * 2 + [1.0] * 4)}, "bias holds 2 NaN .* of 6"),
        ({"log_scale": torch.tensor([float("inf")])}, "log_scale holds 1 NaN or infinite"),
        ({"bias": torch.ones(6, dtype=torch.int32)}, r"bias holds torch\.int32"),
    ],
)
def test_tensors_that_do_not_fit_the_header_are_refused(tensors, says, tmp_path):
    path = write(tmp_path / "a.safetensors", **tensors)
    with pytest.raises(AdapterError, match=rf"a\.safetensors: .*{says}"):
        load_adapter(path)


def test_rank_in_the_header_and_factors_must_agree(tmp_path):
    path = make("low_rank_only").save(tmp_path / "a.pt")
    content = torch.load(path, weights_only=True)
    content["config"]["projection"]["low_rank_rank"] = 3
    torch.save(content, path)
    with pytest.raises(
        AdapterError, match=r"U has shape \[6, 2\]; .*low_rank_rank 3 needs \[6, 3\]"
    ):
        load_adapter(path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"config_json": "{"}, "the header is damaged: config_json, line 1, column 2: not JSON"),
        ({"config_json": "{}"}, "does not state the adapter's kind"),
        ({"config_json": '{"projection": {}}'}, "does not state the adapter's kind"),
        ({"config_json": "[]"}, "does not state the adapter's kind"),
        ({"config_json": '{"projection": {"type": "scalar_affine"}}'}, "normalize_input is None"),
        ({"model_dim": "six"}, "model_dim is 'six', not a number"),
        ({"model_dim": "nan"}, "model_dim is 'nan', not an integer"),
        ({"global_step": "1.5"}, "global_step is '1.5', not an integer"),
        ({"binding_json": "{}"}, "the binding is damaged: model: missing"),
        ({"binding_json": "?"}, "the header is damaged: binding_json, line 1"),
    ],
)
def test_damaged_header_values_are_refused(changes, says, tmp_path):
    path = write(tmp_path / "a.safetensors", published_header(**changes))
    with pytest.raises(AdapterError, match=rf"a\.safetensors: .*{says}"):
        load_adapter(path)


def test_width_must_be_said_where_no_tensor_shows_it(tmp_path):
    header = {"projection_type": "scale_only", "normalize_input": "True"}
    with pytest.raises(AdapterError, match="no model_dim"):
        load_adapter(write(tmp_path / "a.safetensors", header, bias=None))


def test_a_newer_format_version_is_refused(tmp_path):
    path = make().save(tmp_path / "a.pt")
    torch.save({**torch.load(path, weights_only=True), "checkpoint_format_version": 2}, path)
    with pytest.raises(AdapterError, match="format version 2; this program reads version 1"):
        load_adapter(path)


def test_missing_file_names_a_neighbour(tmp_path):
    make().save(tmp_path / "adapter.safetensors")
    with pytest.raises(MissingFileError, match=r"no such file.*Nearby: adapter\.safetensors"):
        load_adapter(tmp_path / "adapters.safetensors")


def test_other_suffixes_are_refused(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"x")
    with pytest.raises(AdapterError, match=r'not "\.bin"'):
        load_adapter(tmp_path / "a.bin")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kept", [0, 4, 0.3, 0.9])
def test_a_cut_off_file_is_told(suffix, kept, tmp_path):
    path = make("full_rank").save(tmp_path / f"a{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if kept >= 1 else int(kept * len(whole))])
    with pytest.raises(AdapterError, match=rf"a\{suffix}: cut off, or not a"):
        load_adapter(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bytes_of_something_else_are_told(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"<!doctype html><title>404</title>")
    with pytest.raises(AdapterError, match=rf"a\{suffix}: cut off, or not a"):
        load_adapter(path)


@pytest.mark.parametrize(
    ("names", "header", "likeness"),
    [
        (
            ["model.layers.0.mlp.up_proj.weight", "lm_head.weight"],
            {"format": "pt"},
            "language model",
        ),
        (["base_model.layers.0.q_proj.lora_A.weight"], None, "LoRA weights"),
        (["W_dec", "W_enc", "b_dec"], None, "sparse autoencoder"),
        (["layer_0", "layer_1"], None, "mean vectors, one per layer"),
        (["log_scale", "bias"], None, "adapter's tensors that lost their header"),
        (["vectors"], None, "a file of vectors"),
        (["a", "b", "c", "d"], None, "something else .4 tensors: a, b, c"),
    ],
)
def test_a_foreign_safetensors_file_is_told_for_what_it_looks_like(
    names, header, likeness, tmp_path
):
    path = tmp_path / "x.safetensors"
    save_file({name: torch.ones(2, 2) for name in names}, path, header)
    with pytest.raises(
        AdapterError, match=rf"{likeness}.*An adapter file is expected: .*config_json"
    ):
        load_adapter(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (torch.ones(3, 4), r"file of vectors \(one tensor of shape \[3, 4\]\)"),
        ({"model": 1, "optimizer": 2}, "dictionary with the keys model, optimizer"),
        ([1, 2], "holds a list"),
        ({"projection_state": [1]}, "projection_state must hold tensors by name"),
        ({"projection_state": {}}, "does not state the adapter's kind"),
    ],
)
def test_a_foreign_pt_file_is_told(content, says, tmp_path):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(AdapterError, match=says):
        load_adapter(tmp_path / "x.pt")


class _RunsCode:
    """Unpickled without care, this makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    ("protocol", "says"),
    [
        (None, r"It asks to load \w+\.mkdir"),  # inside a torch archive
        (2, r"It asks to load \w+\.mkdir"),
        (4, "It holds more than tensors"),  # torch's safe reader stops before the name
    ],
)
def test_a_file_that_asks_for_code_is_refused_and_nothing_runs(protocol, says, tmp_path):
    trace, path = tmp_path / "ran", tmp_path / "evil.pt"
    content = {"projection_state": {"bias": torch.ones(6)}, "config": _RunsCode(str(trace))}
    if protocol is None:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content["config"], protocol))
    with pytest.raises(AdapterError, match=f"refused, nothing in it was run. {says}"):
        load_adapter(path)
    with pytest.raises(AdapterError, match="holds no adapter file"):
        load_adapter(tmp_path)  # looking through the folder does not run it either
    assert not trace.exists()
    if protocol is not None:  # the trap is real: plain unpickling does run it
        pickle.loads(path.read_bytes())
        assert trace.is_dir()


def test_equal_adapters_are_equal_files_in_every_process(tmp_path):
    """safetensors itself orders its header by a hash with a new seed for every file."""
    code = (
        "import sys\n"
        "from selfie_adapters.adapters import create_adapter\n"
        "create_adapter('scalar_affine', 8, seed=0).save(sys.argv[1])\n"
    )
    files = [tmp_path / f"{number}.safetensors" for number in range(10)]
    for file in files[:9]:
        create_adapter("scalar_affine", 8, seed=0).save(file)
    subprocess.run([sys.executable, "-c", code, str(files[9])], check=True)
    assert len({file.read_bytes() for file in files}) == 1
    many = {f"key{number}": "" for number in range(9)}
    assert len({save({"a": torch.ones(1)}, many) for _ in range(9)}) > 1  # the seeds do differ
    assert load_adapter(files[0]).dim == 8
