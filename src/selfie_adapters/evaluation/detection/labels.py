"""Which latents are judged by which labels, and which others the judge is calibrated on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from selfie_adapters.config.evaluation.detection import DetectionSettings
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.baselines import TokenBaseline
from selfie_adapters.evaluation.control_labels import (
    same_start_labels,
    training_labels,
    word_readers,
)
from selfie_adapters.evaluation.folder import digest_of
from selfie_adapters.evaluation.retrieval.targets import sample
from selfie_adapters.model import FrozenModel
from selfie_adapters.sources.labels.files import read_label_file
from selfie_adapters.sources.labels.label_set import LabelSet
from selfie_adapters.sources.sae.encoder import open_encoder


@dataclass(frozen=True)
class LabelsOfLatents:
    """labels: condition → latent → label. same_start: the same of labels of something else that
    begin alike, where there are such. calibration: labels of latents that are not judged. training:
    labels that a ridge probe may be fitted on."""

    latents: list[int]
    labels: dict[str, dict[int, str]]
    same_start: dict[str, dict[int, str]]
    calibration: dict[int, str]
    training: LabelSet | None = None

    @property
    def everyone(self) -> list[int]:
        """All latents that need windows, those that are judged first."""
        return [*self.latents, *self.calibration]

    def word_readers(
        self, model: FrozenModel, settings: DetectionSettings, d_sae: int
    ) -> dict[str, TokenBaseline]:
        """Condition → what gives its labels from a decoder row; d_sae: latents of the SAE."""
        training: dict[int, str] = {}
        if self.training is not None:
            training = training_labels(self.training, self.latents, d_sae)

        def rows(latents: list[int]) -> Tensor:
            return open_encoder(settings.sae, latents, force=True).decoder

        return word_readers(model, training, rows, settings.seed)

    def digests(self) -> dict[str, str]:
        """Hashes of the labels, for the record of a run."""
        given: Any = [sorted(labels.items()) for labels in self.labels.values()]
        found = {"labels_digest": digest_of(given)}
        if self.calibration:
            found["calibration_digest"] = digest_of(sorted(self.calibration.items()))
        return found


def read_labels(settings: DetectionSettings) -> LabelsOfLatents:
    """The labels that the settings name.

    Raises DataError for latents without a label, for fewer than two, and where no latent is left to
    calibrate on.
    """
    files = {name: read_label_file(path).labels for name, path in settings.labels.items()}
    everywhere = sorted(set.intersection(*(set(found) for found in files.values())))
    wanted = everywhere if settings.latents is None else sorted({*settings.latents})
    for name, found in files.items():
        if without := [latent for latent in wanted if latent not in found]:
            raise DataError(
                f"latent {without[0]} has no label in {settings.labels[name]}. Remove it from "
                "latents."
            )
    latents: list[int] = sample(wanted, settings.limit, settings.seed)
    if len(latents) < 2:
        raise DataError(
            f"{', '.join(settings.labels.values())}: {len(latents)} latents with a label in every "
            "file; at least 2 are needed, so that labels can be shuffled."
        )
    labels = {name: {latent: of[latent][0] for latent in latents} for name, of in files.items()}
    alike = {
        name: same_start_labels({one: of[one] for one in latents}, of.values(), 1)
        for name, of in files.items()
    }
    known = settings.training_labels or settings.calibration_labels
    return LabelsOfLatents(
        latents,
        labels,
        {name: {latent: texts[0] for latent, texts in of.items()} for name, of in alike.items()},
        _calibration(settings, latents),
        None if known is None else read_label_file(known),
    )


def _calibration(settings: DetectionSettings, judged: list[int]) -> dict[int, str]:
    if settings.judge_by == "answers" or settings.calibration_labels is None:
        return {}
    found = read_label_file(settings.calibration_labels)
    others = sorted(
        latent
        for latent in found.labels
        if found.splits.get(latent, "val") == "val" and latent not in judged
    )
    if not others:
        raise DataError(
            f"{settings.calibration_labels}: no latent to calibrate the judge on; one of split "
            "val is needed that is not judged itself. Add some, or judge fewer (latents, limit)."
        )
    return {one: found.labels[one][0] for one in sample(others, settings.limit, settings.seed)}
