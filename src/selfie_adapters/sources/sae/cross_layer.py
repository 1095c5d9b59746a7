"""Cross-layer transcoders: latents that read at one layer and write into several.

One file holds the decoder of one source layer, [d_sae, layers written to, d_in]. Two forms are
published: W_dec_{L}.safetensors, whose rows begin with layer L, and params_layer_{L}.safetensors
(Gemma Scope 2), which has rows for every layer of the model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from selfie_adapters.errors import DataError
from selfie_adapters.sources.sae.decoder import Decoder
from selfie_adapters.sources.sae.facts import SaeFacts
from selfie_adapters.sources.sae.layouts import MLP


@dataclass(frozen=True)
class Source:
    """The layer that a file's latents read, and the layer that its first rows write into."""

    layer: int
    first: int


def source_of(file: Path) -> Source | None:
    """By the file's name; None for a file that is not named like either form."""
    found = re.fullmatch(r"(W_dec|params_layer|layer)_(\d{1,4})\.safetensors", file.name)
    if found is None:
        return None
    layer = int(found[2])
    return Source(layer, layer if found[1] == "W_dec" else 0)


def with_target(
    file: Path, decoder: Decoder, facts: SaeFacts, layer: int | None
) -> tuple[Decoder, SaeFacts, list[str]]:
    """Decoder and facts of the rows that write into `layer`; for None the sum over all layers, as
    SAELens takes it, which counts as the source layer's. With lines for the reader.

    A decoder that writes into one layer comes back as it is. Raises DataError for a layer that the
    file's latents do not write into.
    """
    count, source = decoder.layers_written, source_of(file)
    if count is None:
        return decoder, facts, []
    if source is None:
        note = f"{file.name} writes into {count} layers that it does not name: their sum is taken"
        return decoder, facts, [note]
    last = source.first + count - 1
    written = f"the latents of layer {source.layer} write into layers {source.layer} to {last}"
    if layer is None:
        facts = replace(facts, hook_name=MLP.format(layer=source.layer))
        return decoder, facts, [f"{written}: their sum is taken. --layer takes one layer's rows"]
    if not source.layer <= layer <= last:
        raise DataError(f"{file}: --layer {layer}: {written}. Give one of those.")
    facts = replace(facts, hook_name=MLP.format(layer=layer))
    return replace(decoder, written=layer - source.first), facts, [f"rows for layer {layer}"]
