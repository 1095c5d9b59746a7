"""Damaged SAE folders of every layout end in an error that names the file, or in sound rows."""

from __future__ import annotations

import os
import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from fuzz.harness import Files, run
from fuzz.mutations import (
    damage_bytes,
    damage_inside_zip,
    damage_json,
    damage_safetensors,
    damage_yaml,
)
from selfie_adapters.sources.sae.files import open_on_disk
from small_saes import (
    dictionary_learning_1,
    gemma_2,
    gemma_3,
    goodfire,
    llama_scope,
    parts,
    sae_lens,
    sparsify,
    temporal,
    write_json,
    write_safetensors,
)

D_SAE, D_IN = 16, 8  # sparsify and temporal say twice the width


def _gemma_3(folder: Path, w) -> None:
    gemma_3(folder, "x", w)
    config = {"hf_hook_point_in": "model.layers.12.output", "hf_hook_point_out": None}
    write_json(folder / "x/config.json", {**config, "model_name": "m", "width": D_SAE})


def _cross_layer(folder: Path, w) -> None:
    decoder = torch.stack([w["W_dec"], w["W_dec"].flip(1)], dim=1)
    write_safetensors(folder / "x/W_dec_3.safetensors", {"W_dec_3": decoder})
    (folder / "x/config.yaml").write_text("model_name: m\nfeature_output_hook: hook_mlp_out\n")


METADATA = {"hook_name": "blocks.2.hook_resid_post", "model_name": "m"}
LAYOUTS = {
    "sae_lens": lambda f, w: sae_lens(f, "x", w, metadata=METADATA),
    "llama_scope": lambda f, w: llama_scope(f, "x", w),
    "sparsify": lambda f, w: sparsify(f / "x", w),
    "gemma_2": lambda f, w: gemma_2(f, "x", w),
    "gemma_3": _gemma_3,
    "dictionary_learning": lambda f, w: dictionary_learning_1(f, "x", w),
    "goodfire": lambda f, w: goodfire(f, "x/sae.pt", w),
    "temporal": lambda f, w: temporal(f, "x", w),
    "cross_layer": _cross_layer,
}
INPUTS = int(os.environ.get("SELFIE_FUZZ_INPUTS", "2000")) // 8  # a door of eight layouts


@cache
def files(layout: str) -> Files:
    with TemporaryDirectory() as name:
        LAYOUTS[layout](Path(name), parts(3, D_SAE, D_IN))
        inside = Path(name) / "x"
        found = [path for path in inside.rglob("*") if path.is_file()]
        return {str(path.relative_to(inside)): path.read_bytes() for path in found}


def mutate(rng: random.Random, data: bytes) -> bytes:
    if data.startswith(b"{"):
        return damage_json(rng, data)
    if data.startswith(b"PK"):
        return damage_inside_zip(damage_bytes)(rng, data)
    return damage_safetensors(rng, data) if data[8:9] == b"{" else damage_yaml(rng, data)


def read(folder: Path) -> None:
    sae = open_on_disk(folder)
    d_sae, d_in = sae.decoder.shape
    facts = sae.facts
    assert facts.d_in in (None, d_in)
    assert facts.d_sae in (None, d_sae)
    for text in (facts.hook_name, facts.model):
        assert text is None or isinstance(text, str)
    assert facts.own_factor is None or facts.own_factor > 0
    assert facts.layer is None or facts.layer >= -1
    rows = torch.cat(list(sae.decoder.blocks()))
    assert (rows.shape, rows.dtype) == ((d_sae, d_in), torch.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_folders(layout, tmp_path):
    run(f"SAE {layout}", tmp_path, lambda _rng: files(layout), mutate, read, inputs=INPUTS)
