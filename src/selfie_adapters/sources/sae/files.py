"""From an SAE's name, or a path on disk, to its decoder and the facts about it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from selfie_adapters.dataset.nla import ACTIVATIONS
from selfie_adapters.errors import DataError, MissingFileError
from selfie_adapters.hub import fetch_hub_file
from selfie_adapters.sources.sae.decoder import Decoder, open_decoder
from selfie_adapters.sources.sae.facts import SaeFacts, read_facts, with_guesses
from selfie_adapters.sources.sae.layouts import ANY_DECODER, LAYOUTS, MLP, ROWS, SaeLayout
from selfie_adapters.sources.sae.registry import RegisteredSae, load_w_dec

_SUFFIXES = (".safetensors", ".pt", ".pth", ".npz", ".npy")
_TABLE = ".parquet"  # a column of vectors; only where it is named itself

_OTHERWISE = "Or fetch the file elsewhere and give it as --sae-path."


@dataclass(frozen=True)
class SaeVectors:
    """An opened decoder with what is known about it."""

    decoder: Decoder
    facts: SaeFacts
    report: list[str]


def open_registered(
    entry: RegisteredSae,
    file: Path | None = None,
    device: str = "cpu",
    layer: int | None = None,
) -> SaeVectors:
    """The decoder of a registered SAE; its files are fetched from the hub.

    file: weights that lie here already, instead of the hub's. layer: of a decoder that writes into
    several layers, the one whose rows are taken; None takes their sum. A layout that is not known
    here is read by SAELens itself, on `device`. Raises DownloadError, or DataError for a file that
    is not what the registry states.
    """
    layout = LAYOUTS.get(entry.layout)
    names = (entry.neuronpedia_id or "", entry.sae_id, entry.repo, entry.path)
    if layout is None:
        w_dec = load_w_dec(entry, device)
        facts = with_guesses(read_facts(None, entry.overrides), LAYOUTS["goodfire"], names)
        note = f"the layout {entry.layout} was read by SAELens"
        return SaeVectors(Decoder(lambda: w_dec, False), facts, [note])
    config = layout.config_file(entry.path)
    folder = file.parent if file is not None else None
    if config is None:
        found = None
    elif folder is not None:
        found = _local_config(folder, config)
    else:
        found = fetch_hub_file(entry.repo, config, _OTHERWISE)
    facts = with_guesses(read_facts(found, entry.overrides), layout, names, layer)
    weights = file or fetch_hub_file(entry.repo, layout.weights_file(entry.path), _OTHERWISE)
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
    decoder, facts, notes = with_target(weights, decoder, facts, layer)
    return SaeVectors(decoder, facts, notes + _width_notes(entry, decoder.shape[0]))


def open_on_disk(path: Path, names: Iterable[str] = (), layer: int | None = None) -> SaeVectors:
    """The decoder in a folder or file: a SAELens, sparsify, Llama Scope, Gemma Scope or
    dictionary-learning folder, a Goodfire file, a cross-layer transcoder's file, or any
    safetensors, torch or numpy file with a decoder.

    names: more strings that may name the layer. layer: the layer, where the caller knows it; of a
    decoder that writes into several it chooses the rows.

    Raises MissingFileError, or DataError where there is no decoder or more than one.
    """
    try:
        path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = "no such file or folder" if isinstance(error, FileNotFoundError) else str(error)
        raise MissingFileError(f"{str(path)!s:.300}: {reason}. Check --sae-path.") from None
    file, layout, config = _what_is_it(path)
    facts = with_guesses(read_facts(config), layout, [*names, *_path_names(path)], layer)
    tensors = {**(layout.tensors if layout else {}), **ANY_DECODER}
    if source_of(file) is not None:
        tensors[file.stem] = ROWS  # W_dec_3
    if file.suffix == _TABLE:
        tensors[ACTIVATIONS] = ROWS
    decoder = open_decoder(
        file,
        tensors,
        facts.d_sae,
        facts.d_in,
        either_way=True,
        # SAELens folds nothing into an SAE that it loads from disk.
        divide=facts.own_factor or 1.0,
    )
    decoder, facts, notes = with_target(file, decoder, facts, layer)
    first = f"decoder from {file.name}, {decoder.shape[0]} rows"
    return SaeVectors(decoder, facts, [first, *notes])


def _path_names(path: Path) -> list[str]:
    """Names of the path and of folders above it that may name the site or the layer, as in
    gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71/params.npz."""
    absolute = path.absolute()
    outer = [folder.name for folder in absolute.parents[1:5]]
    known = re.compile(r"^(?:layers?|blocks)[._]?\d+$|scope", re.IGNORECASE)
    return [absolute.name, absolute.parent.name, *filter(known.search, outer)]


def _what_is_it(path: Path) -> tuple[Path, SaeLayout | None, Path | None]:
    """(weights, layout, configuration) of a path."""
    if path.is_file():
        if path.suffix not in (*_SUFFIXES, _TABLE):
            known = ", ".join((*_SUFFIXES, _TABLE))
            raise DataError(f"{path}: a decoder is read from {known} files.")
        for layout in LAYOUTS.values():
            if (config := _beside(path, layout)) is not None:
                return path, layout, config
        if source_of(path) is not None:
            configs = (path.parent / name for name in ("config.yaml", "config.json"))
            return path, None, next((one for one in configs if one.is_file()), None)
        plain = (one for one in LAYOUTS.values() if one.config is None)
        return path, next((one for one in plain if _is_weights_of(path, one)), None), None
    for layout in LAYOUTS.values():
        if not layout.weights.startswith("{path}/"):
            continue
        weights = path / layout.weights.removeprefix("{path}/")
        config = _config_of(path, layout)
        if weights.is_file() and (layout.config is None or config is not None):
            return weights, layout, config
    try:
        inside = [file for file in sorted(path.iterdir()) if file.suffix in _SUFFIXES]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    of_layers = [file for file in inside if source_of(file) is not None]
    if len(of_layers) > 1:
        raise DataError(
            f"{path}: a cross-layer transcoder, one file per source layer ({of_layers[0].name}, "
            f"{of_layers[1].name} and so on). Give one of the files."
        )
    if one := (of_layers or inside if len(of_layers or inside) == 1 else []):
        return _what_is_it(one[0])
    found = ", ".join(file.name for file in inside[:6]) or "none"
    raise DataError(
        f"{path}: not a folder of a known SAE layout, and not one weights file in it (found "
        f"{found}). Give the file itself."
    )


def _beside(file: Path, layout: SaeLayout) -> Path | None:
    """The layout's configuration, if `file` is its weights file."""
    if not _is_weights_of(file, layout):
        return None
    depth = len(Path(layout.weights).parts) - 1
    return _config_of(file.absolute().parents[depth - 1], layout)


def _is_weights_of(file: Path, layout: SaeLayout) -> bool:
    """Whether `file` is named as the layout's weights in their folder are."""
    if not layout.weights.startswith("{path}/"):
        return False
    inner = Path(layout.weights.removeprefix("{path}/")).parts
    return file.absolute().parts[-len(inner) :] == inner


def _config_of(folder: Path, layout: SaeLayout) -> Path | None:
    """The layout's configuration file in a folder on disk."""
    if layout.config is not None:
        return _local_config(folder, layout.config)
    if layout.extra_config is None:
        return None
    file = folder / Path(layout.extra_config).name
    return file if file.is_file() else None


def _local_config(folder: Path, config: str) -> Path | None:
    name = config.rsplit("/", 1)[-1]
    # weights may lie one folder deeper (checkpoints/)
    return next((p for p in (folder / name, folder.parent / name) if name and p.is_file()), None)


def _width_notes(entry: RegisteredSae, d_sae: int) -> list[str]:
    """What the width in an id states, where the file states otherwise: 32k is 32,768 or 32,000."""
    words = re.findall(r"(?<![a-z0-9])([0-9]{1,9})k(?![a-z0-9])", entry.neuronpedia_id or "")
    near = {round(d_sae / 1000), round(d_sae / 1024)}
    if words and not near & {int(word) for word in words}:
        return [f"{entry.neuronpedia_id} sounds like {words[-1]}k latents; the file has {d_sae}"]
    return []


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
