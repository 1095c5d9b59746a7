"""Run folders as selfie label leaves them."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from label_runs import default_rows
from selfie_adapters.config.labelling import LabelSettings


@pytest.fixture
def vectors(tmp_path):
    tensor = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    save_file({"v": tensor}, tmp_path / "v.safetensors")
    return tensor


@pytest.fixture
def run(vectors, tmp_path):
    """A run folder as `selfie label --best-of 2 --explain` would leave it; two shards.

    With `rows`: as without these options; vectors without a row have failed.
    """

    def run(rows=None, **options):
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        values = {"source": str(tmp_path / "v.safetensors"), "model": "m", "shard_size": 4}
        if rows is None:
            values |= {"best_of": 2, "explain": True}
        else:
            have = {row["index"] for row in rows}
            named = {key: rows[0][key] for key in ("dataset",) if key in rows[0]}
            missing = [{**named, "index": i, "error": "e"} for i in range(8) if i not in have]
            rows = [*rows, *missing]
        settings = LabelSettings.checked(**{**values, **options})
        config = {"settings": settings.model_dump(mode="json"), "vectors": 8}
        (folder / "config.json").write_text(json.dumps(config))
        by_shard = [[], []]
        for row in default_rows() if rows is None else rows:
            by_shard[row["index"] // 4].append(row)
        for number, content in enumerate(by_shard):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
            (folder / f"labels-0000{number}.jsonl").write_text(text, encoding="utf-8")
        return folder

    return run
