"""Whether all weights of a model were found in its files, and nothing else (invariant 4).

transformers fills weights that it does not find with random numbers and only logs a warning.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from transformers import PreTrainedModel

from selfie_adapters.errors import ModelError

# Tensors that old files hold and no model reads: causal masks and rotary tables, and the extra
# heads that predict several tokens at once.
_UNUSED = re.compile(
    r"(\.attn(\.attention)?\.(masked_)?bias|\.attention\.(masked_)?bias|rotary_emb\.inv_freq)$"
    r"|(^|\.)mtp\."
)
# Of a model that also sees or hears, when its text model alone is loaded.
_OTHER_SENSES = re.compile(
    r"(^|\.)[a-z_]*(vision|visual|image|audio|speech|multi_modal|projector|connector)[a-z_]*\."
)
# What wrappers put into the names of weights, and what they are.
_WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "module.": "DistributedDataParallel",
    "_fsdp_wrapped_module.": "FSDP",
    "_checkpoint_wrapped_module.": "activation checkpointing",
    "base_model.model.": "PEFT",
}
_SHOWN = 4


def check_loaded(
    name: str, network: PreTrainedModel, info: Mapping[str, Any], text_only: bool = False
) -> None:
    """Raise ModelError if `info` (of `output_loading_info=True`) names weights that do not fit.

    text_only: the network is the text model inside the checkpoint of a larger one.
    """
    missing = set(info["missing_keys"])
    unexpected = {key for key in info["unexpected_keys"] if not _UNUSED.search(key)}
    if text_only:
        unexpected = {key for key in unexpected if not is_other_tower(key)}
    shapes = {
        str(key): (list(found), list(wanted)) for key, found, wanted in info["mismatched_keys"]
    }
    problems = []
    if missing:
        problems.append(f"{len(missing)} weights are missing: {_listed(missing)}")
    if unexpected:
        problems.append(f"{len(unexpected)} weights are unexpected: {_listed(unexpected)}")
    if shapes:
        problems.append(f"{len(shapes)} weights have another shape: {_shapes(shapes)}")
    if problems:
        raise ModelError(
            f"{name}: the weights do not fit the configuration ({type(network).__name__}). "
            f"{'. '.join(problems)}. {_fix(network, missing, unexpected)}"
        )


def is_other_tower(key: str) -> bool:
    """Whether a weight of that name belongs to a multimodal model's vision or audio part."""
    return _OTHER_SENSES.search(key) is not None


def _fix(network: PreTrainedModel, missing: Collection[str], unexpected: Collection[str]) -> str:
    for part, what in _WRAPPERS.items():
        if any(part in key and _bare(key) in missing for key in unexpected):
            return (
                f'The names hold "{part}", which {what} adds. Save the inner model, or rename: '
                f'{{key.replace("{part}", ""): weight for key, weight in weights.items()}}.'
            )
    if any(".base_layer." in key or ".lora_" in key for key in unexpected):
        return "An unmerged LoRA is among them: save the model after peft's merge_and_unload()."
    embeddings = ("lm_head.weight", "embed_out.weight", "output.weight")
    if missing and all(key.endswith(embeddings) for key in missing) and not unexpected:
        return (
            "The output layer was not saved: save the causal language model, not its base, or, if "
            "it shares the embedding's weights, set tie_word_embeddings: true in config.json."
        )
    return "Take config.json and weights from the same model, and download both completely."


def _bare(key: str) -> str:
    for part in _WRAPPERS:
        key = key.replace(part, "")
    return key


def _listed(keys: Iterable[str]) -> str:
    """A few keys; those that differ in the number of their layer alone are one."""
    groups: dict[str, int] = {}
    for key in sorted(keys):
        pattern = re.sub(r"(?<=\.)\d+(?=\.)", "*", key)
        groups[pattern] = groups.get(pattern, 0) + 1
    shown = [f"{key} ({n} times)" if n > 1 else key for key, n in groups.items()]
    return ", ".join(shown[:_SHOWN]) + (", …" if len(shown) > _SHOWN else "")


def _shapes(shapes: Mapping[str, tuple[list[int], list[int]]]) -> str:
    shown = [
        f"{key} is {found}, {wanted} is expected" for key, (found, wanted) in sorted(shapes.items())
    ]
    return "; ".join(shown[:_SHOWN]) + ("; …" if len(shown) > _SHOWN else "")
