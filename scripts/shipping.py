"""How the adapters that come with the package are calibrated, measured and described."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from selfie_adapters.adapters import Adapter, load_adapter
from selfie_adapters.commands.confidence import fit
from selfie_adapters.commands.demo_training import LAYERS
from selfie_adapters.config.evaluation.naming import NamingSettings
from selfie_adapters.dataset import Item, Section, load_dataset
from selfie_adapters.dataset.document import read_raw_sections, write_document
from selfie_adapters.evaluation.naming.judging import names_of
from selfie_adapters.evaluation.naming.protocol import NamingProtocol
from selfie_adapters.labelling.confidence import confidence_file
from selfie_adapters.sources import Topic
from selfie_adapters.sources.topics.wordnet import packaged_nouns

HOME = Path(__file__).parents[1] / "src/selfie_adapters/adapters/shipped"
CALIBRATED_ON = 300  # val nouns
MEASURED_ON = 200  # test nouns
PRECISION = 0.8
SHOWN_CONCEPTS = 40  # test nouns whose vectors come with the package, for a first look


def calibrate(
    adapter: Path,
    labels_file: Path,
    console: Console,
    layers: Sequence[int] = LAYERS,
    precision: float = PRECISION,
) -> None:
    """Fit the calibration of an adapter on val nouns, unless it is there already."""
    if confidence_file(adapter).exists():
        return
    console.print("[bold]calibrate[/]")
    fit(
        source=str(calibration_file(labels_file, layers)),
        adapter=str(adapter),
        model="demo",
        precision=precision,
        max_new_tokens=30,
    )


def measure(
    adapter: Path, labels_file: Path, out: Path, console: Console, layers: Sequence[int] = LAYERS
) -> dict[str, Any]:
    """The results of `selfie eval naming` on test nouns."""
    console.print("[bold]measure[/]")
    settings = naming_settings(adapter, labels_file, layers)
    return json.loads(NamingProtocol.run(settings, out).read_text("utf-8"))


def naming_settings(adapter: Path, labels_file: Path, layers: Sequence[int]) -> NamingSettings:
    return NamingSettings(
        source=str(labels_file),
        model="demo",
        adapter=str(adapter),
        layers=",".join(map(str, layers)),
        limit=MEASURED_ON,
        retrieval=0,
    )


def calibration_file(labels_file: Path, layers: Sequence[int]) -> Path:
    """The training file with some layers and val nouns only, each labelled with every name that is
    right or related: confidence is the probability that a label is one of these."""
    sections, _ = read_raw_sections(labels_file)
    names = sorted(
        {i.labels[0] for s in sections for i in s.items if i.split == "val"}
        - {str(s.metadata["no_concept"]) for s in sections}
    )
    chosen = set(random.Random(0).sample(names, min(CALIBRATED_ON, len(names))))
    document = []
    for section in sections:
        if section.metadata["layer"] not in layers:
            continue
        null = section.metadata["vector_type"] == "null"
        items = [
            {"index": one.index, "labels": one.labels if null else accepted(one.labels[0])}
            | {"split": one.split}
            for one in section.items
            if one.split == "val" and (null or one.labels[0] in chosen)
        ]
        document.append({"metadata": section.metadata, "vectors": items})
    path = labels_file.with_name(f"calibration_{'_'.join(map(str, layers))}.json")
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


def first_look(labels_file: Path, place: tuple[int, str], name: str) -> Section:
    """Vectors of some test nouns at one block and kind of position, drawn at random, one each."""
    dataset = load_dataset(labels_file)
    section = next(s for s in dataset.sections if (s.layer, str(s.metadata["position"])) == place)
    rows = {item.labels[0]: item.index for item in section.items if item.split == "test"}
    chosen = sorted(random.Random(1).sample(sorted(rows), SHOWN_CONCEPTS))
    vectors = section.vectors[torch.tensor([rows[one] for one in chosen])].half()
    metadata = {**section.metadata, "dataset_name": name, "filename": f"{name}.safetensors"}
    metadata.pop("vectors_digest", None)
    return Section(metadata, vectors, [Item(i, [one], "test") for i, one in enumerate(chosen)])


def portable(source: Path) -> Adapter:
    """An adapter without this machine's folders in its record."""
    adapter = load_adapter(source)
    config = copy.deepcopy(adapter.record.config)
    config["data"]["labels_file"] = Path(config["data"]["labels_file"]).name
    config["training"]["checkpoint_dir"] = "runs"
    adapter.record = replace(adapter.record, config=config)
    return adapter


def percent(share: dict[str, float], sign: str = "") -> str:
    """A share with its interval. sign: "+" for a difference."""
    mean, low, high = (f"{share[one]:{sign}.0%}" for one in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"
