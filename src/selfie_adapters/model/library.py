"""What the installed transformers can do: the one module that knows that its versions differ.

Arguments were renamed and extended between the versions that this project supports. Each ability is
read off the model's own class or the library, not off a version number, because a model from
outside the library (remote code) may lag behind it.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import importlib
import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import transformers
from torch import Tensor
from transformers import Cache, PreTrainedModel

from selfie_adapters.errors import ModelError

# Names of the cache in `forward` and its output: the first from 5.24 on; before, the second, or the
# third in state-space models.
_CACHE_NAMES = ("cache", "past_key_values", "cache_params")

_LOAD, _PARSE, _MAP = "load_gguf_checkpoint", "_gguf_parse_value", "_mapped"
_GROUP = 1 << 17  # bytes; their float32 values, and what is computed on the way, stay in the cache


def forward(
    network: PreTrainedModel,
    *,
    use_cache: bool,
    cache: Cache | None = None,
    keep: int | Tensor | None = None,
    **inputs: Any,
) -> Any:
    """One forward pass; the arguments are those of `forward_arguments`."""
    return network(
        **forward_arguments(network, use_cache=use_cache, cache=cache, keep=keep, **inputs)
    )


def forward_arguments(
    network: PreTrainedModel,
    *,
    use_cache: bool,
    cache: Cache | None = None,
    keep: int | Tensor | None = None,
    **inputs: Any,
) -> dict[str, Any]:
    """Keyword arguments of a forward pass under the names that `network` has for them.

    cache: keys and values of the tokens before `inputs`; the pass extends it.
    keep: which positions need logits. An int: at least the last `keep` of each row. A bool mask,
    [rows, tokens]: at least those where it is True; `kept_rows` then picks exactly those from the
    output. None: all.
    """
    arguments = {**inputs, "use_cache": use_cache}
    if cache is not None:
        arguments[_cache_argument(type(network))] = cache
    if keep is not None and _takes(type(network), "logits_to_keep"):
        if isinstance(keep, Tensor) and not _takes_mask(type(network)):
            keep = _columns(keep)
        arguments["logits_to_keep"] = keep
    return arguments


def kept_rows(found: Tensor, keep: Tensor) -> Tensor:
    """The rows of `found` where `keep` is True, [kept, width], in row-major order.

    found: logits (or the head's input) of a pass with `keep`, a bool mask [rows, tokens], as the
    network returns them: for every position, for the columns that any row needs, or for the mask.
    """
    if found.ndim == 3 and found.shape[0] == keep.shape[0]:
        keep = keep.to(found.device)
        if found.shape[1] == keep.shape[1]:
            return found[keep]
        if found.shape[0] > 1:
            return found[keep[:, _columns(keep)]]
    return found.reshape(-1, found.shape[-1])


def cache_of(output: Any) -> Cache:
    """The cache that a forward pass with `use_cache=True` returned."""
    held = {field.name for field in dataclasses.fields(output)}
    for name in _CACHE_NAMES:
        if name in held:
            return getattr(output, name)
    raise ModelError(
        f"{type(output).__name__} holds no cache. Expected a field called "
        f"{' or '.join(_CACHE_NAMES)}."
    )


def dequantize_options() -> dict[str, Any]:
    """Arguments that make `from_pretrained` read a GGUF file as dense weights.

    Before 5.17 there is no other way to read one, and nothing to ask for.
    """
    config = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}


@contextlib.contextmanager
def quick_gguf(file: Path, reader: Any) -> Iterator[None]:
    """Inside, transformers reads the GGUF file `file` in a fraction of the time, to the same bits.

    It takes `reader`, the gguf package's of `file`, where it would parse the file for the
    configuration, the weights and the tokenizer, and parses its header once for the first and the
    last; it decodes a token of the vocabulary in one step; it makes the table of tensor names
    once, not once per module of the network; it takes slices of a plain array, not of a mapped one,
    each of which costs several times as much; and it dequantizes more than 16 rows at a time. A
    version that does these things in another way is not concerned.
    """
    import gguf
    from transformers import modeling_gguf_pytorch_utils as reading

    header: dict[str, dict[str, Any]] = {}

    names = gguf.__dict__  # assigned here, as `known` is no class, which a type checker requires
    before = {name: names[name] for name in ("GGUFReader", "dequantize", "get_tensor_name_map")}

    def known(path: Any, *mode: Any, **named: Any) -> Any:
        if Path(path).resolve() == file.resolve():
            return reader
        return before["GGUFReader"](path, *mode, **named)

    def dequantize(blocks: np.ndarray, kind: Any) -> np.ndarray:
        found = before["dequantize"](blocks.reshape(_long_rows(blocks.shape), -1), kind)
        return found.reshape(*blocks.shape[:-1], -1)

    def parsed(value: Any, types: list[int]) -> Any:
        if len(types) == 2 and types[1] == gguf.GGUFValueType.STRING:  # an element of an array
            return bytes(value).decode()
        return parse(value, types)

    def checkpoint(path: Any, *rest: Any, **named: Any) -> dict[str, Any]:
        if rest or named.get("return_tensors") or Path(path).resolve() != file.resolve():
            return load(path, *rest, **named)
        if not header:
            header.update(load(path, **named))
        return {key: copy.copy(value) for key, value in header.items()}

    def mapped(path: Any) -> np.ndarray:
        return map_file(path).view(np.ndarray)

    own_reader: Any = _own_reader()
    map_file: Any = getattr(own_reader, _MAP, None)
    if map_file is not None:
        setattr(own_reader, _MAP, mapped)
    parse: Any = getattr(reading, _PARSE, None)
    load: Any = getattr(reading, _LOAD, None)
    if load is not None:
        setattr(reading, _LOAD, checkpoint)
    if parse is not None:
        setattr(reading, _PARSE, parsed)
    names["GGUFReader"] = known
    names["dequantize"] = dequantize
    names["get_tensor_name_map"] = functools.cache(before["get_tensor_name_map"])
    try:
        yield
    finally:
        names.update(before)
        if load is not None:
            setattr(reading, _LOAD, load)
        if map_file is not None:
            setattr(own_reader, _MAP, map_file)
        if parse is not None:
            setattr(reading, _PARSE, parse)


def _own_reader() -> ModuleType | None:
    """transformers' own reader of GGUF files, in addition to the gguf package's: from 5.23 on."""
    try:
        return importlib.import_module("transformers.integrations.gguf.reader")
    except ImportError:
        return None


def _long_rows(shape: tuple[int, ...]) -> int:
    """How many rows to see in blocks of that shape, so that 16 of them are about _GROUP bytes."""
    rows = math.prod(shape[:-1])
    together = max(1, _GROUP // (16 * max(1, shape[-1])))
    return next(rows // few for few in range(together, 0, -1) if rows % few == 0)


def _columns(keep: Tensor) -> Tensor:
    """Positions that at least one row of the mask needs."""
    return keep.any(dim=0).nonzero().squeeze(1)


@functools.cache
def _cache_argument(kind: type[PreTrainedModel]) -> str:
    for name in _CACHE_NAMES:
        if _takes(kind, name):
            return name
    raise ModelError(
        f"{kind.__name__} takes no cache in its forward pass. Expected an argument called "
        f"{' or '.join(_CACHE_NAMES)}; run it without a cache."
    )


@functools.cache
def _takes(kind: type[PreTrainedModel], argument: str) -> bool:
    return argument in inspect.signature(kind.forward).parameters


@functools.cache
def _takes_mask(kind: type[PreTrainedModel]) -> bool:
    """Whether `logits_to_keep` may be a mask over rows and columns: most models from 5.21 on.

    They share one helper for that; others index whole columns with what they are given.
    """
    code = getattr(inspect.unwrap(kind.forward), "__code__", None)
    return code is not None and "slice_logits_to_keep" in code.co_names
