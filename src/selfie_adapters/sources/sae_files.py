"""From an SAE's name, or a path on disk, to its decoder and the facts about it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from selfie_adapters.errors import DataError, MissingFileError
from selfie_adapters.sources.decoder import Decoder, open_decoder
from selfie_adapters.sources.hub import fetch_hub_file
from selfie_adapters.sources.sae_facts import SaeFacts, read_facts, with_guesses
from selfie_adapters.sources.sae_layouts import ANY_DECODER, LAYOUTS, Layout
from selfie_adapters.sources.saelens import RegisteredSae, load_w_dec

_SUFFIXES = (".safetensors", ".pt", ".pth", ".npz", ".npy")


@dataclass(frozen=True)
class SaeVectors:
    """An opened decoder with what is known about it."""

    decoder: Decoder
    facts: SaeFacts
    report: list[str]


def open_registered(
    entry: RegisteredSae, file: Path | None = None, device: str = "cpu"
) -> SaeVectors:
    """The decoder of a registered SAE; its files are fetched from the hub.

    file: weights that lie here already, instead of the hub's. A layout that is not known here is
    read by SAELens itself, on `device`. Raises DownloadError, or DataError for a file that is not
    what the registry says.
    """
    layout = LAYOUTS.get(entry.layout)
    names = (entry.neuronpedia_id or "", entry.sae_id, entry.repo, entry.path)
    if layout is None:
        w_dec = load_w_dec(entry, device)
        facts = with_guesses(read_facts(None, entry.overrides), _residual(), names)
        note = f"the layout {entry.layout} was read by SAELens"
        return SaeVectors(Decoder(lambda: w_dec, False), facts, [note])
    config = layout.config_file(entry.path)
    folder = file.parent if file is not None else None
    if config is None:
        found = None
    elif folder is not None:
        found = _local_config(folder, config)
    else:
        found = fetch_hub_file(entry.repo, config)
    facts = with_guesses(read_facts(found, entry.overrides), layout, names)
    weights = file or fetch_hub_file(entry.repo, layout.weights_file(entry.path))
    tensors = {name.format(path=entry.path): way for name, way in layout.tensors.items()}
    decoder = open_decoder(
        weights,
        tensors,
        facts.d_sae,
        facts.d_in,
        either_way=layout.either_way,
        divide=(entry.norm_scaling_factor or 1.0) if facts.scaled else 1.0,
    )
    if "embedding" in entry.path and entry.layout == "gemma_2":
        # trained on embeddings before the model multiplies them by √d
        decoder = replace(decoder, multiply=math.sqrt(decoder.shape[1]))
    return SaeVectors(decoder, facts, _width_notes(entry, decoder.shape[0]))


def open_on_disk(path: Path, names: Iterable[str] = ()) -> SaeVectors:
    """The decoder in a folder or file: a SAELens, sparsify, Llama Scope, Gemma Scope or
    dictionary-learning folder, a Goodfire file, or any safetensors, torch or numpy file with a
    decoder. names: more texts that may name the layer.

    Raises MissingFileError, or DataError where there is no decoder or more than one.
    """
    if not path.exists():
        raise MissingFileError(f"{path}: no such file or folder. Check --sae-path.")
    file, layout, config = _what_is_it(path)
    facts = read_facts(config)
    places = (*names, path.absolute().name, path.absolute().parent.name)
    facts = with_guesses(facts, layout, places)
    decoder = open_decoder(
        file,
        ANY_DECODER,
        facts.d_sae,
        facts.d_in,
        either_way=True,
        # SAELens folds nothing into a SAE that it loads from disk.
        divide=facts.own_factor or 1.0,
    )
    return SaeVectors(decoder, facts, [f"decoder from {file.name}, {decoder.shape[0]} rows"])


def _what_is_it(path: Path) -> tuple[Path, Layout | None, Path | None]:
    """(weights, layout, configuration) of a path."""
    if path.is_file():
        if path.suffix not in _SUFFIXES:
            raise DataError(f"{path}: a decoder is read from {', '.join(_SUFFIXES)} files.")
        layout = next(
            (one for one in LAYOUTS.values() if _beside(path, one) is not None),
            None,
        )
        return path, layout, None if layout is None else _beside(path, layout)
    for layout in LAYOUTS.values():
        if not layout.weights.startswith("{path}/"):
            continue
        weights = path / layout.weights.removeprefix("{path}/")
        config = _local_config(path, layout.config or "")
        if weights.is_file() and (layout.config is None or config is not None):
            return weights, layout, config
    inside = [file for file in sorted(path.iterdir()) if file.suffix in _SUFFIXES]
    if len(inside) == 1:
        return inside[0], None, None
    found = ", ".join(file.name for file in inside[:6]) or "none"
    raise DataError(
        f"{path}: not a folder of a known SAE layout, and not one weights file in it (found "
        f"{found}). Give the file itself."
    )


def _beside(file: Path, layout: Layout) -> Path | None:
    """The layout's configuration, if `file` is its weights file."""
    if layout.config is None or not layout.weights.startswith("{path}/"):
        return None
    inner = Path(layout.weights.removeprefix("{path}/"))
    if file.parts[-len(inner.parts) :] != inner.parts:
        return None
    return _local_config(file.parents[len(inner.parts) - 1], layout.config)


def _local_config(folder: Path, config: str) -> Path | None:
    name = config.rsplit("/", 1)[-1]
    # weights may lie one folder deeper (checkpoints/)
    return next((p for p in (folder / name, folder.parent / name) if name and p.is_file()), None)


def _width_notes(entry: RegisteredSae, d_sae: int) -> list[str]:
    """What the width in an id says, where the file says otherwise: 32k is 32,768 or 32,000."""
    words = re.findall(r"(?<![a-z0-9])(\d+)k(?![a-z0-9])", entry.neuronpedia_id or "")
    near = {round(d_sae / 1000), round(d_sae / 1024)}
    if words and not near & {int(word) for word in words}:
        return [f"{entry.neuronpedia_id} sounds like {words[-1]}k latents; the file has {d_sae}"]
    return []


def _residual() -> Layout:
    return LAYOUTS["goodfire"]
