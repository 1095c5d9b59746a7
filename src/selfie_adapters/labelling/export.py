"""A labelling run as one file for others to read."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.dataset import Item, Section, save_dataset, split_indices
from selfie_adapters.dataset.captured import stated_kind
from selfie_adapters.dataset.schema import Split
from selfie_adapters.dataset.source import LabelSource
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.extras import extra
from selfie_adapters.files import atomic_path
from selfie_adapters.labelling.centering import load_mean
from selfie_adapters.labelling.finished_run import FinishedRun
from selfie_adapters.labelling.inputs import open_source
from selfie_adapters.labelling.rows import (
    COLUMNS,
    LabelRow,
    row_fields,
)
from selfie_adapters.labelling.run_record import read_binding, vectors_hash
from selfie_adapters.labelling.shards import source_name

VAL_FRACTION, SPLIT_SEED = 0.1, 42

_ROW_GROUP = 8192  # rows of a Parquet file that are written at a time
_ROWS_AT_ONCE = 1024  # vectors


def to_csv(run: FinishedRun, out: str | Path) -> int:
    """Every row, with the columns that any row has. Returns how many rows."""
    columns = _columns(run)
    count = 0
    with (
        atomic_path(out) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in run.rows():
            writer.writerow(row_fields(row))
            count += 1
    return count


def to_parquet(run: FinishedRun, out: str | Path) -> int:
    """Every row as a Parquet table. Returns how many rows."""
    with extra("export", "Writing Parquet"):
        import pyarrow
        from pyarrow import parquet
    types = {
        **dict.fromkeys(
            ("dataset", "label", "raw", "withheld", "given", "error"), pyarrow.string()
        ),
        **dict.fromkeys(
            ("index", "sample", "seed", "tokens", "rank", "concept_number"), pyarrow.int64()
        ),
        **dict.fromkeys(("ended", "concept", "equal"), pyarrow.bool_()),
    }
    columns = _columns(run)
    schema = pyarrow.schema([(name, types.get(name, pyarrow.float64())) for name in columns])
    count = 0
    with atomic_path(out) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        rows = map(row_fields, run.rows())
        while group := list(islice(rows, _ROW_GROUP)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
            count += len(group)
    return count


def _columns(run: FinishedRun) -> list[str]:
    """The columns that any row has; reading them all first also finds damage before writing."""
    used = {key for row in run.rows() for key in row_fields(row)}
    return [column for column in COLUMNS if column in used]


@dataclass(frozen=True)
class Labelled:
    """A leading label with its vector, [d_model], float32, the mean subtracted where it was.

    layer: zero-based block the vector is from."""

    row: LabelRow
    vector: Tensor
    layer: int


def with_vectors(run: FinishedRun, layer: int | None = None) -> Iterator[Labelled]:
    """The leading labels of `best` with their vectors, in order.

    layer: of vectors whose layer neither the run nor its adapter knows. Raises like `to_training`.
    """
    source = open_source(run.settings)
    _check_vectors(run, source)
    positions = {source_name(source, position): position for position in range(len(source))}
    known = (layer, run.settings.layer, _bound_layer(run))
    stated = next((number for number in known if number is not None), None)
    means: dict[tuple[int, str | None], Tensor] = {}
    rows = run.best()
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        places = [positions[row.name] for row in some]
        for row, place, vector in zip(some, places, source.at(places), strict=True):
            own = source.layer(place)
            own = stated if own is None else own
            if own is None:
                raise _unknown_layer(run)
            if run.settings.mean is not None:
                key = own, source.kind(place)
                if key not in means:
                    means[key] = load_mean(run.settings.mean, own, source.d_model, key[1])
                vector = vector - means[key]
            yield Labelled(row, vector, own)


def to_training(run: FinishedRun, out: str | Path, layer: int | None = None) -> int:
    """A training file with the best label of each vector, and the vectors that were labelled.

    A training file's own splits stay; other vectors are split again (a tenth is held out). layer:
    of vectors whose layer neither the run nor its adapter knows. Returns how many vectors.
    Raises DataError if no label is left, ConfigError if the layer is not known.
    """
    source = open_source(run.settings)
    _check_vectors(run, source)
    labels = {row.name: row.label for row in run.best()}
    if not labels:
        raise DataError(f"{run.folder}: no vector has a label that could be trained on.")
    name = Path(out).name.removesuffix(".gz").removesuffix(".json")
    sections = [
        section
        for number, old in enumerate(_sections(run, source, layer))
        if (section := _labelled(old, labels, f"{name}_{number}.safetensors", source)).items
    ]
    save_dataset(out, sections, overwrite=True)
    return sum(len(section.items) for section in sections)


def _check_vectors(run: FinishedRun, source: LabelSource) -> None:
    """Labels must not be written with vectors that they are not about."""
    was = run.record.inputs.get("vectors")
    if len(source) != run.record.vectors or was not in (None, vectors_hash(source)):
        raise DataError(
            f"{run.settings.source}: its vectors have changed since {run.folder} labelled them. "
            "Restore the file, or label the vectors it has now into another folder."
        )


def _sections(run: FinishedRun, source: LabelSource, layer: int | None) -> list[Section]:
    """The source's sections, or one made of its vectors; the mean subtracted where it was."""
    if source.dataset is not None:
        sections = list(source.dataset.sections)
    else:
        assert source.tensor is not None
        stated = (layer, source.tensor_layer, run.settings.layer, _bound_layer(run))
        known = next((number for number in stated if number is not None), None)
        if known is None:
            raise _unknown_layer(run)
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
    centered = []
    for section in sections:
        kind = stated_kind(section.metadata)
        mean = load_mean(run.settings.mean, section.layer, source.d_model, kind)
        centered.append(Section(section.metadata, _minus(section.vectors, mean), section.items))
    return centered


def _unknown_layer(run: FinishedRun) -> ConfigError:
    return ConfigError(
        f"{run.folder}: neither the run nor its adapter states which layer the vectors are "
        "of. Pass --layer."
    )


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
    binding = read_binding(run.folder)
    return None if binding is None else binding.layer
