"""What an SAE's own configuration states: widths, site, model, whether activations were scaled."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from selfie_adapters.config.yaml_reading import read_yaml, shortened
from selfie_adapters.errors import DataError
from selfie_adapters.files import read_json
from selfie_adapters.sources.sae.layouts import ATTENTION, HEADS, MLP, RESIDUAL, SaeLayout

_EXPECTED_AVERAGE = "expected_average_only_in"
# Modules of transformers' Gemma 3 after `model.layers.{L}.` → the same site by TransformerLens.
_SITES = {
    "output": RESIDUAL,
    "input": "blocks.{layer}.hook_resid_pre",
    "self_attn.o_proj.input": HEADS,
    "self_attn.output": ATTENTION,
    "self_attn.o_proj.output": ATTENTION,
    "post_attention_layernorm.output": ATTENTION,
    "mlp.output": MLP,
    "post_feedforward_layernorm.output": MLP,
}


@dataclass(frozen=True)
class SaeFacts:
    """None where nothing states it."""

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
        found = re.search(r"(?:blocks|layers)\.([0-9]{1,4})(?![0-9])", name)
        if not found:
            return None
        return int(found[1]) - (1 if name.endswith("hook_resid_pre") else 0)


def read_facts(file: Path | None, overrides: Mapping[str, Any] | None = None) -> SaeFacts:
    """Facts from a configuration in JSON or YAML, under the registry's overrides.

    Raises DataError for a file that is damaged or no mapping, and for a value of the wrong type or
    out of range, naming its key.
    """
    config = read_sae_config(file, overrides)
    d_read = config.whole("d_in", "d_model", "activation_dim", "act_size", "dimin")
    factor = config.positive("expansion_factor", "exp_factor")
    d_sae = config.whole("d_sae", "dict_size", "num_latents", least=0)  # sparsify: 0 is unset
    if not d_sae and d_read and factor:
        d_sae = config.product(d_read, factor)
    norm = config.positive_in("dataset_average_activation_norm", "in")
    return SaeFacts(
        d_in=config.whole("d_out") or d_read,
        d_sae=d_sae or None,
        hook_name=_hook_name(config),
        model=config.text("model_name", "lm_name"),
        # True is how the oldest files say it
        scaled=config.flag_or_text("normalize_activations") in (True, _EXPECTED_AVERAGE),
        own_factor=d_read**0.5 / norm if norm and d_read else None,
    )


def _hook_name(config: SaeConfig) -> str | None:
    hooks = ("hook_name_out", "hook_name", "hook_point", "hook_point_out", "hook_point_in")
    hook = config.text(*hooks, "act_name")
    if hook is not None:
        return hook
    if (module := config.text("hf_hook_point_out", "hf_hook_point_in")) is not None:
        found = re.fullmatch(r"(?:\w+\.)*layers\.(\d+)\.(.+)", module)
        site = _SITES.get(found[2]) if found else None
        return module if site is None or found is None else site.format(layer=found[1])
    layer = config.whole("layer", least=0)
    if layer is None:
        return None
    # dictionary_learning: resid_post_layer_12, mlp_out_layer_12, attn_out_layer_12
    module = config.text("submodule_name") or ""
    site = MLP if "mlp" in module else ATTENTION if "att" in module else RESIDUAL
    return site.format(layer=layer)


def with_guesses(
    facts: SaeFacts, layout: SaeLayout | None, names: Iterable[str], layer: int | None = None
) -> SaeFacts:
    """`facts` with what `layout` implies: the scaling, and the site where no configuration names
    it. Its layer is `layer`, or else found in `names` (Neuronpedia id, SAE id, path and so on)."""
    if layout is None:
        return facts
    facts = replace(facts, scaled=facts.scaled or layout.scaled)
    if facts.hook_name is not None:
        return facts
    texts = [name for name in names if name]
    if layer is None:
        layer = layer_in(texts)
    everything = " ".join(texts)
    hook = next((hook for word, hook in layout.hooks.items() if word in everything), None)
    if hook is None or (layer is None and "{layer}" in hook):
        return facts
    return replace(facts, hook_name=hook.format(layer=layer))


# Neuronpedia's model/19-source; layer_50, layers.10.mlp, blocks.8; l19r_8x. Not an SAE's L0: the
# mean number of active latents, average_l0_71 or l0_medium.
_LAYERS = (
    r"/(\d+)-",
    r"(?:layers?|blocks)[._]?(\d+)",
    r"(?:^|[^a-z0-9])l(?!0+[_=-])(\d+)(?![0-9])",
)


def layer_in(names: Iterable[str]) -> int | None:
    """The layer that the first of `names` with one in it names."""
    for name in names:
        for pattern in _LAYERS:
            if (found := re.search(pattern, name, re.IGNORECASE)) and len(found[1]) < 5:
                return int(found[1])
    return None


_POSITIVE = Annotated[float, msgspec.Meta(gt=0, le=sys.float_info.max)]
_IS_POSITIVE = "a finite number above zero"
_TEXT = Annotated[str, msgspec.Meta(pattern=r"\S")]
_PARTS = ("metadata", "trainer", "llm", "sae")  # mappings inside that hold what is asked for


@dataclass(frozen=True)
class SaeConfig:
    """Keys and values, the outer ones before those of nested parts. null counts as absent."""

    values: Mapping[str, Any]
    where: str
    """The file, for errors."""

    def whole(self, *keys: str, least: int = 1) -> int | None:
        """The first of `keys` that is present: an integer of at least `least`."""
        kind = Annotated[int, msgspec.Meta(ge=least, lt=2**31)]
        return self._first(keys, kind, f"an integer of at least {least}")

    def positive(self, *keys: str) -> float | None:
        """The first of `keys` that is present: a finite number above zero."""
        return self._first(keys, _POSITIVE, _IS_POSITIVE)

    def product(self, width: int, factor: float) -> int:
        """The number of latents, where the file has only their ratio to the width."""
        if width * factor >= 2**31:
            raise self._wrong("expansion_factor", "such that d_sae is below 2³¹", factor)
        return int(width * factor)

    def text(self, *keys: str) -> str | None:
        """The first of `keys` that is present: text that is not empty."""
        return self._first(keys, _TEXT, "text")

    def flag_or_text(self, key: str) -> bool | str | None:
        """true, false or text."""
        return self._first((key,), bool | str, "true, false or text")

    def positive_in(self, key: str, inner: str) -> float | None:
        """A finite number above zero under `inner` of the mapping `key`."""
        part = self._first((key,), dict[str, Any], f"a mapping with the key {inner}") or {}
        value = part.get(inner)
        where = f"{key}.{inner}"
        return None if value is None else self._checked(where, value, _POSITIVE, _IS_POSITIVE)

    def _first(self, keys: tuple[str, ...], kind: Any, expected: str) -> Any:
        for key in keys:
            if (value := self.values.get(key)) is not None:
                return self._checked(key, value, kind, expected)
        return None

    def _checked(self, key: str, value: Any, kind: Any, expected: str) -> Any:
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError:
            raise self._wrong(key, expected, value) from None

    def _wrong(self, key: str, expected: str, value: Any) -> DataError:
        kind = {bool: "a flag", str: "text", dict: "a mapping", list: "a list"}.get(type(value))
        shown = shortened(repr(value), 60) if not isinstance(value, (dict, list)) else ""
        found = " ".join(part for part in (kind, shown) if part)
        return DataError(f"{self.where}: {key} must be {expected}, found {found}.")


def read_sae_config(file: Path | None, overrides: Mapping[str, Any] | None = None) -> SaeConfig:
    """The configuration in JSON or YAML, under the registry's overrides; empty without a file.

    Raises MissingFileError, or DataError for a file that is damaged or no mapping.
    """
    if file is None:
        return SaeConfig(dict(overrides or {}), "SAELens' registry")
    loaded = read_json(file) if file.suffix == ".json" else read_yaml(file)
    if not isinstance(loaded, dict):
        kind = "nothing" if loaded is None else f"a {type(loaded).__name__}"
        raise DataError(f"{file}: an SAE's configuration is a mapping with keys, found {kind}.")
    flat: dict[str, Any] = {}
    for part in _PARTS:
        if isinstance(inner := loaded.get(part), dict):
            flat |= inner
    # An outer null does not hide what a part says.
    flat |= {key: value for key, value in loaded.items() if value is not None}
    return SaeConfig(flat | dict(overrides or {}), str(file))
