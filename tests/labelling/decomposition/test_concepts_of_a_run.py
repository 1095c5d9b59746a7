"""`selfie label --concepts N` on the golden model: rows, resuming, refusals."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from label_jobs import run
from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.errors import ConfigError
from selfie_adapters.labelling.decomposition import concepts
from selfie_adapters.labelling.finished_run import open_run
from selfie_adapters.labelling.inputs import open_source
from selfie_adapters.labelling.rows import LabelRow
from selfie_adapters.labelling.worker import ShardWorker


@pytest.fixture
def settings(golden_dir, tmp_path):
    generator = torch.Generator().manual_seed(3)
    save_file({"v": torch.randn(5, 48, generator=generator)}, tmp_path / "v.safetensors")
    save_file({"layer_1_at_name": torch.full((48,), 0.01)}, tmp_path / "m.safetensors")

    def settings(**options):
        values = {
            "source": str(tmp_path / "v.safetensors"),
            "model": str(golden_dir / "model"),
            "adapter": str(golden_dir / "adapters/scalar_affine_norm.safetensors"),
            "mean": str(tmp_path / "m.safetensors"),
            "layer": 1,
            "dtype": "float32",
            "max_new_tokens": 4,
            "batch_size": 2,
            "concepts": 2,
        }
        return LabelSettings.checked(**{**values, **options})

    return settings


def test_rows_state_number_and_share_and_a_run_that_lost_rows_resumes(
    settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(concepts, "LEAST_EXPLAINED", 0.0)  # random vectors: no label explains 25 %
    folder = tmp_path / "run"
    job = run(folder, settings())
    assert not job.progress.failed
    shard = folder / "labels-00000.jsonl"
    rows = [json.loads(line) for line in shard.read_text().splitlines()]
    for index in range(5):
        own = [row for row in rows if row["index"] == index]
        assert [row["concept_number"] for row in own] == [1, 2]
        assert all(0 <= row["explained"] <= 1 for row in own)
        assert sum(row["explained"] for row in own) <= 1.0001
    leading = list(open_run(folder).leading())
    assert [row.concept_number for row in leading] == [1] * 5
    whole = shard.read_bytes()
    shard.write_bytes(b"".join(whole.splitlines(keepends=True)[:5]))
    assert run(folder, settings()).progress.complete
    assert shard.read_bytes() == whole


def test_one_concept_measures_the_one_label(settings, tmp_path):
    run(tmp_path / "run", settings(concepts=1))
    rows = list(open_run(tmp_path / "run").rows())
    assert len(rows) == 5
    assert all(isinstance(row, LabelRow) and isinstance(row.explained, float) for row in rows)


def test_the_best_of_n_candidates_explains_at_least_what_that_of_fewer_does(settings, tmp_path):
    shares = {}
    for n in (1, 12):
        chosen = settings(concepts=1, best_of=n, temperature=1.5)
        run(tmp_path / str(n), chosen)
        rows = list(open_run(tmp_path / str(n)).rows())
        shares[n] = [row.explained for row in rows if isinstance(row, LabelRow)]
    assert all(more >= one for one, more in zip(shares[1], shares[12], strict=True))
    assert shares[1] != shares[12]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "vllm"}, "engine vllm does not provide"),
        ({"samples": 2}, "each concept gets one label"),
        ({"best_of": 3, "explain": True}, "each concept gets one label"),
        ({"scales": (1.0, 2.0)}, "each concept gets one label"),
        ({"adapter": None}, "an adapter is required"),
        ({"mean": None}, "no file of means next to the adapter"),
        ({"layer": None, "mean": None}, "no file of means next to the adapter"),
    ],
)
def test_what_concepts_cannot_be_used_with(settings, options, message):
    chosen = settings(**options)
    with pytest.raises(ConfigError, match=message):
        ShardWorker(chosen, open_source(chosen))
