"""Does a fitted confidence keep its word on vectors it was not fitted on?

    python benchmarks/confidence.py --adapter A --source topics/topics.json --precision 0.8 --json

Half of the held-out vectors fit the confidence, the other half and fresh controls test it: the
precision and coverage at its threshold, the share of random directions and zero vectors that are
shown as a concept, and the reliability in ten bins. Greedy labels.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import numpy as np
import torch
from train_step import machine

from selfie_adapters.evaluation import bootstrap_mean
from selfie_adapters.labelling.calibration import calibrate
from selfie_adapters.labelling.choosing import meaning
from selfie_adapters.labelling.confidence import reliability
from selfie_adapters.labelling.controls import random_vectors
from selfie_adapters.labelling.inputs import open_source
from selfie_adapters.labelling.settings import LabelSettings
from selfie_adapters.labelling.worker import ShardWorker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--source", required=True, help="training file; its val split is used")
    parser.add_argument("--precision", type=float, default=0.8)
    parser.add_argument("--control-rate", type=float, default=0.05)
    parser.add_argument("--controls", type=int, default=400)
    parser.add_argument("--max-new-tokens", type=int, default=12)
    parser.add_argument("--out", help="where to write the confidence file")
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
    fitted = calibrate(
        settings.model_copy(update={"limit": half}),
        options.precision,
        options.control_rate,
        options.controls,
    )
    if options.out:
        fitted.save(options.out)

    worker = ShardWorker(settings, everyone)
    dataset = everyone.dataset
    assert dataset is not None
    rest = list(range(half, len(everyone)))
    items = dataset.labelled("val")[half:]
    vectors = worker.vectors(rest)
    labels = [drawn[0] for drawn in worker.label(vectors, rest)]
    right = np.array(
        [
            meaning(label.text) in {meaning(own) for own in item.labels}
            for label, item in zip(labels, items, strict=True)
        ]
    )
    p = np.array([fitted.of(label) for label in labels])
    picked = torch.arange(options.controls) % len(vectors)
    kinds = {
        "random": random_vectors(vectors[picked], seed=1),
        "zero": torch.zeros(1, vectors.shape[1]),
    }
    shown = np.array([fitted.believes(one) for one in p])
    result = {
        "asked_precision": options.precision,
        "asked_control_rate": options.control_rate,
        "weights": fitted.weights,
        "threshold": round(fitted.threshold, 4),
        "right_of_all": asdict(bootstrap_mean(right.astype(float))),
        "precision": asdict(bootstrap_mean(right[shown].astype(float))),
        "coverage": asdict(bootstrap_mean(shown.astype(float))),
        "brier": round(float(((p - right) ** 2).mean()), 4),
        "reliability": reliability(p, right),
        "controls_shown": {},
        "fitted_on": half,
        "tested_on": len(items),
        "machine": machine(),
    }
    for kind, some in kinds.items():
        drawn = worker.labeller.label(some, max_new_tokens=options.max_new_tokens)
        believed = [fitted.believes(fitted.of(one[0])) for one in drawn]
        result["controls_shown"][kind] = asdict(bootstrap_mean(np.array(believed, dtype=float)))
    if options.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:20s} {value}")


if __name__ == "__main__":
    main()
