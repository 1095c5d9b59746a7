"""Training files as datasets: sections of memory-mapped vectors with their labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from selfie_adapters.dataset.document import Items, document_bytes, read_raw_sections
from selfie_adapters.dataset.schema import Item, Problem, Split, problems, section_place
from selfie_adapters.dataset.vectors import (
    DIGEST_KEY,
    bad_rows,
    open_vectors,
    vectors_digest,
    write_rows,
)
from selfie_adapters.errors import DataError, SelfieError
from selfie_adapters.files import atomic_path, check_free, existing_file, flush, inside, user_path

_SHOWN = 5  # problems in an error (`selfie data inspect` shows more), sections in a repr


@dataclass(frozen=True, repr=False)
class Section:
    """Labelled vectors of one dataset and layer. metadata is kept whole, extra keys too."""

    metadata: dict[str, Any]
    vectors: Tensor  # [rows, d_model], memory-mapped when it was read from a file
    items: Sequence[Item]

    @property
    def rows(self) -> np.ndarray:
        """The row of each item: [items], int64."""
        known = self.items.rows if isinstance(self.items, Items) else None
        return np.array([one.index for one in self.items] if known is None else known, np.int64)

    @property
    def name(self) -> str:
        return self.metadata["dataset_name"]

    @property
    def layer(self) -> int:
        return self.metadata["layer"]

    @property
    def id(self) -> str:
        """How a mixture names it: dataset_name@l{layer}."""
        return f"{self.name}@l{self.layer}"

    def __repr__(self) -> str:
        rows, width = self.vectors.shape
        dtype = str(self.vectors.dtype).removeprefix("torch.")
        return f"Section({self.id}, vectors [{rows}, {width}] {dtype}, {len(self.items)} labeled)"


@dataclass(frozen=True, repr=False)
class Examples:
    """Training examples of a split in file order, one per (vector, label) pair."""

    labels: list[str]
    section: Tensor  # [n], position in `VectorLabelDataset.sections`
    row: Tensor  # [n], row of that section's vectors

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Examples({len(self)} pairs of vector and label)"


@dataclass(frozen=True)
class LabelledVector:
    """One vector with all its labels."""

    section: int
    row: int
    labels: Sequence[str]
    split: Split


@dataclass(frozen=True, repr=False)
class VectorLabelDataset:
    """A training file. Vectors stay on disk until they are gathered."""

    sections: Sequence[Section]

    def __repr__(self) -> str:
        listed = ", ".join(map(repr, self.sections[:_SHOWN]))
        more = len(self.sections) - _SHOWN
        return f"VectorLabelDataset([{listed}{f', and {more} more' if more > 0 else ''}])"

    @cached_property
    def d_model(self) -> int:
        return self.sections[0].vectors.shape[1]

    def examples(self, split: Split) -> Examples:
        """Every (vector, label) of `split`."""
        labels, sections, rows = [], [], []
        for number, section in enumerate(self.sections):
            for item in section.items:
                if item.split == split:
                    labels.extend(item.labels)
                    sections.extend([number] * len(item.labels))
                    rows.extend([item.index] * len(item.labels))
        return Examples(
            labels, torch.tensor(sections, dtype=torch.int64), torch.tensor(rows, dtype=torch.int64)
        )

    def labelled(self, split: Split | None = None) -> list[LabelledVector]:
        """Every labelled vector of `split` (None: of all), with all its labels."""
        return [
            LabelledVector(number, item.index, item.labels, item.split)
            for number, section in enumerate(self.sections)
            for item in section.items
            if split in (None, item.split)
        ]

    def gather(self, section: Tensor, row: Tensor) -> Tensor:
        """Vectors at (section[i], row[i]): [n, d_model], float32, a copy in memory."""
        result = torch.empty(len(row), self.d_model)
        for number, source in enumerate(self.sections):
            here = section == number
            if bool(here.any()):
                result[here] = source.vectors[row[here]].float()
        return result


def load_dataset(labels_file: str | Path) -> VectorLabelDataset:
    """Read a training file (.json or .json.gz) and map its vectors.

    A relative `filename` counts from the JSON's folder. Raises MissingFileError, or DataError that
    names file, section, item and fix; only the first problems are listed.
    """
    sections, found = read_sections(labels_file)
    if found:
        shown = "\n".join(f"  - {problem}" for problem in found[:_SHOWN])
        more = len(found) - _SHOWN
        rest = f"\n  … and {more} more: selfie data inspect {labels_file}" if more > 0 else ""
        raise DataError(f"{labels_file}:\n{shown}{rest}")
    return VectorLabelDataset(sections)


def read_sections(labels_file: str | Path) -> tuple[list[Section], list[Problem]]:
    """The sections that can be read, and everything that is wrong with the file.

    Raises only where there is nothing to look at: no such file, or not JSON.
    """
    file = existing_file(labels_file)
    raw_sections, found = read_raw_sections(file)
    sections: list[Section] = []
    for number, raw in enumerate(raw_sections):
        place = section_place(number, raw.metadata)
        try:
            vector_file = file.parent / user_path(raw.metadata["filename"])
            vectors = open_vectors(vector_file)
        except SelfieError as error:
            found.append(
                Problem(f"{place}, metadata.filename", str(error), "Paths count from the JSON.")
            )
            continue
        sections.append(Section(raw.metadata, vectors, raw.items))
        if (stated := raw.metadata.get(DIGEST_KEY)) is not None:
            found.extend(_digest_problems(place, stated, vectors, vector_file))
        found.extend(_row_problems(place, sections[-1], vector_file))
    widths = {section.id: section.vectors.shape[1] for section in sections}
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} {width}" for name, width in widths.items())
        found.append(
            Problem(
                "sections",
                f"vectors of different width: {listed}",
                "One file must have the vectors of one model only.",
            )
        )
    return sections, found


def save_dataset(
    labels_file: str | Path,
    sections: Sequence[Section],
    overwrite: bool = False,
    companions: Mapping[str, bytes] | None = None,
) -> None:
    """Write vectors (next to the JSON, under each section's `filename`) and the JSON itself.

    companions: other files that belong to these vectors, content by name. All are written in full
    before any takes its name: vectors first, then companions, the labels last, one right after
    another. A writer killed before leaves none of them; killed in between, no older labels go with
    a newer file of the others.

    Raises DataError, and writes nothing, if the result could not be read back or if a `filename`
    leads out of the JSON's folder; ConfigError if a file exists already and `overwrite` is not
    given.
    """
    document = [
        {
            "metadata": {**section.metadata, DIGEST_KEY: vectors_digest(section.vectors)},
            "vectors": [msgspec.structs.asdict(item) for item in section.items],
        }
        for section in sections
    ]
    if wrong := next(problems(document), None):
        raise DataError(f"{labels_file}: {wrong}")
    folder = Path(labels_file).parent
    targets = [inside(folder, section.metadata["filename"]) for section in sections]
    others = {inside(folder, name): content for name, content in (companions or {}).items()}
    for file in (*targets, *others, Path(labels_file)):
        check_free(file, overwrite)
    others = {Path(labels_file): document_bytes(labels_file, document), **others}
    with ExitStack() as written:  # which is left in the reverse order
        for other, content in others.items():
            temporary = written.enter_context(atomic_path(other))
            temporary.write_bytes(content)
            flush(temporary)
        for target, section in reversed(list(zip(targets, sections, strict=True))):
            temporary = written.enter_context(atomic_path(target))
            write_rows(temporary, target.suffix, section.vectors)
            flush(temporary)


def _digest_problems(
    place: str, stated: Any, vectors: Tensor, vector_file: Path
) -> Iterator[Problem]:
    if stated != vectors_digest(vectors):
        yield Problem(
            f"{place}, metadata.{DIGEST_KEY}",
            f"{vector_file} is not the vector file that these labels were written with",
            "A preparation of the same name was interrupted, or the vectors were replaced. Run the "
            f"preparation again; or remove {DIGEST_KEY} if the labels belong to the new vectors.",
        )


def _row_problems(place: str, section: Section, vector_file: Path) -> Iterator[Problem]:
    count, rows = section.vectors.shape[0], section.rows
    for number in np.flatnonzero(rows >= count).tolist():
        yield Problem(
            f"{place}, item {number}, index",
            f"{rows[number]} is out of range, {vector_file} has {count} rows",
            f"Use 0 to {count - 1}.",
        )
    for row, what in bad_rows(section.vectors, torch.from_numpy(rows[rows < count])):
        yield Problem(
            f"{place}, item {np.flatnonzero(rows == row)[0]}, index",
            f"row {row} of {vector_file} is {what}",
            "Remove it from the labels.",
        )
