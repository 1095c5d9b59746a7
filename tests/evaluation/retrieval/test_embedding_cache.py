from __future__ import annotations

import numpy as np
import pytest

from letters import LettersEmbedder
from selfie_adapters.errors import StorageError
from selfie_adapters.evaluation.retrieval import embedding as embedding_cache
from selfie_adapters.evaluation.retrieval.embedding import CachedEmbedder


def test_a_text_is_embedded_once(tmp_path):
    first = LettersEmbedder()
    rows = CachedEmbedder(first, tmp_path).embed(["owl", "tin", "owl", "bee"])
    assert first.asked == ["owl", "tin", "bee"]
    np.testing.assert_array_equal(rows, LettersEmbedder().embed(["owl", "tin", "owl", "bee"]))
    second = LettersEmbedder()
    again = CachedEmbedder(second, tmp_path).embed(["bee", "owl", "gnu"])
    assert second.asked == ["gnu"]
    np.testing.assert_array_equal(again, LettersEmbedder().embed(["bee", "owl", "gnu"]))


def test_another_model_has_a_cache_of_its_own(tmp_path):
    CachedEmbedder(LettersEmbedder(), tmp_path).embed(["owl"])
    other = LettersEmbedder()
    other.digest = "letters-2"
    CachedEmbedder(other, tmp_path).embed(["owl"])
    assert other.asked == ["owl"]


def test_what_was_embedded_before_a_kill_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_cache, "_AT_ONCE", 2)
    texts = ["owl", "tin", "bee", "gnu", "fox"]

    class Killed(LettersEmbedder):
        def embed(self, texts):
            if "bee" in texts:
                raise KeyboardInterrupt
            return super().embed(texts)

    with pytest.raises(KeyboardInterrupt):
        CachedEmbedder(Killed(), tmp_path).embed(texts)
    second = LettersEmbedder()
    rows = CachedEmbedder(second, tmp_path).embed(texts)
    assert second.asked == ["bee", "gnu", "fox"]
    np.testing.assert_array_equal(rows, LettersEmbedder().embed(texts))


def test_hostile_texts_and_no_texts(tmp_path):
    class Counting(LettersEmbedder):
        def embed(self, texts):
            self.asked.extend(texts)
            return np.eye(len(texts), 8, dtype=np.float32)

    texts = ["", "\x00", "'; DROP TABLE embeddings; --", "\ud800", "owl " * 10_000]
    embedder = CachedEmbedder(Counting(), tmp_path)
    first = embedder.embed(texts)
    np.testing.assert_array_equal(embedder.embed(texts), first)
    assert embedder.embed([]).shape[0] == 0


def test_a_damaged_cache_is_named_with_its_fix(tmp_path):
    embedder = CachedEmbedder(LettersEmbedder(), tmp_path)
    embedder.file.write_text("this is no database" * 100)
    with pytest.raises(StorageError, match=r"letters-1\.sqlite.*delete the file"):
        embedder.embed(["owl"])
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be kept"):
        CachedEmbedder(LettersEmbedder(), tmp_path / "file").embed(["owl"])


def test_many_texts_pass_the_limits_of_a_query(tmp_path):
    texts = [f"text {i}" for i in range(2500)]
    embedder = CachedEmbedder(LettersEmbedder(), tmp_path)
    first = embedder.embed(texts)
    np.testing.assert_array_equal(embedder.embed(texts[::-1]), first[::-1])
