from __future__ import annotations

import re
from pathlib import Path

from selfie_adapters.commands.demo_training import (
    FURTHER,
    SPECIALISTS,
    WITH_EXAMPLES,
    demo_topics,
    recipe,
    specialist_recipe,
)
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


def test_specialists_learn_from_their_place_and_the_same_nouns():
    found = specialist_recipe(Path("work/more.json"), Path("work"), (12, "-1"))
    config = TrainConfig.model_validate(found)
    (here, null) = config.data.train_dataset_ratios or ()
    assert (here.datasets, here.ratio) == ("more_at_-1@l12", 0.9)
    assert (null.datasets, null.ratio) == ("more_at_null@l12", 0.1)
    assert config.experiment_name == "layer_12_at_-1"
    assert config.training.max_steps == SPECIALISTS[12, "-1"]


def test_the_examples_of_the_question_are_nouns_that_training_uses():
    examples = re.findall(r'is "([^"<]+)"\.', WITH_EXAMPLES)
    assert len(examples) == 3
    split = {topic.title: topic.split for topic in demo_topics()}
    assert {split[word] for word in examples} == {"train"}
    assert WITH_EXAMPLES.endswith('The meaning of "<reponame>" is "')
    assert WITH_EXAMPLES.count("<reponame>") == 1
