"""What an SAE's own configuration says: widths, site, model, whether activations were scaled."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from selfie_adapters.errors import DataError
from selfie_adapters.sources.sae_layouts import Layout

_EXPECTED_AVERAGE = "expected_average_only_in"


@dataclass(frozen=True)
class SaeFacts:
    """None where nothing says it."""

    d_in: int | None = None
    """Width of the decoder's rows: of what a transcoder writes to, not of what it reads."""
    d_sae: int | None = None
    hook_name: str | None = None
    model: str | None = None
    scaled: bool = False
    """Trained on activations scaled to a norm of √d; SAELens folds the factor into the decoder."""
    own_factor: float | None = None
    """That factor, where the configuration itself gives it."""

    @property
    def layer(self) -> int | None:
        """Zero-based block whose output the vectors are a direction of; −1: the embeddings.

        What goes into block L is what block L − 1 puts out.
        """
        name = self.hook_name or ""
        if name.startswith("hook_embed"):
            return -1
        found = re.search(r"(?:blocks|layers)\.(\d+)", name)
        if not found:
            return None
        return int(found[1]) - (1 if name.endswith("hook_resid_pre") else 0)


def read_facts(file: Path | None, overrides: Mapping[str, Any] | None = None) -> SaeFacts:
    """Facts from a configuration in JSON or YAML, under the registry's overrides.

    Raises DataError for a file that is damaged or no mapping.
    """
    said: dict[str, Any] = {}
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
            loaded = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise DataError(f"{file}: not JSON or YAML ({error}).") from error
        if not isinstance(loaded, dict):
            raise DataError(f"{file}: an SAE's configuration is an object with keys.")
        said = _flat(loaded)
    said |= overrides or {}
    d_read = _first(said, "d_in", "d_model", "activation_dim", "act_size", "dimin")
    factor = _first(said, "expansion_factor", "exp_factor")
    d_sae = _first(said, "d_sae", "dict_size", "num_latents")
    if not d_sae and d_read and factor:
        d_sae = int(d_read * factor)
    hooks = ("hook_name_out", "hook_name", "hook_point", "hook_point_out", "hook_point_in")
    hook = _first(said, *hooks, "act_name")
    if hook is None and isinstance(said.get("layer"), int):
        hook = f"blocks.{said['layer']}.hook_resid_post"
    norm = (said.get("dataset_average_activation_norm") or {}).get("in")
    return SaeFacts(
        d_in=_first(said, "d_out") or d_read,
        d_sae=d_sae,
        hook_name=hook,
        model=_first(said, "model_name", "lm_name"),
        # True is how the oldest files say it
        scaled=said.get("normalize_activations") in (True, _EXPECTED_AVERAGE),
        own_factor=d_read**0.5 / norm if norm and d_read else None,
    )


def with_guesses(facts: SaeFacts, layout: Layout | None, names: Iterable[str]) -> SaeFacts:
    """`facts` with what `layout` implies: the scaling, and the site where no configuration names
    it, its layer found in `names` (Neuronpedia id, SAE id, repository, path)."""
    if layout is None:
        return facts
    facts = replace(facts, scaled=facts.scaled or layout.scaled)
    if facts.hook_name is not None:
        return facts
    texts = [name for name in names if name]
    layer = next((found for text in texts if (found := _layer_in(text)) is not None), None)
    everything = " ".join(texts)
    hook = next((hook for word, hook in layout.hooks.items() if word in everything), None)
    if hook is None or (layer is None and "{layer}" in hook):
        return facts
    return replace(facts, hook_name=hook.format(layer=layer))


def _layer_in(text: str) -> int | None:
    """`llama3.1-8b/19-llamascope-res-32k`, `layer_50`, `layers.10.mlp`, `blocks.8.…`, `l19r_8x`."""
    patterns = (r"/(\d+)-", r"(?:layers?|blocks)[._]?(\d+)", r"(?:^|[^a-z0-9])l(\d+)(?![0-9])")
    for pattern in patterns:
        if found := re.search(pattern, text, re.IGNORECASE):
            return int(found[1])
    return None


def _flat(loaded: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the mapping and of the parts that hold what is asked for, the outer ones first."""
    result: dict[str, Any] = {}
    for part in ("metadata", "trainer", "llm", "sae"):
        if isinstance(inner := loaded.get(part), dict):
            result |= inner
    return result | dict(loaded)


def _first(said: Mapping[str, Any], *keys: str) -> Any:
    return next((said[key] for key in keys if said.get(key) is not None), None)
