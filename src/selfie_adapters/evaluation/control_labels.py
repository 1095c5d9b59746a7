"""Labels that need no adapter, for protocols that score labels of an SAE's latents.

Words        the best tokens of the latent's row by logit lens, cosine and ridge probe. The probe
             is fitted on the rows of other latents whose labels are known.
Same start   labels of other latents that begin with the same letters: the spelling control.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from selfie_adapters.evaluation.baselines import (
    LABEL_WORDS,
    LogitLens,
    RidgeProbe,
    TokenBaseline,
    TokenCosine,
    not_measured,
    untrained_readers,
)
from selfie_adapters.evaluation.controls import sample
from selfie_adapters.evaluation.same_start import StartIndex
from selfie_adapters.model import FrozenModel
from selfie_adapters.sources.labels.label_set import LabelSet
from selfie_adapters.training.closed_form import VECTORS_A_DIMENSION

LENS_WORDS, COSINE_WORDS, RIDGE_WORDS = "lens words", "cosine words", "ridge words"
WORDS = {
    LogitLens.name: LENS_WORDS,
    TokenCosine.name: COSINE_WORDS,
    RidgeProbe.name: RIDGE_WORDS,
}
"""Name of a reader → the condition whose labels are its words."""


def words_meaning(reader: TokenBaseline) -> str:
    """What a label by the reader is."""
    return f"the {LABEL_WORDS} best tokens of the decoder row by the {reader.name}"


def training_labels(labels: LabelSet, measured: Collection[int], d_sae: int) -> dict[int, str]:
    """Latent → its first label, of the latents that a ridge probe may be fitted on.

    Those of the split train; of a file without splits, all. None of them is measured, and the SAE
    has all of them.
    """
    apart = {*measured}
    return {
        latent: texts[0]
        for latent, texts in labels.labels.items()
        if labels.splits.get(latent, "train") == "train"
        and latent not in apart
        and 0 <= latent < d_sae
    }


def word_readers(
    model: FrozenModel,
    training: Mapping[int, str],
    rows: Callable[[list[int]], Tensor],
    seed: int,
) -> dict[str, TokenBaseline]:
    """Condition → what gives its labels. rows: latents → their vectors [n, d_model]."""
    latents = sample(sorted(training), VECTORS_A_DIMENSION * model.d_model, seed)
    vectors = rows(latents) if len(latents) > 1 else torch.empty(0, model.d_model)
    names = [training[latent] for latent in latents]
    return {WORDS[one.name]: one for one in untrained_readers(model, vectors, names, seed)}


def missing_words(readers: Mapping[str, TokenBaseline], without_probe: str) -> dict[str, str]:
    """Conditions that `word_readers` did not make, and why. without_probe: why it has no probe."""
    missing = not_measured([one.name for one in readers.values()], without_probe)
    return {WORDS[name]: reason for name, reason in missing.items()}


def same_start_labels(
    own: Mapping[int, Sequence[str]], pool: Iterable[Sequence[str]], count: int
) -> dict[int, list[str]]:
    """Latent → up to `count` labels of something else that begin as its first label does.

    own: labels of each latent; pool: labels of all latents. A latent for which there is none is
    absent.
    """
    known = StartIndex(text for texts in pool for text in texts)
    found = {latent: known.of(texts[0], count, texts) for latent, texts in own.items() if texts}
    return {latent: texts for latent, texts in found.items() if texts}
