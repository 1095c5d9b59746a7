"""The published summary of retrieval scores."""

from __future__ import annotations

import json

import pytest

from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.published.labels import read_retrieval_summary


def summary(tmp_path, key):
    scale = {"recalls": {key: 0.5}, "mrr": 0.25, "n_labels": 3}
    path = tmp_path / "retrieval_eval_summary.json"
    path.write_text(json.dumps({"results_by_scale": {"1.0": scale}}))
    return path


def test_recall_by_k(tmp_path):
    (score,) = read_retrieval_summary(summary(tmp_path, "recall@10"))
    assert score.recall_at == {10: 0.5}


@pytest.mark.parametrize("key", ["recall@ten", "9" * 5000, "²"])
def test_a_key_that_is_no_count_is_named(tmp_path, key):
    with pytest.raises(DataError, match=r"summary\.json, scale 1\.0: recalls has the key"):
        read_retrieval_summary(summary(tmp_path, key))
