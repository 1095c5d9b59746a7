"""A second real family: Qwen2.5-Coder-0.5B loads, trains, and beats its controls."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from second_family import second_family
from selfie_adapters import SoftPrompt, load_adapter, load_dataset, load_model
from selfie_adapters.commands.prepare import topics
from selfie_adapters.commands.train import train
from selfie_adapters.inference.label_loss import label_losses
from selfie_adapters.sources.topics.reading import packaged_topics
from selfie_adapters.statistics import bootstrap_mean

LAYER, STEPS, BATCH, TRAINED, HELD_OUT = 20, 50, 16, 600, 80


def _topics_file(folder: Path) -> str:
    every = packaged_topics()
    train_topics = [topic for topic in every if topic.split == "train"]
    chosen = train_topics[:: len(train_topics) // TRAINED][:TRAINED]
    chosen += [topic for topic in every if topic.split == "val"][:HELD_OUT]
    file = folder / "topics.jsonl"
    rows = ({"name": one.name, "labels": [one.name], "split": one.split} for one in chosen)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.mark.slow
def test_the_adapter_beats_its_controls_on_held_out_nouns(tmp_path, capsys):
    name, out = str(second_family()), tmp_path / "t.json"
    topics(_topics_file(tmp_path), model=name, layers=[LAYER], out=str(out), chat="bare")
    config = tmp_path / "train.yaml"
    config.write_text(f"""
experiment_name: qwen
seed: 42
model: {{name: {name}}}
data: {{labels_file: {out}, batch_size: {BATCH}}}
projection: {{type: scalar_affine_plus_low_rank, init: closed_form, low_rank_rank: 32}}
training:
  learning_rate: 0.03
  max_steps: {STEPS}
  validation_every_n_steps: {STEPS}
  checkpoint_dir: {tmp_path / "runs"}
""")
    train(config=str(config))
    model = load_model(name)
    assert model.network.config.model_type == "qwen2"
    adapter = load_adapter(tmp_path / "runs/qwen/adapter_final.safetensors")
    (section,) = load_dataset(out).sections
    items = [item for item in section.items if item.split == "val"]
    vectors = section.vectors[torch.tensor([item.index for item in items])]
    labels = [item.labels[0] for item in items]
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)

    def losses(rows: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            found = [
                label_losses(model, prompt, adapter, rows[i : i + 10], labels[i : i + 10])
                for i in range(0, len(labels), 10)
            ]
        return torch.cat(found).float().numpy()

    given = losses(vectors)
    with capsys.disabled():
        for control, rows in {
            "zero": torch.zeros_like(vectors),
            "shuffled": vectors.roll(1, dims=0),
        }.items():
            gained = bootstrap_mean(losses(rows) - given)
            sys.stdout.write(
                f"loss {given.mean():.3f} nats per token; {control} {gained.mean:+.3f} "
                f"[{gained.low:.3f}, {gained.high:.3f}]\n"
            )
            assert gained.low > 0
