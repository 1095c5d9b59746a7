"""From an SAE and its labels to a training file: `{name}.pt` and `{name}_labels.json`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from selfie_adapters.config.prepare import SaeSettings
from selfie_adapters.config.types import SPLITS, Split
from selfie_adapters.dataset import Item, split_indices
from selfie_adapters.dataset.document import document_bytes
from selfie_adapters.dataset.schema import problems, split_counts
from selfie_adapters.dataset.stream import stream_rows
from selfie_adapters.dataset.vectors import DIGEST_KEY, vectors_digest
from selfie_adapters.errors import ConfigError, DataError, DownloadError
from selfie_adapters.files import atomic_path, check_free, flush, inside
from selfie_adapters.sources.labels.files import read_label_file
from selfie_adapters.sources.labels.label_set import LabelSet
from selfie_adapters.sources.labels.neuronpedia import fetch_source_labels
from selfie_adapters.sources.sae.decoder import RowCheck
from selfie_adapters.sources.sae.files import SaeVectors, open_on_disk, open_registered
from selfie_adapters.sources.sae.registry import RegisteredSae, find_sae

_GOODFIRE_8B = ("goodfire-llama-3.1-8b-instruct", "layer_19")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Prepared:
    """What was written, and lines for the reader."""

    labels_file: Path
    vectors_file: Path
    report: list[str]


def prepare_sae(
    request: SaeSettings,
    label_progress: Callable[[int, int], None] | None = None,
    row_progress: Callable[[int, int], None] = lambda _done, _total: None,
    overwrite: bool = False,
) -> Prepared:
    """Write the decoder's rows and their labels as a training file.

    Raises ConfigError for options that do not go together and for files that exist, unless they may
    be overwritten, and whatever reading labels and decoder raises. Files appear atomically, the
    labels last.
    Progress is called with label batches, then rows, done and in all.
    """
    entry = _entry(request)
    vectors_file, labels_file = _targets(request, overwrite)
    # Labels first: they are small, and most of what can go wrong goes wrong there.
    labels = _labels(request, entry, label_progress)
    source_id = request.neuronpedia_id or (entry.neuronpedia_id if entry else None)
    if entry is None:
        assert request.sae_path is not None
        sae = open_on_disk(request.sae_path, [source_id] if source_id else [], request.layer)
    else:
        sae = open_registered(entry, _weights(request), request.device, request.layer)
    d_sae, d_in = sae.decoder.shape
    labels = labels.restrict(d_sae)
    report = [*labels.report, *sae.report]
    metadata = _metadata(request, entry, sae, labels)
    if request.one_label:
        labels = _first_labels(labels)
    # Split before unusable rows go, so that the same rows are held out everywhere.
    splits = _splits(labels, request)
    check = RowCheck.empty()
    dtype = DTYPES[request.dtype]
    blocks = check.watch(_counted(sae.decoder.blocks(), d_sae, row_progress), dtype)
    # Both are written before one takes its name, the labels right after the vectors: the command of
    # a run that was stopped finds neither, and can be given again as it was.
    with atomic_path(labels_file) as labels_written, atomic_path(vectors_file) as written:
        stream_rows(written, (d_sae, d_in), dtype, blocks)
        rows = torch.load(written, mmap=True, weights_only=True)
        metadata[DIGEST_KEY] = vectors_digest(rows)
        unusable = {*check.dead, *check.broken}
        items = [Item(i, list(labels.labels[i]), split) for i, split in splits if i not in unusable]
        document = [{"metadata": metadata, "vectors": list(map(msgspec.structs.asdict, items))}]
        for problem in problems(document):
            raise DataError(f"{labels_file}: {problem}")
        labels_written.write_bytes(document_bytes(labels_file, document))
        flush(labels_written)
    report += check.report()
    report.append(
        f"{sum(len(item.labels) for item in items)} labels of {len(items)} latents: "
        f"{split_counts(item.split for item in items)}"
    )
    return Prepared(labels_file, vectors_file, report)


def _targets(request: SaeSettings, overwrite: bool) -> tuple[Path, Path]:
    """The vector file and the labels file, which must not exist unless they may be replaced."""
    name = request.output_name
    if not name.strip() or name != Path(name).name:
        raise ConfigError(
            f"output_name is {name!r:.120}; a plain name is expected. The folder is output_dir."
        )
    vectors, labels = (f"{name}.pt", f"{name}_labels.json")
    targets = inside(request.output_dir, vectors), inside(request.output_dir, labels)
    for target in targets:
        check_free(target, overwrite)
    return targets


def _entry(request: SaeSettings) -> RegisteredSae | None:
    if (request.release is None) != (request.sae_id is None):
        raise ConfigError("--release and --sae-id belong together: give both, or --sae-path alone.")
    if request.release is not None and request.sae_id is not None:
        return find_sae(request.release, request.sae_id)
    if request.sae_path is None:
        raise ConfigError(
            "no SAE: give --release and --sae-id (see: selfie prepare list), or --sae-path."
        )
    return None


def _weights(request: SaeSettings) -> Path | None:
    """The weights' file that --sae-path names for a registered SAE."""
    if request.sae_path is not None and not request.sae_path.is_file():
        raise ConfigError(
            f"{request.sae_path}: with --release and --sae-id, --sae-path is the weights' file."
        )
    return request.sae_path


def _labels(
    request: SaeSettings,
    entry: RegisteredSae | None,
    progress: Callable[[int, int], None] | None,
) -> LabelSet:
    if request.labels_json is not None and request.labels_jsonl is not None:
        raise ConfigError("--labels-json and --labels-jsonl cannot be combined; give one of them.")
    if request.labels_json is not None:
        return read_label_file(request.labels_json, "json")
    if request.labels_jsonl is not None:
        return read_label_file(request.labels_jsonl, "jsonl")
    source_id = request.neuronpedia_id or (entry.neuronpedia_id if entry else None)
    if source_id is None:
        what = entry.name if entry else str(request.sae_path)
        raise ConfigError(
            f"{what}: no labels. SAELens' registry names no Neuronpedia source for it: give "
            "--neuronpedia-id model/source, --labels-json or --labels-jsonl."
        )
    try:
        return fetch_source_labels(
            source_id,
            explainer=request.explainer,
            all_explainers=request.all_explainers,
            labels_url=request.labels_url,
            expected_sae=(entry.release, entry.sae_id) if entry else None,
            progress=progress,
        )
    except (DataError, DownloadError) as error:
        if entry is None or (entry.release, entry.sae_id) != _GOODFIRE_8B:
            raise
        raise type(error)(
            f"{error} The published labels of this SAE are a file: "
            "selfie data fetch goodfire-8b-labels, then --labels-json."
        ) from error


def _first_labels(labels: LabelSet) -> LabelSet:
    return replace(labels, labels={index: texts[:1] for index, texts in labels.labels.items()})


def _splits(labels: LabelSet, request: SaeSettings) -> list[tuple[int, Split]]:
    """(latent, split), training first, each in index order. Splits of a label file stay.

    Latents of its "test" stay there even where a new split is forced.
    """
    if not labels.labels:
        raise DataError("no label is left: none belongs to a latent of this SAE.")
    splits = dict(labels.splits)
    if not splits or request.force_new_split:
        free = [index for index in labels.labels if splits.get(index) != "test"]
        train, val = split_indices(free, request.val_fraction, request.seed)
        splits.update(dict.fromkeys(train, "train"))
        splits.update(dict.fromkeys(val, "val"))
    return sorted(splits.items(), key=lambda one: (SPLITS.index(one[1]), one[0]))


def _metadata(
    request: SaeSettings, entry: RegisteredSae | None, sae: SaeVectors, labels: LabelSet
) -> dict[str, Any]:
    facts = sae.facts
    if facts.hook_name is None:  # Neuronpedia's record of the source may name it
        facts = replace(facts, hook_name=labels.origin.get("hook_name"))
    layer = facts.layer if request.layer is None else request.layer
    if layer is None and (number := re.search(r"/([0-9]{1,4})-", request.neuronpedia_id or "")):
        layer = int(number[1])
    if layer is None:
        raise ConfigError(
            f"{entry.name if entry else request.sae_path}: nothing states which layer the vectors "
            "belong to. Give --layer L, the zero-based block whose output they are directions of."
        )
    d_sae, d_in = sae.decoder.shape
    found = {
        "dataset_name": _dataset_name(request, entry, layer),
        "filename": f"{request.output_name}.pt",
        "layer": layer,
        "source": _source(entry),
        "vector_type": "sae_decoder",
        "num_features": d_sae,
        "model_dim": d_in,
        "saelens_release": entry.release if entry else None,
        "saelens_sae_id": entry.sae_id if entry else None,
        "model": (entry.model if entry else None) or facts.model,
        "hook_name": facts.hook_name,
    }
    origin = {key: value for key, value in labels.origin.items() if key not in found}
    return {key: value for key, value in (found | origin).items() if value is not None}


def _source(entry: RegisteredSae | None) -> str:
    if entry is None:
        return "SAE"
    return {"goodfire": "Goodfire", "llama_scope": "LlamaScope"}.get(entry.layout, entry.repo)


def _dataset_name(request: SaeSettings, entry: RegisteredSae | None, layer: int) -> str:
    """As published for Goodfire and Llama Scope, so that published mixtures find them."""
    if entry is None:
        return request.output_name
    if entry.layout == "goodfire":
        return f"Goodfire/Llama-SAE-l{layer}"
    found = re.fullmatch(r"(l\d+[rma])_(\d+)x", entry.sae_id)
    if entry.layout == "llama_scope" and found:
        # 8 × 4,096 latents are called 32k, 32 × 4,096 are called 131k
        return f"LlamaScope/{found[1]}_{4096 * int(found[2]) // 1000}k"
    return f"{entry.release}/{entry.sae_id}"


def _counted(
    blocks: Iterable[Tensor], total: int, progress: Callable[[int, int], None]
) -> Iterator[Tensor]:
    done = 0
    for block in blocks:
        done += len(block)
        progress(done, total)
        yield block
