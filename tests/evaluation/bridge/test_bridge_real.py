"""The project's own facts on the real small model."""

import json

import pytest

from selfie_adapters.adapters import create_adapter
from selfie_adapters.config.evaluation.bridge import BridgeSettings
from selfie_adapters.evaluation.bridge.protocol import Bridge
from selfie_adapters.model import load_model
from selfie_adapters.model.fingerprint import mean_embedding_norm


@pytest.mark.slow
def test_the_small_model_answers_part_of_the_facts(tmp_path):
    model = load_model("demo")
    norm = mean_embedding_norm(model)
    create_adapter("scale_only", model.d_model, init_scale=norm).save(tmp_path / "a.safetensors")
    settings = BridgeSettings(
        model="demo",
        adapter=str(tmp_path / "a.safetensors"),
        limit=2,
        layers="15",
        samples=1,
        max_new_tokens=4,
        untrained_scales=(),
        random=False,
    )
    path = Bridge.run(settings, tmp_path / "r", model)
    counts = json.loads(path.read_text())["counts"]
    assert counts["asked"] == 98
    # 71, 58 and 39 when this was written; another machine's rounding may move a few
    assert 60 <= counts["bridge answered"] <= 85
    assert 30 <= counts["both answered"] <= 50
    assert counts["read"] == 2
