"""Published bridge configurations: one question each, in this project's own settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
from pydantic import ConfigDict, Field, model_validator

from selfie_adapters.config.evaluation.bridge import BridgeSettings
from selfie_adapters.config.settings import Settings, beside, changed, read_config, top_level_keys
from selfie_adapters.evaluation.base import Published
from selfie_adapters.files import atomic_path, read_json
from selfie_adapters.files.json_lines import iter_jsonl

MARKS = {"selfie_method", "num_generations", "start_token_position", "dataset_path"}
_PREFIX = "Complete the statement: "


class PublishedBridge(Settings):
    """Other keys are ignored, as published."""

    model_config = ConfigDict(extra="ignore")

    question_id: str
    dataset_path: str = "twohopfact_filtered.json"
    model_name: str
    selfie_method: Literal["trained", "untrained", "vanilla", "traditional"]
    adapter_checkpoint_path: str | None = None
    scale: float | None = Field(default=None, gt=0)
    temperature: float = Field(ge=0)
    max_tokens: int = Field(ge=1)
    num_generations: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    layers: Literal["all"] | list[int]
    start_token_position: int = Field(ge=0)
    output_dir: str
    device: str | None = None
    seed: int = Field(default=42, ge=0)
    bias_vector_path: str | None = None
    """Without effect."""

    @model_validator(mode="after")
    def _complete(self) -> PublishedBridge:
        if self.selfie_method == "trained" and self.adapter_checkpoint_path is None:
            raise ValueError("selfie_method trained needs adapter_checkpoint_path")
        if self.selfie_method != "trained" and self.scale is None:
            raise ValueError(f"selfie_method {self.selfie_method} needs scale")
        if isinstance(self.layers, list) and not self.layers:
            raise ValueError('layers is empty; "all" or at least one block is expected')
        return self


@dataclass(frozen=True)
class TranslatedBridge(Published):
    """A published configuration: this project's settings, and what its result files repeat."""

    published: PublishedBridge
    settings: BridgeSettings
    ignored: Sequence[str]

    @property
    def output_folder(self) -> str:
        return self.published.output_dir

    def row(self, folder: Path) -> dict[str, Any]:
        """The row of the question in a finished evaluation's folder."""
        lead = read_json(folder / "results.json")["lead"]
        key = f"{lead}/{self.published.question_id}"
        return next(row for _, row in iter_jsonl(folder / "rows.jsonl") if row["key"] == key)

    def file(self, folder: Path, name: str) -> Path:
        """The file `name` in the folder, with the question's id in place of {}."""
        uid = self.published.question_id
        return folder / name.format("".join(c if c.isalnum() or c in "-_." else "_" for c in uid))

    def write(self, folder: Path) -> list[Path]:
        """Write results_q{id}.json and results_full_q{id}.json."""
        row, published = self.row(folder), self.published
        cells = [
            (f"({layer}, {position})", row["hits"][i][k], row["texts"][i][k])
            for i, layer in enumerate(row["layers"])
            for k, position in enumerate(row["positions"])
        ]
        short = {
            "question_data": {
                "id": published.question_id,
                "question": row["prompt"],
                "e2_value": row["bridge"],
                "e2_aliases": row["aliases"],
            },
            "config": published.model_dump(mode="json"),
            "start_pos": published.start_token_position,
            "layers": row["layers"],
            "token_positions": row["positions"],
            "token_texts": row["tokens"],
            "match_fractions": {key: hits / len(texts) for key, hits, texts in cells},
        }
        full = short | {
            "descriptions": {key: texts for key, _, texts in cells},
            "matches": {key: hits for key, hits, _ in cells},
        }
        names = "results_q{}.json", "results_full_q{}.json"
        files = [self.file(folder, name) for name in names]
        for file, document in zip(files, (short, full), strict=True):
            with atomic_path(file) as temporary:
                temporary.write_bytes(msgspec.json.encode(document))
        return files


def read_bridge_config(
    path: str | Path, overrides: Sequence[str] = (), given: Mapping[str, Any] | None = None
) -> Any:
    """BridgeSettings from a file of this project's, TranslatedBridge from a published one.

    overrides are keys of the file's own form; given are values of this project's settings that
    replace those of either. Raises MissingFileError, ConfigError.
    """
    keys = top_level_keys(path, BridgeSettings)
    if not MARKS & keys:
        return read_config(path, BridgeSettings, overrides, given=given)
    published = read_config(path, PublishedBridge, overrides)
    return TranslatedBridge(
        published,
        changed(translate(published, path), given),
        sorted(keys - {*PublishedBridge.model_fields}),
    )


def translate(published: PublishedBridge, config_file: str | Path) -> BridgeSettings:
    """This project's settings for a published configuration."""
    trained = published.selfie_method == "trained"
    adapter = published.adapter_checkpoint_path
    layers = published.layers
    return BridgeSettings.model_validate(
        {
            "questions": beside(config_file, published.dataset_path),
            "question_id": published.question_id,
            "limit": None,
            "only_answered": False,  # the file holds only such questions
            "model": published.model_name,
            "dtype": "bfloat16",
            "device": published.device,
            "adapter": beside(config_file, adapter) if trained and adapter else None,
            "prompt": "chat_template",
            "layers": None if layers == "all" else ",".join(map(str, layers)),
            "chat": "template",
            "question_prefix": _PREFIX,
            "first_position": published.start_token_position,
            "match": "whole_text",
            "echoes": True,
            "keep_labels": True,
            "samples": published.num_generations,
            "max_new_tokens": published.max_tokens,
            "temperature": published.temperature,
            "top_p": None,
            "untrained_scales": () if trained else (published.scale,),
            "untrained_scale_unit": "absolute",
            "random": False,
            "lens": False,
            "batch_size": published.batch_size * published.num_generations,
            "seed": published.seed,
        }
    )
