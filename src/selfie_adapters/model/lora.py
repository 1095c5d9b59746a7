"""A PEFT adapter (LoRA) merged into its base model.

transformers loads an adapter that it finds next to a model by itself where peft is installed, and
ignores it without a word where it is not. Here it is merged into the dense weights, or the model is
refused.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedModel

from selfie_adapters.errors import ModelError
from selfie_adapters.extras import require_extra
from selfie_adapters.model.source import LORA_CONFIG


def check_peft(adapter: str, base: str) -> None:
    """Raise MissingExtraError unless peft is installed."""
    where = f" ({LORA_CONFIG} next to the model's own files)" if adapter == base else ""
    require_extra("peft", f"{adapter}: a LoRA on {base}{where}. Merging it")


@contextlib.contextmanager
def base_alone(folder: str) -> Iterator[str]:
    """A view of a folder without the adapter that is stored with the base's own files.

    transformers offers no switch that works in all its versions.
    """
    with tempfile.TemporaryDirectory() as view:
        for path in Path(folder).resolve().iterdir():
            if not path.name.startswith("adapter_"):
                (Path(view) / path.name).symlink_to(path)
        yield view


def merged(network: PreTrainedModel, adapter: str) -> PreTrainedModel:
    """`network` with the adapter's weights added to its own.

    Raises ModelError for an adapter that cannot be merged or does not fit the base.
    """
    with warnings.catch_warnings():
        # peft calls what newer transformers call outdated; what it warns of itself is checked.
        warnings.simplefilter("ignore")
        return _merged(network, adapter)


def _merged(network: PreTrainedModel, adapter: str) -> PreTrainedModel:
    import peft
    from peft.utils.save_and_load import load_peft_weights

    config = peft.PeftConfig.from_pretrained(adapter)
    if config.is_prompt_learning:
        raise ModelError(
            f"{adapter}: an adapter of type {config.peft_type}, which changes prompts and not "
            "weights. Only adapters that can be merged into the weights (LoRA) can be used."
        )
    try:
        model = peft.PeftModel.from_pretrained(network, adapter, config=config)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"{adapter}: the adapter does not fit its base {config.base_model_name_or_path}: "
            f"{(str(error).strip().splitlines() or [type(error).__name__])[-1].strip()}"
        ) from error
    # peft leaves weights that its file lacks at their initial values, with a warning at most.
    wanted = set(peft.get_peft_model_state_dict(model))
    found = set(load_peft_weights(adapter, device="cpu"))
    if wanted != found:
        raise ModelError(
            f"{adapter}: the adapter does not fit its base {config.base_model_name_or_path}: "
            f"{len(wanted - found)} weights are missing, {len(found - wanted)} are unexpected, the "
            f"first one {min(wanted ^ found)}. Name the base it was trained on in {LORA_CONFIG}."
        )
    return cast(PreTrainedModel, cast(Any, model).merge_and_unload())
