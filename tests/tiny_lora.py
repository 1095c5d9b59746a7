"""A LoRA on a tiny model, made and saved by peft."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, cast

import torch

from selfie_adapters.model import load_model
from selfie_adapters.model.quiet import quiet_loading


def save_lora(
    folder: Path, base: str | Path, base_name: str | None = None, seed: int = 0, **options: Any
) -> Path:
    """A LoRA on q_proj of every block of `base` with weights that change much; needs peft.

    base_name: the base that it states, where that is not `base`. options: of LoraConfig.
    """
    import peft

    network = load_model(base, "float32", "cpu").network
    options = {"r": 2, "lora_alpha": 6, "target_modules": ["q_proj"], **options}
    with quiet_loading(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft calls what newer transformers call outdated
        model = peft.get_peft_model(cast(Any, network), peft.LoraConfig(**options))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_" in name:
                    weight.copy_(torch.randn(weight.shape, generator=generator))
        model.peft_config["default"].base_model_name_or_path = base_name or str(base)
        model.save_pretrained(str(folder))
    return folder
