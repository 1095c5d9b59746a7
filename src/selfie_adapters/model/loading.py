"""Load a language model, frozen, from the hub, a folder, a GGUF file, or the embedded demo."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from huggingface_hub import constants
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from selfie_adapters.errors import ModelError, SelfieError, first_line
from selfie_adapters.extras import require_extra
from selfie_adapters.files import user_path
from selfie_adapters.hub import access_fix
from selfie_adapters.model.attention import install
from selfie_adapters.model.blocks import (
    check_structure,
    decoder_blocks,
    residual_width,
    token_embedding,
)
from selfie_adapters.model.devices import DeviceMap, is_cpu, resolve_device
from selfie_adapters.model.embedding_only import embedding_network
from selfie_adapters.model.gguf import dense_folder
from selfie_adapters.model.lora import base_alone, check_peft, merged
from selfie_adapters.model.precision import Workload, resolve_dtype
from selfie_adapters.model.quiet import quiet_loading
from selfie_adapters.model.source import ModelSource, find_model
from selfie_adapters.model.text_model import drop_other_towers, is_text_part, text_model_class
from selfie_adapters.model.weights import check_loaded

# Code from a model's repository is never run; without this, transformers asks on the terminal.
NO_CODE = {"trust_remote_code": False}


@dataclass(frozen=True, repr=False)
class FrozenModel:
    """A language model whose weights get no gradient, with its tokenizer.

    `name` is what the user asked for, and the base where that was a LoRA; `revision` the hub
    commit, where there is one; `adapter` the LoRA that is merged into the weights. With
    `embedding_only` all weights but the embedding table are on the meta device: it cannot be run.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    revision: str | None = None
    adapter: str | None = None
    embedding_only: bool = False

    def __post_init__(self) -> None:
        self.network.requires_grad_(False)
        self.network.eval()
        install(self.network)

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"FrozenModel({self.name!r}, {self.n_layers} layers, d_model {self.d_model}, "
            f"{dtype} on {self.device})"
        )

    @cached_property
    def blocks(self) -> nn.ModuleList:
        """Decoder blocks; layer L is the output of `blocks[L]`."""
        return decoder_blocks(self.network)

    @cached_property
    def embedding(self) -> nn.Module:
        return token_embedding(self.network)

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        return residual_width(self.network)

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding; the tokenizer may know fewer tokens."""
        return self.network.config.get_text_config(decoder=True).vocab_size

    @property
    def device(self) -> torch.device:
        """Where token ids go: the embedding's device (the others follow from the device map)."""
        return next(self.embedding.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.embedding.parameters()).dtype


def load_model(
    name_or_path: str | Path,
    dtype: str | torch.dtype = "auto",
    device_map: DeviceMap | None = None,
    quantize: Literal["8bit", "4bit"] | None = None,
    job: Workload = "generation",
    embedding_only: bool = False,
) -> FrozenModel:
    """A frozen model by hub id, local folder, `.gguf` file, or "demo" (SmolLM2-135M-Instruct).

    dtype "auto" is bfloat16 on a GPU, and on a CPU where that is measured to be faster for `job`.
    device_map is a device ("cpu", "cuda", "cuda:1", "mps"), "auto" to spread the model over all
    devices, or a map of modules to devices; None is the first GPU, else the CPU.
    A GGUF file is dequantized once, into the user's cache; it takes the memory of the dense model.
    A LoRA's folder is loaded with its base and merged into it (extra peft). Of a multimodal model
    the text decoder is loaded.
    quantize stores the weights of linear layers in 8 or 4 bits (bitsandbytes, extra quant);
    matmuls are still made in `dtype`.
    embedding_only loads the embedding table alone, on the CPU, for engines that hold the weights
    themselves; a LoRA is then refused.

    Raises ModelError naming what was asked for and what to try: also for a device that this machine
    lacks, and for weights that do not fit the configuration. MissingExtraError, StorageError.
    """
    name = str(name_or_path)
    place = resolve_device(device_map)
    chosen_dtype = resolve_dtype(dtype, place, job)
    with loading(name):
        source = find_model(name)
        if quantize:
            _check_quantizable(source, quantize)
        if source.adapter is not None:
            check_peft(source.adapter, source.base)
        if source.gguf is not None:
            source = ModelSource(name, str(dense_folder(source.gguf, chosen_dtype)))
        tokenizer = AutoTokenizer.from_pretrained(**source.tokenizer(), **NO_CODE)
        if embedding_only:
            _check_alone(source)
            network = embedding_network(source, chosen_dtype, NO_CODE)
            return FrozenModel(network, tokenizer, name, source.revision, embedding_only=True)
        network = _network(source, chosen_dtype, place, quantize)
        if source.adapter is not None:
            network = merged(network, source.adapter, source.base)
    if source.adapter == source.base:
        name = f"{source.base} with the adapter in it"
    elif source.adapter is not None:
        name = f"{source.base} with the adapter {source.adapter}"
    return FrozenModel(network, tokenizer, name, source.revision, source.adapter)


def _network(
    source: ModelSource,
    dtype: torch.dtype,
    place: DeviceMap,
    quantize: Literal["8bit", "4bit"] | None,
) -> PreTrainedModel:
    """The base model of `source`, complete."""
    options: dict[str, Any] = {"dtype": dtype, "device_map": place, **NO_CODE}
    if is_cpu(place):
        # Rows here are some 30 tokens; on CPUs the fused kernel is slower than plain matmuls at
        # that length (docs/benchmarks.md).
        options["attn_implementation"] = "eager"
    if quantize:
        options["quantization_config"] = _quantization(quantize, dtype)
    if source.revision is not None:
        options["revision"] = source.revision
    with base_alone(source.base) if source.adapter == source.base else nullcontext() as view:
        base = view or source.base
        config = AutoConfig.from_pretrained(base, revision=source.revision, **NO_CODE)
        network, info = text_model_class(config, source.base).from_pretrained(
            base,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # else transformers refuses without naming them
            **options,
        )
    network.name_or_path = source.base  # not the view's
    check_loaded(source.base, network, info, is_text_part(network, config))
    check_structure(network)
    drop_other_towers(network)
    return network


def _check_alone(source: ModelSource) -> None:
    if source.adapter is not None:
        raise ModelError(
            f"{source.name}: --engine vllm reads the model's files, in which {source.adapter} is "
            "not merged. Save the merged model (peft: merge_and_unload, save_pretrained), or use "
            "--engine local."
        )


def _check_quantizable(source: ModelSource, quantize: Literal["8bit", "4bit"]) -> None:
    if source.gguf is not None:
        raise ModelError(
            f"{source.name}: a GGUF file is dequantized on loading, not quantized again. "
            "Omit load_in_8bit and load_in_4bit, or name the model's own weights."
        )
    if source.adapter is not None:
        raise ModelError(
            f"{source.name}: a LoRA is merged into dense weights, not into quantized ones. "
            "Omit load_in_8bit and load_in_4bit, or merge it and save the dense model first."
        )
    require_extra("quant", f"Loading a model in {quantize}")


def _quantization(bits: Literal["8bit", "4bit"], dtype: torch.dtype) -> BitsAndBytesConfig:
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def load_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, without its weights. Raises ModelError like `load_model`."""
    name = str(name_or_path)
    with loading(name):
        source = find_model(name, weights=False)
        return AutoTokenizer.from_pretrained(**source.tokenizer(), **NO_CODE)


@contextlib.contextmanager
def loading(name: str) -> Iterator[None]:
    """Inside, the libraries are silent and their errors become a ModelError."""
    with quiet_loading():
        try:
            yield
        except SelfieError:
            raise
        except Exception as error:  # readers of foreign files raise whatever they stumble over
            raise ModelError(not_loaded(name, error)) from error


def not_loaded(name: str, error: Exception) -> str:
    """The message for `error`, raised by a library while it loaded the model `name`."""
    reason = first_line(error).strip().rstrip(".")
    if isinstance(error, (LookupError, AttributeError, TypeError, AssertionError)):
        reason = f"{type(error).__name__}: {reason}"  # these messages alone explain little
    return f'model "{name}" could not be loaded: {reason}. {_fix(name, error)}'


def _fix(name: str, error: Exception) -> str:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return (
            'The model does not fit into the memory: use a smaller dtype, the device "auto" to '
            "spread it over all devices, or another device."
        )
    if (fix := access_fix(name, error)) is not None:
        return fix
    if "custom code" in str(error) or "trust_remote_code" in str(error):
        return (
            "Code from a model's own repository (trust_remote_code) is not run here. Use a version "
            "of the model that transformers knows."
        )
    if user_path(name).exists():
        return "Check that the files are complete and belong together, or download them again."
    if constants.HF_HUB_OFFLINE:
        return (
            "HF_HUB_OFFLINE is set, and the model is not in the hub's cache: unset it, or give a "
            'local folder, a .gguf file, or "demo".'
        )
    return (
        'Give a hub id (owner/name), a local folder, a .gguf file, or "demo". Without a network, '
        f"download the model elsewhere first ({Path(constants.HF_HUB_CACHE)} is the hub's cache)."
    )


T = TypeVar("T")


def once_per_network(compute: Callable[[FrozenModel], T]) -> Callable[[FrozenModel], T]:
    """`compute`, whose value for a network is kept as long as the network is.

    For what the weights' values do not change: the architecture's abilities and sizes.
    """
    known: weakref.WeakKeyDictionary[nn.Module, T] = weakref.WeakKeyDictionary()

    @functools.wraps(compute)
    def remembered(model: FrozenModel) -> T:
        if model.network not in known:
            known[model.network] = compute(model)
        return known[model.network]

    return remembered
