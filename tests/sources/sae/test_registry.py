from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter

import pytest

from selfie_adapters.errors import DataError
from selfie_adapters.sources.sae.facts import read_facts, with_guesses
from selfie_adapters.sources.sae.layouts import LAYOUTS
from selfie_adapters.sources.sae.registry import find_sae, load_w_dec, registry, search_registry


def test_every_labelled_entry_resolves_to_files_and_a_source():
    """Counts of SAELens 6.54.12; no network, no SAELens."""
    labelled = [sae for saes in registry().values() for sae in saes.values() if sae.neuronpedia_id]
    assert len(labelled) == 2441
    assert sum(len(saes) for saes in registry().values()) == 13857
    assert len(registry()) == 170
    for sae in labelled:
        assert find_sae(sae.release, sae.sae_id) is sae
        layout = LAYOUTS[sae.layout]
        weights, config = layout.weights_file(sae.path), layout.config_file(sae.path)
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", sae.repo), sae
        assert re.fullmatch(r"[\w./+-]+\.(safetensors|npz|pt|pth)", weights), sae
        assert config is None or re.fullmatch(r"[\w./+-]+\.(json|yaml)", config), sae
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", sae.neuronpedia_id), sae
        if config is None:  # otherwise the configuration names the site
            names = (sae.neuronpedia_id, sae.sae_id, sae.repo, sae.path)
            facts = with_guesses(read_facts(None, sae.overrides), layout, names)
            number = re.search(r"/(\d+)-", sae.neuronpedia_id)
            assert facts.layer == int(number[1]), sae
    layouts = Counter(sae.layout for sae in labelled)
    assert (layouts["llama_scope"], layouts["goodfire"], layouts["gemma_2"]) == (192, 2, 641)


def test_every_entry_has_a_layout_that_is_read_without_saelens():
    assert {sae.layout for saes in registry().values() for sae in saes.values()} <= set(LAYOUTS)


def test_the_malformed_entry_is_read_by_its_own_keys():
    sae = find_sae("gpt2-small-res_scefr-ajt", "blocks.10.hook_resid_pre")
    assert (sae.repo, sae.path) == ("neuronpedia/gpt2-small__res_scefr-ajt", "10-res_scefr-ajt")
    assert sae.neuronpedia_id == "gpt2-small/10-res_scefr-ajt"


@pytest.mark.parametrize(
    ("release", "sae_id", "source", "files"),
    [
        (
            "llama_scope_lxa_32x",
            "l31a_32x",
            "llama3.1-8b/31-llamascope-att-131k",
            ("Llama3_1-8B-Base-L31A-32x/checkpoints/final.safetensors",
             "Llama3_1-8B-Base-L31A-32x/hyperparams.json"),
        ),
        (
            "goodfire-llama-3.3-70b-instruct",
            "layer_50",
            "llama3.3-70b-it/50-resid-post-gf",
            ("Llama-3.3-70B-Instruct-SAE-l50.pt", None),
        ),
        (  # by repository: id, and path
            "fnlp/Llama3_1-8B-Base-LXR-8x",
            "l19r_8x",
            "llama3.1-8b/19-llamascope-res-32k",
            ("Llama3_1-8B-Base-L19R-8x/checkpoints/final.safetensors",
             "Llama3_1-8B-Base-L19R-8x/hyperparams.json"),
        ),
        (
            "google/gemma-scope-2b-pt-res",
            "layer_5/width_16k/average_l0_143",
            "gemma-2-2b/5-gemmascope-res-16k__l0-143",
            ("layer_5/width_16k/average_l0_143/params.npz", None),
        ),
        (  # a repository that the registry does not know
            "someone/their-saes",
            "blocks.3.hook_resid_post",
            None,
            ("blocks.3.hook_resid_post/sae_weights.safetensors",
             "blocks.3.hook_resid_post/cfg.json"),
        ),
    ],
)  # fmt: skip
def test_names_lead_to_files(release, sae_id, source, files):
    sae = find_sae(release, sae_id)
    layout = LAYOUTS[sae.layout]
    assert sae.neuronpedia_id == source
    assert (layout.weights_file(sae.path), layout.config_file(sae.path)) == files


@pytest.mark.parametrize(
    ("release", "sae_id", "message"),
    [
        (
            "llama_scope_lxr_8",
            "l19r_8x",
            'unknown release .*"llama_scope_lxr_8".*llama_scope_lxr_8x',
        ),
        ("Goodfire-Llama-3.1-8B", "layer_19", "goodfire-llama-3.1-8b-instruct"),
        ("llama_scope_lxr_8x", "l91r_8x", r"no SAE \"l91r_8x\".*Nearest: l9r_8x"),
        ("llama_scope_lxr_8x", "l19r_32x", "It exists in llama_scope_lxr_32x"),
        ("goodfire-llama-3.1-8b-instruct", "zzz", "Valid: layer_19"),
        ("fnlp/Llama3_1-8B-Base-LXR-8x", "l19_8x", "repository .*l19r_8x"),
    ],
)
def test_a_miss_offers_the_nearest(release, sae_id, message):
    with pytest.raises(DataError, match=message):
        find_sae(release, sae_id)


def test_search():
    assert [s.sae_id for s in search_registry(["llama_scope_lxr", "L19R_8X"])] == ["l19r_8x"]
    gemma = search_registry(model="gemma-2-9b-it", labelled=True)
    assert gemma
    assert all("gemma-2-9b-it" in s.model and s.neuronpedia_id for s in gemma)
    assert not search_registry(["no such thing"])
    assert len(search_registry(labelled=True)) == 2441


def test_what_saelens_cannot_load_is_one_sentence(monkeypatch):
    import types

    class SAE:
        @staticmethod
        def from_pretrained(*_arguments, **_options):
            raise KeyError("W_dec")

    monkeypatch.setitem(sys.modules, "sae_lens", types.SimpleNamespace(SAE=SAE))
    with pytest.raises(DataError, match=r"llama_scope_lxr_8x l19r_8x: SAELens cannot load it"):
        load_w_dec(find_sae("llama_scope_lxr_8x", "l19r_8x"))


def test_the_command_loads_no_torch_and_no_saelens():
    code = (
        "import sys\nfrom selfie_adapters.cli import main\n"
        "try: main(['prepare', 'list', 'goodfire', '--json'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'sae_lens', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *rows, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    assert [json.loads(row)["sae_id"] for row in rows] == ["layer_50", "layer_19"]
