"""A labelling run as one file for others to read."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.adapters import Binding
from selfie_adapters.dataset import Item, Section, save_dataset, split_indices
from selfie_adapters.dataset.schema import Split
from selfie_adapters.dataset.source import LabelSource
from selfie_adapters.errors import ConfigError, DataError, MissingExtraError
from selfie_adapters.files import atomic_path, existing_file
from selfie_adapters.json_lines import read_jsonl
from selfie_adapters.labelling.centring import load_mean
from selfie_adapters.labelling.inputs import open_source
from selfie_adapters.labelling.settings import LabelSettings
from selfie_adapters.labelling.shards import Row, cut_into_shards

VAL_FRACTION, SPLIT_SEED = 0.1, 42

_COLUMNS = (
    "dataset index label raw scale sample seed log_prob zero_log_prob score tokens ended "
    "rank agreement margin confidence concept error"
).split()


@dataclass(frozen=True)
class FinishedRun:
    """A run folder as far as it is complete."""

    folder: Path
    settings: LabelSettings
    shards: list[Path]
    missing: int  # shards that are not complete

    def rows(self) -> Iterator[Row]:
        """All rows, in order, shard by shard; failed vectors have an `error` and no label."""
        for shard in self.shards:
            yield from read_jsonl(shard)

    def best(self) -> Iterator[Row]:
        """One row a vector: its first, or its best ranked; none if that is blank or no concept."""
        name, best = None, None
        for row in self.rows():
            own = (row.get("dataset"), row["index"])
            if own != name:
                if best is not None and _worth(best):
                    yield best
                name, best = own, row
            elif best is not None and row.get("rank", 0) < best.get("rank", 0):
                best = row
        if best is not None and _worth(best):
            yield best


def open_run(folder: str | Path) -> FinishedRun:
    """Raises MissingFileError or DataError if `folder` is no labelling run."""
    config = existing_file(Path(folder) / "config.json")
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        settings = LabelSettings.checked(**content["settings"])
        count = int(content["vectors"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{config}: not a labelling run's configuration ({error}).") from error
    shards = [shard.path for shard in cut_into_shards(folder, count, settings.shard_size)]
    complete = [path for path in shards if path.exists()]
    return FinishedRun(Path(folder), settings, complete, len(shards) - len(complete))


def _worth(row: Row) -> bool:
    return "error" not in row and bool(row["label"]) and row.get("concept", True)


def to_csv(run: FinishedRun, out: str | Path) -> int:
    """Every row, with the columns that any row has. Returns how many rows."""
    used = {key for row in run.rows() for key in row}
    columns = [column for column in _COLUMNS if column in used]
    count = 0
    with (
        atomic_path(out) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in run.rows():
            writer.writerow(row)
            count += 1
    return count


def to_parquet(run: FinishedRun, out: str | Path) -> int:
    """Every row as a Parquet table, a row group a shard. Returns how many rows."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "export", "Writing Parquet") from error
    types = {
        **dict.fromkeys(("dataset", "label", "raw", "error"), pyarrow.string()),
        **dict.fromkeys(("index", "sample", "seed", "tokens", "rank"), pyarrow.int64()),
        **dict.fromkeys(("ended", "concept"), pyarrow.bool_()),
    }
    used = {key for row in run.rows() for key in row}
    columns = [column for column in _COLUMNS if column in used]
    schema = pyarrow.schema([(name, types.get(name, pyarrow.float64())) for name in columns])
    count = 0
    with atomic_path(out) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for shard in run.shards:
            rows = read_jsonl(shard)
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


def to_neuronpedia(run: FinishedRun, out: str | Path, model_id: str, source_id: str) -> int:
    """One explanation a vector, as rows of Neuronpedia's own exports; gzip if named .gz.

    Returns how many rows. Raises ConfigError for a run over several datasets: one source has one.
    """
    count, datasets = 0, set()
    explainer = f"selfie:{run.settings.model}"
    with atomic_path(out) as temporary:
        opened = gzip.open if str(out).endswith(".gz") else open
        with opened(temporary, "wt", encoding="utf-8") as file:
            for row in run.best():
                count += 1
                datasets.add(row.get("dataset"))
                if len(datasets) > 1:
                    raise ConfigError(
                        f"{run.folder} holds labels of several datasets, and one Neuronpedia "
                        "source has one. Label them apart."
                    )
                explanation: dict[str, Any] = {
                    "modelId": model_id,
                    "layer": source_id,
                    "index": str(row["index"]),
                    "description": row["label"],
                    "typeName": "selfie-adapter",
                    "explanationModelName": explainer,
                }
                file.write(json.dumps(explanation, ensure_ascii=False) + "\n")
    return count


def to_training(run: FinishedRun, out: str | Path, layer: int | None = None) -> int:
    """A training file with the best label of each vector, and the vectors that were labelled.

    A training file's own splits stay; other vectors are split anew (a tenth is held out). layer:
    of vectors whose layer neither the run nor its adapter knows. Returns how many vectors.
    Raises DataError if no label is left, ConfigError if the layer is not known.
    """
    source = open_source(run.settings)
    labels = {(row.get("dataset"), row["index"]): row["label"] for row in run.best()}
    if not labels:
        raise DataError(f"{run.folder}: no vector has a label that could be trained on.")
    name = Path(out).name.removesuffix(".gz").removesuffix(".json")
    sections = [
        section
        for number, old in enumerate(_sections(run, source, layer))
        if (section := _labelled(old, labels, f"{name}_{number}.safetensors", source)).items
    ]
    save_dataset(out, sections)
    return sum(len(section.items) for section in sections)


def _sections(run: FinishedRun, source: LabelSource, layer: int | None) -> list[Section]:
    """The source's sections, or one made of its vectors; the mean subtracted where it was."""
    if source.dataset is not None:
        sections = list(source.dataset.sections)
    else:
        assert source.tensor is not None
        said = (layer, source.tensor_layer, run.settings.layer, _bound_layer(run))
        known = next((number for number in said if number is not None), None)
        if known is None:
            raise ConfigError(
                f"{run.folder}: which layer are the vectors of? Neither the run nor its adapter "
                "says. Pass --layer."
            )
        metadata = {
            "dataset_name": Path(run.settings.source).stem.replace("@", "-"),
            "layer": known,
            "source": run.settings.source,
            "vector_type": "labelled by selfie label",
        }
        every = torch.arange(source.tensor.shape[0])
        sections = [Section(metadata, source.tensor[every], [])]
    if run.settings.mean is None:
        return sections
    centred = []
    for section in sections:
        mean = load_mean(run.settings.mean, section.layer, source.d_model)
        centred.append(Section(section.metadata, _minus(section.vectors, mean), section.items))
    return centred


def _minus(vectors: Tensor, mean: Tensor) -> Tensor:
    return vectors.float() - mean


def _labelled(
    section: Section, labels: dict[Any, str], filename: str, source: LabelSource
) -> Section:
    dataset = section.id if source.dataset is not None else None
    rows = sorted(index for name, index in labels if name == dataset)
    splits: dict[int, Split] = {item.index: item.split for item in section.items}
    if source.dataset is None and len(rows) > 1:
        _, val = split_indices(rows, VAL_FRACTION, SPLIT_SEED)
        for row in val:
            splits[row] = "val"
    items = [Item(row, [labels[dataset, row]], splits.get(row, "train")) for row in rows]
    return Section({**section.metadata, "filename": filename}, section.vectors, items)


def _bound_layer(run: FinishedRun) -> int | None:
    path = run.folder / "binding.json"
    if not path.exists():
        return None
    return Binding.model_validate_json(path.read_text(encoding="utf-8")).layer
