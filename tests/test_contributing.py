"""The examples of CONTRIBUTING.md, run as they are printed there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from selfie_adapters.adapters import KINDS, load_adapter
from selfie_adapters.config import ADAPTER_KINDS
from selfie_adapters.dataset import Item, Section, save_dataset
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.model import FrozenModel
from selfie_adapters.sources.sae.files import open_on_disk, open_registered
from selfie_adapters.sources.sae.layouts import LAYOUTS
from selfie_adapters.sources.sae.registry import RegisteredSae
from selfie_adapters.training import train
from tiny import golden_tokenizer, tiny_network
from toy_run import config_for

DOCUMENT = Path(__file__).parents[1] / "CONTRIBUTING.md"


@pytest.fixture(autouse=True)
def same_registries_afterwards():
    registries = (KINDS, ADAPTER_KINDS, LAYOUTS)
    before = [dict(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


def run_example(title: str) -> None:
    """Run the first block of Python below a heading."""
    section = DOCUMENT.read_text("utf-8").split(f"## {title}\n")[1].split("\n## ")[0]
    code = section.split("```python\n")[1].split("```")[0]
    exec(compile(code, str(DOCUMENT), "exec"), {"__name__": "contributed"})


def test_a_new_adapter_kind_is_configured_trained_saved_and_loaded(tmp_path):
    run_example("How to add an adapter kind")
    metadata = {
        "dataset_name": "toy",
        "filename": "toy.safetensors",
        "layer": 1,
        "source": "test",
        "vector_type": "random",
    }
    vectors = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    items = [Item(i, [f"number {i}"], "train" if i < 5 else "val") for i in range(6)]
    save_dataset(tmp_path / "toy.json", [Section(metadata, vectors, items)])
    config = config_for(
        tmp_path / "toy.json",
        data__batch_size=3,
        projection={"type": "diagonal", "init_scale": 3.0},
        training__num_epochs=1,
        training__warmup_steps=0,
        training__learning_rate=0.5,
        training__direction_learning_rate=0.25,
        training__scheduler_type="constant",
    )
    run = train(config, FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny"))
    steps = [row for row in read_jsonl(run / "metrics.jsonl") if row["event"] == "step"]
    assert [row["learning_rates"] for row in steps] == [{"direction": 0.25, "bias": 0.5}] * 2
    adapter = load_adapter(run / "adapter_final.safetensors")
    assert adapter.kind == "diagonal"
    assert adapter.num_parameters() == 2 * 32
    moved = {name: float((p - start).abs().min()) for name, p, start in changes(adapter)}
    assert all(least > 0 for least in moved.values()), moved  # every number of both was trained


def changes(adapter):
    starts = {"gains": 3.0, "bias": 0.0}
    return [(name, p.detach(), starts[name]) for name, p in adapter.named_parameters()]


def test_a_new_sae_layout_is_read_by_name_and_from_a_folder(tmp_path):
    decoder = torch.randn(8, 24, generator=torch.Generator().manual_seed(0))  # [d_in, d_sae]
    folder = tmp_path / "layer_3"
    folder.mkdir()
    file = folder / "dictionary.safetensors"
    tensors = {"dictionary.weight": decoder, "b_enc": torch.zeros(24), "b_dec": torch.zeros(8)}
    save_file(tensors, file)
    run_example("How to add an SAE layout")
    entry = RegisteredSae("release", "layer_3", "owner/repo", "layer_3", layout="my_saes")
    for found in (open_registered(entry, file), open_on_disk(folder)):
        rows = torch.cat(list(found.decoder.blocks()))
        assert torch.equal(rows, decoder.T)
        assert found.facts.hook_name == "blocks.3.hook_resid_post"
