"""What CONTRIBUTING.md says about adding an engine: one module, and its name."""

from __future__ import annotations

import json
import sys
import types

import pytest
import torch
from safetensors.torch import save_file

from selfie_adapters.adapters import load_adapter
from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.inference.generate import Generated
from selfie_adapters.labelling import engines
from selfie_adapters.labelling.inputs import open_source
from selfie_adapters.labelling.job import LabelJob, run_here
from selfie_adapters.labelling.worker import ShardWorker

ANSWER = "owl"


class EchoEngine:
    """Answers every question with the same label, twice as likely as after the zero vector."""

    def __init__(self, model):
        self._ids = model.tokenizer(ANSWER + '"', add_special_tokens=False).input_ids

    def generate(self, soft_tokens, seeds, sampling):
        assert soft_tokens.shape == (len(seeds), 48)
        return [Generated(list(self._ids), -1.0, ended=True) for _ in seeds]

    def prefill(self, soft_tokens):
        return len(soft_tokens)

    def score(self, read, answers, owners=None):
        return [-2.0 for _ in answers]

    def close(self):
        pass


@pytest.fixture
def echo(monkeypatch):
    """The module `labelling/engines/echo.py`."""
    name = f"{engines.__name__}.echo"
    module = types.ModuleType(name)
    module.LOADS_MODEL = False
    module.make_engine = lambda model, prompt, settings: EchoEngine(model)
    monkeypatch.setitem(sys.modules, name, module)
    return "echo"


def test_an_engine_is_one_module_and_its_name(echo, golden_dir, tmp_path):
    adapter = golden_dir / "adapters/scalar_affine_norm.safetensors"
    save_file({"vectors": torch.randn(3, load_adapter(adapter).dim)}, tmp_path / "v.safetensors")
    settings = LabelSettings(
        source=str(tmp_path / "v.safetensors"),
        model=str(golden_dir / "model"),
        adapter=str(adapter),
        dtype="float32",
    ).model_copy(update={"engine": echo})
    source = open_source(settings)
    job = LabelJob(tmp_path / "run", settings, source)
    worker = ShardWorker(settings, source)
    job.begin()
    run_here(job, worker)
    (shard,) = (tmp_path / "run").glob("labels-*")
    rows = [json.loads(line) for line in shard.read_text().splitlines()]
    assert [row["label"] for row in rows] == [ANSWER] * 3
    assert all(row["gain"] == pytest.approx(1 / len(row["label"] + '"')) for row in rows)


@pytest.mark.parametrize(("name", "loads"), [("local", False), ("vllm", True)])
def test_each_engine_states_whether_it_loads_the_model(name, loads):
    assert engines.loads_model(name) is loads
