"""Labels that nobody has to generate: words of readers without an adapter, and given ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfie_adapters.config.evaluation.scoring import ScoringSettings
from selfie_adapters.errors import ConfigError
from selfie_adapters.evaluation.control_labels import (
    RIDGE_WORDS,
    WORDS,
    missing_words,
    same_start_labels,
    training_labels,
    word_readers,
)
from selfie_adapters.evaluation.scoring.latents import LatentVectors
from selfie_adapters.evaluation.scoring.tables import TITLES
from selfie_adapters.model import FrozenModel
from selfie_adapters.sources.labels.files import read_label_file
from selfie_adapters.sources.labels.label_set import LabelSet

_NO_PROBE = "no labels to fit it on: of split train, and of latents that are not evaluated"
_NO_START = "no label begins as that of an evaluated latent does"


@dataclass(frozen=True)
class KnownLabels:
    """labels: condition → labels of each evaluated latent, in order; a latent without any is not
    measured in it. possible: the conditions that are measured, the generated ones too. missing:
    title of a condition that cannot be → why."""

    labels: dict[str, list[Sequence[str]]]
    possible: list[str]
    missing: dict[str, str]


def known_labels(
    settings: ScoringSettings,
    model: FrozenModel,
    latents: list[int],
    given: LabelSet | None,
    vectors: LatentVectors,
) -> KnownLabels:
    """given: all labels of the label file. Raises ConfigError for a condition that the settings
    name and that cannot be."""
    wanted = settings.wanted()
    own = {} if given is None else {one: given.labels.get(one, []) for one in latents}
    found: dict[str, list[Sequence[str]]] = {}
    missing: dict[str, str] = {}
    words = {name: TITLES[name] for name in wanted if TITLES[name] in WORDS.values()}
    if words:
        source = given
        if settings.training_labels is not None:
            source = read_label_file(settings.training_labels)
        training = {}
        if source is not None and RIDGE_WORDS in words.values():
            training = training_labels(source, latents, len(vectors))
        readers = word_readers(model, training, vectors.of, settings.seed)
        reasons = missing_words(readers, _NO_PROBE)
        for name, title in words.items():
            if title in readers:
                labels = readers[title].labels(vectors.of(latents))
                found[name] = [[label] for label in labels]
            else:
                missing[name] = reasons[title]
    if "same_start" in wanted and given is not None:
        alike = same_start_labels(own, given.labels.values(), len(settings.scales))
        found["same_start"] = [alike.get(latent, []) for latent in latents]
        if not alike:
            missing["same_start"] = _NO_START
    if "training" in wanted:
        found["training"] = [own[latent] for latent in latents]
    if settings.conditions is not None and missing:
        name, why = next(iter(missing.items()))
        raise ConfigError(f"conditions: {name} is not possible: {why}.")
    possible = [name for name in wanted if name not in missing]
    return KnownLabels(found, possible, {TITLES[name]: why for name, why in missing.items()})
