from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file

from hub_server import hub_server
from selfie_adapters.errors import DataError, MissingFileError
from selfie_adapters.sources.sae import files as sae_files
from selfie_adapters.sources.sae.files import open_on_disk, open_registered
from selfie_adapters.sources.sae.registry import find_sae
from selfie_adapters.sources.sae.rows import SaeRows
from small_saes import (
    CASES,
    D_IN,
    D_SAE,
    gemma_2,
    gemma_3,
    goodfire,
    llama_scope,
    parts,
    sae_lens,
    sparsify,
    write_case,
    write_safetensors,
    write_torch,
)

TESTS = Path(__file__).parents[2]


@pytest.fixture
def local_hub(tmp_path, monkeypatch):
    """Repositories in a folder, without a server."""
    fetched = []

    def fetch(repo, filename, otherwise):
        fetched.append((repo, filename))
        assert (tmp_path / repo / filename).is_file(), filename
        return tmp_path / repo / filename

    monkeypatch.setattr(sae_files, "fetch_hub_file", fetch)
    return tmp_path, fetched


def rows(sae) -> torch.Tensor:
    return torch.cat(list(sae.decoder.blocks()))


LAYERS = {
    "sae_lens, before version 6": 7,  # what goes into block 8 is what block 7 puts out
    "sae_lens, scaled": 12,
    "sae_lens, version 6, nothing to fold": 12,
    "gemma_2": 20,
    "gemma_2, embeddings": -1,
    "goodfire 8B": 19,
    "goodfire 70B": 50,
    "llama_scope_r1_distill": 3,
    "dictionary_learning_1": 3,
    "qwen_scope": 1,
    "connor_rob_hook_z": 5,
    "temporal": 12,
    "llama_scope m 32x": 19,
}


@pytest.mark.parametrize("case", CASES)
def test_rows_are_those_of_the_decoder(case, local_hub):
    root, fetched = local_hub
    expected = write_case(root, case)
    sae = open_registered(find_sae(*CASES[case][:2]))
    assert torch.equal(rows(sae), expected)
    assert sae.decoder.shape == (D_SAE, D_IN)
    assert len(fetched) == len(set(fetched)) <= 2
    if case in LAYERS:
        assert sae.facts.layer == LAYERS[case]


def test_the_sites_of_the_vectors(local_hub):
    root, _ = local_hub
    expected = {
        "gemma_2, heads": "blocks.0.attn.hook_z",
        "gemma_3, transcoder": "blocks.0.hook_mlp_out",
        "mntss": "blocks.0.hook_mlp_out",
        "llama_scope a 8x": "blocks.19.hook_attn_out",
    }
    for case, hook in expected.items():
        write_case(root, case)
        assert open_registered(find_sae(*CASES[case][:2])).facts.hook_name == hook


def test_blocks_of_any_size_hold_the_same_rows(local_hub, monkeypatch):
    root, _ = local_hub
    for case in ("goodfire 8B", "gemma_2", "mntss", "llama_scope r 8x"):
        expected = write_case(root, case)
        sae = open_registered(find_sae(*CASES[case][:2]))
        monkeypatch.setattr("selfie_adapters.sources.sae.decoder._BLOCK_BYTES", 4 * D_IN * 7)
        blocks = list(sae.decoder.blocks())
        assert len(blocks) > 5
        assert torch.equal(torch.cat(blocks), expected)
        monkeypatch.undo()
        monkeypatch.setattr(sae_files, "fetch_hub_file", lambda r, f, _: root / r / f)


def test_a_configuration_of_other_widths_stops(local_hub):
    root, _ = local_hub
    write_case(root, "llama_scope r 8x")
    config = next(root.rglob("hyperparams.json"))
    config.write_text(config.read_text().replace(f'"d_sae": {D_SAE}', '"d_sae": 100'))
    with pytest.raises(DataError, match=r"96 latents of width 48, .* 100 of width 48"):
        open_registered(find_sae("llama_scope_lxr_8x", "l19r_8x"))


def test_a_width_unlike_the_id_is_reported(local_hub):
    root, _ = local_hub
    write_case(root, "llama_scope r 32x")
    notes = open_registered(find_sae("llama_scope_lxr_32x", "l19r_32x")).report
    assert notes == ["llama3.1-8b/19-llamascope-res-131k sounds like 131k latents; the file has 96"]


def test_weights_that_lie_here_take_the_place_of_the_hubs(tmp_path, monkeypatch):
    monkeypatch.setattr(sae_files, "fetch_hub_file", None)
    w = parts(3)
    goodfire(tmp_path, "own.pth", w)
    entry = find_sae("goodfire-llama-3.1-8b-instruct", "layer_19")
    sae = open_registered(entry, tmp_path / "own.pth")
    assert torch.equal(rows(sae), w["W_dec"])
    assert sae.facts.layer == 19


def on_disk(folder: Path, kind: str) -> tuple[Path, torch.Tensor, int | None]:
    """(path, rows, layer)"""
    w = parts(5)
    path = folder / kind
    if kind == "sae_lens":
        sae_lens(folder, kind, w, normalize_activations="expected_average_only_in")
        return path, w["W_dec"], 7
    if kind == "llama_scope":
        llama_scope(folder, kind, w)
        return path, w["W_dec"].bfloat16().float() / (D_IN**0.5 / 12.5), 19
    if kind == "layers.10":
        sparsify(path, w)
        return path, w["W_dec"], 10
    if kind == "sparsify's file":
        sparsify(folder / "layers.11.mlp", w)
        return folder / "layers.11.mlp/sae.safetensors", w["W_dec"], 11
    if kind == "goodfire.pt":
        goodfire(folder, kind, w)
        return path, w["W_dec"], None
    if kind == "turned.safetensors":  # called W_dec, but the biases say that latents are columns
        write_safetensors(path, {**w, "W_dec": w["W_dec"].T})
        return path, w["W_dec"], None
    if kind == "nested.pt":
        write_torch(path, {"step": 3, "state_dict": w})
        return path, w["W_dec"], None
    if kind == "old.pt":  # not a zip archive: cannot be mapped
        torch.save(w, path, _use_new_zipfile_serialization=False)
        return path, w["W_dec"], None
    if kind == "one file in a folder":
        write_safetensors(path / "probe.safetensors", {"directions": w["W_dec"]})
        return path, w["W_dec"], None
    raise AssertionError(kind)


@pytest.mark.parametrize(
    "kind",
    [
        "sae_lens",
        "llama_scope",
        "layers.10",
        "sparsify's file",
        "goodfire.pt",
        "turned.safetensors",
        "nested.pt",
        "old.pt",
        "one file in a folder",
    ],
)
def test_on_disk(kind, tmp_path):
    path, expected, layer = on_disk(tmp_path, kind)
    sae = open_on_disk(path)
    assert torch.equal(rows(sae), expected)
    assert sae.facts.layer == layer


def test_a_neuronpedia_id_names_the_layer_of_a_known_layout(tmp_path):
    w = parts(1)
    sparsify(tmp_path / "any", w)
    assert open_on_disk(tmp_path / "any", ["m/23-x"]).facts.layer == 23


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: write_torch(p, {"W_dec": torch.ones(2, 2), "x": Bomb()}), "execute code"),
        (lambda p: write_torch(p, {"a": torch.ones(2, 2), "b": torch.ones(2, 2)}), "no decoder"),
        (lambda p: write_torch(p, {"W_dec": torch.ones(2, 2, dtype=torch.int8)}), "int8"),
        (lambda p: write_torch(p, {"W_dec": torch.ones(0, 2)}), r"\[0, 2\]"),
        (lambda p: write_torch(p, {"W_dec": torch.ones(4)}), r"\[4\]"),
        (lambda p: p.write_bytes(b"PK\x03\x04 cut off"), "cut off"),
        (
            lambda p: write_torch(p, {"W_dec": torch.ones(4, 2), "b_dec": torch.ones(3)}),
            "4 latents of width 2, .* None of width 3",
        ),
    ],
)
def test_hostile_files(write, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "sae.pt")
    with pytest.raises(DataError, match=message):
        open_on_disk(tmp_path / "sae.pt")
    assert not (tmp_path / "exploded").exists()


def test_what_is_no_sae(tmp_path):
    with pytest.raises(MissingFileError, match="--sae-path"):
        open_on_disk(tmp_path / "nowhere")
    (tmp_path / "readme.md").write_text("x")
    with pytest.raises(DataError, match="readme.md"):
        open_on_disk(tmp_path / "readme.md")
    with pytest.raises(DataError, match="found none"):
        open_on_disk(tmp_path)


# SAELens in a process of its own: its import is slow, and it warns.
THEIRS = """
import sys
from functools import partial
from safetensors.torch import save_file
from sae_lens import SAE
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from sae_lens.loading.pretrained_sae_loaders import NAMED_PRETRAINED_SAE_LOADERS
sys.path.insert(0, sys.argv[1])
from small_saes import CASES, D_IN, D_SAE

def sized(loader, **given):  # some loaders have the published sizes written into them
    sizes = {"d_in": D_IN, "d_sae": D_SAE, "d_out": D_IN}
    return loader(**{**given, "cfg_overrides": {**given["cfg_overrides"], **sizes}})

rows = {}
for case, (release, sae_id, *_) in CASES.items():
    name = get_pretrained_saes_directory()[release].conversion_func or "sae_lens"
    converter = None
    if name in ("gemma_2", "gemma_2_transcoder", "goodfire", "deepseek_r1", "qwen_scope"):
        converter = partial(sized, NAMED_PRETRAINED_SAE_LOADERS[name])
    sae = SAE.from_pretrained(release, sae_id, converter=converter)
    rows[case] = sae.W_dec.detach().clone().contiguous()
save_file(rows, sys.argv[2])
"""

OURS = """
import sys, torch
from safetensors.torch import save_file
sys.path.insert(0, sys.argv[1])
from small_saes import CASES
from selfie_adapters.sources.sae.files import open_registered
from selfie_adapters.sources.sae.registry import find_sae
saes = {case: open_registered(find_sae(*CASES[case][:2])) for case in CASES}
rows = {case: torch.cat(list(sae.decoder.blocks())) for case, sae in saes.items()}
save_file(rows, sys.argv[2])
assert "sae_lens" not in sys.modules
"""


@pytest.mark.slow
def test_saelens_reads_the_same_rows_from_a_hub(tmp_path):
    for case in CASES:
        write_case(tmp_path / "hub", case)
    read = {}
    with hub_server(tmp_path / "hub") as (address, _):
        for name, code in (("theirs", THEIRS), ("ours", OURS)):
            environment = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
            environment |= {"HF_HOME": str(tmp_path / name), "PYTHONWARNINGS": "ignore"}
            out = tmp_path / f"{name}.safetensors"
            done = subprocess.run(
                [sys.executable, "-c", code, TESTS, out],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr[-3000:]
            read[name] = load_file(out)
    assert set(read["ours"]) == set(read["theirs"]) == set(CASES)
    for case, theirs in read["theirs"].items():
        assert torch.equal(read["ours"][case], theirs), case


def test_an_l0_is_no_layer(tmp_path):
    outer = tmp_path / "gemma-scope-2b-pt-res"
    gemma_2(outer, "layer_20/width_16k/average_l0_71", parts(1))
    gemma_2(outer, "average_l0_71", parts(1))
    facts = open_on_disk(outer / "layer_20/width_16k/average_l0_71").facts
    assert (facts.layer, facts.hook_name) == (20, "blocks.20.hook_resid_post")
    params = outer / "layer_20/width_16k/average_l0_71/params.npz"
    assert open_on_disk(params).facts == facts
    assert open_on_disk(outer / "average_l0_71").facts.layer is None
    assert open_on_disk(outer / "average_l0_71", layer=20).facts == facts


def test_gemma_scope_2_is_what_its_configuration_says(tmp_path):
    folder = tmp_path / "layer_12_width_16k_l0_medium"
    gemma_3(tmp_path, folder.name, parts(1))
    assert open_on_disk(folder).facts.hook_name is None
    config = {"hf_hook_point_in": "model.layers.12.output", "model_name": "google/gemma-3-270m"}
    (folder / "config.json").write_text(json.dumps(config))
    for path in (folder, folder / "params.safetensors"):
        facts = open_on_disk(path).facts
        assert facts.hook_name == "blocks.12.hook_resid_post"
        assert facts.model == "google/gemma-3-270m"


def test_a_negative_norm_turns_no_row_around(tmp_path):
    llama_scope(tmp_path, "x", parts(1))
    file = tmp_path / "x/hyperparams.json"
    file.write_text(file.read_text().replace('{"in": 12.5', '{"in": -12.5'))
    with pytest.raises(DataError, match=r"dataset_average_activation_norm\.in must be .* -12\.5"):
        open_on_disk(tmp_path / "x")
    entry = dataclasses.replace(find_sae("llama_scope_lxr_8x", "l19r_8x"), norm_scaling_factor=-1.0)
    file.write_text(file.read_text().replace("-12.5", "12.5"))
    with pytest.raises(DataError, match="a factor of -1.0 for its rows"):
        open_registered(entry, tmp_path / "x/checkpoints/final.safetensors")


CLT = [  # file, tensor, layer that the first rows write into, rows of three layers
    ("W_dec_2.safetensors", "W_dec_2", 2),
    ("params_layer_2.safetensors", "w_dec", 0),
]


@pytest.mark.parametrize(("name", "tensor", "first"), CLT)
def test_a_cross_layer_transcoder_is_read_whole_or_for_one_layer(name, tensor, first, tmp_path):
    written = torch.randn(D_SAE, 5, D_IN)
    write_safetensors(tmp_path / name, {tensor: written, "b_dec": torch.zeros(D_IN)})
    (tmp_path / "config.yaml").write_text("model_name: google/gemma-2-2b\n")
    whole = open_on_disk(tmp_path / name)
    assert torch.equal(rows(whole), written.sum(dim=1))
    assert (whole.facts.layer, whole.facts.model) == (2, "google/gemma-2-2b")
    assert f"write into layers 2 to {first + 4}: their sum is taken" in whole.report[1]
    one = open_on_disk(tmp_path / name, layer=4)
    assert torch.equal(rows(one), written[:, 4 - first])
    assert one.facts.hook_name == "blocks.4.hook_mlp_out"
    assert torch.equal(SaeRows(one.decoder)[torch.tensor([3, 1])], written[[3, 1], 4 - first])
    for layer in (1, first + 5):
        with pytest.raises(DataError, match=rf"--layer {layer}: the latents of layer 2 write into"):
            open_on_disk(tmp_path / name, layer=layer)


def test_a_folder_of_a_cross_layer_transcoder_asks_for_one_file(tmp_path):
    for layer in (0, 1):
        for name, shape in (("W_enc", (4, 3)), ("W_dec", (4, 2 - layer, 3))):
            tensors = {f"{name}_{layer}": torch.ones(shape)}
            write_safetensors(tmp_path / f"{name}_{layer}.safetensors", tensors)
    with pytest.raises(
        DataError, match=r"one file per source layer \(W_dec_0.safetensors, W_dec_1"
    ):
        open_on_disk(tmp_path)
    with pytest.raises(DataError, match="no decoder"):
        open_on_disk(tmp_path / "W_enc_0.safetensors")
    (tmp_path / "W_dec_1.safetensors").unlink()
    assert open_on_disk(tmp_path).facts.layer == 0


def test_a_registered_cross_layer_transcoder_gives_the_rows_of_one_layer(local_hub):
    root, _ = local_hub
    write_case(root, "mntss")
    w = parts(seed=len("mntss"))["W_dec"]
    sae = open_registered(find_sae(*CASES["mntss"][:2]), layer=1)
    assert torch.equal(rows(sae), w.flip(1))
    assert sae.facts.layer == 1


def test_a_decoder_of_openai_lies_in_columns(tmp_path):
    w = parts(1, 48, 48)  # square: only the name tells
    tensors = {"pre_bias": w["b_dec"], "latent_bias": w["b_enc"], "encoder.weight": w["W_enc"].T}
    write_torch(tmp_path / "8.pt", {**tensors, "decoder.weight": w["W_dec"].T})
    assert torch.equal(rows(open_on_disk(tmp_path / "8.pt")), w["W_dec"])


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b"])
def test_a_path_that_cannot_be_is_a_missing_file(path):
    with pytest.raises(MissingFileError, match="--sae-path"):
        open_on_disk(Path(path))


def _version(data: bytes) -> bytes:
    """The archive requests a zip program of version 25.5."""
    at = data.index(b"PK\x01\x02") + 6
    return data[:at] + b"\xff\x00" + data[at + 2 :]


def _offset(data: bytes) -> bytes:
    """The directory says that a member begins beyond the file's end."""
    at = data.index(b"PK\x01\x02") + 42
    return data[:at] + b"\xff\xff\xff\x7f" + data[at + 4 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b"NUMPY\x01\x00", b"NUMPY\x01\x80"),
        lambda data: data.replace(b"False, 'shape': (", b"False, 'shape': ((("),
        lambda data: data.replace(b"'<f4'", b"'|O4'"),
        lambda data: data[:-30],
        _version,
        _offset,
    ],
)
def test_a_damaged_archive_is_one_error(damage, tmp_path):
    gemma_2(tmp_path, "x", parts(1))
    file = tmp_path / "x/params.npz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=r"params\.npz"):
        open_on_disk(tmp_path / "x")


def test_an_archive_that_unpacks_to_far_more_than_itself_is_refused(tmp_path):
    numpy.savez_compressed(tmp_path / "params.npz", W_dec=numpy.zeros((2**14, 2**10), "f4"))
    assert (tmp_path / "params.npz").stat().st_size < 2**20
    with pytest.raises(DataError, match="unpack to far more"):
        open_on_disk(tmp_path)
