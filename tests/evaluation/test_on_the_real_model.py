"""Retrieval, taboo and loss from end to end: a small adapter on SmolLM2, looked up by MiniLM."""

from __future__ import annotations

import json

import pytest

from selfie_adapters.chat.in_process import InProcessChat
from selfie_adapters.config import TrainConfig
from selfie_adapters.config.evaluation.loss import LossSettings
from selfie_adapters.config.evaluation.retrieval import RetrievalSettings
from selfie_adapters.config.evaluation.taboo import TabooSettings
from selfie_adapters.config.prepare import TopicSettings
from selfie_adapters.errors import ModelError
from selfie_adapters.evaluation.loss.protocol import Loss
from selfie_adapters.evaluation.retrieval.embedding import packaged_folder
from selfie_adapters.evaluation.retrieval.protocol import Retrieval
from selfie_adapters.evaluation.taboo.protocol import Taboo
from selfie_adapters.model import load_model
from selfie_adapters.sources import Topic, open_topics
from selfie_adapters.sources.topics.dataset import write_topic_dataset
from selfie_adapters.training import train

pytestmark = pytest.mark.slow
HELD_OUT = 24
TEMPLATE = (
    "<|im_start|>user\nWhat is the meaning of the word in quotes?<|im_end|>\n"
    '<|im_start|>assistant\nThe meaning of "<reponame>" is "'
)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The model, and a folder with topic vectors and an adapter that starts in closed form."""
    pytest.importorskip("sentence_transformers")
    packaged_folder()
    try:
        model = load_model("demo")
    except ModelError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("real")
    topics = [Topic((t.labels[0],), name=t.name) for t in open_topics("concepts")[::7]]
    settings = TopicSettings(layers=(24,), chat="bare", val_fraction=HELD_OUT / len(topics))
    data = write_topic_dataset(model, topics, settings, folder / "topics.json")
    config = TrainConfig.model_validate(
        {
            "experiment_name": "run",
            "model": {"name": "demo"},
            "data": {"labels_file": str(data), "batch_size": 64},
            "projection": {
                "type": "scalar_affine_plus_low_rank",
                "low_rank_rank": 32,
                "init_scale": 5.0,
                "init": "closed_form",
            },
            "soft_prompt": {"template": TEMPLATE, "reserved_token": "<reponame>"},
            "training": {
                "learning_rate": 0.01,
                "max_steps": 8,
                "validation_every_n_steps": 100,
                "checkpoint_dir": str(folder),
            },
        }
    )
    run = train(config, model)
    return model, folder, str(data), {"trained": str(run / "adapter_final.safetensors")}


def test_a_real_adapter_beats_its_controls_and_asking_beats_saying_nothing(work):
    model, folder, data, adapters = work
    settings = RetrievalSettings(
        vectors=data,
        topics="concepts",
        model="demo",
        adapters=adapters,
        untrained_scales=(1.3,),
        max_new_tokens=8,
    )
    results = json.loads(Retrieval.run(settings, folder / "retrieval", model).read_text())
    assert results["counts"] == {"topics": 8000, "queries": HELD_OUT}
    rank = {one["condition"]: one["median_rank"] for one in results["conditions"]}
    for control in ("trained: shuffled", "trained: zero vector", "trained: random"):
        assert rank["trained"] < rank[control] / 3, rank
    # Each topic has its name as its only label: those would be right by construction.
    assert "training labels" not in rank

    taboo = TabooSettings(topics="concepts", retrieval=str(folder / "retrieval"), limit=8)
    chat = InProcessChat(model)
    found = json.loads(Taboo.run(taboo, folder / "taboo", chat=chat).read_text())
    rank = {one["condition"]: one["median_rank"] for one in found["conditions"]}
    assert rank["description"] < rank["nothing said"] / 3, rank
    assert rank["description"] < rank["description: shuffled"] / 3, rank


def test_its_held_out_loss_is_below_its_controls(work):
    model, folder, data, adapters = work
    settings = LossSettings(
        model="demo", adapters=adapters, datasets={"topics": data}, untrained_scales=(1.3,)
    )
    results = json.loads(Loss.run(settings, folder / "loss", model).read_text())
    (cell,) = results["cells"]
    trained = cell["loss"]["trained"]
    for control in ("zero", "shuffled", "random", "identity", "untrained"):
        assert trained["high"] < cell["loss"][control]["low"], cell["loss"]
    assert 0 < cell["bias_share"]["mean"] < 1
