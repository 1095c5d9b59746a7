"""`--lora`: states come from the fine-tune, labels from the model itself."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch

from selfie_adapters.adapters import load_adapter
from selfie_adapters.commands.prepare import topics
from selfie_adapters.commands.read import read
from selfie_adapters.commands.serve import serve
from selfie_adapters.dataset import load_dataset
from selfie_adapters.errors import ConfigError, MissingExtraError, ModelError
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import load_model
from selfie_adapters.output import visible
from selfie_adapters.reading.plan import plan_reading
from selfie_adapters.reading.read import read_states
from selfie_adapters.sources import open_topics, topic_vectors
from selfie_adapters.sources.topics.reading import topic_texts
from tiny_lora import save_lora

pytestmark = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="extra peft")


@pytest.fixture
def base(golden_dir):
    return str(golden_dir / "model")


@pytest.fixture
def lora(base, tmp_path):
    return str(save_lora(tmp_path / "lora", base))


@pytest.fixture
def control_sources(monkeypatch):
    """The LoRA of each model whose states give random directions their norms."""
    seen = []

    def seen_states(model, plan):
        seen.append(model.adapter)
        return read_states(model, plan)

    monkeypatch.setattr("selfie_adapters.reading.controls.read_states", seen_states)
    return seen


@pytest.fixture
def adapter(golden_dir):
    return str(golden_dir / "adapters/scalar_affine_norm.safetensors")


def test_topic_vectors_are_those_of_the_fine_tune(base, lora, tmp_path):
    source = tmp_path / "topics.jsonl"
    source.write_text("".join(json.dumps({"name": name}) + "\n" for name in ("owl", "bee", "fog")))
    out = tmp_path / "t.json"
    options = {"chat": "none", "dtype": "float32", "val_fraction": 0.01}
    topics(str(source), model=base, lora=lora, layers=[1], out=str(out), **options)
    (section,) = load_dataset(out).sections
    tuned = load_model(lora, "float32")  # the same fine-tune, loaded as a model of its own
    texts = topic_texts(tuned, open_topics(str(source)), "Tell me about {}.", "none")
    states = topic_vectors(tuned, texts, [1])[:, 0]
    train = [item.index for item in section.items if item.split == "train"]
    found = section.vectors[torch.arange(3)]
    torch.testing.assert_close(found, states - states[train].mean(dim=0), atol=1e-5, rtol=0)
    assert section.metadata["model"] == f"{base} with the adapter {lora}"


def test_a_reading_has_states_of_the_fine_tune_and_labels_of_the_model(
    base, lora, adapter, tmp_path, capsys, control_sources
):
    options = {"adapter": adapter, "model": base, "chat": "none", "dtype": "float32"}
    options |= {"layers": "1", "positions": "-1", "max_new_tokens": 8}
    read("an owl", lora=lora, out=str(tmp_path / "out"), **options)
    content = json.loads((tmp_path / "out/reading.json").read_text(encoding="utf-8"))
    tuned, model = load_model(lora, "float32"), load_model(base, "float32")
    ((_, states),) = read_states(tuned, plan_reading(tuned, "an owl", "1", "-1", "none"))
    ((expected,),) = Labeller(model, load_adapter(adapter)).label(states[:, 0], max_new_tokens=8)
    (cell,) = content["cells"]
    assert (cell["label"], cell["log_prob"]) == (expected.text, pytest.approx(expected.log_prob))
    assert content["settings"]["lora"] == lora
    assert control_sources == [lora]
    page = (tmp_path / "out/reading.html").read_text(encoding="utf-8")
    assert f"the model with the LoRA {lora}" in page
    with pytest.raises(ConfigError, match="holds a reading with lora"):
        read("an owl", out=str(tmp_path / "out"), **options)


def test_other_weights_of_the_lora_are_another_reading(base, lora, adapter, tmp_path):
    options = {"adapter": adapter, "model": base, "chat": "none", "dtype": "float32"}
    options |= {"layers": "1", "positions": "-1", "out": str(tmp_path / "out")}
    read("an owl", lora=lora, **options)
    save_lora(tmp_path / "lora", base, seed=1)
    with pytest.raises(ConfigError, match="lora_weights_digest"):
        read("an owl", lora=lora, **options)


def test_the_web_app_reads_the_fine_tune(base, lora, adapter, monkeypatch, control_sources):
    served = []

    class Server:
        def run(self, sockets):
            pass

    def server(_app, service):
        served.append(service)
        return Server()

    monkeypatch.setattr("selfie_adapters.commands.serve._server", server)
    serve(model=base, adapter=[adapter], lora=lora, port=0, dtype="float32")
    (service,) = served
    assert service.source.adapter == lora
    assert service.model.adapter is None
    assert service.info()["model"] == service.source.name
    plan = plan_reading(service.model, "an owl", "1", "-1", "none")
    events = list(service.read(plan, service.adapters))
    (cell,) = next(event["cells"] for event in events if event["event"] == "cells")
    ((_, states),) = read_states(service.source, plan)
    ((expected,),) = service.adapters[0].labeller.label(states[:, 0])
    assert (cell["raw"], cell["log_prob"]) == (
        visible(expected.raw),
        pytest.approx(expected.log_prob),
    )
    assert control_sources == [lora]
    service.worker.close()


@pytest.mark.parametrize("command", ["topics", "read", "serve"])
def test_a_wrong_lora_is_refused_before_work_begins(command, base, adapter, tmp_path, monkeypatch):
    def never(*_arguments, **_options):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("selfie_adapters.model.load_model", never)
    (tmp_path / "topics.jsonl").write_text('{"name": "owl"}\n')

    def run():
        lora = str(tmp_path / "nowhere")
        if command == "topics":
            source, out = str(tmp_path / "topics.jsonl"), str(tmp_path / "t.json")
            topics(source, model=base, lora=lora, layers=[1], out=out)
        elif command == "read":
            read("an owl", adapter=adapter, model=base, lora=lora)
        else:
            serve(model=base, adapter=[adapter], lora=lora, port=0)

    with pytest.raises(ModelError, match="nowhere: no such folder"):
        run()
    monkeypatch.setattr("selfie_adapters.extras.is_installed", lambda module: module != "peft")
    with pytest.raises(MissingExtraError, match=r"selfie-adapters\[peft"):
        run()
