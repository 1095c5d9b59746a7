"""Making adapters, their initial values, and the map itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from selfie_adapters.adapters import KINDS, Adapter, create_adapter
from selfie_adapters.errors import AdapterError

RANK = {"low_rank_only": 4, "scalar_affine_plus_low_rank": 4}


def make(kind: str, dim: int = 12, **options) -> Adapter:
    return create_adapter(kind, dim, low_rank_rank=RANK.get(kind), seed=0, **options)


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("identity", {}),
        ("scale_only", {"log_scale": (1,)}),
        ("scalar_affine", {"log_scale": (1,), "bias": (12,)}),
        ("low_rank_only", {"U": (12, 4), "V": (12, 4), "bias": (12,)}),
        (
            "scalar_affine_plus_low_rank",
            {"log_scale": (1,), "bias": (12,), "U": (12, 4), "V": (12, 4)},
        ),
        ("full_rank", {"weight": (12, 12), "bias": (12,)}),
    ],
)
def test_each_kind_has_the_published_parameters(kind, shapes):
    adapter = make(kind)
    assert {name: tuple(p.shape) for name, p in adapter.named_parameters()} == shapes
    assert set(adapter.state_dict()) == set(shapes)
    assert all(p.dtype == torch.float32 and p.requires_grad for p in adapter.parameters())


def test_the_kinds_are_the_documented_ones():
    assert list(KINDS) == [
        "identity",
        "scale_only",
        "scalar_affine",
        "low_rank_only",
        "scalar_affine_plus_low_rank",
        "full_rank",
    ]


def test_scale_starts_at_init_scale_and_bias_at_zero():
    adapter = make("scalar_affine", init_scale=5.0)
    assert adapter.log_scale.item() == pytest.approx(1.6094379, abs=1e-6)  # ln 5
    assert adapter.scale() == pytest.approx(5.0, rel=1e-6)
    assert adapter.bias_norm() == 0.0
    assert create_adapter("scale_only", 3).scale() == pytest.approx(30.0, rel=1e-6)


def test_factors_and_matrix_start_with_the_published_spread():
    low = create_adapter("low_rank_only", 400, low_rank_rank=100, init_scale=30.0, seed=1)
    # 30 · 0.01 / √100 = 0.03; 40,000 draws know their spread to 0.35 %
    assert low.U.std().item() == pytest.approx(0.03, rel=0.02)
    assert low.V.std().item() == pytest.approx(0.03, rel=0.02)
    wider = create_adapter(
        "low_rank_only", 400, low_rank_rank=25, init_scale=2.0, low_rank_init_factor=0.5, seed=1
    )
    assert wider.V.std().item() == pytest.approx(2.0 * 0.5 / 5, rel=0.03)
    full = create_adapter("full_rank", 400, init_scale=8.0, seed=1)
    assert full.weight.std().item() == pytest.approx(8.0 / 20, rel=0.02)
    assert full.bias_norm() == 0.0


def test_seed_decides_the_random_values_and_leaves_torchs_generator_alone():
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    one, same = make("full_rank"), make("full_rank")
    other = create_adapter("full_rank", 12, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.weight, same.weight)
    assert not torch.equal(one.weight, other.weight)
    torch.manual_seed(7)
    unseeded = create_adapter("full_rank", 12)
    torch.manual_seed(7)
    assert torch.equal(unseeded.weight, create_adapter("full_rank", 12).weight)


def test_unknown_kind_offers_the_nearest_one():
    with pytest.raises(AdapterError, match=r'"scaler_affine".*Did you mean "scalar_affine"\?'):
        create_adapter("scaler_affine", 4)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("low_rank_only", {}, "low_rank_only needs low_rank_rank"),
        ("scalar_affine", {"low_rank_rank": 4}, "scalar_affine has no low-rank part: omit"),
        ("low_rank_only", {"low_rank_rank": 0}, "from 1 to 8 .*not 0"),
        ("low_rank_only", {"low_rank_rank": 9}, "from 1 to 8 .*not 9"),
        ("low_rank_only", {"low_rank_rank": 2.0}, "must be an integer"),
        ("scalar_affine", {"init_scale": 0.0}, "init_scale must be a number above 0"),
        ("scalar_affine", {"init_scale": math.inf}, "init_scale must be a number above 0"),
        (
            "low_rank_only",
            {"low_rank_rank": 2, "low_rank_init_factor": 0},
            "low_rank_init_factor must be a number above 0",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(kind, options, says):
    with pytest.raises(AdapterError, match=says):
        create_adapter(kind, 8, **options)


@pytest.mark.parametrize("dim", [0, -1, 2.5, True])
def test_width_must_be_a_positive_whole_number(dim):
    with pytest.raises(AdapterError, match="dim must be"):
        create_adapter("scalar_affine", dim)


@pytest.mark.parametrize("kind", list(KINDS))
def test_one_vector_gives_the_same_numbers_as_a_row_of_many(kind):
    adapter = make(kind)
    vectors = torch.randn(5, 12, generator=torch.Generator().manual_seed(3))
    many = adapter.transform(vectors)
    assert many.shape == (5, 12)
    assert adapter.transform(vectors[2]).shape == (12,)
    torch.testing.assert_close(adapter.transform(vectors[2]), many[2])
    assert adapter.transform(vectors[:0]).shape == (0, 12)
    assert torch.equal(adapter(vectors), many)


def test_normalisation_adds_epsilon_to_the_norm():
    identity = create_adapter("identity", 2)
    out = identity.transform(torch.tensor([[3.0, 4.0], [3e-8, 4e-8], [0.0, 0.0]])).numpy()
    # 5e-8 + 1e-8 = 6e-8: a tiny vector shows where the epsilon stands
    np.testing.assert_allclose(out, [[0.6, 0.8], [0.5, 2 / 3], [0.0, 0.0]], rtol=1e-6)


def test_normalisation_can_be_overridden_for_one_call():
    x = torch.tensor([3.0, 4.0])
    normal, raw = (
        create_adapter("identity", 2),
        create_adapter("identity", 2, normalize_input=False),
    )
    assert raw.transform(x).tolist() == [3.0, 4.0]
    assert normal.transform(x, normalize_input=False).tolist() == [3.0, 4.0]
    assert raw.transform(x, normalize_input=True).tolist() == pytest.approx([0.6, 0.8])
    assert normal.normalize_input is True


def test_zero_vector_gives_the_bias_alone():
    adapter = make("scalar_affine_plus_low_rank")
    with torch.no_grad():
        adapter.bias.copy_(torch.arange(12.0))
    assert adapter.transform(torch.zeros(12)).tolist() == list(range(12))


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_float_dtype_is_computed_in_float32(kind, dtype):
    adapter = make(kind)
    vectors = torch.randn(4, 12, generator=torch.Generator().manual_seed(3)).to(dtype)
    out = adapter(vectors)
    assert out.dtype == torch.float32
    assert torch.equal(out, adapter(vectors.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(out, adapter(vectors))
    # transform is the same, in the dtype it was given
    assert adapter.transform(vectors).dtype == dtype
    assert torch.equal(adapter.transform(vectors), out.to(dtype))


@pytest.mark.parametrize("kind", list(KINDS))
def test_in_evaluation_mode_nothing_has_to_be_detached(kind):
    adapter = make(kind).eval()
    vectors = torch.randn(4, 12, generator=torch.Generator().manual_seed(3))
    out = adapter.transform(vectors)
    assert not out.requires_grad
    assert out.numpy().shape == (4, 12)  # numpy refuses a tensor with a gradient
    trainable = adapter.num_parameters() > 0
    assert adapter(vectors).requires_grad == trainable  # training and losses are not cut off
    assert adapter.train().transform(vectors).requires_grad == trainable
    with torch.no_grad():
        assert not adapter.transform(vectors).requires_grad


def test_wrong_input_is_refused():
    adapter = make("scalar_affine")
    with pytest.raises(AdapterError, match=r"width 12; these have width 16 \(shape \[3, 16\]\)"):
        adapter.transform(torch.zeros(3, 16))
    with pytest.raises(AdapterError, match=r"shape \[n, 12\] or \[12\], not \[1, 2, 12\]"):
        adapter.transform(torch.zeros(1, 2, 12))
    with pytest.raises(AdapterError, match=r"not \[\]"):
        adapter.transform(torch.tensor(1.0))
    with pytest.raises(AdapterError, match=r"floating-point numbers, not torch\.int64"):
        adapter.transform(torch.zeros(12, dtype=torch.long))
    with pytest.raises(AdapterError, match=r"a tensor, not ndarray: torch\.as_tensor"):
        adapter.transform(np.zeros(12))
    with pytest.raises(AdapterError, match='unknown adapter kind "None"'):
        create_adapter(None, 12)


def test_gradients_reach_every_parameter_and_the_vectors():
    adapter = make("scalar_affine_plus_low_rank", normalize_input=False, init_scale=3.0)
    x = torch.randn(2, 12, generator=torch.Generator().manual_seed(4), requires_grad=True)
    adapter.transform(x).sum().backward()
    ones = np.ones(12)
    u, v = adapter.U.detach().numpy(), adapter.V.detach().numpy()
    xs = x.detach().numpy()
    # d/dlog_scale of Σ exp(s)·x is exp(s)·Σx; of the bias 2 (two rows); of U (Σ_n x_n)(Vᵀ1)ᵀ
    assert adapter.log_scale.grad.item() == pytest.approx(3.0 * xs.sum(), rel=1e-4)
    np.testing.assert_allclose(adapter.bias.grad.numpy(), 2 * ones)
    np.testing.assert_allclose(
        adapter.U.grad.numpy(), np.outer(xs.sum(0), v.T @ ones), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        adapter.V.grad.numpy(), np.outer(ones, xs.sum(0) @ u), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(x.grad.numpy()[0], 3.0 * ones + u @ (v.T @ ones), rtol=1e-4)


def test_singular_values_and_share_equal_those_of_the_full_matrix():
    adapter = make("scalar_affine_plus_low_rank", init_scale=3.0, low_rank_init_factor=0.2)
    matrix = adapter.U.detach().numpy() @ adapter.V.detach().numpy().T  # 12×12
    np.testing.assert_allclose(
        adapter.singular_values().numpy(), np.linalg.svd(matrix)[1][:4], rtol=1e-4
    )
    share = np.linalg.norm(matrix) / np.linalg.norm(3.0 * np.eye(12))
    assert adapter.low_rank_share() == pytest.approx(share, rel=1e-5)
    full = make("full_rank")
    np.testing.assert_allclose(
        full.singular_values().numpy(),
        np.linalg.svd(full.weight.detach().numpy())[1],
        rtol=1e-4,
        atol=1e-5,
    )


def test_quantities_a_kind_does_not_have_are_none():
    identity, low = make("identity"), make("low_rank_only")
    assert (identity.scale(), identity.bias_norm(), identity.singular_values()) == (None,) * 3
    assert (low.scale(), low.low_rank_share()) == (None, None)
    assert make("scale_only").bias_norm() is None
    assert make("full_rank").low_rank_share() is None


def test_identity_follows_a_device_although_it_has_no_parameters():
    identity = create_adapter("identity", 2)
    assert identity.device == torch.device("cpu")
    assert identity.to("meta").device == torch.device("meta")
    assert identity.num_parameters() == 0


def test_metadata_describes_the_adapter_in_plain_values():
    metadata = make("low_rank_only", init_scale=2.0).get_metadata()
    assert metadata == {
        "kind": "low_rank_only",
        "projection_type": "low_rank_only",
        "dim": 12,
        "model_dim": 12,
        "projection_num_params": 2 * 12 * 4 + 12,
        "checkpoint_format_version": 1,
        "num_parameters": 12 * 4 * 2 + 12,
        "normalize_input": True,
        "init_scale": 2.0,
        "low_rank_rank": 4,
        "low_rank_init_factor": 0.01,
        "global_step": 0,
        "best_val_loss": None,
        "config": {
            "projection": {
                "type": "low_rank_only",
                "normalize_input": True,
                "init_scale": 2.0,
                "low_rank_rank": 4,
                "low_rank_init_factor": 0.01,
            }
        },
        "binding": None,
    }


@pytest.mark.parametrize("kind", list(KINDS))
def test_metadata_has_the_published_names(kind):
    adapter = make(kind)
    metadata = adapter.get_metadata()
    assert metadata["projection_type"] == metadata["kind"] == kind
    assert metadata["model_dim"] == metadata["dim"] == 12
    assert metadata["projection_num_params"] == sum(p.numel() for p in adapter.parameters())
    assert {"global_step", "best_val_loss", "config", "checkpoint_format_version"} <= set(metadata)
    assert {"normalize_input", "init_scale", "low_rank_rank", "low_rank_init_factor"} <= set(
        metadata
    )
