"""Which latents are judged by which labels, and which others the judge is calibrated on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from selfie_adapters.config.evaluation.detection import DetectionSettings
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.folder import digest_of
from selfie_adapters.evaluation.retrieval.targets import sample
from selfie_adapters.sources.labels.files import read_label_file


@dataclass(frozen=True)
class LabelsOfLatents:
    """labels: condition → latent → label. calibration: labels of latents that are not judged."""

    latents: list[int]
    labels: dict[str, dict[int, str]]
    calibration: dict[int, str]

    @property
    def everyone(self) -> list[int]:
        """All latents that need windows, those that are judged first."""
        return [*self.latents, *self.calibration]

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
    return LabelsOfLatents(latents, labels, _calibration(settings, latents))


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
