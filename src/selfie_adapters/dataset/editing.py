"""Training files as wholes: put together, split again, change the kind of vector file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from selfie_adapters.dataset.document import document_bytes, read_document, write_document
from selfie_adapters.dataset.load import load_dataset
from selfie_adapters.dataset.schema import Split, decoded, problems
from selfie_adapters.dataset.splits import split_indices
from selfie_adapters.dataset.stream import stream_rows
from selfie_adapters.dataset.vectors import open_vectors, write_rows
from selfie_adapters.errors import DataError
from selfie_adapters.files import atomic_path, check_free, existing_file, flush, inside, user_path

_ROWS_AT_ONCE = 8192


def merge_files(files: Sequence[str | Path], out: str | Path, overwrite: bool = False) -> Path:
    """Write the sections of all `files` as one training file; vector files stay where they are.

    Raises DataError where a file could not be trained on, where widths differ, or where two
    sections have the same dataset_name and layer; ConfigError if `out` exists and `overwrite` is
    not given.
    """
    if len(files) < 2:
        raise DataError("merging needs at least two training files.")
    target = Path(out)
    check_free(target, overwrite)
    merged: list[dict[str, Any]] = []
    widths: dict[str, int] = {}
    names: Counter[str] = Counter()
    for file in files:
        dataset = load_dataset(file)
        widths[str(file)] = dataset.d_model
        names.update(section.id for section in dataset.sections)
        for section in read_document(file):
            place = _seen_from(target.parent, Path(file), section["metadata"]["filename"])
            merged.append({**section, "metadata": {**section["metadata"], "filename": place}})
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise DataError(
            f"vectors of different width: {listed}. One file must have the vectors of one model "
            "only."
        )
    if twice := [name for name, count in names.items() if count > 1]:
        raise DataError(
            f"{twice[0]} is in more than one of them. Give one of the sections another "
            "dataset_name, or omit the file."
        )
    write_document(target, merged)
    return target


def split_file(
    file: str | Path,
    val_fraction: float = 0.1,
    seed: int = 42,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Split every section again by the rule of `split_indices`, into `out` or in place.

    Rows of "test" keep it, so that what is reported is never trained on; the others are split.
    Label files without `filename` can be split too. Raises DataError like `split_indices`, and
    for a file that breaks the format; ConfigError if `out` exists and `overwrite` is not given.
    """
    if out is not None:
        check_free(out, overwrite)
    document = read_document(file)
    for problem in problems(document, needs_filename=False):
        raise DataError(f"{file}, {problem}")
    target = Path(out) if out is not None else existing_file(file)
    result = []
    for section in document:
        items, tested = dict[int, Any](), set[int]()
        for raw in section["vectors"]:
            item = decoded(raw)
            items[item["index"]] = raw
            if item["split"] == "test":
                tested.add(item["index"])
        try:
            train, val = split_indices(
                [one for one in items if one not in tested], val_fraction, seed
            )
        except DataError as error:
            raise DataError(f"{file}, {section['metadata']['dataset_name']}: {error}") from error
        vectors = [_moved(items[index], "train") for index in train]
        vectors += [_moved(items[index], "val") for index in val]
        vectors += [msgspec.Raw(items[index]) for index in sorted(tested)]
        metadata = section["metadata"]
        if "filename" in metadata:  # which counts from the JSON's folder
            place = _seen_from(target.parent, Path(file), metadata["filename"])
            same_folder = target.parent.resolve() == Path(file).parent.resolve()
            metadata = metadata if same_folder else {**metadata, "filename": place}
        result.append({**section, "metadata": metadata, "vectors": vectors})
    write_document(target, result)
    return target


def convert_file(file: str | Path, overwrite: bool = False) -> list[Path]:
    """Write a vector file as the other kind next to it (`.pt` → `.safetensors`, all others →
    `.pt`); for a training file, all its vector files, and `filename` in it.

    Old vector files stay. Returns what was written. Raises like `open_vectors` and `load_dataset`;
    ConfigError, and writes nothing, if a file exists already and `overwrite` is not given;
    DataError for vectors outside of the training file's folder, where nothing is written.
    """
    source = existing_file(file)
    if not source.name.lower().endswith((".json", ".json.gz")):
        target = _other_kind(source)
        check_free(target, overwrite)
        with atomic_path(target) as temporary:
            _convert(source, temporary, target.suffix)
        return [target]
    load_dataset(source)
    document = read_document(source)
    targets: dict[Path, Path] = {}
    for section in document:
        old = user_path(section["metadata"]["filename"])
        place = (source.parent / old).resolve()
        new = _other_kind(old)
        targets[place] = inside(source.parent, os.path.relpath(source.parent / new, source.parent))
        section["metadata"]["filename"] = str(new)
    for target in targets.values():
        check_free(target, overwrite)
    # All are written before one takes its name, the training file's last: what is stopped leaves no
    # file in the way of the same command.
    with ExitStack() as written:
        document_at = written.enter_context(atomic_path(source))
        document_at.write_bytes(document_bytes(source, document))
        flush(document_at)
        for place, target in targets.items():
            _convert(place, written.enter_context(atomic_path(target)), target.suffix)
    return [*targets.values(), source]


def _moved(item: Any, split: Split) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode({**decoded(item), "split": split}))


def _seen_from(folder: Path, file: Path, filename: str) -> str:
    """The `filename` of a training file, as a path that counts from another folder.

    Raises DataError for a name that is no path of this system.
    """
    try:
        vectors = (file.parent / user_path(filename)).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL, loops of links
        raise DataError(
            f"{file}: filename {filename!r:.120} is not a valid path ({error})."
        ) from error
    return os.path.relpath(vectors, folder.resolve())


def _other_kind(file: Path) -> Path:
    return file.with_suffix(".safetensors" if file.suffix.lower() in (".pt", ".pth") else ".pt")


def _convert(file: Path, temporary: Path, suffix: str) -> None:
    vectors = open_vectors(file)
    if suffix == ".safetensors":
        write_rows(temporary, suffix, vectors)
    else:
        shape = (vectors.shape[0], vectors.shape[1])
        stream_rows(temporary, shape, vectors.dtype, vectors.split(_ROWS_AT_ONCE))
