"""Adapter files: this project's and the published ones, read and written (docs/adapter-format.md).

One format in both containers. This project's files are published files with one more key, the
binding; readers of the published format ignore it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from selfie_adapters.adapters.base import FORMAT_VERSION, KINDS, Adapter, TrainingRecord
from selfie_adapters.adapters.binding import Binding
from selfie_adapters.adapters.containers import SUFFIXES, read_container, safetensors_bytes
from selfie_adapters.adapters.kinds import build_adapter
from selfie_adapters.adapters.locating import find_adapter_file
from selfie_adapters.adapters.specialists import check_specialist, specialist_files
from selfie_adapters.config.problems import first_problem
from selfie_adapters.errors import AdapterError, DataError, first_line
from selfie_adapters.files import atomic_path
from selfie_adapters.files.json_text import parse_json

_LARGEST_LOG_SCALE = 80.0  # e^88 is the largest power that float32 holds


def load_adapter(path_or_repo: str | Path, device: str | torch.device | None = None) -> Adapter:
    """The adapter in a file, in a folder that holds exactly one, in a hub repository `owner/repo`
    (its adapter.safetensors) or at a hub path `owner/repo/file.safetensors`; on `device` (default:
    CPU), in evaluation mode.

    Reads `.safetensors` with a `config_json` or the older flat header, and `.pt` (never running
    code from it). Stored numbers of any floating dtype become float32. Specialists for single
    blocks and positions next to the file are read too (`Adapter.at`). Leaves torch's random state
    alone. Raises MissingFileError if there is no such file, AdapterError if it is cut off, foreign,
    or inconsistent: unknown kind, missing, extra or wrongly shaped tensors, NaN or infinity; and
    for a device that torch does not have here.
    """
    path = find_adapter_file(path_or_repo)
    adapter = _placed(_read(path), device)
    for place, file in specialist_files(path).items():
        specialist = _placed(_read(file), device)
        check_specialist(specialist, place, adapter)
        adapter.specialists[place] = specialist
    return adapter


def _placed(adapter: Adapter, device: str | torch.device | None) -> Adapter:
    try:
        return adapter.to(device)
    except (RuntimeError, AssertionError) as error:  # the second: a build without CUDA
        raise AdapterError(
            f"the adapter cannot be moved to the device {str(device)!r}: {first_line(error)} "
            'Give "cpu", or the accelerator of this machine ("cuda", "cuda:1", "mps").'
        ) from error


def _read(path: Path) -> Adapter:
    """The adapter in one file, on the CPU, in evaluation mode."""
    header, tensors = read_container(path)
    try:
        adapter = _assemble(header, tensors)
    except AdapterError as error:
        raise AdapterError(f"{path}: {error}") from error
    adapter.file = path
    return adapter.eval()


def save_adapter(adapter: Adapter, path: str | Path) -> Path:
    """Write `adapter` atomically; see `Adapter.save`."""
    final = Path(path).expanduser()
    if final.suffix.lower() not in SUFFIXES:
        raise AdapterError(
            f'{final}: adapter files end in .safetensors or .pt, not "{final.suffix}".'
        )
    tensors = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in adapter.state_dict().items()
    }
    try:
        _check_finite(tensors)
    except AdapterError as error:
        raise AdapterError(f"{final}: not written. {error}") from error
    metadata = adapter.get_metadata()
    try:
        config_json = json.dumps(metadata["config"])
    except (TypeError, ValueError) as error:
        raise AdapterError(
            f"{final}: not written. The training config must hold plain JSON values ({error})."
        ) from error
    step, loss = metadata["global_step"], metadata["best_val_loss"]
    # readers of the published format parse a number here; infinity is their "none yet"
    loss = math.inf if loss is None else float(loss)
    with atomic_path(final) as temporary:
        if final.suffix.lower() == ".safetensors":
            header = {
                "config_json": config_json,
                "model_dim": str(adapter.dim),
                "global_step": str(step),
                "best_val_loss": str(loss),
            }
            if adapter.binding is not None:
                header["binding_json"] = adapter.binding.model_dump_json()
            temporary.write_bytes(safetensors_bytes(tensors, header))
        else:
            content = {
                "projection_state": tensors,
                "config": json.loads(config_json),  # no tuples or subclasses: weights_only reads it
                "model_dim": adapter.dim,
                "global_step": step,
                "best_val_loss": loss,
                "checkpoint_format_version": FORMAT_VERSION,
                "projection_num_params": adapter.num_parameters(),
            }
            if metadata["binding"] is not None:
                content["binding"] = metadata["binding"]
            # through a handle: given a path, torch writes the temporary name into the archive
            with temporary.open("wb") as file:
                torch.save(content, file)
    return final


def _assemble(header: dict[str, Any], tensors: dict[str, Tensor]) -> Adapter:
    """An adapter from a header and tensors, everything checked."""
    version = _whole(header, "checkpoint_format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise AdapterError(
            f"format version {version}; this program reads version {FORMAT_VERSION}."
        )
    config = _config(header)
    section = config["projection"]
    kind = str(section.get("type"))
    rank = None
    if kind in KINDS and KINDS[kind].takes_rank:
        # a file may say a rank for a kind that has none; only the others need to agree with it
        u = tensors.get("U")
        rank = _whole(section, "low_rank_rank", u.shape[1] if u is not None and u.ndim == 2 else 1)
    with torch.device("meta"):  # shapes only; no memory, no random numbers
        adapter = build_adapter(
            kind,
            _dim(header, tensors),
            normalize_input=_flag(section, "normalize_input"),
            init_scale=_number(section, "init_scale", 30.0),
            low_rank_rank=rank,
            low_rank_init_factor=_number(section, "low_rank_init_factor", 0.01),
        )
    _check_tensors(adapter, tensors)
    adapter.load_state_dict({name: t.detach().float() for name, t in tensors.items()}, assign=True)
    adapter.record = TrainingRecord(
        config=config,
        global_step=_whole(header, "global_step", 0),
        best_val_loss=_number(header, "best_val_loss", math.inf),
    )
    adapter.binding = _binding(header)
    return adapter


def _config(header: dict[str, Any]) -> dict[str, Any]:
    """The training config, with a `projection` section whichever form the header has."""
    config = header.get("config", {})
    if "config_json" in header:
        config = _parsed(header, "config_json")
    if isinstance(config, dict) and isinstance(config.get("projection"), dict):
        if "type" in config["projection"]:
            return config
    elif "projection_type" in header:
        names = ("normalize_input", "init_scale", "low_rank_rank", "low_rank_init_factor")
        flat = {name: header[name] for name in names if name in header}
        return {"projection": {"type": header["projection_type"], **flat}}
    raise AdapterError(
        "the header does not state the adapter's kind: neither a projection section with a "
        "type in the config nor projection_type is there."
    )


def _dim(header: dict[str, Any], tensors: dict[str, Tensor]) -> int:
    for name in ("bias", "U", "weight"):
        if name in tensors and tensors[name].ndim:
            return _whole(header, "model_dim", tensors[name].shape[0])
    if header.get("model_dim") is None:
        raise AdapterError("the header has no model_dim, and no tensor shows the width.")
    return _whole(header, "model_dim", 0)


def _check_tensors(adapter: Adapter, tensors: dict[str, Tensor]) -> None:
    expected = {name: list(p.shape) for name, p in adapter.named_parameters()}
    rank = "" if adapter.low_rank_rank is None else f" and low_rank_rank {adapter.low_rank_rank}"
    means = f"{adapter.kind} with model_dim {adapter.dim}{rank}"
    if missing := sorted(expected.keys() - tensors.keys()):
        raise AdapterError(
            f"{means} needs the tensor{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"the file holds {', '.join(sorted(tensors)[:8]) or 'none'}."
        )
    if extra := sorted(tensors.keys() - expected.keys()):
        raise AdapterError(
            f"{means} has no tensor {', '.join(extra[:8])} (its tensors: "
            f"{', '.join(sorted(expected)) or 'none'}). The kind in the header may be wrong."
        )
    for name, shape in expected.items():
        if list(tensors[name].shape) != shape:
            raise AdapterError(
                f"{name} has shape {list(tensors[name].shape)}; {means} needs {shape}."
            )
        if not tensors[name].is_floating_point():
            raise AdapterError(f"{name} holds {tensors[name].dtype}, not floating-point numbers.")
    _check_finite(tensors)
    if "log_scale" in tensors and abs(float(tensors["log_scale"])) > _LARGEST_LOG_SCALE:
        raise AdapterError(
            f"log_scale is {float(tensors['log_scale']):.4g}: exp(log_scale) is not finite "
            "in float32. Training diverged; use an earlier checkpoint."
        )


def _check_finite(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if bad := int((~tensor.float().isfinite()).sum()):
            raise AdapterError(
                f"{name} holds {bad} NaN or infinite number{'s' * (bad > 1)} of {tensor.numel()}: "
                "training diverged. Use an earlier checkpoint."
            )


def _binding(header: dict[str, Any]) -> Binding | None:
    try:
        if header.get("binding_json") is not None:
            return Binding.model_validate(_parsed(header, "binding_json"))
        if header.get("binding") is not None:
            return Binding.model_validate(header["binding"])
    except ValidationError as error:
        raise AdapterError(f"the binding is damaged: {first_problem(error, 'binding')}") from error
    return None


def _parsed(header: dict[str, Any], key: str) -> Any:
    text = header[key]
    if not isinstance(text, str):
        raise AdapterError(f"the header's {key} is {text!r:.40}; a JSON string is expected.")
    try:
        return parse_json(text, key)
    except DataError as error:
        raise AdapterError(f"the header is damaged: {error}") from error


# safetensors headers hold strings, .pt files the values themselves; these take both


def _number(values: dict[str, Any], key: str, default: float) -> float:
    value = values.get(key)
    if value is None or value in ("None", ""):
        return float(default)
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise AdapterError(f"{key} is {value!r:.60}, not a number.") from error


def _whole(values: dict[str, Any], key: str, default: int) -> int:
    number = _number(values, key, default)
    if not number.is_integer():  # NaN and infinity are not whole either
        raise AdapterError(f"{key} is {values.get(key)!r:.60}, not an integer.")
    return int(number)


def _flag(values: dict[str, Any], key: str) -> bool:
    text = str(values.get(key)).lower()
    if text in ("true", "1"):
        return True
    if text in ("false", "0"):
        return False
    # no default: the wrong one gives a soft token of another length, silently
    raise AdapterError(f"{key} is {values.get(key)!r:.60}; it must be true or false.")
