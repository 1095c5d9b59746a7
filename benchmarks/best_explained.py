"""The candidate that explains most of its vector, against one greedy label.

    python scripts/ship_adapter.py --work work     # or any file of selfie prepare topics
    python benchmarks/best_explained.py work/t.json --layer 12 --position name --out best

Labels one vector of each of some held-out concepts twice with the shipped adapter: greedily, and
as selfie label --concepts 1 --best-of 32 --temperature 1 does. Right means exactly a name or
synonym of the concept, as in selfie eval naming. Prints both shares with 95 % Wilson intervals,
their paired difference, and the AUROC of the explained share and of the gain for right against
wrong; then the same for as many words of the logit lens, of the cosine and of a ridge probe in
place of the adapter's candidates. Stopped, it resumes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from held_out import held_out
from torch import Tensor

from selfie_adapters.adapters import load_adapter
from selfie_adapters.commands.label import label
from selfie_adapters.dataset import Section, save_dataset
from selfie_adapters.dataset.schema import SPLITS
from selfie_adapters.evaluation.baselines import TokenBaseline, untrained_readers
from selfie_adapters.evaluation.comparing import paired
from selfie_adapters.labelling.decomposition.reconstruction import Reconstructor, explained
from selfie_adapters.labelling.finished_run import open_run
from selfie_adapters.labelling.rows import LabelRow
from selfie_adapters.model import FrozenModel, load_model
from selfie_adapters.statistics import quality, wilson
from selfie_adapters.words import plain

_SPARE = 8
"""Tokens looked at for each different word: " owl", "owl" and " Owl" are one word."""


def top_words(
    model: FrozenModel, reader: TokenBaseline, vectors: Tensor, count: int
) -> list[list[str]]:
    """The best words of each vector, best first, `count` or fewer: whitespace and equal ones
    (case aside) are omitted."""
    asked = min(_SPARE * count, model.vocab_size, len(model.tokenizer))
    found = []
    for row in reader.tokens(vectors, asked).tolist():
        words: dict[str, str] = {}
        for token in row:
            if word := str(model.tokenizer.decode([token])).strip():
                words.setdefault(plain(word), word)
        found.append([*words.values()][:count])
    return found


def by_readers(
    section: Section, known: Section, best_of: int, right_best: np.ndarray
) -> Iterator[dict[str, Any]]:
    """For each method that trains no adapter: its best word, and the one of its `best_of` words
    that explains most. known: training vectors with their names, for the ridge probe."""
    model, adapter = load_model("demo", "bfloat16"), load_adapter("demo")
    reconstructor = Reconstructor(model, adapter)
    names = [item.labels[0] for item in known.items]
    place = section.layer, str(section.metadata["position"])
    own = [{plain(one) for one in item.labels} for item in section.items]
    vectors = section.vectors.float()
    for reader in untrained_readers(model, known.vectors.float(), names):
        words = top_words(model, reader, vectors, best_of)
        every = list(dict.fromkeys(word for some in words for word in some))
        spans = dict(zip(every, reconstructor.spans(every, place), strict=True))
        best = [
            max(some, key=lambda word, vector=vector: explained(vector, spans[word]), default="")
            for vector, some in zip(vectors, words, strict=True)
        ]
        first = [some[0] if some else "" for some in words]
        right = [
            np.array([plain(word) in names for word, names in zip(chosen, own, strict=True)])
            for chosen in (first, best)
        ]
        found = paired(right_best.astype(float), right[1].astype(float))
        yield {
            "reader": reader.name,
            "first": str(wilson(int(right[0].sum()), len(own))),
            "best": str(wilson(int(right[1].sum()), len(own))),
            "adapter_minus_it": str(found.difference),
            "p": found.p,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", help="training file with held-out topic vectors")
    parser.add_argument("--layer", type=int, default=12)
    parser.add_argument("--position", default="name")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--concepts", type=int, default=200)
    parser.add_argument("--best-of", type=int, default=32)
    parser.add_argument("--training", type=int, default=1000, help="concepts of the ridge probe")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="best")
    options = parser.parse_args()
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"l{options.layer}_at_{options.position}.json"
    section = held_out(
        options.source,
        options.layer,
        options.position,
        options.split,
        options.concepts,
        options.seed,
    )
    save_dataset(file, [section], overwrite=True)
    common = {"model": "demo", "adapter": "demo", "dtype": "bfloat16", "max_new_tokens": 12}
    runs: dict[str, list[LabelRow]] = {}
    for name, more in (
        ("greedy", {}),
        ("best", {"concepts": 1, "best_of": options.best_of, "temperature": 1.0}),
    ):
        out = folder / f"{file.stem}_{name}"
        label(str(file), out=str(out), split=options.split, batch_size=256, **common, **more)
        runs[name] = list(open_run(out).leading())
    right = {name: np.array([row.equal is True for row in rows]) for name, rows in runs.items()}
    found = paired(right["best"].astype(float), right["greedy"].astype(float))
    shares = np.array([float(str(row.explained)) for row in runs["best"]])
    gains = np.array([row.gain for row in runs["best"]])
    result = {
        "layer": options.layer,
        "position": options.position,
        "greedy": str(wilson(int(right["greedy"].sum()), len(shares))),
        "best": str(wilson(int(right["best"].sum()), len(shares))),
        "difference": str(found.difference),
        "p": found.p,
        "auroc_explained": quality(shares, right["best"])["auroc"],
        "auroc_gain": quality(gains, right["best"])["auroc"],
    }
    print(json.dumps(result))
    known = held_out(
        options.source, options.layer, options.position, "train", options.training, options.seed
    )
    for row in by_readers(section, known, options.best_of, right["best"]):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
