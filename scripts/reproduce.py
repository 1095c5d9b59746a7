"""The paper's tables on a laptop: every kind of adapter, every protocol, alongside its controls.

    python scripts/reproduce.py --out reproduce            # 49 minutes on two cores
    python scripts/reproduce.py --out reproduce --quick    # the same way with little of everything

Two kinds of vectors: topic vectors of SmolLM2-135M (block 24, the project's nouns) and decoder rows
of the demo SAE with the words that its latents fire on. Each kind of adapter is trained on both.
Stopped at any moment and started again, it resumes where it stopped. Writes tables.md, figure.png,
and a folder per protocol with results.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from reproduce_figure import draw_figure
from reproduce_tables import write_tables
from rich.console import Console

from selfie_adapters.adapters import create_adapter, load_adapter
from selfie_adapters.commands import prepare
from selfie_adapters.commands.demo_settings import LAYER, LEARNING_RATE, PLACEHOLDER, TEMPLATE
from selfie_adapters.commands.eval_running import run_protocol
from selfie_adapters.config import TrainConfig
from selfie_adapters.config.topics import TopicSettings
from selfie_adapters.dataset import load_dataset
from selfie_adapters.evaluation.base import find_protocol
from selfie_adapters.files import write_json
from selfie_adapters.model import FrozenModel, SoftPrompt, bind, load_model
from selfie_adapters.sources.sae.encoder import DEMO_SAE
from selfie_adapters.sources.topics.dataset import write_topic_dataset
from selfie_adapters.sources.topics.reading import Topic, packaged_topics
from selfie_adapters.training import resume, train

RANK = 32
KINDS: dict[str, dict[str, Any]] = {
    "identity": {},
    "scale_only": {},
    "scalar_affine": {},
    "scalar_affine_plus_low_rank": {"low_rank_rank": RANK},
    "low_rank_only": {"low_rank_rank": RANK},
    "full_rank": {},
}
# One of d² entries moves a soft token with d others.
RATES = {"full_rank": {"direction_learning_rate": LEARNING_RATE / 10}}
SHOWN = "full_rank"  # the kind that every control is compared with
UNTRAINED = (0.8, 1.3, 2.1)  # in mean embedding norms
READ_LAYERS = (16, 20, 24, 28)


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    topics: int
    held_out: int
    steps: int
    sae_steps: int
    loss_limit: int
    latents: int
    conversations: int
    conversation_tokens: int
    questions: int
    mean_topics: int


FULL = Size(3000, 150, 30, 30, 100, 30, 4, 40, 40, 400)
QUICK = Size(300, 40, 2, 2, 10, 3, 2, 12, 2, 60)


class Pipeline:
    """One folder; each step leaves a file and is not done again where that file is."""

    def __init__(self, folder: Path, size: Size, console: Console) -> None:
        self.folder, self.size, self.console = folder, size, console
        self.model: FrozenModel = load_model("demo")
        self.topics = folder / "topics/topics.json"
        self.sae = folder / "sae/sae_labels.json"
        self.means = folder / "means/topics_mean.safetensors"
        folder.mkdir(parents=True, exist_ok=True)

    def step(self, name: str, made: Path, action: Callable[[], object]) -> None:
        times = self.folder / "seconds.json"
        if made.exists():
            self.console.print(f"{name}: done already", highlight=False)
            return
        self.console.rule(name)
        started = time.perf_counter()
        action()
        known = json.loads(times.read_text()) if times.exists() else {}
        write_json(times, {**known, name: round(time.perf_counter() - started)})

    def capture(self) -> None:
        topics = packaged_topics()
        random.Random(0).shuffle(topics)
        named = [
            Topic(tuple(label for label in topic.labels if ", " not in label), name=topic.name)
            for topic in topics
        ]
        some, few = named[: self.size.topics], named[: self.size.mean_topics]
        at = TopicSettings(
            layers=(LAYER,), chat="bare", val_fraction=self.size.held_out / len(some)
        )
        means = TopicSettings(layers=READ_LAYERS, chat="bare")
        self.step(
            "topic vectors",
            self.topics,
            lambda: write_topic_dataset(self.model, some, at, self.topics, overwrite=True),
        )
        self.step(
            "means of the layers that are read",
            self.means,
            lambda: write_topic_dataset(
                self.model, few, means, self.means.parent / "topics.json", overwrite=True
            ),
        )
        self.step("SAE vectors", self.sae, self._sae_vectors)

    def _sae_vectors(self) -> None:
        prepare.sae(
            sae_path=DEMO_SAE,
            labels_json=DEMO_SAE / "labels.json",
            output_dir=self.sae.parent,
            output_name="sae",
            overwrite=True,  # of a step that was interrupted
        )

    def adapter(self, kind: str, data: str) -> Path:
        return self.folder / "adapters" / f"{kind}-{data}" / "adapter_final.safetensors"

    def adapters(self, data: str) -> dict[str, str]:
        return {kind: str(self.adapter(kind, data)) for kind in KINDS}

    def train(self) -> None:
        for data, file, steps in (
            ("topics", self.topics, self.size.steps),
            ("sae", self.sae, self.size.sae_steps),
        ):
            for kind in KINDS:
                made = self.adapter(kind, data)
                self.step(
                    f"train {kind} on {data}",
                    made,
                    lambda kind=kind, file=file, made=made, steps=steps: self._train(
                        kind, file, made, steps
                    ),
                )

    def _train(self, kind: str, file: Path, made: Path, steps: int) -> None:
        if kind == "identity":
            adapter = create_adapter("identity", self.model.d_model)
            prompt = SoftPrompt(TEMPLATE, PLACEHOLDER).bind(self.model.tokenizer)
            adapter.binding = bind(self.model, prompt, LAYER)
            made.parent.mkdir(parents=True, exist_ok=True)
            adapter.save(made)
            return
        run = made.parent
        if (run / "config.yaml").exists():
            resume(run, console=self.console)
            return
        config = TrainConfig.model_validate(
            {
                "experiment_name": run.name,
                "model": {"name": "demo"},
                "data": {"labels_file": str(file), "batch_size": 64},
                "projection": {"type": kind, "init": "closed_form", **KINDS[kind]},
                "soft_prompt": {"template": TEMPLATE, "reserved_token": PLACEHOLDER},
                "training": {
                    "learning_rate": LEARNING_RATE,
                    **RATES.get(kind, {}),
                    "num_epochs": 1000,
                    "max_steps": steps,
                    "validation_every_n_steps": steps,
                    "checkpoint_every_n_steps": 10,
                    "checkpoint_dir": str(run.parent),
                },
            }
        )
        train(config, self.model, load_dataset(file), self.console)

    def evaluate(self, name: str, protocol_name: str, settings: dict[str, Any]) -> None:
        folder, protocol = self.folder / name, find_protocol(protocol_name)
        if "model" in protocol.settings_class.model_fields:  # taboo has none: it has a chat model
            settings = {"model": "demo", **settings}
        self.step(
            name,
            folder / "results.json",
            lambda: run_protocol(
                protocol,
                protocol.settings_class.model_validate(settings),
                folder,
                self.console,
            ),
        )

    def evaluate_all(self) -> None:
        size = self.size
        files = {"topics": str(self.topics), "sae": str(self.sae)}
        for data in files:
            trained = self.adapters(data)
            del trained["identity"]  # a control of this protocol
            self.evaluate(
                f"loss-{data}",
                "loss",
                {
                    "adapters": trained,
                    "datasets": files,
                    "limit": size.loss_limit,
                    "untrained_scales": UNTRAINED,
                    "choose_on": 40,
                },
            )
        self.evaluate(
            "retrieval",
            "retrieval",
            {
                "adapters": self.adapters("topics"),
                "vectors": str(self.topics),
                "topics": "concepts",
                "scales": [1.0],
                "untrained_scales": UNTRAINED,
                "choose_on": 40,
                "max_new_tokens": 12,
            },
        )
        self.evaluate(
            "taboo",
            "taboo",
            {
                "topics": "concepts",
                "retrieval": str(self.folder / "retrieval"),
                "chat": {"model": "demo"},
                "max_tokens": 60,
            },
        )
        scoring = {
            "labels_file": str(self.sae),
            "limit": size.latents,
            "scales": [1.0],
            "untrained_scales": [2.1],
            "label_tokens": 12,
            "label_temperature": 0.0,
            "conversations": size.conversations,
            "conversation_tokens": size.conversation_tokens,
        }
        for kind in KINDS:
            alone = {} if kind == SHOWN else {"conditions": ["trained"]}
            self.evaluate(
                f"scoring-{kind}",
                "scoring",
                {**scoring, **alone, "adapter": str(self.adapter(kind, "sae"))},
            )
        self.evaluate(
            "bridge",
            "bridge",
            {
                "adapter": str(self.adapter(SHOWN, "topics")),
                "mean": str(self.means),
                "layers": ",".join(map(str, READ_LAYERS)),
                "chat": "bare",
                "limit": size.questions,
                "samples": 1,
                "max_new_tokens": 10,
                "untrained_scales": [2.1],
            },
        )

    def note(self) -> None:
        adapters = {
            kind: load_adapter(self.adapter(kind, "topics")).num_parameters() for kind in KINDS
        }
        write_json(
            self.folder / "about.json",
            {
                "shown": SHOWN,
                "size": asdict(self.size),
                "parameters": adapters,
                "machine": f"{platform.processor() or platform.machine()}, "
                f"{torch.get_num_threads()} threads, {self.model.dtype}",
                "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
            },
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("reproduce"))
    parser.add_argument("--quick", action="store_true", help="little of everything: proves nothing")
    options = parser.parse_args()
    pipeline = Pipeline(options.out, QUICK if options.quick else FULL, Console())
    pipeline.capture()
    pipeline.train()
    pipeline.evaluate_all()
    pipeline.note()
    made = write_tables(options.out), draw_figure(options.out)
    pipeline.console.print(f"tables: {made[0]}; figure: {made[1]}", highlight=False)


if __name__ == "__main__":
    main()
