from __future__ import annotations

import pytest
import torch

from selfie_adapters.adapters import create_adapter
from selfie_adapters.errors import ConfigError
from selfie_adapters.inference.label_batches import tokenize_labels
from selfie_adapters.model import FrozenModel, SoftPrompt
from selfie_adapters.training import Objective
from selfie_adapters.training.closed_form import (
    closed_form_start,
    fit,
    held_out_fits,
    label_embeddings,
    low_rank,
    set_map,
    word_tokens,
)
from tiny import golden_tokenizer, tiny_network

SIZES = {"common": 2.0, "matrix": 0.5, "identity": 0.25}


@pytest.fixture(scope="module")
def model():
    return FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")


@pytest.fixture(scope="module")
def pairs():
    """400 vectors of width 12 with unequal variances, and targets that depend on them linearly."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 12, generator=generator) * torch.linspace(0.1, 2, 12) + 3
    matrix = torch.randn(12, 12, generator=generator)
    noise = torch.randn(400, 12, generator=generator)
    return x, x @ matrix + 0.1 * noise + 5, matrix


def test_a_label_is_the_mean_embedding_of_its_own_tokens(model):
    bound = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    labels = ["cat", "é", "a longer one"]
    found = label_embeddings(model, tokenize_labels(model.tokenizer, labels, bound.end_id))
    table = model.network.get_input_embeddings().weight
    for row, label in zip(found, labels, strict=True):
        ids = model.tokenizer(label, add_special_tokens=False)["input_ids"]
        torch.testing.assert_close(row, table[ids].mean(0))


def test_the_regression_finds_a_linear_map(pairs):
    x, y, matrix = pairs
    regression = fit(x, y)
    torch.testing.assert_close(regression.matrix, matrix, rtol=0, atol=0.2)
    assert regression.explained > 0.99
    assert regression.ridge <= 1e-2


def test_the_ridge_is_strong_where_vectors_say_nothing():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 60, 40, generator=generator)
    regression = fit(x, y)
    assert regression.ridge >= 10
    assert regression.explained < 0.1


def test_the_low_rank_map_is_the_nearest_on_the_vectors(pairs):
    x, _, matrix = pairs
    centered = x - x.mean(0)
    covariance = centered.T @ centered / len(x)
    wanted = centered @ matrix
    # on the data itself: the best rank-3 approximation of the outputs (Eckart and Young)
    left, sizes, right = torch.linalg.svd(wanted, full_matrices=False)
    best = (left[:, :3] * sizes[:3]) @ right[:3]
    u, v = low_rank(matrix, covariance, 3)
    assert u.shape == v.shape == (12, 3)
    torch.testing.assert_close(centered @ u @ v.T, best, rtol=1e-3, atol=1e-3)
    assert float(u.norm()) == pytest.approx(float(v.norm()), rel=1e-4)


def test_a_full_rank_map_is_the_regression_at_the_size_asked_for(pairs):
    x, y, _ = pairs
    regression = fit(x, y)
    adapter = create_adapter("full_rank", 12, normalize_input=False)
    set_map(adapter, regression, 10.0, SIZES)
    soft = adapter.transform(x).detach()
    centre = soft.mean(0)
    assert float(centre.norm()) == pytest.approx(20, rel=1e-4)  # common 2 · unit 10
    assert float((soft - centre).square().sum(1).mean().sqrt()) == pytest.approx(5, rel=1e-4)
    predicted = (x - x.mean(0)) @ regression.matrix
    torch.testing.assert_close(
        (soft - centre) / (soft - centre).norm(), predicted / predicted.norm(), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["scalar_affine", "scale_only"])
def test_kinds_without_a_matrix_get_a_scale(kind, pairs):
    x, y, _ = pairs
    adapter = create_adapter(kind, 12, normalize_input=False)
    set_map(adapter, fit(x, y), 10.0, SIZES)
    soft = adapter.transform(x).detach()
    spread = (soft - soft.mean(0)).square().sum(1).mean().sqrt()
    assert float(spread) == pytest.approx(2.5, rel=1e-4)  # identity 0.25 · unit 10
    if kind == "scalar_affine":
        assert float(soft.mean(0).norm()) == pytest.approx(20, rel=1e-4)


def test_scale_and_low_rank_part_share_the_work(pairs):
    x, y, _ = pairs
    options = {"normalize_input": False, "low_rank_rank": 4}
    both = create_adapter("scalar_affine_plus_low_rank", 12, **options)
    set_map(both, fit(x, y), 10.0, SIZES)
    low = (x - x.mean(0)) @ both.U @ both.V.T
    assert float(low.detach().square().sum(1).mean().sqrt()) == pytest.approx(5, rel=1e-3)
    assert float(both.transform(x).detach().mean(0).norm()) == pytest.approx(20, rel=1e-3)
    alone = create_adapter("low_rank_only", 12, **options)
    set_map(alone, fit(x, y), 10.0, SIZES)
    spread = alone.transform(x).detach().var(0, correction=0).sum().sqrt()
    assert float(spread) == pytest.approx(5, rel=1e-3)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("scale_only", {"identity"}),
        ("scalar_affine", {"identity", "common"}),
        ("low_rank_only", {"matrix", "common"}),
        ("scalar_affine_plus_low_rank", {"identity", "matrix", "common"}),
        ("full_rank", {"matrix", "common"}),
    ],
)
def test_the_start_has_the_least_loss_of_the_sizes_tried(kind, parts, model):
    bound = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    objective = Objective(model, bound)
    texts = [f"label {i}" for i in range(30)]
    labels = tokenize_labels(model.tokenizer, texts, bound.end_id)
    vectors = torch.randn(15, 32, generator=torch.Generator().manual_seed(0))
    vector_of = torch.arange(30) // 2
    rank = 4 if "low_rank" in kind else None
    adapters = [create_adapter(kind, 32, low_rank_rank=rank, seed=seed) for seed in (0, 1)]
    starts = [
        closed_form_start(
            a, objective, lambda rows: vectors[vector_of[rows]], labels, texts, vector_of, seed=7
        )
        for a in adapters
    ]
    assert starts[0] == starts[1]  # nothing of the published start is left
    assert set(starts[0].sizes) == parts
    assert starts[0].vectors == 15
    for mine, other in zip(adapters[0].parameters(), adapters[1].parameters(), strict=True):
        assert torch.equal(mine, other)
        assert mine.isfinite().all()
        assert mine.requires_grad
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    embedded = label_embeddings(model, word_tokens(model, texts))
    whole, without, held = held_out_fits(unit, (embedded[::2] + embedded[1::2]) / 2, seed=7)
    assert len(held) == 3
    unseen = torch.tensor([i for i in range(30) if i // 2 in held.tolist()])

    @torch.no_grad()
    def loss(sizes):
        set_map(adapters[1], without, norm, sizes)
        soft = adapters[1].transform(vectors[vector_of[unseen]])
        return float(objective.all_losses(soft, labels, unseen).per_example.mean())

    norm = float(model.network.get_input_embeddings().weight.norm(dim=1).mean())
    sizes = {**dict.fromkeys(SIZES, 1.0), **starts[0].sizes}
    for other in (dict.fromkeys(SIZES, 1.0), {**sizes, "common": 1.0}):
        assert loss(sizes) <= loss(other) + 1e-3
    # what is kept is the regression on all vectors at these sizes
    set_map(adapters[1], whole, norm, sizes)
    for mine, other in zip(adapters[0].parameters(), adapters[1].parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


def test_sizes_and_ridge_are_chosen_on_rows_that_the_fit_has_not_seen(pairs):
    x, y, _ = pairs
    whole, without, held = held_out_fits(x, y)
    assert len(held) == 40
    seen = torch.ones(400, dtype=torch.bool)
    seen[held] = False
    torch.testing.assert_close(without.mean_x, x[seen].mean(0))
    torch.testing.assert_close(whole.mean_x, x.mean(0))
    assert without.ridge == whole.ridge
    changed = y.clone()
    changed[held] += 100
    again = held_out_fits(x, changed)[1]
    if again.ridge == without.ridge:
        torch.testing.assert_close(again.matrix, without.matrix)
    predicted = (x[held] - without.mean_x) @ without.matrix + without.mean_y
    share = 1 - (y[held] - predicted).square().sum() / (y[held] - without.mean_y).square().sum()
    assert whole.explained == pytest.approx(float(share), abs=1e-3)


def test_two_vectors_are_too_few_to_hold_one_out():
    x, y = torch.randn(2, 2, 6, generator=torch.Generator().manual_seed(0))
    whole, without, held = held_out_fits(x, y)
    assert whole is without
    assert whole.matrix.isfinite().all()
    assert sorted(held.tolist()) == [0, 1]


def test_an_adapter_without_parameters_has_nothing_to_start(model):
    bound = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    labels = tokenize_labels(model.tokenizer, ["a"], bound.end_id)
    one = torch.zeros(1, dtype=torch.int64)
    for kind, message in (
        ("identity", "no parameters to initialize"),
        ("full_rank", "two vectors"),
    ):
        with pytest.raises(ConfigError, match=message):
            closed_form_start(
                create_adapter(kind, 32),
                Objective(model, bound),
                lambda rows: torch.ones(len(rows), 32),
                labels,
                ["a"],
                one,
            )


def test_examples_that_are_not_chosen_have_no_influence(model):
    bound = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    objective = Objective(model, bound)
    texts = [f"label {i}" for i in range(40)]
    labels = tokenize_labels(model.tokenizer, texts, bound.end_id)
    vectors = torch.randn(40, 32, generator=torch.Generator().manual_seed(0))
    vector_of, chosen = torch.arange(40), torch.arange(1, 40, 2)
    found = []
    for others in (0.0, 5.0):
        changed = vectors.clone()
        changed[::2] += others
        adapter = create_adapter("full_rank", 32, seed=0)
        closed_form_start(
            adapter, objective, lambda rows, v=changed: v[rows], labels, texts, vector_of, chosen
        )
        found.append(adapter.state_dict())
    assert torch.equal(found[0]["weight"], found[1]["weight"])
    assert torch.equal(found[0]["bias"], found[1]["bias"])
