"""Labels from a file: a JSON mapping, the training format, or JSON lines; gzip or not."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from selfie_adapters.errors import DataError
from selfie_adapters.files import atomic_path, existing_file, read_plain, sha256
from selfie_adapters.files.json_text import mend_surrogates, parse_json
from selfie_adapters.sources.labels.delphi import is_explanations_folder, read_delphi
from selfie_adapters.sources.labels.explanations import collect_labels, parse_rows
from selfie_adapters.sources.labels.label_set import LabelColumns, LabelSet, SplitTable
from selfie_adapters.sources.labels.mapping import read_mapping

LabelFileKind = Literal["json", "jsonl"]

_LONGEST_ROW = 2**24  # bytes of one of JSON lines that is looked at, to know what a file is
_MAPPING = re.compile(rb'\{\s*"\d+"\s*:')
_SHAPES = (
    'Expected {"12": "label", …}, the training format, or JSON lines with index and description; '
    "see docs/formats.md."
)


class SectionChoice(NamedTuple):
    """Which section of a training file; None leaves name or layer open."""

    name: str | None = None
    layer: int | None = None

    def chooses(self, metadata: dict[str, Any]) -> bool:
        """Whether a section with this metadata is meant."""
        named = self.name is None or metadata.get("dataset_name") == self.name
        return named and (self.layer is None or metadata.get("layer") == self.layer)


ANY_SECTION = SectionChoice()


def read_label_file(
    path: str | Path, kind: LabelFileKind | None = None, section: SectionChoice = ANY_SECTION
) -> LabelSet:
    """Labels by latent from one of the forms of label file.

    The forms are {"<latent>": "label"}, the training format with or without `filename` (splits and
    all labels kept), and JSON lines with `index` and `description`, as `selfie prepare labels`
    writes them. The content decides which it is. Where it does not, `kind` does: "json" or "jsonl";
    None: "jsonl" if the name states so, else "json". Two more are known by their names: a folder of
    delphi's explanations (labels/delphi.py), and a Parquet table of Natural Language Autoencoders,
    whose explanations are labels by row (dataset/nla.py).
    section: which section of the training format; the first that it chooses.

    Blank labels are dropped and counted. Raises MissingFileError, or DataError naming the file,
    the line or item, what was found and what was expected.
    """
    if is_explanations_folder(Path(path).expanduser()):
        return read_delphi(Path(path).expanduser())
    file = existing_file(path)
    if file.suffix.lower() == ".parquet":
        return _table(file)
    if kind is None:
        kind = "jsonl" if file.name.removesuffix(".gz").endswith((".jsonl", ".ndjson")) else "json"
    content = read_plain(file).removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise DataError(f"{file}: the file is empty. {_SHAPES}")
    kind = _kind_of(content) or kind
    labels = _json_lines(file, content) if kind == "jsonl" else _json(file, content, section)
    if not labels.labels:
        raise DataError(f"{file}: no labels ({'; '.join(labels.report)}).")
    origin = {"labels_from": file.name, "labels_sha256": sha256(file), **labels.origin}
    return replace(labels, origin=origin)


def write_label_file(path: str | Path, labels: LabelSet) -> Path:
    """Write JSON lines that `read_label_file` reads back, gzip if the name ends in .gz.

    One row per label, by latent; the same labels give the same bytes.
    """
    file = Path(path).expanduser()
    if not file.name.removesuffix(".gz").endswith(".jsonl"):
        raise DataError(f"{file}: a name that ends in .jsonl or .jsonl.gz is expected.")
    lines = []
    for latent in sorted(labels.labels):
        texts = labels.labels[latent]
        who = labels.explainers.get(latent) or [(None, None)] * len(texts)
        for text, (model, kind) in zip(texts, who, strict=True):
            row = {"index": latent, "description": text}
            row |= {"explanationModelName": model, "typeName": kind}
            lines.append(msgspec.json.encode(row))
    content = b"".join(line + b"\n" for line in lines)
    with atomic_path(file) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0) if file.suffix == ".gz" else content)
    return file


def _table(file: Path) -> LabelSet:
    from selfie_adapters.dataset.nla import read_explanations  # its package loads torch

    found = read_explanations(file)
    labels = {row: [text] for row, text in found.items() if text}
    if not labels:
        raise DataError(f"{file}: no explanations in its {len(found)} rows.")
    report = [f"{len(found)} rows, {len(labels)} explanations"]
    if len(labels) < len(found):
        report.append(f"{len(found) - len(labels)} empty explanations, dropped")
    origin = {"labels_from": file.name, "labels_sha256": sha256(file)}
    return LabelSet(labels, report=report, origin=origin)


def _kind_of(content: bytes) -> LabelFileKind | None:
    """What the beginning of a label file shows it to be; None if it fits neither or both."""
    first = content.lstrip().split(b"\n", 1)[0].rstrip()
    if first == b"{" or first.startswith(b"[") or _MAPPING.match(first):
        return "json"
    if len(first) > _LONGEST_ROW:
        return None
    try:  # the values stay as they are: only the keys matter
        row = msgspec.json.decode(mend_surrogates(first), type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return "jsonl" if "index" in row else None


def _json_lines(file: Path, content: bytes) -> LabelSet:
    found = collect_labels(parse_rows(str(file), content), all_explainers=True)
    return found if found.explainers else LabelSet(found.labels, report=found.report)


def _json(file: Path, content: bytes, section: SectionChoice) -> LabelSet:
    match content.lstrip()[:1]:
        case b"{":
            return read_mapping(str(file), content, _SHAPES)
        case b"[":
            return _training_format(file, content, section)
    raise DataError(f"{file}: found {parse_json(content, str(file), _SHAPES)!r:.40}. {_SHAPES}")


def _training_format(file: Path, content: bytes, choice: SectionChoice) -> LabelSet:
    from selfie_adapters.dataset.document import raw_sections  # its package loads torch
    from selfie_adapters.dataset.schema import split_counts

    # Labels are read here, not trained on: the vector file need not be named, or be there.
    document, found = raw_sections(content, file, needs_filename=False)
    if found:
        raise DataError(f"{file}, {found[0]}")
    if choice != ANY_SECTION:
        document = [one for one in document if choice.chooses(one.metadata)][:1] or document
        if not choice.chooses(document[0].metadata):
            listed = ", ".join(
                f"{one.metadata['dataset_name']} (layer {one.metadata['layer']})"
                for one in document[:8]
            )
            raise DataError(
                f"{file}: no section with dataset_name {choice.name} and layer {choice.layer}. "
                f"It has {listed}."
            )
    if len(document) != 1:
        names = ", ".join(str(section.metadata["dataset_name"]) for section in document)
        raise DataError(
            f"{file}: {len(document)} sections ({names:.120}); the labels of one SAE are one "
            "section. Write it to a file of its own."
        )
    (section,) = document
    items = section.items
    table, splits = LabelColumns(), SplitTable(items.rows, items.splits)
    for place in np.argsort(items.rows, kind="stable"):
        item = items[int(place)]
        for label in item.labels:
            table.add(item.index, label)
    return LabelSet(
        table,
        splits=splits,
        origin={"labels_dataset": section.metadata["dataset_name"]},
        report=[
            f"{len(table)} latents, {table.count} labels",
            f"splits of the file: {split_counts(splits.values())}",
        ],
    )
