"""By which number should the best of N sampled labels be chosen?

    python scripts/ship_adapter.py --work work     # or any file of selfie prepare topics
    python benchmarks/best_of_n.py work/t.json --places 12:name 12:-1 16:name 16:-1 --out order

Labels one vector of each of some held-out concepts per place with the shipped adapter: greedily,
and N times at temperature 0.7, as selfie label --best-of N does. Of the N labels one is chosen: by
gain, by likelihood, and so on. Right means exactly a name or synonym of the concept, as in
selfie eval naming. The order that is right most often on validation concepts is stated; then all
are compared on test concepts: share with its 95 % interval, and the paired difference from the
choice by gain over concepts, with p values adjusted by Holm. Stopped, it resumes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from held_out import held_out

from selfie_adapters.commands.label import label
from selfie_adapters.config.types import Split
from selfie_adapters.dataset import save_dataset
from selfie_adapters.evaluation.comparing import adjusted, comparison, paired
from selfie_adapters.labelling.finished_run import open_run
from selfie_adapters.labelling.rows import LabelRow
from selfie_adapters.statistics import bootstrap_of_means, wilson


def _likelihood(row: LabelRow) -> float:
    return row.log_prob / row.tokens


def _agreement(row: LabelRow) -> float:
    return float(str(row.agreement))


ORDERS: dict[str, Callable[[LabelRow], tuple[float, ...]]] = {
    "gain": lambda row: (row.gain,),
    "likelihood": lambda row: (row.log_prob,),
    "likelihood per token": lambda row: (_likelihood(row),),
    "gain + likelihood per token": lambda row: (row.gain + _likelihood(row),),
    "agreement, then gain": lambda row: (_agreement(row), row.gain),
    "agreement, then gain + likelihood per token": lambda row: (
        _agreement(row),
        row.gain + _likelihood(row),
    ),
}
"""What the best label has most of; empty labels come last in all of them."""


@dataclass(frozen=True)
class Labelled:
    """Labels of one place: the concept of each vector, its greedy label, its sampled ones."""

    place: str
    concepts: list[str]
    greedy: list[LabelRow]
    sampled: list[list[LabelRow]]

    def right(self, order: str) -> np.ndarray:
        """Whether the label that an order chooses is right: [vectors], 0 or 1."""
        of = ORDERS[order]
        best = [max(rows, key=lambda row: (bool(row.label), *of(row))) for rows in self.sampled]
        return _right(best)


def _right(rows: Sequence[LabelRow]) -> np.ndarray:
    return np.array([row.equal is True for row in rows], dtype=float)


def labelled(
    source: str, place: str, split: Split, concepts: int, samples: int, seed: int, folder: Path
) -> Labelled:
    """Labels of one place's vectors, from the run folders below `folder`, made where missing."""
    layer, _, position = place.partition(":")
    stem = f"{split}_l{layer}_at_{position}"
    file = folder / f"{stem}.json"
    section = held_out(source, int(layer), position, split, concepts, seed)
    section.metadata["filename"] = f"{stem}.safetensors"
    save_dataset(file, [section], overwrite=True)
    runs: list[list[list[LabelRow]]] = []
    for name, more in (
        ("greedy", {}),
        ("sampled", {"samples": samples, "temperature": 0.7, "seed": seed}),
    ):
        out = folder / f"{stem}_{name}"
        label(
            str(file),
            out=str(out),
            split=split,
            model="demo",
            adapter="demo",
            dtype="bfloat16",
            max_new_tokens=12,
            batch_size=256,
            **more,
        )
        runs.append(list(open_run(out).labelled()))
    names = [item.labels[0] for item in section.items]
    return Labelled(place, names, [rows[0] for rows in runs[0]], runs[1])


def chosen_on(places: Sequence[Labelled]) -> str:
    """The order whose labels are right most often."""
    return max(ORDERS, key=lambda order: np.concatenate([p.right(order) for p in places]).mean())


def table(places: Sequence[Labelled]) -> list[dict[str, object]]:
    """How often each order is right, over all places and in each, and how much more than gain."""
    units = np.concatenate([np.array(place.concepts) for place in places])
    gain = np.concatenate([place.right("gain") for place in places])
    found = {order: [place.right(order) for place in places] for order in ORDERS}
    found["one greedy label"] = [_right(place.greedy) for place in places]
    found["one sample"] = [
        _right([min(rows, key=lambda row: row.sample) for rows in place.sampled])
        for place in places
    ]
    differences = adjusted(
        comparison(order, "gain", "right", paired(np.concatenate(values), gain, units, "row"))
        for order, values in found.items()
        if order != "gain"
    )
    by_order = {one["first"]: one for one in differences}
    return [
        {
            "order": order,
            "right": _over_units(np.concatenate(values), units),
            "over_gain": by_order.get(order, {}).get("difference"),
            "p_holm": by_order.get(order, {}).get("p_holm"),
            "by_place": {
                place.place: str(wilson(float(its.sum()), len(its)))
                for place, its in zip(places, values, strict=True)
            },
        }
        for order, values in found.items()
    ]


def _over_units(values: np.ndarray, units: np.ndarray) -> str:
    """The mean over rows with an interval over concepts, which several places share."""
    _, inverse = np.unique(units, return_inverse=True)
    sums = np.stack([np.bincount(inverse, values), np.bincount(inverse)], axis=1)
    return str(bootstrap_of_means(sums, lambda m: m[..., 0] / m[..., 1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", help="training file with val and test topic vectors")
    parser.add_argument("--places", nargs="+", default=["12:name", "12:-1"], help="layer:position")
    parser.add_argument("--concepts", type=int, default=200, help="of each split")
    parser.add_argument("--best-of", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="order")
    options = parser.parse_args()
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)

    def places(split: Split) -> list[Labelled]:
        return [
            labelled(
                options.source,
                place,
                split,
                options.concepts,
                options.best_of,
                options.seed,
                folder,
            )
            for place in options.places
        ]

    val = places("val")
    shares = {
        order: round(float(np.concatenate([p.right(order) for p in val]).mean()), 4)
        for order in ORDERS
    }
    print(json.dumps({"validation": shares, "chosen": chosen_on(val)}))
    for row in table(places("test")):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
