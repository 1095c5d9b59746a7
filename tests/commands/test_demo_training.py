from __future__ import annotations

from pathlib import Path

from selfie_adapters.commands.demo_training import FURTHER, demo_topics, recipe
from selfie_adapters.config import TrainConfig, load_config

ROOT = Path(__file__).parents[2]


def test_the_recipe_is_that_of_the_configuration_file():
    written = load_config(ROOT / "training/configs/smollm2_reading.yaml").model_dump()
    used = TrainConfig.model_validate(recipe(Path("topics/reading.json"), Path("runs")))
    mine = used.model_dump()
    assert (written.pop("experiment_name"), mine.pop("experiment_name")) == (
        "smollm2_reading",
        "reading",
    )
    assert Path(written["data"].pop("labels_file")).name == "reading.json"
    assert mine["data"].pop("labels_file") == "topics/reading.json"
    assert written == mine


def test_further_nouns_are_for_training_only():
    topics = demo_topics()
    assert len(topics) == 8000 + FURTHER
    assert all(topic.split == "train" for topic in topics[8000:])
    assert all(topic.labels == (topic.name,) for topic in topics)
    assert len({topic.title.casefold() for topic in topics}) == len(topics)
    assert demo_topics() == topics
