from __future__ import annotations

import pytest
import torch

from selfie_adapters.dataset import load_dataset
from selfie_adapters.training.epochs import TrainingOrder, read_split
from tiny import golden_tokenizer
from toy_run import config_for


@pytest.fixture
def split(data):
    return read_split(load_dataset(data), "train", golden_tokenizer(), 259, False)


def steps_of(order, done=0):
    return [(step.epoch, [batch.tolist() for batch in step.batches]) for step in order.steps(done)]


CHANGES = [
    {},
    {"data__shuffle": False},
    {"training__gradient_accumulation_steps": 4, "training__num_epochs": 3},
    {"training__max_steps": 5},
    {
        "data__train_dataset_ratios": [
            {"datasets": "a", "ratio": 1},
            {"datasets": "b", "ratio": 1},
        ],
        "training__num_epochs": 3,
    },
]


@pytest.mark.parametrize("changes", CHANGES)
def test_from_any_step_on_the_examples_are_those_of_the_whole_run(split, data, changes):
    config = config_for(data, **changes)
    whole = steps_of(TrainingOrder(split, config))
    assert len(whole) == TrainingOrder(split, config).total_steps
    for done in range(len(whole) + 1):
        assert steps_of(TrainingOrder(split, config), done) == whole[done:]


def test_every_epoch_takes_every_example_once_in_another_order(split, data):
    order = TrainingOrder(split, config_for(data))
    epochs = [order.epoch(number) for number in range(3)]
    assert all(sorted(epoch.tolist()) == list(range(29)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_unshuffled_is_file_order(split, data):
    order = TrainingOrder(split, config_for(data, data__shuffle=False))
    assert order.epoch(1).tolist() == list(range(29))


def test_a_mixture_is_drawn_anew_each_epoch_unless_told_otherwise(split, data):
    ratios = [{"datasets": "a", "ratio": 1}, {"datasets": "b@l2", "ratio": 1}]
    config = config_for(data, data__train_dataset_ratios=ratios)
    epochs = [set(TrainingOrder(split, config).epoch(n).tolist()) for n in range(3)]
    assert len(epochs[0]) == 10
    assert epochs[0] != epochs[1]
    fixed = config_for(data, data__train_dataset_ratios=ratios, data__resample_each_epoch=False)
    epochs = [TrainingOrder(split, fixed).epoch(n).tolist() for n in range(3)]
    assert set(epochs[0]) == set(epochs[1])
    assert epochs[0] != epochs[1]  # shuffled anew all the same


@pytest.mark.parametrize(("steps", "examples"), [(None, 58), (5, 25), (6, 29), (7, 34)])
def test_the_examples_of_a_run_are_counted_with_short_batches(split, data, steps, examples):
    order = TrainingOrder(split, config_for(data, training__max_steps=steps))
    assert order.total_examples == examples
    assert sum(step.rows.numel() for step in order.steps()) == examples


def test_the_digest_tells_data_apart(data, split):
    again = read_split(load_dataset(data), "train", golden_tokenizer(), 259, False)
    assert again.digest() == split.digest()
    assert read_split(load_dataset(data), "val", golden_tokenizer(), 259, False).digest() != (
        split.digest()
    )
