from __future__ import annotations

import pytest
import torch

from selfie_adapters.config.shared import Sampling
from selfie_adapters.inference.generate import next_tokens, penalized, row_seed, row_uniforms


def test_temperature_zero_takes_the_most_likely_token():
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    token, log_prob = next_tokens(logits, Sampling(0.0, 1.0), torch.tensor([0.99]))
    assert token.tolist() == [1]
    assert float(log_prob) == pytest.approx(float(logits.log_softmax(-1)[0, 1]))


@pytest.mark.parametrize(
    ("uniform", "expected"),
    # probabilities .5 (token 2), .3 (token 0), .2 (token 1): the ladder is .5, .8, 1
    [(0.0, 2), (0.49, 2), (0.51, 0), (0.79, 0), (0.81, 1), (0.999999, 1)],
)
def test_a_uniform_number_falls_on_the_ladder_of_ranked_probabilities(uniform, expected):
    logits = torch.tensor([[0.3, 0.2, 0.5]]).log()
    assert next_tokens(logits, Sampling(1.0, 1.0), torch.tensor([uniform]))[0].tolist() == [
        expected
    ]


@pytest.mark.parametrize(
    ("top_p", "uniform", "expected"),
    [(0.4, 0.99, 2), (0.6, 0.6, 2), (0.6, 0.63, 0), (0.6, 0.99, 0), (0.81, 0.99, 1)],
)
def test_top_p_keeps_the_first_tokens_that_reach_it(top_p, uniform, expected):
    logits = torch.tensor([[0.3, 0.2, 0.5]]).log()  # .5 and .3 left: the ladder is .625, 1
    assert next_tokens(logits, Sampling(1.0, top_p), torch.tensor([uniform]))[0].tolist() == [
        expected
    ]


def test_temperature_sharpens_and_flattens():
    logits = torch.tensor([[0.8, 0.2]]).log()
    # T 0.5: .64 / .68 = .941; T 2: .894 / 1.342 = .667
    assert next_tokens(logits, Sampling(0.5, 1.0), torch.tensor([0.93]))[0].tolist() == [0]
    assert next_tokens(logits, Sampling(0.5, 1.0), torch.tensor([0.95]))[0].tolist() == [1]
    assert next_tokens(logits, Sampling(2.0, 1.0), torch.tensor([0.65]))[0].tolist() == [0]
    assert next_tokens(logits, Sampling(2.0, 1.0), torch.tensor([0.68]))[0].tolist() == [1]


def test_the_log_probability_is_of_the_unmodified_distribution():
    logits = torch.tensor([[0.8, 0.2]]).log()
    _, log_prob = next_tokens(logits, Sampling(0.5, 0.5), torch.tensor([0.1]))
    assert float(log_prob.exp()) == pytest.approx(0.8)


def test_frequencies_follow_the_distribution():
    logits = torch.tensor([[0.6, 0.3, 0.1]]).log().expand(20_000, -1)
    uniforms = row_uniforms([row_seed(0, i, 1.0, 0) for i in range(20_000)], 1)[:, 0]
    counts = next_tokens(logits, Sampling(1.0, 1.0), uniforms)[0].bincount(minlength=3) / 20_000
    torch.testing.assert_close(counts, torch.tensor([0.6, 0.3, 0.1]), atol=0.012, rtol=0)


def test_seeds_are_the_same_in_every_process_and_differ_by_place():
    # blake2b of "0:1:2.0:3", first 8 bytes, shifted right by one
    assert row_seed(0, 1, 2.0, 3) == row_seed(0, 1, 2.0, 3)
    places = [(0, 1, 1.0, 0), (0, 1, 1.0, 1), (0, 2, 1.0, 0), (1, 1, 1.0, 0), (0, 1, 0.5, 0)]
    assert len({row_seed(*place) for place in places}) == len(places)


def test_a_row_draws_the_same_numbers_alone_and_in_company():
    alone = row_uniforms([7], 4)
    together = row_uniforms([3, 7, 9], 4)
    assert torch.equal(together[1:2], alone)


def test_the_repetition_penalty_divides_positive_and_multiplies_negative_logits():
    logits = torch.tensor([[2.0, -1.0, 0.5, 3.0]])
    changed = penalized(logits, torch.tensor([[0, 1, 0]]), 2.0)
    assert changed.tolist() == [[1.0, -2.0, 0.5, 3.0]]
    # token 3 would win; written before, 3 / 2 loses to 2
    written = torch.tensor([[3]])
    token, log_prob = next_tokens(logits, Sampling(repetition_penalty=2.0), torch.zeros(1), written)
    assert token.tolist() == [0]
    assert float(log_prob) == pytest.approx(float(logits.log_softmax(-1)[0, 0]))


@pytest.mark.parametrize("spread", [0.2, 2.0, 6.0])
def test_a_large_vocabulary_is_drawn_from_as_if_it_were_ranked_whole(spread):
    """Wide and narrow nuclei; rounding to halves makes many tokens exactly as likely."""
    generator = torch.Generator().manual_seed(1)
    logits = (torch.randn(40, 2_000, generator=generator) * spread * 2).round() / 2
    uniforms = torch.rand(40, generator=generator)
    found = next_tokens(logits, Sampling(0.7, 0.9), uniforms)[0].tolist()
    for row, uniform in enumerate(uniforms.tolist()):
        chances = (logits[row] / 0.7).double().softmax(-1).tolist()
        order = sorted(range(2_000), key=lambda i: (-chances[i], i))
        kept, mass = [], 0.0
        for i in order:
            if mass >= 0.9:
                break
            kept.append(i)
            mass += chances[i]
        at = 0.0
        for i in kept:
            at += chances[i]
            if at > uniform * mass:
                break
        assert found[row] == i
