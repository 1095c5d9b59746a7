"""Likelihoods one prompt at a time through the network; thresholds by hand."""

import numpy as np
import pytest
import torch

from selfie_adapters.evaluation.detection.judging import (
    CONTINUED,
    LikelihoodJudge,
    best_threshold,
    marked_words,
)
from selfie_adapters.evaluation.detection.windows import Window
from selfie_adapters.model.tokens import begun_ids

TEXTS = ("owls drink tea", "rain fell on\nthe old stone bridge all night", "seven kings")


def log_prob(model, prompt, label):
    """log p(label | prompt), summed over its tokens, by one plain forward pass."""
    before = begun_ids(model.tokenizer, [prompt])[0]
    ids = model.tokenizer.encode(f" {label}", add_special_tokens=False)
    with torch.no_grad():
        logits = model.network(torch.tensor([[*before, *ids]])).logits[0].log_softmax(dim=-1)
    places = range(len(before) - 1, len(before) + len(ids) - 1)
    return sum(float(logits[place, token]) for place, token in zip(places, ids, strict=True))


def tokens(model, label):
    return len(model.tokenizer.encode(f" {label}", add_special_tokens=False))


@pytest.mark.parametrize("task", ["detection", "fuzzing"])
def test_a_gain_is_the_log_probability_over_its_mean_under_the_references(model, task):
    marked = [text.replace(" ", " <<", 1) + ">>" for text in TEXTS]
    windows = [Window(text, True) for text in (TEXTS if task == "detection" else marked)]
    references = [Window(text, False) for text in ("blue bread", "winter <<salt>> in the river")]
    labels = ["a bird of the night", "tea", ""]
    found = LikelihoodJudge(model, task, references).gains(windows, labels)
    assert found[2] == [None] * 3

    def prompt(window):
        one_line = " ".join(window.text.split())
        words = ", ".join(marked_words(one_line))
        return CONTINUED[task].format(text=one_line, marked=words)

    for label, gains in zip(labels[:2], found, strict=False):
        usual = np.mean([log_prob(model, prompt(one), label) for one in references])
        expected = [
            (log_prob(model, prompt(one), label) - usual) / tokens(model, label) for one in windows
        ]
        assert gains == pytest.approx(expected, abs=2e-4)


def test_marked_words_are_named_once_in_order():
    assert marked_words("<<owl>>s and << tea>> and <<owl>>, < <rain> >") == ["owl", "tea"]
    assert marked_words("nothing") == []


def windows(*fits):
    return [Window("", bool(one)) for one in fits]


def test_the_threshold_is_where_most_latents_are_judged_right():
    # Latent 1 alone is split by 0.5; latent 2, with gains twice as high, by anything in (1, 3).
    gains = {1: [0.1, 0.9, 0.3, 1.5], 2: [1.0, 3.0]}
    found = {1: windows(0, 1, 0, 1), 2: windows(0, 1)}
    threshold, accuracy = best_threshold(gains, found)
    # Above 0.6: latent 1 is right everywhere, latent 2 half (1.0 is above).
    # Above 1.25: latent 1 misses 0.9 (three quarters), latent 2 is right: 0.875.
    assert (threshold, accuracy) == (pytest.approx(1.25), pytest.approx(0.875))


def test_a_latent_counts_once_whatever_its_number_of_windows():
    gains = {1: [2.0, 1.0], 2: [0.0, 1.0] * 50}
    found = {1: windows(0, 1), 2: windows(0, 1) * 50}
    threshold, accuracy = best_threshold(gains, found)
    assert (threshold, accuracy) == (pytest.approx(0.5), pytest.approx(0.75))


def test_gains_that_say_nothing_give_a_half():
    assert best_threshold({1: [1.0, 1.0]}, {1: windows(0, 1)})[1] == 0.5
    assert best_threshold({1: [None, None]}, {1: windows(0, 1)})[1] == 0.5
