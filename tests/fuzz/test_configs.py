"""Damaged configurations and `--set` values end in a ConfigError, or in a checked configuration."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fuzz.harness import run
from fuzz.mutations import damage_bytes, damage_yaml
from selfie_adapters.config import TrainConfig, dump_config, load_config
from selfie_adapters.config.evaluation.bridge import BridgeSettings
from selfie_adapters.config.evaluation.loss import LossSettings
from selfie_adapters.config.evaluation.retrieval import RetrievalSettings
from selfie_adapters.config.evaluation.scoring import ScoringSettings
from selfie_adapters.config.evaluation.taboo import TabooSettings
from selfie_adapters.config.prepare import TopicWritingSettings
from selfie_adapters.config.settings import Settings, read_config
from selfie_adapters.errors import ConfigError, SelfieError

TRAIN = b"""
seed: 7
model: &m {name: demo, dtype: float32, device_map: {a: 0}}
data: {labels_file: x.json, train_dataset_ratios: [{datasets: [a, b@l1], ratio: 2}]}
projection: {type: low_rank_only, low_rank_rank: 4, init_scale: 5.0}
training: {learning_rate: 1e-3, max_steps: null}
logging: {log_sample_generations: true}
"""
KINDS: dict[str, tuple[type[Settings], bytes]] = {
    "train": (TrainConfig, TRAIN),
    "bridge": (BridgeSettings, b"model: demo\nadapter: a.pt\nlayers: 4:28:4\nlimit: 5\n"),
    "loss": (LossSettings, b"model: demo\nadapters: {a: b}\ndatasets: {c: d}\nseed: 1\n"),
    "retrieval": (RetrievalSettings, b"topics: concepts\nlabels: {a: b}\nscales: [1, 2.5]\n"),
    "scoring": (ScoringSettings, b"sae: demo\nadapter: a.pt\nlatents: [1, 2]\nlimit: 3\n"),
    "taboo": (TabooSettings, b"topics: concepts\nchat: {model: demo}\ntemperature: 0.5\n"),
    "topics": (TopicWritingSettings, b"titles: t.json\nwriter: {model: m, url: 'http://x'}\n"),
}
# One reader serves all kinds, so they share the inputs of one door.
INPUTS = int(os.environ.get("SELFIE_FUZZ_INPUTS", "2000")) // len(KINDS)


@contextmanager
def short_errors(length: int) -> Iterator[None]:
    """Errors in the block are ConfigErrors that name the option or file, and are no longer."""
    try:
        yield
    except SelfieError as error:
        _is_short(error, length)
        raise


def _is_short(error: SelfieError, length: int) -> None:
    assert type(error) is ConfigError
    assert re.search(r"--set|base\.yaml|input", str(error))
    assert len(str(error)) < length


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_configurations(kind, tmp_path):
    section, text = KINDS[kind]

    def read(path):
        with short_errors(20_000):
            config = read_config(path, section)
        if isinstance(config, TrainConfig):
            (tmp_path / "again.yaml").write_text(dump_config(config), encoding="utf-8")
            assert read_config(tmp_path / "again.yaml", TrainConfig) == config

    run(f"config {kind}", tmp_path, lambda _rng: text, damage_yaml, read, inputs=INPUTS)


SET = (
    b"training.max_steps=5", b"seed=1", b"data.train_dataset_ratios=[{datasets: a, ratio: 1}]",
    b"model.device_map={a: 0, b: cpu}", b'soft_prompt.template="what is \\"X\\"?"',
    b"training.learning_rate=1e-3", b"data.strip_labels=!!bool true", b"experiment_name=2026-11-26",
    b"projection.init=!!str closed_form", b"logging.wandb_project=&a [*a]", b"model.name=demo",
)  # fmt: skip


def test_damaged_overrides(tmp_path):
    (tmp_path / "base.yaml").write_text("model: {name: demo}\ndata: {labels_file: x.json}\n")

    def make_valid(rng: random.Random) -> bytes:
        return rng.choice(SET[:8])

    def mutate(rng: random.Random, data: bytes) -> bytes:
        return damage_bytes(rng, rng.choice((data, rng.choice(SET))))

    def read(path):
        override = os.fsdecode(path.read_bytes())  # as the command line gives it
        with short_errors(2000):
            load_config(tmp_path / "base.yaml", [override])

    run("--set", tmp_path, make_valid, mutate, read, names_file=False)
