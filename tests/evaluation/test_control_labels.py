"""Labels without an adapter, on a problem whose answers are known."""

from __future__ import annotations

import string

import pytest
import torch

from selfie_adapters.evaluation.baselines import not_measured_line
from selfie_adapters.evaluation.control_labels import (
    missing_words,
    same_start_labels,
    training_labels,
    word_readers,
    words_meaning,
)
from selfie_adapters.model import FrozenModel
from selfie_adapters.sources.labels.label_set import LabelSet
from tiny import golden_tokenizer, tiny_network

LETTERS = list(string.ascii_lowercase)
REASON = "no file"


def tiny(family: str = "llama") -> FrozenModel:
    return FrozenModel(tiny_network(family), golden_tokenizer(), "tiny")


@pytest.fixture(scope="module")
def problem():
    """A model, and rows [520, 32] that are turned embeddings of the letters: latent i is of letter
    i mod 26."""
    model = tiny()
    vocabulary, table = golden_tokenizer().get_vocab(), model.network.get_input_embeddings().weight
    letters = torch.stack(
        [table.detach()[[vocabulary["Ġ"], vocabulary[x]]].mean(0) for x in LETTERS]
    )
    generator = torch.Generator().manual_seed(5)
    turn, _ = torch.linalg.qr(torch.randn(32, 32, generator=generator))
    rows = ((letters - letters.mean(0)) @ turn).repeat(20, 1)
    return model, 7 * rows + 0.05 * torch.randn(rows.shape, generator=generator)


def test_a_probe_of_other_latents_finds_what_turned_rows_are_of(problem):
    model, rows = problem
    labels = LabelSet({i: [LETTERS[i % 26], "another"] for i in range(520)})
    training = training_labels(labels, range(26), 520)
    assert sorted(training) == list(range(26, 520))
    asked = []

    def of(latents):
        asked.append(latents)
        return rows[latents]

    readers = word_readers(model, training, of, seed=0)
    assert list(readers) == ["lens words", "cosine words", "ridge words"]
    assert len(asked[0]) == 320  # ten for each number of a row
    assert set(asked[0]) <= training.keys()
    found = readers["ridge words"].labels(rows[:26])
    assert [label.split(", ")[0] for label in found] == LETTERS
    assert all(len({*label.split(", ")}) == 3 for label in found)
    assert [label[0] for label in readers["cosine words"].labels(rows[:26])] != LETTERS
    assert "by the ridge probe" in words_meaning(readers["ridge words"])
    assert missing_words(readers, REASON) == {}


def test_without_training_latents_there_is_no_probe_and_the_report_states_it(problem):
    model, rows = problem
    for training in ({}, {3: "only one"}):
        readers = word_readers(model, training, lambda latents: rows[latents], seed=0)
        assert missing_words(readers, REASON) == {"ridge words": REASON}
    (line,) = not_measured_line({"not_measured": {"ridge words": REASON}})
    assert line == "not measured: ridge words (no file)"
    assert not [*not_measured_line({"not_measured": {}}), *not_measured_line({})]


def test_a_model_without_a_lens_has_the_other_words():
    readers = word_readers(tiny("gemma3n_text"), {}, lambda _: torch.empty(0, 32), seed=0)
    assert list(readers) == ["cosine words"]
    assert list(missing_words(readers, REASON)) == ["lens words", "ridge words"]


def test_labels_of_train_are_fitted_on_and_without_splits_all_that_are_not_measured():
    labels = {i: [f"label {i}"] for i in (0, 1, 2, 3, 9)}
    splits = {0: "train", 1: "val", 2: "test", 3: "train", 9: "train"}
    assert training_labels(LabelSet(labels, splits), [3], 9) == {0: "label 0"}
    assert training_labels(LabelSet(labels), [3, 2], 9) == {0: "label 0", 1: "label 1"}
    assert training_labels(LabelSet({}), [], 9) == {}


def test_labels_that_begin_alike_are_other_latents_or_concepts_and_may_be_missing():
    own = {5: ["wood, oak", "timber"], 6: ["queer"], 7: [], 8: ["?"]}
    pool = [*own.values(), ["wool"], ["wooden chair"], ["timber, word"], ["world", "wood"]]
    found = same_start_labels(own, pool, 2)
    assert found[5] == ["wool", "world"]
    assert len(found[6]) == 2
    assert all(one.lower().startswith("qu") for one in found[6])
    assert found.keys() == {5, 6}
