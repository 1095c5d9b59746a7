"""`selfie read --concepts N` on the golden model: shares, resuming, refusals."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from selfie_adapters.adapters import load_adapter
from selfie_adapters.commands.read import read
from selfie_adapters.errors import ConfigError
from selfie_adapters.labelling.decomposition import concepts
from selfie_adapters.labelling.decomposition.reconstruction import Reconstructor
from selfie_adapters.model import load_model

ADAPTER = "adapters/scalar_affine_norm.safetensors"
EVERY = {"concepts": 2, "layers": "0,1", "best_of": 3, "temperature": 1.0}


@pytest.fixture
def run(golden_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(
        concepts, "LEAST_EXPLAINED", 0.0
    )  # no label of the tiny model explains 25 %
    generator = torch.Generator().manual_seed(0)
    means = {f"layer_{i}_at_name": torch.randn(48, generator=generator) for i in range(2)}
    save_file(means, tmp_path / "m.safetensors")

    def run(out="out", **options):
        settings = {
            "adapter": str(golden_dir / ADAPTER),
            "model": str(golden_dir / "model"),
            "mean": str(tmp_path / "m.safetensors"),
            "chat": "none",
            "dtype": "float32",
            "max_new_tokens": 4,
            **options,
        }
        read("an owl", out=str(tmp_path / out), **settings)
        return json.loads((tmp_path / out / "reading.json").read_text(encoding="utf-8"))

    return run


@torch.no_grad()
def test_each_cell_has_the_share_of_its_state_that_its_label_explains(
    run, golden_dir, tmp_path, capsys
):
    content = run(**EVERY)
    model = load_model(golden_dir / "model", "float32")
    means = load_file(tmp_path / "m.safetensors")
    reconstructor = Reconstructor(
        model, load_adapter(golden_dir / ADAPTER), tmp_path / "m.safetensors"
    )
    ids = torch.tensor([[token["id"] for token in content["tokens"]]])
    states = model.network(ids, output_hidden_states=True, use_cache=False).hidden_states
    assert len(content["cells"]) == 2 * len(content["tokens"])
    for cell in content["cells"]:
        layer = cell["layer"]
        vector = states[layer + 1][0, cell["position"]] - means[f"layer_{layer}_at_name"]
        (span,) = reconstructor.spans([cell["label"]], (layer, "name"))
        inside = float((span @ vector).square().sum() / vector.square().sum())
        assert cell["explained"] == pytest.approx(inside, abs=2e-3)
        assert len(cell["further"]) <= 1
        shares = [cell["explained"], *(one["explained"] for one in cell["further"])]
        assert sum(shares) <= 1.0001
    named = [cell for cell in content["cells"] if cell["further"]]
    assert named, "every reading ended after its first concept"
    said = {"concepts": 2, "candidates": 3, "temperature": 1.0, "seed": 0}
    assert said.items() <= content["settings"].items()
    shown = capsys.readouterr().out
    assert "share of the state that its label explains" in shown
    page = (tmp_path / "out/reading.html").read_text(encoding="utf-8")
    assert "the one of 3 candidates that explains most (temperature 1)" in page
    assert '"explained":' in page


def test_it_resumes_where_it_stopped_and_not_with_other_candidates(run, tmp_path):
    first = run(**EVERY)
    whole, partial = tmp_path / "out/reading.json", tmp_path / "out/cells.jsonl"
    whole.unlink()
    rows = [{"settings": first["settings"]}, *first["cells"][:5]]
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigError, match="candidates 3; now it is 4"):
        run(**{**EVERY, "best_of": 4})
    with pytest.raises(ConfigError, match="candidates 3; now it is None"):
        run(layers="0,1")
    assert run(**EVERY)["cells"] == first["cells"]


def test_a_reading_without_concepts_has_none(run):
    content = run(layers="1")
    assert {cell["explained"] for cell in content["cells"]} == {None}
    assert all(cell["further"] == [] for cell in content["cells"])
    assert "concepts" not in content["settings"]


@pytest.mark.parametrize("option", [{"best_of": 8}, {"temperature": 0.5}, {"seed": 3}])
def test_candidates_are_for_concepts(run, option):
    with pytest.raises(ConfigError, match=r"is for the candidates of --concepts N"):
        run(layers="1", **option)


def test_without_means_nothing_can_be_explained(run, tmp_path):
    with pytest.raises(ConfigError, match=r"no file of means next to the adapter"):
        run(layers="1", concepts=1, mean=None)
    assert not (tmp_path / "out").exists()
