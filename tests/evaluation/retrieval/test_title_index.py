from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from letters import LettersEmbedder
from selfie_adapters.errors import ConfigError
from selfie_adapters.evaluation.retrieval import lookup as title_index
from selfie_adapters.evaluation.retrieval.lookup import Entry, find_places, index_rows

OWL = Entry("owl", ("owl", "a night bird", "hooter"))
TIN = Entry("tin", ("a soft metal",))


def unit(*shape, seed=0):
    rows = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("scores_at_once", [1, 200, 10_000_000])
def test_places_are_those_of_a_plain_loop(monkeypatch, scores_at_once):
    monkeypatch.setattr(title_index, "SCORES_AT_ONCE", scores_at_once)
    queries, index = unit(23, 8), unit(57, 8, seed=1)
    own = np.arange(23) * 2
    found = find_places(queries, index, own, k=4)
    for i, query in enumerate(queries):
        cosines = [float(np.dot(query, row)) for row in index]
        better = [j for j, cosine in enumerate(cosines) if cosine > cosines[own[i]]]
        assert found.rank[i] == len(better) + 1
        assert found.similarity[i] == pytest.approx(cosines[own[i]], abs=1e-6)
        best = sorted(range(57), key=lambda j: -cosines[j])[:4]
        assert found.nearest[i].tolist() == best
        assert found.cosines[i] == pytest.approx([cosines[j] for j in best], abs=1e-6)
        assert found.tied[i] == 0


def test_equal_topics_do_not_push_each_other_down():
    # topics 0, 1 and 3 are the same direction; 2 is nearer to the text
    index = np.array([[1, 0], [1, 0], [0.8, 0.6], [1, 0]], np.float32)
    found = find_places(np.array([[0.8, 0.6]] * 3, np.float32), index, np.array([1, 2, 3]), k=9)
    assert found.rank.tolist() == [2, 1, 2]
    assert found.tied.tolist() == [2, 0, 2]
    assert found.nearest[0].tolist() == [2, 0, 1, 3]  # k is cut to the four there are


def test_rounding_does_not_decide_between_equal_topics():
    rows = unit(1, 384).repeat(5000, axis=0)  # 5,000 times the same topic
    found = find_places(unit(7, 384, seed=3), rows, np.arange(7) * 700)
    assert found.rank.tolist() == [1] * 7
    assert found.tied.tolist() == [4999] * 7


def test_the_texts_of_each_strategy():
    asked = {}
    for strategy in ("title", "title_and_first_label", "title_and_all_labels", "mean"):
        embedder = LettersEmbedder()
        rows = index_rows([OWL, TIN], strategy, embedder)
        assert rows.shape == (2, 256)
        assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1], abs=1e-6)
        asked[strategy] = embedder.asked
    assert asked["title"] == ["owl", "tin"]
    assert asked["title_and_first_label"] == ["owl: a night bird", "tin: a soft metal"]
    assert asked["title_and_all_labels"] == ["owl: a night bird; hooter", "tin: a soft metal"]
    assert asked["mean"] == ["owl", "a night bird", "hooter", "tin", "a soft metal"]


def test_the_mean_is_that_of_unit_vectors():
    embedder = LettersEmbedder()
    found = index_rows([Entry("x"), OWL], "mean", embedder)[1]
    by_hand = sum(embedder.embed([text])[0] for text in ("owl", "a night bird", "hooter")) / 3
    assert found == pytest.approx(by_hand / np.linalg.norm(by_hand), abs=1e-6)


def test_an_unknown_strategy_names_the_nearest():
    with pytest.raises(ConfigError, match='Did you mean "title_and_all_labels"'):
        index_rows([OWL], "title_and_all_label", LettersEmbedder())


def peak_of(queries, topics, width):
    index, texts = unit(topics, width), unit(queries, width, seed=1)
    tracemalloc.start()
    find_places(texts, index, np.arange(queries))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, index.nbytes + texts.nbytes


def test_memory_does_not_grow_with_the_texts():
    # 500 texts × 50,000 topics are 100 MB of scores; 1,500 texts would be 300 MB
    few, _ = peak_of(500, 50_000, 8)
    many, _ = peak_of(1500, 50_000, 8)
    assert few < 300e6
    assert many < few * 1.05


@pytest.mark.slow
def test_fifty_thousand_topics_and_five_thousand_texts_stay_below_a_gigabyte():
    peak, inputs = peak_of(5_000, 50_000, 1024)  # as wide as gte-large
    assert peak + inputs < 1e9
