"""The scoring protocol: labels of every condition, conversations from them, hits, results.

Labels by the adapter, beside those of the zero vector, random directions, plain vectors without an
adapter, and the label file's own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter, load_adapter
from selfie_adapters.adapters.base import unit_norm
from selfie_adapters.chat import open_chat
from selfie_adapters.config.evaluation.scoring import ScoringSettings
from selfie_adapters.dataset.controls import random_vectors
from selfie_adapters.dataset.vectors import open_vectors
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.controls import untrained_adapter
from selfie_adapters.evaluation.folder import EvaluationFolder
from selfie_adapters.evaluation.scoring.generation import Foils, Scoring, ScoringRow, score_labels
from selfie_adapters.evaluation.scoring.label_groups import (
    GivenLabels,
    LabelSampling,
    LabelSource,
    WrittenLabels,
)
from selfie_adapters.evaluation.scoring.results import summarise
from selfie_adapters.evaluation.scoring.writing import Writing
from selfie_adapters.evaluation.spoken_labels import Progress, silent
from selfie_adapters.files import existing_file, sha256
from selfie_adapters.inference.sampling import Sampling
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import FrozenModel, SoftPrompt, load_model
from selfie_adapters.model.fingerprint import mean_embedding_norm, weights_digest
from selfie_adapters.sources.labels.files import (
    SectionChoice,
    read_label_file,
    write_label_file,
)
from selfie_adapters.sources.labels.label_set import LabelSet
from selfie_adapters.sources.sae.encoder import LatentEncoder, open_encoder

# Changing these does not change the results.
FREE = ("batch_size", "latents_at_once")


def run_scoring(
    settings: ScoringSettings,
    folder: str | Path,
    model: FrozenModel | None = None,
    progress: Progress = silent,
) -> Path:
    """Run the protocol, or resume it; returns the path of results.json.

    model may be loaded already. With label_generation_only there are no scores: beside it comes
    {condition}_labels.jsonl, to be scored later. Raises what reading the inputs raises; DataError
    for latents without labels; ConfigError if the folder holds another evaluation.
    """
    wanted = settings.wanted()
    labels = _read_labels(settings)
    latents = _chosen(settings, labels)
    model = model or load_model(settings.model, settings.dtype, settings.device)
    writes = settings.evaluation_mode != "label_generation_only"
    encoder = None
    if writes or settings.vectors is None:
        encoder = open_encoder(settings.sae, latents, settings.force_sae, model.device)
        if settings.sae_layer not in (None, encoder.layer):
            raise DataError(
                f"{settings.sae}: an SAE of layer {encoder.layer}; the settings state layer "
                f"{settings.sae_layer}. Correct one of them."
            )
    inputs = {name: sha256(file) for name, file in _files(settings).items()}
    if encoder is not None:
        inputs["sae"] = encoder.digest()
    kept = EvaluationFolder(folder, "generation scoring", settings, inputs, FREE, ScoringRow)
    kept.also_depends_on("model_weights", weights_digest(model))
    foils = Foils.drawn(len(latents), settings.foils, settings.seed)
    writing = Writing(
        settings.conversations,
        settings.conversation_tokens,
        settings.temperature,
        settings.top_p,
        settings.conversation_prompt,
        settings.conversation_system,
    )
    answers = kept.folder / "answers"
    writer = None
    if writes:
        writer = open_chat(settings.writer, answers, model, settings.device)
        kept.also_depends_on("chat_weights", writer.weights)
    scoring = Scoring(
        model,
        encoder,
        writer,
        writing,
        foils,
        settings.seed,
        settings.batch_size,
        settings.latents_at_once,
        settings.token_activations,
        tuple(latents),
    )
    vectors = _vectors(settings, latents, encoder)
    sources = _sources(settings, wanted, model, latents, vectors, labels or {})
    score_labels(scoring, sources, kept, progress)
    if not writes or encoder is None:
        _write_label_files(kept, wanted, latents)
        return kept.finish({"latents": latents})
    about = {"kind": encoder.kind, "d_sae": encoder.d_sae, "layer": encoder.layer}
    return kept.finish(
        {
            "seeds": {"seed": settings.seed},
            "sae": {**about, "model": encoder.model},
            "writer": writer.name if writer else None,
            "latents": latents,
            "conditions": summarise(
                kept.rows, wanted, latents, foils, settings.thresholds, settings.seed
            ),
        }
    )


def _files(settings: ScoringSettings) -> dict[str, Path]:
    """What the results depend on besides the settings."""
    files = {
        "adapter": settings.adapter,
        "labels_file": settings.labels_file,
        "vectors": settings.vectors,
    }
    return {name: existing_file(path) for name, path in files.items() if path is not None}


def _read_labels(settings: ScoringSettings) -> dict[int, list[str]] | None:
    if settings.labels_file is None:
        return None

    section = SectionChoice(settings.labels_dataset, settings.labels_layer)
    found = read_label_file(settings.labels_file, section=section)
    keep = settings.split
    return {
        latent: texts
        for latent, texts in found.labels.items()
        if keep == "all" or found.splits.get(latent, keep) == keep
    }


def _chosen(settings: ScoringSettings, labels: dict[int, list[str]] | None) -> list[int]:
    """The latents under evaluation, in rising order."""

    latents = sorted(set(settings.latents if settings.latents is not None else labels or ()))
    if settings.limit is not None and settings.limit < len(latents):
        drawn = np.random.default_rng(settings.seed).permutation(latents)[: settings.limit]
        latents = sorted(drawn.tolist())
    if not latents:
        raise DataError(f"no latents: {settings.labels_file} has none in split {settings.split}.")
    if labels is not None and "training" in settings.wanted():
        without = [latent for latent in latents if latent not in labels]
        if without:
            raise DataError(
                f"latent {without[0]} has no label in {settings.labels_file} (split "
                f"{settings.split}). Leave it out, or leave out the condition training."
            )
    return latents


def _vectors(
    settings: ScoringSettings, latents: list[int], encoder: LatentEncoder | None
) -> Tensor | None:
    """The latents' vectors, [latents, d]; None where no condition needs them.

    Unit vectors if the settings say so; a zero vector stays zero.
    """
    if settings.vectors is not None:
        rows = open_vectors(settings.vectors)
        if latents[-1] >= len(rows):
            raise DataError(
                f"{settings.vectors}: {len(rows)} rows; latent {latents[-1]} has none. Give the "
                "vectors that belong to the labels."
            )
        found = rows[torch.tensor(latents)].float()
    elif encoder is not None:
        found = encoder.decoder
    else:
        return None
    return unit_norm(found) if settings.normalize_vectors else found


def _labeller(
    settings: ScoringSettings, model: FrozenModel, adapter: Adapter, prompt: SoftPrompt | None
) -> Labeller:
    """A labeller whose scales mean what the settings say."""
    if settings.normalize_vectors is not None:
        adapter.normalize_input = False  # `_vectors` has normalized them already, or nobody should
    if settings.template is not None and settings.placeholder is not None:
        prompt = SoftPrompt(settings.template, settings.placeholder)
    return Labeller(model, adapter, prompt)


def _sources(
    settings: ScoringSettings,
    wanted: list[str],
    model: FrozenModel,
    latents: list[int],
    vectors: Tensor | None,
    labels: dict[int, list[str]],
) -> dict[str, LabelSource]:
    """Where each condition's labels come from."""

    how = LabelSampling(
        Sampling(
            settings.label_temperature,
            settings.label_top_p,
            settings.label_repetition_penalty,
            settings.label_tokens,
        ),
        settings.labels_per_scale,
        settings.label_cut,
    )
    if vectors is None:
        vectors = torch.empty(len(latents), 0)
    drawn = {
        "trained": lambda: vectors,
        "zero": lambda: torch.zeros_like(vectors),
        "random": lambda: random_vectors(vectors, settings.seed),
    }
    sources: dict[str, LabelSource] = {}
    labeller = None
    if settings.adapter is not None and any(name in drawn for name in wanted):
        labeller = _labeller(settings, model, load_adapter(settings.adapter), None)
    for name in wanted:
        if name == "training":
            given = [labels[latent] for latent in latents]
            count = None if settings.labels_each_once else len(settings.scales)
            sources[name] = GivenLabels(given, count)
        elif name == "untrained":
            absolute = settings.untrained_scale_unit == "absolute"
            unit = 1.0 if absolute else mean_embedding_norm(model)
            prompt = None if labeller is None else labeller.prompt.prompt
            plain = _labeller(settings, model, untrained_adapter(model.d_model, unit), prompt)
            sources[name] = WrittenLabels(
                plain, vectors, latents, settings.untrained_scales, how, settings.seed
            )
        elif labeller is not None:
            sources[name] = WrittenLabels(
                labeller, drawn[name](), latents, settings.scales, how, settings.seed
            )
    return sources


def _write_label_files(evaluation: EvaluationFolder, wanted: list[str], latents: list[int]) -> None:
    """{condition}_labels.jsonl, label files as `labels_file` reads them."""

    for name in wanted:
        texts = {
            latent: [label["text"] for label in evaluation.rows[f"{name}:{latent}"]["labels"]]
            for latent in latents
        }
        kept = {latent: [text for text in of if text] for latent, of in texts.items()}
        label_set = LabelSet({latent: of for latent, of in kept.items() if of})
        write_label_file(evaluation.folder / f"{name}_labels.jsonl", label_set)
