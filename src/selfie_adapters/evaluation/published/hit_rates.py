"""The published score of labels, from published result files: mean over latents of the best label.

A sample is one conversation. It hits if any activation after position 0 is above zero; a label's
score is hits / conversations, those with an error excluded; a latent's the best of its labels.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from selfie_adapters.errors import DataError, nearest
from selfie_adapters.files import read_plain
from selfie_adapters.files.json_text import parse_json, parse_json_as
from selfie_adapters.files.number_types import NaturalNumber

GROUP = 10
"""Conversations per label in the published protocol."""

Mode = Literal["label_generator", "label_dataset", "label_generation_only"]
MODES: tuple[Mode, ...] = ("label_generator", "label_dataset", "label_generation_only")
_MERGED = "_merged"
_SHARD = re.compile(r"_shard_([0-9]{1,9})_of_([0-9]{1,9})_")


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


@dataclass(frozen=True)
class ResultFile:
    """One published result file. latents: latent → labels; empty in label_generation_only.

    config: the settings it states, as canonical JSON ("" where there are none). shard: its number
    among the shards of one evaluation, None in merged files. labels_file: name of the file with
    the labels that were written, label_count their number where it is stated.
    """

    path: Path
    mode: Mode
    latents: dict[int, list[ScoredLabel]]
    config: str = ""
    shard: int | None = None
    labels_file: str | None = None
    label_count: int | None = None


def mean_max_hit_rate(latents: Mapping[int, Sequence[ScoredLabel]], split: int = 1) -> HitRate:
    """Best label of each latent, and the mean over latents.

    split: 1 takes a label's conversations together. n > 1 takes the first n groups of 10 as n
    labels (60 conversations of one given label compare with 6 labels of 10): a group that is
    missing scores 0, conversations after the last group are dropped. A latent whose conversations
    all went wrong scores 0. Raises DataError for no latents, ValueError for split < 1.
    """
    if split < 1:
        raise ValueError(f"split is {split}; at least 1 is expected")
    if not latents:
        raise DataError("no latents to take a mean over.")
    best: dict[int, float] = {}
    for latent, labels in latents.items():
        parts = [part for label in labels for part in _parts(label, split)]
        best[latent] = max((part.score or 0.0 for part in parts), default=0.0)
    return HitRate(math.fsum(best.values()) / len(best), best)


def _parts(label: ScoredLabel, split: int) -> Iterable[ScoredLabel]:
    if split == 1:
        yield label
        return
    for part in range(split):
        yield ScoredLabel(label.text, label.hits[part * GROUP : (part + 1) * GROUP], label.scale)


def merged(shards: Sequence[ResultFile]) -> dict[int, list[ScoredLabel]]:
    """The labels of one evaluation's shards, latent by latent.

    In label_dataset one latent's labels may be in several shards, which count labels; in
    label_generator a latent is in one. Raises DataError for shards of different modes, for a latent
    of label_generator in two shards, and for a label of a latent with the same conversations in
    two (the same shard given twice).
    """
    found: dict[int, list[ScoredLabel]] = {}
    origin: dict[int, Path] = {}
    for shard in shards:
        if shard.mode != shards[0].mode:
            raise DataError(
                f"{shards[0].path} is of mode {shards[0].mode}, {shard.path} of mode "
                f"{shard.mode}; merge shards of one evaluation."
            )
        for latent, labels in shard.latents.items():
            first = origin.setdefault(latent, shard.path)
            if first is not shard.path and (
                shard.mode != "label_dataset" or any(one in found[latent] for one in labels)
            ):
                raise DataError(f"latent {latent} is in {first} and in {shard.path}; keep one.")
            found.setdefault(latent, []).extend(labels)
    return found


class _RewardSample(msgspec.Struct):
    error: Any = None
    per_token_activations: msgspec.Raw = msgspec.Raw(b"null")


class _Label(msgspec.Struct):
    label: str
    reward_samples: list[_RewardSample] = []


class _AtScale(msgspec.Struct):
    scale_value: float
    generated_labels: list[_Label]


class _Evaluation(msgspec.Struct):
    latent_index: int
    label: str | None = None
    reward_samples: list[_RewardSample] = []
    scale_evaluations: list[_AtScale] | None = None


class _Document(msgspec.Struct):
    evaluation_mode: str
    evaluations: list[_Evaluation] | None = None
    config: msgspec.Raw = msgspec.Raw(b"null")
    shard_id: int | None = None
    generated_labels_file: str | None = None
    num_labels_generated: NaturalNumber | None = None


def read_result_file(path: str | Path) -> ResultFile:
    """A published result file of any mode, of one shard or merged.

    Modes `label_generator` (scale_evaluations → generated_labels), `label_dataset` (one row per
    label) and `label_generation_only` (no evaluations). Activations are decoded one conversation
    at a time, so a file of gigabytes takes little more than its size. Raises MissingFileError, or
    DataError naming file and position.
    """
    file = Path(path)
    try:
        document = parse_json_as(read_plain(file), str(file), _Document)
    except DataError as error:
        raise DataError(
            f"{error} A result file of generation scoring has evaluation_mode and evaluations."
        ) from error
    mode = document.evaluation_mode.removesuffix(_MERGED)
    if mode not in MODES:
        hint = nearest(mode, MODES)
        raise DataError(f"{file}: evaluation_mode is {document.evaluation_mode}. {hint}")
    if document.evaluations is None and mode != "label_generation_only":
        raise DataError(f"{file}: there are no evaluations, which mode {mode} has.")
    latents: dict[int, list[ScoredLabel]] = {}
    for number, row in enumerate(document.evaluations or []):
        place = f"{file}, evaluations[{number}]"
        latents.setdefault(row.latent_index, []).extend(_labels(row, place))
    config = parse_json(bytes(document.config), f"{file}, config")  # undecoded is unchecked
    return ResultFile(
        file,
        mode,
        latents,
        "" if config is None else _canonical(config),
        document.shard_id,
        document.generated_labels_file,
        document.num_labels_generated,
    )


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _labels(row: _Evaluation, place: str) -> Iterable[ScoredLabel]:
    if row.scale_evaluations is None:
        if row.label is None:
            raise DataError(f"{place}: neither label nor scale_evaluations.")
        yield _scored(_Label(row.label, row.reward_samples), None, place)
        return
    for at_scale in row.scale_evaluations:
        for label in at_scale.generated_labels:
            yield _scored(label, at_scale.scale_value, place)


def _scored(label: _Label, scale: float | None, place: str) -> ScoredLabel:
    hits = tuple(
        _hit(sample, f"{place}, label {label.label!r:.60}, reward_samples[{number}]")
        for number, sample in enumerate(label.reward_samples)
    )
    return ScoredLabel(label.label, hits, scale)


def _hit(sample: _RewardSample, place: str) -> bool | None:
    if sample.error is not None:
        return None
    try:
        activations = msgspec.json.decode(sample.per_token_activations, type=list[float | None])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(
            f"{place}: per_token_activations is not a list of numbers ({error}), and there is no "
            "error that would explain it."
        ) from error
    return any(value is not None and value > 0 for value in activations[1:])


def evaluations(files: Sequence[ResultFile]) -> list[list[ResultFile]]:
    """The files, evaluation by evaluation: shards of one are together, in order of their numbers.

    Files are shards of one evaluation if they state their numbers and the same mode and settings.
    Raises DataError for a shard that is given twice.
    """
    groups: dict[tuple[str, str, Path | None], list[ResultFile]] = {}
    for one in files:
        alone = one.path if one.shard is None else None
        group = groups.setdefault((one.mode, one.config, alone), [])
        for other in group:
            if other.shard == one.shard:
                raise DataError(
                    f"{other.path} and {one.path} are both shard {one.shard} of one evaluation. "
                    "Give each once; a file of another evaluation has other settings."
                )
        group.append(one)
    return [sorted(group, key=lambda one: one.shard or 0) for group in groups.values()]


def missing_shards(group: Sequence[ResultFile]) -> int:
    """How many shards are missing, as far as the files' names state their number."""
    stated = [int(match[2]) for one in group if (match := _SHARD.search(one.path.name))]
    return max(0, max(stated) - len(group)) if stated else 0
