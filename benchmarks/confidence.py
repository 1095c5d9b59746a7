"""Does a fitted confidence keep its word on vectors it was not fitted on?

    python benchmarks/confidence.py --adapter A --source topics/topics.json --precision 0.8 --json

Half of the held-out vectors fit a confidence, the other half and fresh controls test it, and then
the other way round: the precision and coverage at its threshold, the share of random directions
and zero vectors that are shown as a concept, and the reliability in ten bins. Greedy labels.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

import numpy as np
import torch
from train_step import machine, show

from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.dataset.controls import random_vectors
from selfie_adapters.evaluation import bootstrap_mean
from selfie_adapters.labelling.calibration import calibrate
from selfie_adapters.labelling.inputs import open_source
from selfie_adapters.labelling.worker import ShardWorker
from selfie_adapters.statistics import reliability
from selfie_adapters.words import plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--source", required=True, help="training file; its val split is used")
    parser.add_argument("--precision", type=float, default=0.8)
    parser.add_argument("--control-rate", type=float, default=0.05)
    parser.add_argument("--controls", type=int, default=400)
    parser.add_argument("--max-new-tokens", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="one line with every figure")
    options = parser.parse_args()
    settings = LabelSettings.checked(
        source=options.source,
        model=options.model,
        adapter=options.adapter,
        split="val",
        max_new_tokens=options.max_new_tokens,
    )
    everyone = open_source(settings)
    half = len(everyone) // 2
    worker = ShardWorker(settings, everyone)
    dataset = everyone.dataset
    assert dataset is not None
    items = dataset.labelled("val")
    right, shown, p, believed = [], [], [], {"random": [], "zero": []}
    folds = [range(half), range(half, len(everyone))]
    for fold, (mine, other) in enumerate([folds, folds[::-1]]):
        fitted = calibrate(
            worker, list(mine), options.precision, options.control_rate, options.controls
        )
        positions = list(other)
        vectors = worker.vectors(positions)
        labels = [drawn[0] for drawn in worker.label(vectors, positions)]
        own = [{plain(text) for text in items[i].labels} for i in positions]
        right += [plain(x.text) in known for x, known in zip(labels, own, strict=True)]
        p += [fitted.of(label) for label in labels]
        shown += [fitted.believes(fitted.of(label)) for label in labels]
        picked = torch.arange(options.controls) % len(vectors)
        kinds = {
            "random": random_vectors(vectors[picked], seed=fold + 1),
            "zero": torch.zeros(1, vectors.shape[1]),
        }
        for kind, some in kinds.items():
            drawn = worker.labeller.label(some, max_new_tokens=options.max_new_tokens)
            believed[kind] += [fitted.believes(fitted.of(one[0])) for one in drawn]
    chosen = np.array(shown)
    truth = np.array(right, dtype=float)
    result = {
        "asked_precision": options.precision,
        "asked_control_rate": options.control_rate,
        "right_of_all": asdict(bootstrap_mean(truth)),
        "precision": asdict(bootstrap_mean(truth[chosen])),
        "coverage": asdict(bootstrap_mean(chosen.astype(float))),
        "right_that_are_shown": asdict(bootstrap_mean(chosen[truth > 0].astype(float))),
        "brier": round(float(((np.array(p) - truth) ** 2).mean()), 4),
        "reliability": reliability(np.array(p), truth),
        "controls_shown": {
            kind: asdict(bootstrap_mean(np.array(values, dtype=float)))
            for kind, values in believed.items()
        },
        "vectors": len(everyone),
        "machine": machine(),
    }
    show(result, options.json)


if __name__ == "__main__":
    main()
