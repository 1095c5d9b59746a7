"""Which latents are evaluated, with their labels and vectors, as the settings state them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from selfie_adapters.adapters.base import unit_norm
from selfie_adapters.adapters.locating import find_adapter_file
from selfie_adapters.config.evaluation.scoring import ScoringSettings
from selfie_adapters.dataset.vectors import open_vectors
from selfie_adapters.errors import DataError
from selfie_adapters.files import existing_file
from selfie_adapters.sources.labels.files import SectionChoice, read_label_file
from selfie_adapters.sources.labels.label_set import LabelSet
from selfie_adapters.sources.sae.encoder import LatentEncoder, open_encoder


def input_files(settings: ScoringSettings) -> dict[str, Path]:
    """Files that the results depend on."""
    files = {
        "labels_file": settings.labels_file,
        "training_labels": settings.training_labels,
        "vectors": settings.vectors,
    }
    found = {name: existing_file(path) for name, path in files.items() if path is not None}
    return {"adapter": find_adapter_file(settings.adapter), **found} if settings.adapter else found


def given_labels(settings: ScoringSettings) -> LabelSet | None:
    """All labels of labels_file, whatever their split."""
    if settings.labels_file is None:
        return None
    section = SectionChoice(settings.labels_dataset, settings.labels_layer)
    return read_label_file(settings.labels_file, section=section)


def of_split(settings: ScoringSettings, given: LabelSet | None) -> dict[int, list[str]] | None:
    """The labels of the latents that may be evaluated."""
    if given is None:
        return None
    keep = settings.split
    return {
        latent: texts
        for latent, texts in given.labels.items()
        if keep == "all" or given.splits.get(latent, keep) == keep
    }


def chosen_latents(settings: ScoringSettings, labels: dict[int, list[str]] | None) -> list[int]:
    """The latents under evaluation, in rising order. Raises DataError for none, and for one without
    a label where labels are scored."""
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
                f"{settings.split}). Exclude it, or exclude the condition training."
            )
    return latents


class LatentVectors:
    """The vectors of an SAE's latents: rows of a file, or of the decoder.

    Unit vectors if the settings ask for them; a zero vector stays zero.
    """

    def __init__(self, settings: ScoringSettings, encoder: LatentEncoder | None) -> None:
        """encoder: of the evaluated latents; None where the settings name a file."""
        self._settings, self._encoder = settings, encoder
        self._rows = None if settings.vectors is None else open_vectors(settings.vectors)

    def __len__(self) -> int:
        """How many latents there are."""
        if self._rows is not None:
            return len(self._rows)
        return 0 if self._encoder is None else self._encoder.d_sae

    def of(self, latents: list[int]) -> Tensor:
        """[latents, d]; latents: in rising order. Raises DataError for one that is not there."""
        settings = self._settings
        if self._rows is None:
            same = self._encoder is not None and self._encoder.latents == tuple(latents)
            encoder = self._encoder if same else open_encoder(settings.sae, latents, force=True)
            assert encoder is not None
            found = encoder.decoder
        elif latents[-1] >= len(self._rows):
            raise DataError(
                f"{settings.vectors}: {len(self._rows)} rows; latent {latents[-1]} has none. Give "
                "the vectors that belong to the labels."
            )
        else:
            found = self._rows[torch.tensor(latents)].float()
        return unit_norm(found) if settings.normalize_vectors else found
