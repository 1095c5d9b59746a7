"""Train a scalar affine adapter for a few steps, then let the model label two vectors.

    python examples/train_and_label.py --out runs/example
    python examples/train_and_label.py --data my.json --model HuggingFaceTB/SmolLM2-135M-Instruct

Without --data, the topics of data/sample are captured from the model itself. A training file must
hold vectors as wide as the model; data/sample/sample.json fits only models of width 48.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from selfie_adapters import Labeller, load_adapter, load_dataset, load_model, train
from selfie_adapters.config import TrainConfig
from selfie_adapters.sources import read_topics
from selfie_adapters.sources.topics.dataset import write_topic_dataset
from selfie_adapters.sources.topics.sites import TopicSettings

SAMPLE = Path(__file__).parents[1] / "data" / "sample"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--data", help="training file")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", default="runs/example")
    args = parser.parse_args()
    model = load_model(args.model)
    labels_file = args.data
    if labels_file is None:
        topics = read_topics(SAMPLE / "topics.jsonl")
        settings = TopicSettings(layers=(model.n_layers // 2,))
        labels_file = f"{args.out}/topics.json"
        write_topic_dataset(model, topics, settings, labels_file, overwrite=True)

    config = TrainConfig.model_validate(
        {
            "experiment_name": "run",
            "model": {"name": args.model},
            "data": {"labels_file": str(labels_file), "batch_size": 8},
            "projection": {"type": "scalar_affine", "init_scale": 5.0},
            "training": {"max_steps": args.steps, "num_epochs": 10, "checkpoint_dir": args.out},
        }
    )
    dataset = load_dataset(labels_file)
    run = train(config, model, dataset, Console(), overwrite=True)
    section = dataset.sections[0]
    held_out = [item for item in section.items if item.split == "val"][:2]
    labeller = Labeller(model, load_adapter(run / "adapter_final.safetensors"))
    answers = labeller.label(section.vectors[[item.index for item in held_out]])
    for item, (answer,) in zip(held_out, answers, strict=True):
        print(f"{item.labels[0]}: {answer.text!r} ({answer.log_prob:.2f} nats)")


if __name__ == "__main__":
    main()
