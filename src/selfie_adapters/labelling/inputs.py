"""From what a labelling run names to the vectors it labels, and checks of those."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter, create_adapter, load_adapter
from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.dataset.captured import Captured
from selfie_adapters.dataset.source import LabelSource, read_label_source
from selfie_adapters.errors import ConfigError
from selfie_adapters.labelling.confidence import Confidence
from selfie_adapters.labelling.decomposition.concepts import SAMPLES, TEMPERATURE, Decomposer
from selfie_adapters.labelling.decomposition.reconstruction import Reconstructor
from selfie_adapters.labelling.engines import loads_model
from selfie_adapters.labelling.labeller import Labeller
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.fingerprint import mean_embedding_norm
from selfie_adapters.sources.sae.rows import is_sae_name, open_sae_rows

log = logging.getLogger(__name__)

_LONGEST = 1e18
_OTHERWISE = "%s: %s as in the adapter's training vectors."


def open_source(settings: LabelSettings) -> LabelSource:
    """The vectors that `settings` ask for: source, split, indices, limit.

    Raises what reading the source raises; ConfigError for indices that are none.
    """
    if is_sae_name(settings.source) and not Path(settings.source).exists():
        named = open_sae_rows(settings.source, settings.which)
        source = LabelSource.of_rows(named.rows, named.layer)
    else:
        source = read_label_source(settings.source, settings.split)
    if settings.indices is not None:
        source = source.only(settings.indices)
    return source if settings.limit is None else source.first(settings.limit)


def check_chosen(settings: LabelSettings, source: LabelSource) -> None:
    """Raise ConfigError for a matrix or split that is chosen of a source that has none."""
    is_file = not is_sae_name(settings.source) or Path(settings.source).exists()
    if is_file and settings.which != "decoder":
        raise ConfigError(
            f"--which {settings.which}: {settings.source} is a file, which holds the rows that "
            "are labelled. Name an SAE (release:sae_id), or omit --which."
        )
    if source.dataset is None and settings.split != "all":
        raise ConfigError(
            f"--split {settings.split}: {settings.source} holds vectors alone, which have no "
            "splits. Choose rows with --indices, or omit --split."
        )


def check_concepts(settings: LabelSettings) -> None:
    """Raise ConfigError where --concepts is given and cannot be used with the other settings."""
    if settings.concepts is None:
        return
    if settings.engine != "local":
        raise ConfigError(
            "concepts: what a label explains is measured with the model's states, which engine "
            f"{settings.engine} does not provide. Use --engine local (or ray)."
        )
    if settings.adapter is None:
        raise ConfigError("concepts: an adapter is required (--adapter FILE).")
    if settings.samples > 1 or len(settings.scales) > 1 or settings.explain:
        raise ConfigError(
            "concepts: each concept gets one label. Omit --samples, --explain and several "
            "--scales; --best-of N takes the best of N candidates."
        )


def check_not_centered(settings: LabelSettings, source: LabelSource) -> None:
    """Raise ConfigError if the mean is already subtracted from the vectors."""
    if settings.mean is None or source.dataset is None:
        return
    for section in source.dataset.sections:
        if done := section.metadata.get("mean_file"):
            raise ConfigError(
                f"{settings.source}, {section.id}: its vectors have their mean ({done}) subtracted "
                "already. Omit --mean."
            )


def check_captured(settings: LabelSettings, source: LabelSource, adapter: Adapter) -> None:
    """Warn where the vectors or the mean were captured in another way than the training vectors, or
    after other blocks than the one the adapter was trained on."""
    trained = Captured.by_binding(adapter.binding)
    inputs: dict[str, Captured] = {}
    if source.dataset is not None:
        inputs[settings.source] = Captured.by_sections(source.dataset.sections)
    if settings.mean is not None:
        inputs[settings.mean] = Captured.by_mean_file(settings.mean)
    for name, captured in inputs.items():
        for difference in captured.differences(trained):
            log.warning(_OTHERWISE, name, difference)
    binding = adapter.binding
    if binding is None or binding.layer is None:
        return
    layers = set(map(source.layer, range(len(source))))
    own = {binding.layer, *(layer for layer, _ in adapter.specialists)}
    if others := sorted(layer for layer in layers if layer is not None and layer not in own):
        blocks = f"block{'s' * (len(others) > 1)} {', '.join(map(str, others))}"
        log.warning(_OTHERWISE, settings.source, f"{blocks}, not {binding.layer}")


def open_adapter(settings: LabelSettings, model: FrozenModel) -> Adapter:
    """The adapter of the run; without one the unit vector, times the mean embedding norm.

    Raises what `load_adapter` raises.
    """
    if settings.adapter is not None:
        return load_adapter(settings.adapter)
    return create_adapter("scale_only", model.d_model, init_scale=mean_embedding_norm(model))


def open_confidence(settings: LabelSettings) -> Confidence | None:
    """The confidence file of the run, if it has one. Raises what `Confidence.load` raises."""
    return None if settings.confidence is None else Confidence.load(settings.confidence)


def open_decomposer(settings: LabelSettings, labeller: Labeller) -> Decomposer | None:
    """What reads several concepts of a vector, if the run requests them.

    Raises ConfigError where there is no file of means.
    """
    if settings.concepts is None:
        return None
    return Decomposer(
        labeller,
        Reconstructor(labeller.model, labeller.adapter, settings.mean),
        settings.concepts,
        replace(settings.sampling, temperature=0.0),
        settings.scales[0],
        settings.seed,
        settings.batch_size,
        SAMPLES if settings.best_of is None else settings.best_of - 1,
        settings.temperature or TEMPERATURE,
    )


def vector_problem(vector: Tensor, adapter: Adapter) -> str | None:
    """Why a vector cannot be labelled, if it cannot."""
    if not bool(torch.isfinite(vector).all()):
        return "the vector holds NaN or infinity"
    if not adapter.normalize_input and float(vector.norm()) > _LONGEST:
        return (
            f"the vector's length is {float(vector.norm()):.3g}, too long to be squared in "
            "float32, and the adapter does not normalize"
        )
    return None


def fingerprint_checked(settings: LabelSettings, adapter: Adapter) -> bool | None:
    """Whether the adapter's forward fingerprint was compared with the model; None without one."""
    if adapter.binding is None or not adapter.binding.fingerprint:
        return None
    return not loads_model(settings.engine) and not settings.ignore_binding
