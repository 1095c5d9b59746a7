"""Number for number what the published code gives on the golden adapters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from golden_cases import GOLDEN_ADAPTERS
from selfie_adapters.adapters import load_adapter

FILES = [f"{case}.safetensors" for case in GOLDEN_ADAPTERS] + [
    f"{case}.pt" for case in GOLDEN_ADAPTERS if case.endswith("norm")
]
# d = 48 and r = 3, counted by hand
PARAMETERS = {
    "scale_only": 1,
    "scalar_affine": 48 + 1,
    "low_rank_only": 48 * 3 * 2 + 48,
    "scalar_affine_plus_low_rank": 48 * 3 * 2 + 48 + 1,
    "full_rank": 48 * 48 + 48,
}


@pytest.fixture(scope="module")
def cases(golden):
    return {case["adapter"]: case for case in golden["cases"]}


@pytest.fixture(scope="module")
def vectors(golden_dir):
    return torch.load(golden_dir / "vectors.pt", weights_only=True)


def by_hand(kind: str, normalize: bool, tensors: dict[str, np.ndarray], x: np.ndarray):
    """The published formulas in float64 numpy."""
    t = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    x = x.astype(np.float64)
    if normalize:
        x = x / (np.sqrt((x**2).sum(axis=1, keepdims=True)) + 1e-8)
    out = np.zeros_like(x)
    if "scal" in kind:
        out = out + np.exp(t["log_scale"][0]) * x
    if "low_rank" in kind:
        out = out + np.einsum("nd,dr,er->ne", x, t["U"], t["V"])
    if kind == "full_rank":
        out = out + np.einsum("nd,ed->ne", x, t["weight"])
    return out + t.get("bias", 0.0)


def test_every_golden_case_is_covered(cases):
    assert sorted(cases) == sorted(GOLDEN_ADAPTERS)


@pytest.mark.parametrize("file", FILES)
def test_soft_tokens_and_parameter_count_equal_the_published_ones(file, cases, vectors, golden_dir):
    name = file.split(".")[0]
    adapter = load_adapter(golden_dir / "adapters" / file)
    soft = adapter.transform(vectors).detach()
    assert soft.shape == (8, 48)
    expected = torch.tensor(cases[name]["soft_tokens_head"])
    torch.testing.assert_close(soft[:, :4], expected, rtol=1e-6, atol=1e-6)
    kind = name.rsplit("_", 1)[0]
    assert adapter.num_parameters() == PARAMETERS[kind] == cases[name]["num_parameters"]
    assert (adapter.kind, adapter.dim) == (kind, 48)


@pytest.mark.parametrize("case", GOLDEN_ADAPTERS)
def test_whole_soft_tokens_equal_the_formula_worked_by_hand(case, vectors, golden_dir):
    path = golden_dir / "adapters" / f"{case}.safetensors"
    kind, form = case.rsplit("_", 1)
    expected = by_hand(kind, form == "norm", load_file(path), vectors.numpy())
    soft = load_adapter(path).transform(vectors).detach().numpy()
    np.testing.assert_allclose(soft, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("case", GOLDEN_ADAPTERS)
def test_state_dict_is_exactly_the_published_tensors(case, golden_dir):
    path = golden_dir / "adapters" / f"{case}.safetensors"
    state = load_adapter(path).state_dict()
    published = load_file(path)
    assert sorted(state) == sorted(published)
    for name, tensor in published.items():
        assert state[name].dtype == torch.float32
        np.testing.assert_array_equal(state[name].numpy(), tensor)


@pytest.mark.parametrize("case", GOLDEN_ADAPTERS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_written_file_has_the_published_layout_and_the_same_numbers(
    case, suffix, golden_dir, tmp_path
):
    source = golden_dir / "adapters" / f"{case}.safetensors"
    copy = load_adapter(source).save(tmp_path / f"copy{suffix}")
    with safe_open(source, "np") as file:
        published = file.metadata()
    if suffix == ".safetensors":
        with safe_open(copy, "np") as file:
            assert file.metadata() == published  # every header value, as a string, to the letter
        tensors = load_file(copy)
    else:
        content = torch.load(copy, weights_only=True)
        tensors = {name: t.numpy() for name, t in content["projection_state"].items()}
        assert (content["model_dim"], content["global_step"]) == (48, 7)
        assert content["best_val_loss"] == 1.25
        assert content["config"]["projection"]["type"] == case.rsplit("_", 1)[0]
        if case.endswith("norm"):
            other = torch.load(source.with_suffix(".pt"), weights_only=True)
            assert content.keys() == other.keys()
            for key in content.keys() - {"projection_state"}:
                assert content[key] == other[key]
                assert type(content[key]) is type(other[key])
    for name, tensor in load_file(source).items():
        np.testing.assert_array_equal(tensors[name], tensor)
