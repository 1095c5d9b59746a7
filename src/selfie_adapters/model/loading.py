"""Load a language model, frozen, from the hub, a folder, a GGUF file, or the embedded demo."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from selfie_adapters.errors import MissingExtraError, ModelError, SelfieError
from selfie_adapters.model.blocks import decoder_blocks, token_embedding
from selfie_adapters.model.demo_model import demo_model_folder
from selfie_adapters.model.library import dequantize_options
from selfie_adapters.model.precision import resolve_dtype

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrozenModel:
    """A language model whose weights get no gradient, with its tokenizer.

    `name` is what the user asked for; `revision` the hub commit, where there is one.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    revision: str | None = None

    def __post_init__(self) -> None:
        self.network.requires_grad_(False)
        self.network.eval()

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
        return self.network.config.get_text_config(decoder=True).hidden_size

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
    device_map: str | dict[str, Any] | None = None,
    quantize: Literal["8bit", "4bit"] | None = None,
) -> FrozenModel:
    """A frozen model by hub id, local folder, `.gguf` file, or "demo" (SmolLM2-135M-Instruct).

    dtype "auto" is bfloat16 on a GPU, and on a CPU where that is measured to be the faster one.
    device_map is passed to transformers; None puts the whole model on the first GPU, else the CPU.
    A GGUF file is dequantised, so it takes the memory of the dense model in `dtype`.
    quantize stores the weights of linear layers in 8 or 4 bits (bitsandbytes, extra quant);
    products are made in `dtype` still.

    Raises ModelError naming what was asked for and what to try, MissingExtraError.
    """
    name = str(name_or_path)
    place = device_map if device_map is not None else _default_device()
    options: dict[str, Any] = {"dtype": resolve_dtype(dtype, place), "device_map": place}
    if str(place) == "cpu":
        # Rows here are some 30 tokens; on CPUs the fused kernel is slower than plain products at
        # that length (docs/benchmarks.md).
        options["attn_implementation"] = "eager"
    if quantize:
        options["quantization_config"] = _quantization(name, quantize, options["dtype"])
    with _loading(name) as (source, file_options):
        tokenizer = AutoTokenizer.from_pretrained(source, **file_options)
        if file_options:
            options |= dequantize_options()
            log.info("%s: dequantising; this takes the memory of the dense model", name)
        network = AutoModelForCausalLM.from_pretrained(source, **options, **file_options)
    revision = getattr(network.config, "_commit_hash", None)
    return FrozenModel(network, tokenizer, name, revision)


def _quantization(
    name: str, bits: Literal["8bit", "4bit"], dtype: torch.dtype
) -> BitsAndBytesConfig:
    if name.endswith(".gguf"):
        raise ModelError(
            f"{name}: a GGUF file is dequantised on loading, not quantised again. Leave "
            "load_in_8bit and load_in_4bit out, or name the model's own weights."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError("bitsandbytes", "quant", f"Loading a model in {bits}")
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def load_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, without its weights. Raises ModelError like `load_model`."""
    with _loading(str(name_or_path)) as (source, file_options):
        return AutoTokenizer.from_pretrained(source, **file_options)


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Inside, transformers prints neither bars nor warnings."""
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def _loading(name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """What transformers shall read (folder or hub id, and the GGUF file in it, if it is one).

    Inside, transformers is silent and its errors become a ModelError.
    """
    with quiet_loading():
        try:
            yield _source(name)
        except SelfieError:
            raise
        except Exception as error:  # readers of foreign files raise whatever they stumble over
            raise ModelError(_not_loaded(name, error)) from error


def _source(name: str) -> tuple[str, dict[str, str]]:
    if name == "demo":
        return str(demo_model_folder()), {}
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"{path}: no such GGUF file.")
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"{path}: a folder without config.json. Expected a folder as "
                "save_pretrained writes it, or name the .gguf file itself."
            )
        return str(path), {}
    if path.is_absolute() or name.startswith((".", "~")):
        raise ModelError(f"{name}: no such folder.")
    return name, {}


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _not_loaded(name: str, error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f'model "{name}" could not be loaded: {first} '
        'Give a hub id (owner/name), a local folder, a .gguf file, or "demo". '
        "A gated model needs `hf auth login`; without a network, download it first."
    )
