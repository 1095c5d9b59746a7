"""The two containers an adapter file comes in, read without trust: `.safetensors` and `.pt`; and
their headers as others get them, without the folders of the machine that wrote them.

Both give the same pair: a header of named values and the tensors by name. What the header means
is `checkpoint`'s business; here it is only decided whether a file is an adapter file at all.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from selfie_adapters.errors import AdapterError, DataError, first_line
from selfie_adapters.files import atomic_path
from selfie_adapters.files.json_text import parse_json
from selfie_adapters.tensor_files import load_torch_file
from selfie_adapters.tensor_files.safetensors_file import opened_safetensors, safetensors_metadata
from selfie_adapters.tensor_files.tensors import Unusable, plain

SUFFIXES = (".safetensors", ".pt")
_MOST_VALUES = 100_000  # of a header; published ones hold some 60
_FILES = frozenset({"labels_file", "checkpoint_dir"})  # of a training configuration: always paths
Header = dict[str, Any]
Tensors = dict[str, Tensor]

EXPECTED = (
    "An adapter file is expected: header keys config_json (with a projection section) or "
    "projection_type, and tensors such as log_scale and bias."
)
EXPECTED_PT = (
    "An adapter file is expected: a dictionary with projection_state (the tensors), config and "
    "model_dim."
)


def read_container(path: Path) -> tuple[Header, Tensors]:
    """Header and tensors of an adapter file; tensors on the CPU, not sharing the file's memory.

    Raises AdapterError if the file is cut off, is no adapter file (saying what it looks like), or
    requests code to be run.
    """
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _read_safetensors(path)
    if suffix == ".pt":
        return _read_pt(path)
    raise AdapterError(f'{path}: adapter files end in .safetensors or .pt, not "{path.suffix}".')


def safetensors_bytes(tensors: Tensors, header: dict[str, str]) -> bytes:
    """A safetensors file in memory whose bytes depend on its content alone.

    The library writes the header's entries in an order that differs from one process to the next;
    here they are sorted, so equal adapters are equal files.
    """
    content = save(tensors, header)
    end = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:end])  # written by the library just now
    text = json.dumps(entries, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    sorted_header = text.encode()
    sorted_header += b" " * (-len(sorted_header) % 8)  # the tensors stay aligned
    return len(sorted_header).to_bytes(8, "little") + sorted_header + content[end:]


def is_adapter_file(path: Path) -> bool:
    """Whether `path` is a readable adapter file, judged by its header; never raises."""
    # Any failure of the readers means "no"; a damaged file is reported when it is loaded.
    with contextlib.suppress(Exception):
        if path.suffix.lower() == ".safetensors":
            return _has_adapter_header(safetensors_metadata(path))
        if path.suffix.lower() == ".pt":
            content = load_torch_file(path)  # mapped: a large vector file is not read
            return isinstance(content, dict) and "projection_state" in content
    return False


def _has_adapter_header(metadata: dict[str, str]) -> bool:
    return "config_json" in metadata or "projection_type" in metadata


def _read_safetensors(path: Path) -> tuple[Header, Tensors]:
    try:
        with opened_safetensors(path) as file:
            metadata, names = file.metadata() or {}, list(file.keys())
            # before any tensor is read: the file may be a shard of many gigabytes
            if not _has_adapter_header(metadata):
                raise AdapterError(f"{path}: this looks like {_likeness(names)}. {EXPECTED}")
            return dict(metadata), {
                name: _usable(path, name, file.get_tensor(name)) for name in names
            }
    except DataError as error:
        raise AdapterError(str(error)) from error


def _likeness(names: list[str]) -> str:
    """What a safetensors file without an adapter header looks like, judged by its tensor names."""
    text = " ".join(names)
    if "lora_" in text:
        return "LoRA weights (PEFT), which change a language model's own layers"
    if re.search(r"\b(layers|h|blocks)\.\d+\.|embed_tokens|lm_head", text):
        return f"weights of a language model ({len(names)} tensors, such as {names[0]})"
    if "W_dec" in names or "W_enc" in names:
        return "a sparse autoencoder (SAE)"
    if names and all(re.fullmatch(r"layer_\d+", name) for name in names):
        return f"mean vectors, one per layer ({len(names)} tensors, such as {names[0]})"
    if set(names) & {"log_scale", "U", "V"}:
        return "an adapter's tensors that lost their header"
    if len(names) == 1:
        return f"a file of vectors (one tensor, {names[0]})"
    shown = ", ".join(names[:3]) or "none"
    return f"a safetensors file of something else ({len(names)} tensors: {shown})"


def _read_pt(path: Path) -> tuple[Header, Tensors]:
    try:
        content = load_torch_file(path)
    except DataError as error:
        raise AdapterError(str(error)) from error
    if isinstance(content, Tensor):
        shape = list(content.shape)
        raise AdapterError(
            f"{path}: this looks like a file of vectors (one tensor of shape {shape}). "
            f"{EXPECTED_PT}"
        )
    if not isinstance(content, dict) or "projection_state" not in content:
        keys = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else ""
        what = f"a dictionary with the keys {keys}" if keys else f"a {type(content).__name__}"
        raise AdapterError(f"{path}: holds {what}. {EXPECTED_PT}")
    tensors = content["projection_state"]
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise AdapterError(f"{path}: projection_state must hold tensors by name. {EXPECTED_PT}")
    header = {key: value for key, value in content.items() if key != "projection_state"}
    for key in header.keys() & {"config", "binding"}:
        header[key] = _plain_values(path, header[key])
    return header, {name: _usable(path, name, tensor) for name, tensor in tensors.items()}


def _plain_values(path: Path, values: Any) -> Any:
    """Part of a pickled header as JSON would hold it; what is no JSON as text."""
    waiting: list[Any] = [values]
    count = 0
    while waiting:  # a pickle may hold one object many times, or itself: count what JSON would hold
        value = waiting.pop()
        count += 1
        if count > _MOST_VALUES:
            raise AdapterError(f"{path}: its header holds more than {_MOST_VALUES:,} values.")
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
    try:
        text = json.dumps(values, default=str, skipkeys=True)
    except (ValueError, RecursionError) as error:
        raise AdapterError(
            f"{path}: its header is not plain data ({first_line(error)})."
        ) from error
    try:
        return parse_json(text, f"{path}, header")
    except DataError as error:
        raise AdapterError(str(error)) from error


def _usable(path: Path, name: str, tensor: Tensor) -> Tensor:
    """A copy in memory, not sharing the mapped file."""
    found = plain(tensor)
    if isinstance(found, Unusable):
        raise AdapterError(f"{path}: {name} {found.reason}.")
    return found.clone()


def without_folders(value: Any, key: str = "") -> Any:
    """A JSON value in which each path of this machine is its last name.

    Such paths are absolute (/… or ~…) wherever they are, and relative too in the fields of a
    training configuration that name files. Other strings stay: a hub's owner/name is no path.
    """
    if isinstance(value, dict):
        return {name: without_folders(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [without_folders(one, key) for one in value]
    if isinstance(value, str) and (key in _FILES or value.startswith(("/", "~"))):
        return Path(value).name or value
    return value


def shared_header(header: Mapping[str, str]) -> dict[str, str]:
    """A safetensors header (of an adapter or of means) as it may be shown to anybody."""
    return {name: _shared_entry(name, text) for name, text in header.items()}


def save_shared(source: Path, header: Mapping[str, str], target: Path) -> Path:
    """Write the tensors of the safetensors file `source` to `target`, atomically, with `header`."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(safetensors_bytes(load_file(source), dict(header)))
    return target


def _shared_entry(name: str, text: str) -> str:
    if not name.endswith("_json"):
        return without_folders(text, name)
    stated = parse_json(text, name)
    shared = without_folders(stated)
    return text if shared == stated else json.dumps(shared)
