"""The published score of labels, from published result files: mean over latents of the best label.

A sample is one conversation. It hits if any activation after position 0 is above zero; a label's
score is hits / conversations, those with an error left out; a latent's the best of its labels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfie_adapters.errors import DataError, nearest
from selfie_adapters.files import read_plain

GROUP = 10  # conversations a label

MODES = ("label_generator", "label_dataset", "label_generation_only")


@dataclass(frozen=True)
class ScoredLabel:
    """One label and its conversations: True for a hit, None for one that went wrong."""

    text: str
    hits: tuple[bool | None, ...]
    scale: float | None = None

    @property
    def score(self) -> float | None:
        """Share of hits; None where no conversation went right."""
        counted = [hit for hit in self.hits if hit is not None]
        return sum(counted) / len(counted) if counted else None


@dataclass(frozen=True)
class HitRate:
    """`mean` over latents; per_latent in the order of the files."""

    mean: float
    per_latent: dict[int, float]


def mean_max_hit_rate(latents: Mapping[int, Sequence[ScoredLabel]], split: int = 1) -> HitRate:
    """Best label of each latent, and the mean over latents.

    split: a label's conversations, in their order, are taken as that many labels of equal size
    (60 conversations of one given label compare with 6 labels of 10 when they are split by 6).
    A latent whose conversations all went wrong counts 0. Raises DataError for no latents, or
    conversations that cannot be split so.
    """
    if not latents:
        raise DataError("no latents to take a mean over.")
    best: dict[int, float] = {}
    for latent, labels in latents.items():
        parts = [part for label in labels for part in _parts(latent, label, split)]
        best[latent] = max((part.score or 0.0 for part in parts), default=0.0)
    return HitRate(math.fsum(best.values()) / len(best), best)


def _parts(latent: int, label: ScoredLabel, split: int) -> Iterable[ScoredLabel]:
    size, left = divmod(len(label.hits), max(split, 1))
    if split < 1 or left or (split > 1 and not size):
        raise DataError(
            f"latent {latent}: {len(label.hits)} conversations cannot be split by {split}."
        )
    for part in range(split):
        yield ScoredLabel(label.text, label.hits[part * size : (part + 1) * size], label.scale)


def read_result_files(paths: Sequence[str | Path]) -> dict[int, list[ScoredLabel]]:
    """latent → labels of published result files; several files are shards of one evaluation.

    Modes `label_generator` (scale_evaluations → generated_labels), `label_dataset` (a row a
    label) and `label_generation_only` (labels without conversations). Raises DataError naming file
    and place for another content, shards of different modes, or a latent in two shards.
    """
    found: dict[int, list[ScoredLabel]] = {}
    origin: dict[int, Path] = {}
    modes: dict[str, Path] = {}
    for path in map(Path, paths):
        mode, document = _read(path)
        modes.setdefault(mode, path)
        if len(modes) > 1:
            (one, first), (other, second) = modes.items()
            raise DataError(f"{first} is of mode {one}, {second} of mode {other}; merge like ones.")
        for number, row in enumerate(document["evaluations"]):
            place = f"{path}, evaluations[{number}]"
            try:
                latent, labels = int(row["latent_index"]), list(_labels(row, place))
            except (KeyError, TypeError, ValueError) as error:
                if isinstance(error, DataError):
                    raise
                raise DataError(f"{place}: not a row of mode {mode} ({error!r}).") from error
            if origin.setdefault(latent, path) != path:
                raise DataError(f"latent {latent} is in {origin[latent]} and in {path}; keep one.")
            found.setdefault(latent, []).extend(labels)
    return found


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        document = json.loads(read_plain(path))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not JSON ({error}).") from error
    if not isinstance(document, dict) or not isinstance(document.get("evaluations"), list):
        raise DataError(f"{path}: an object with evaluation_mode and evaluations is expected.")
    mode = str(document.get("evaluation_mode"))
    if mode not in MODES:
        raise DataError(f"{path}: evaluation_mode is {mode}. {nearest(mode, MODES)}")
    return mode, document


def _labels(row: dict[str, Any], place: str) -> Iterable[ScoredLabel]:
    if "scale_evaluations" not in row:
        yield _label(row, None, place)
        return
    for at_scale in row["scale_evaluations"]:
        for label in at_scale["generated_labels"]:
            yield _label(label, float(at_scale["scale_value"]), place)


def _label(row: dict[str, Any], scale: float | None, place: str) -> ScoredLabel:
    samples = row.get("reward_samples") or []
    hits = tuple(_hit(sample, f"{place}, label {row['label']!r}") for sample in samples)
    return ScoredLabel(str(row["label"]), hits, scale)


def _hit(sample: dict[str, Any], place: str) -> bool | None:
    if sample.get("error") is not None:
        return None
    activations = sample["per_token_activations"]
    if not isinstance(activations, list):
        raise DataError(f"{place}: a conversation without an error has no activations.")
    return any(value > 0 for value in activations[1:])
