from __future__ import annotations

import pytest
import torch

from selfie_adapters.adapters import create_adapter
from selfie_adapters.inference.label_batches import tokenize_labels
from selfie_adapters.inference.label_scores import _parts_of_like_length, prefill, score_generated
from selfie_adapters.labelling import CandidateScores, score_candidates
from selfie_adapters.model import FrozenModel, SharedPrefix, SoftPrompt, library
from selfie_adapters.training import label_losses
from tiny import FAMILIES, golden_tokenizer, tiny_network

LABELS = ["cat", "x", "a much longer label than the others", "naïve", "dog house"]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return FrozenModel(tiny_network(request.param), golden_tokenizer(), request.param)


@pytest.mark.parametrize("mask", [True, False])
def test_every_pair_equals_the_training_loss_of_that_pair(model, mask, monkeypatch):
    """Also where `logits_to_keep` takes no mask (transformers before 5.21)."""
    if not mask:
        monkeypatch.setattr(library, "_takes_mask", lambda _kind: False)
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    adapter = create_adapter("identity", 32, normalize_input=False)
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    scores = score_candidates(model, prompt.bind(model.tokenizer), vectors, LABELS)
    assert scores.log_probs.shape == (3, 5)
    for row in range(3):
        with torch.no_grad():
            losses = label_losses(model, prompt, adapter, vectors[[row] * 5], LABELS)
        torch.testing.assert_close(
            -scores.log_probs[row] / scores.tokens, losses, rtol=2e-4, atol=2e-5
        )


def test_scores_do_not_depend_on_how_many_are_scored_at_once(model, monkeypatch):
    import selfie_adapters.inference.label_scores as label_scores

    prompt = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    vectors = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    expected = score_candidates(model, prompt, vectors, LABELS).log_probs
    monkeypatch.setattr(label_scores, "tokens_per_microbatch", lambda _model: 20)
    found = score_candidates(model, prompt, vectors, LABELS).log_probs
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_gain_is_the_difference_from_the_zero_vector_a_token():
    scores = CandidateScores(torch.tensor([[-4.0, -9.0]]), torch.tensor([2, 3]))
    zero = CandidateScores(torch.tensor([[-6.0, -6.0]]), torch.tensor([2, 3]))
    assert scores.gain(zero).tolist() == [[1.0, -1.0]]


def test_written_tokens_score_like_the_same_candidates(model):
    prompt = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(2))
    expected = score_candidates(model, prompt, vectors, LABELS).log_probs
    tokens = tokenize_labels(model.tokenizer, LABELS, prompt.end_id)
    ids = [
        tokens.ids[start : start + length].tolist()
        for start, length in zip(tokens.starts, tokens.lengths, strict=True)
    ]
    read = prefill(model, prompt, SharedPrefix(model, prompt.prefix_ids), vectors)
    owners = torch.tensor([0] * 5 + [1] * 5)
    found = score_generated(model, read, ids * 2, owners)
    torch.testing.assert_close(torch.tensor(found), expected.flatten(), rtol=1e-4, atol=1e-4)
    # one token alone is scored too: by the distribution after the prompt
    (first,) = score_generated(model, read, [[7]])
    assert first == pytest.approx(float(read.first[0, 7]))


@pytest.mark.parametrize("tokens", [4, 1000])
def test_parts_hold_every_row_once_and_little_padding(tokens):
    lengths = torch.tensor([30, 3, 3, 1, 17, 3, 9, 2, 3])
    parts = _parts_of_like_length(lengths, tokens)
    assert sorted(torch.cat(parts).tolist()) == list(range(9))
    for part in parts:
        fed = lengths[part] - 1
        assert (2 * fed > fed.max()).all() or len(part) == 1 or fed.max() == 0
        assert fed.max() * len(part) <= tokens or len(part) == 1
    if tokens == 1000:  # tokens fed: 29, 16 | 8 | 2, 2, 2, 2 | 1 | 0
        assert [len(part) for part in parts] == [2, 1, 4, 1, 1]
