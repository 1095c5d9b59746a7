"""What a labelling run's folder states about the run: config.json, binding.json, controls.json."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from selfie_adapters.adapters import Binding, find_adapter_file
from selfie_adapters.adapters.specialists import adapter_digest
from selfie_adapters.config.labelling import BY_GAIN, RANKING, LabelSettings
from selfie_adapters.config.problems import first_problem
from selfie_adapters.dataset.source import LabelSource
from selfie_adapters.errors import ConfigError, DataError, SelfieError
from selfie_adapters.files import read_json, sha256, write_json
from selfie_adapters.labelling.controls import ControlScores

CONFIG, BINDING, CONTROLS = "config.json", "binding.json", "controls.json"
_CHUNK = 1024  # vectors that are hashed at a time


@dataclass(frozen=True)
class RunRecord:
    """config.json. inputs: SHA-256 by what it is of: vectors, adapter, mean, confidence.

    ranking: what a vector's labels are ranked by (`LabelSettings.ranking`).
    """

    settings: LabelSettings
    vectors: int
    inputs: dict[str, str]
    ranking: str | None

    @classmethod
    def of(cls, settings: LabelSettings, source: LabelSource) -> RunRecord:
        """The record of a run that labels `source`. Reads all vectors once."""
        inputs = {"vectors": vectors_hash(source)}
        if settings.adapter is not None:
            inputs["adapter"] = adapter_digest(find_adapter_file(settings.adapter))
        for key in ("mean", "confidence"):
            if (path := getattr(settings, key)) is not None:
                inputs[key] = sha256(path)
        return cls(settings, len(source), inputs, settings.ranking)

    @classmethod
    def read(cls, folder: str | Path) -> RunRecord:
        """Raises MissingFileError, or DataError if `folder` is no labelling run."""
        file = Path(folder) / CONFIG
        content = read_json(file)
        try:
            match content:
                case {"settings": {**settings}, "vectors": int(vectors), **more}:
                    inputs = msgspec.convert(more.get("inputs", {}), dict[str, str])
                case _:
                    raise ConfigError("settings and vectors are expected")
            if vectors < 1 or isinstance(vectors, bool):
                raise ConfigError(f"vectors: a count is expected, found {vectors!r}")
            found = LabelSettings.checked(**{str(k): v for k, v in settings.items()})
            # Earlier versions ranked by the gain and do not state it.
            usual = BY_GAIN if found.ranking == RANKING else found.ranking
            ranking = msgspec.convert(more.get("ranking", usual), str | None)
            return cls(found, vectors, inputs, ranking)
        except (ConfigError, msgspec.ValidationError) as error:
            raise DataError(
                f"{file}: not a labelling run's configuration ({error}). Give another folder."
            ) from error

    def content(self) -> dict[str, Any]:
        """What config.json holds."""
        settings = self.settings.model_dump(mode="json")
        ranking = {} if self.ranking is None else {"ranking": self.ranking}
        return {"settings": settings, "vectors": self.vectors, "inputs": self.inputs, **ranking}


def vectors_hash(source: LabelSource) -> str:
    """SHA-256 of which vectors they are and of every one of them, as float32."""
    digest = hashlib.sha256(json.dumps(source.places).encode())
    for start in range(0, len(source), _CHUNK):
        digest.update(source.vectors(start, start + _CHUNK).contiguous().numpy().tobytes())
    return digest.hexdigest()


class RunBinding(Binding):
    """binding.json: the model and prompt that wrote the labels, and its weights' digest.

    fingerprint_checked: whether the adapter's forward fingerprint was compared with the model's;
    None if it has none, or if an earlier release wrote the file.
    """

    weights: str | None = None
    fingerprint_checked: bool | None = None

    def differences(self, live: Binding) -> list[str]:
        """As those of a binding; between two runs any changed weight counts as well."""
        found = super().differences(live)
        theirs = live.weights if isinstance(live, RunBinding) else None
        if not found and None not in (self.weights, theirs) and self.weights != theirs:
            found = [f"the weights of {self.model} (or their dtype) have changed"]
        return found


def read_binding(folder: str | Path) -> RunBinding | None:
    """None if the run has not written it yet. Raises DataError if the file holds something else."""
    file = Path(folder) / BINDING
    if not file.exists():
        return None
    try:
        return RunBinding.model_validate(read_json(file))
    except ValidationError as error:
        raise DataError(
            f"{file}: not a model's binding. {first_problem(error, 'top level')} Restore the file, "
            "or give another --out."
        ) from error


def write_binding(folder: str | Path, binding: RunBinding) -> None:
    """Write binding.json, atomically."""
    write_json(Path(folder) / BINDING, binding.model_dump(mode="json"))


def read_controls(folder: str | Path) -> list[ControlScores] | None:
    """None where there are none or the file is damaged: they can be measured again."""
    try:
        rows = msgspec.convert(read_json(Path(folder) / CONTROLS), list[dict[str, Any]])
        # Earlier releases call the gain score.
        rows = [{"gain": row.get("score"), **row} for row in rows]
        return msgspec.convert(rows, list[ControlScores])
    except (SelfieError, msgspec.ValidationError):
        return None


def write_controls(folder: str | Path, controls: list[ControlScores]) -> None:
    """Write controls.json, atomically."""
    rows: list[dict[str, Any]] = [asdict(one) for one in controls]
    write_json(Path(folder) / CONTROLS, rows)
