"""Labels of a run as the files that Neuronpedia takes in.

Four ways in: rows for the importer of its exports (`to_neuronpedia`), a list for administrators
(`to_neuronpedia_admin`), directions (`to_neuronpedia_vectors`, POST /api/vector/new), and features
with activations (labelling/neuronpedia_upload.py). Limits are those of its server and its client
`neuronpedia` 1.2.1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.files import write_json
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.labelling.export import Labelled, with_vectors
from selfie_adapters.labelling.finished_run import FinishedRun
from selfie_adapters.labelling.rows import LabelRow

METHOD = "selfie-adapter"
"""What the way of labelling is called there: typeName, methodName."""
LONGEST_VECTOR = 24_576
STEER_STRENGTH = 10.0
"""What the site offers for a new direction."""
HOOK = "hook_resid_post"
"""Of a direction of layer L, the output of block L."""
TYPES, MODELS = "explanation_type.jsonl", "explanation_model_type.jsonl"
"""Rows that the explanations refer to, next to them, named as in Neuronpedia's exports."""


def explainer(run: FinishedRun) -> str:
    """What labelled: explanationModelName, modelName. A folder of this machine by its name alone.

    Neuronpedia knows no such name by itself; MODELS has its row.
    """
    model = run.settings.model
    return f"selfie:{Path(model).name if Path(model).exists() else model}"


def to_neuronpedia(
    run: FinishedRun, out: str | Path, model_id: str, source_id: str, author_id: str | None = None
) -> int:
    """One explanation per vector, as rows of Neuronpedia's own exports; gzip if named .gz.

    author_id: the user's id there; with it rows have the columns `id` and `authorId` that the
    importer's table requires, and the rows of type and model that it refers to are written
    next to it (TYPES, MODELS). The same label has the same id, so importing twice adds nothing.
    Returns how many rows. Raises ConfigError for a run over several datasets: one source has one.
    """

    def explanation(row: LabelRow) -> dict[str, Any]:
        found = {
            "modelId": model_id,
            "layer": source_id,
            "index": str(row.index),
            "description": row.label,
            "typeName": METHOD,
            "explanationModelName": explainer(run),
        }
        if author_id is None:
            return found
        digest = hashlib.sha256(json.dumps(list(found.values())).encode()).hexdigest()
        return {"id": f"selfie-{digest[:24]}", "authorId": author_id, **found}

    count = write_jsonl(out, map(explanation, of_one_dataset(run)))
    if author_id is not None:
        _write_types(run, Path(out).parent, author_id)
    return count


def _write_types(run: FinishedRun, folder: Path, author_id: str) -> None:
    shared = {"featured": False, "creatorName": "selfie-adapters"}
    kind = {
        "name": METHOD,
        "displayName": "SelfIE adapter",
        "description": "The model labels the vector itself, from a soft token that a trained "
        "adapter makes of it.",
        "creatorId": author_id,
    }
    model = {
        "name": explainer(run),
        "displayName": explainer(run),
        "description": "The model that the vectors are of, with a SelfIE adapter.",
    }
    write_jsonl(folder / TYPES, [kind | shared])
    write_jsonl(folder / MODELS, [model | shared])


def to_neuronpedia_admin(
    run: FinishedRun, out: str | Path, model_id: str, source_id: str, author_id: str
) -> int:
    """The body of POST /api/admin/upload-autointerp, a list of explanations: for administrators.

    Returns how many. Raises like `to_neuronpedia`.
    """
    rows = [
        {
            "modelId": model_id,
            "layer": source_id,
            "index": str(row.index),
            "explanation": row.label,
            "creatorId": author_id,
            "skipScore": True,
        }
        for row in of_one_dataset(run)
    ]
    write_json(out, rows)
    return len(rows)


def to_neuronpedia_vectors(
    run: FinishedRun, out: str | Path, model_id: str, layer: int | None = None
) -> int:
    """One line for each labelled direction: the body of POST /api/vector/new.

    layer: of vectors whose layer is not known. Returns how many. Raises like `with_vectors`,
    DataError for vectors that are wider than the site takes.
    """

    def body(one: Labelled) -> dict[str, Any]:
        if len(one.vector) > LONGEST_VECTOR:
            raise DataError(
                f"{run.settings.source}: vectors of width {len(one.vector):,}; Neuronpedia takes "
                f"{LONGEST_VECTOR:,} numbers at most."
            )
        return {
            "modelId": model_id,
            "layerNumber": one.layer,
            "hookType": HOOK,
            "vector": one.vector.tolist(),
            "vectorDefaultSteerStrength": STEER_STRENGTH,
            "vectorLabel": one.row.label,
        }

    return write_jsonl(out, map(body, with_vectors(run, layer)))


def of_one_dataset(run: FinishedRun) -> Iterator[LabelRow]:
    """The leading labels. Raises ConfigError for a run over several datasets."""
    datasets = set()
    for row in run.best():
        datasets.add(row.dataset)
        if len(datasets) > 1:
            raise ConfigError(
                f"{run.folder} holds labels of several datasets, and one Neuronpedia "
                "source has one. Label them separately."
            )
        yield row
